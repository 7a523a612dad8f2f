"""How good an answer is: written texts by their slots, tags by their entities."""

import json
import re
from collections import Counter
from collections.abc import Sequence


def score_texts(texts: Sequence[str], rows: Sequence[dict]) -> dict:
    """How the texts that a model wrote compare with the targets and, where rows have them, with their slots."""
    scores = {"exact": mean([_words(text) == _words(row["target"]) for text, row in zip(texts, rows, strict=True)])}
    said: dict[str, list[bool]] = {}
    for text, row in zip(texts, rows, strict=True):
        for slot, value in row.get("slots", {}).items():
            said.setdefault(slot, []).append(says(text, value))
    wanted = [_record(row["target"]) for row in rows]
    if all(wanted):
        scores |= score_records([_record(text) for text in texts], wanted)
    if said:
        scores["slots"] = mean([hit for hits in said.values() for hit in hits])
        scores["by slot"] = {slot: mean(hits) for slot, hits in said.items()}
    return scores


def score_records(given: Sequence[dict | None], wanted: Sequence[dict]) -> dict:
    """Records in JSON: the share that is `valid`, the F1 of their fields (name and value), the share of each, and
    `exact`, the share with all fields and no other, however it is written (line breaks, order)."""
    pairs = [
        (set() if each is None else _fields(each), _fields(right)) for each, right in zip(given, wanted, strict=True)
    ]
    hits, told, asked = (sum(map(len, each)) for each in zip(*((a & b, a, b) for a, b in pairs), strict=True))
    fields = dict.fromkeys(name for _, right in pairs for name, _ in sorted(right))
    by_field = {
        name: mean([{f for f in right if f[0] == name} <= told for told, right in pairs if name in dict(right)])
        for name in fields
    }
    valid = mean([each is not None for each in given])
    exact = mean([told == right for told, right in pairs])
    return {"valid": valid, "exact": exact, "f1": 2 * hits / max(told + asked, 1), "by field": by_field}


def is_record(text: str) -> bool:
    """Whether a text is an object in JSON, which is scored field by field."""
    return _record(text) is not None


def _record(text: str) -> dict | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _fields(record: dict) -> set[tuple[str, str]]:
    return {(name, json.dumps(value, sort_keys=True)) for name, value in record.items()}


def says(text: str, value: str) -> bool:
    """Does the value stand in the text as whole words, in any case?"""
    return re.search(rf"(?<!\w){re.escape(_words(value))}(?!\w)", _words(text), re.IGNORECASE) is not None


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """The entities (first word, word after the last, kind): neighbours of one kind. "O" is no entity.

    Prefixes may say more: B- begins one, I- goes on, E- or L- ends it, S- or U- is one by itself.
    """
    found, start, kind, ended = set(), 0, "O", False
    for i, tag in enumerate([*tags, "O"]):
        prefix, name = re.fullmatch("(?:([BIELSU])-)?(.*)", tag).groups()
        if name != kind or ended or prefix in ("B", "S", "U"):
            if kind != "O":
                found.add((start, i, kind))
            start, kind = i, name
        ended = prefix in ("E", "L", "S", "U")
    return found


def score_tags(guessed: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> dict:
    """Precision, recall and F1 of whole entities over all sentences (micro), and the F1 of each kind."""
    given, wanted, both = Counter(), Counter(), Counter()  # how many of each kind
    for guess, answer in zip(guessed, right, strict=True):
        found, there = entities(guess), entities(answer)
        for counter, some in ((given, found), (wanted, there), (both, found & there)):
            counter.update(kind for _, _, kind in some)
    hits, told, asked = (counter.total() for counter in (both, given, wanted))
    by_kind = {kind: 2 * both[kind] / (given[kind] + wanted[kind]) for kind in sorted(given | wanted)}
    shares = {"f1": 2 * hits / max(told + asked, 1), "precision": hits / max(told, 1), "recall": hits / max(asked, 1)}
    return shares | {"by kind": by_kind}


def mean(hits: Sequence[bool]) -> float:
    if not hits:
        raise ValueError("there are no rows to score")
    return sum(hits) / len(hits)


def _words(text: str) -> str:
    return " ".join(text.split())
