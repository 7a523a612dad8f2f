"""How good an answer is: written texts by their slots, tags by their entities."""

import re
from collections.abc import Sequence


def score_texts(texts: Sequence[str], rows: Sequence[dict]) -> dict:
    """How the texts that a model wrote compare with the targets and, where rows have them, with their slots."""
    scores = {"exact": mean([_words(text) == _words(row["target"]) for text, row in zip(texts, rows, strict=True)])}
    said: dict[str, list[bool]] = {}
    for text, row in zip(texts, rows, strict=True):
        for slot, value in row.get("slots", {}).items():
            said.setdefault(slot, []).append(says(text, value))
    if said:
        scores["slots"] = mean([hit for hits in said.values() for hit in hits])
        scores["by slot"] = {slot: mean(hits) for slot, hits in said.items()}
    return scores


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
    pairs = [(entities(given), entities(wanted)) for given, wanted in zip(guessed, right, strict=True)]
    kinds = sorted({kind for given, wanted in pairs for _, _, kind in given | wanted})
    return _f1(pairs) | {"by kind": {kind: _f1(pairs, kind)["f1"] for kind in kinds}}


def _f1(pairs: Sequence[tuple[set, set]], kind: str | None = None) -> dict[str, float]:
    """Of all entities, or of those of one kind."""

    def count(sets):
        return sum(kind in (None, each) for chosen in sets for _, _, each in chosen)

    given, wanted = count(given for given, _ in pairs), count(wanted for _, wanted in pairs)
    both = count(given & wanted for given, wanted in pairs)
    return {"f1": 2 * both / max(given + wanted, 1), "precision": both / max(given, 1), "recall": both / max(wanted, 1)}


def mean(hits: Sequence[bool]) -> float:
    if not hits:
        raise ValueError("there are no rows to score")
    return sum(hits) / len(hits)


def _words(text: str) -> str:
    return " ".join(text.split())
