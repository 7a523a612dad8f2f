"""How good an answer is: written texts by their slots, tags by their entities."""

import re
from collections.abc import Iterator, Sequence


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
    """The entities (first word, word after the last, kind): neighbours of one kind, or what B- begins and I- goes on.

    "O" is no entity.
    """
    found, start, kind = set(), 0, "O"
    for i, tag in enumerate([*tags, "O"]):
        if tag.startswith("B-") or re.sub("^[BI]-", "", tag) != kind:
            if kind != "O":
                found.add((start, i, kind))
            start, kind = i, re.sub("^[BI]-", "", tag)
    return found


def score_tags(guessed: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> dict:
    """Precision, recall and F1 of whole entities over all sentences (micro), and the F1 of each kind."""
    pairs = [(entities(given), entities(wanted)) for given, wanted in zip(guessed, right, strict=True)]
    kinds = sorted({kind for given, wanted in pairs for _, _, kind in given | wanted})
    return _f1(pairs) | {"by kind": {kind: _f1(list(_of_kind(pairs, kind)))["f1"] for kind in kinds}}


def _of_kind(pairs: list[tuple[set, set]], kind: str) -> Iterator[tuple[set, set]]:
    for pair in pairs:
        yield tuple({entity for entity in entities if entity[2] == kind} for entities in pair)


def _f1(pairs: list[tuple[set, set]]) -> dict[str, float]:
    both = sum(len(given & wanted) for given, wanted in pairs)
    given, wanted = (sum(map(len, side)) for side in zip(*pairs, strict=True))
    precision, recall = both / max(given, 1), both / max(wanted, 1)
    return {"f1": 2 * both / max(given + wanted, 1), "precision": precision, "recall": recall}


def mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def _words(text: str) -> str:
    return " ".join(text.split())
