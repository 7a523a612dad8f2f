"""A judge that can be checked: how happy a review of the small world is, by its words."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from peft_edu.lab.paths import data_path

CLAUSES = re.compile(r"[.,;]|\b(?:(?<!anything )but|yet|and|although|though|even if)\b")
NEGATIONS = re.compile(r"\b(?:not|never|hardly|by no means|anything but|far from)\b")


@dataclass(frozen=True)
class Judge:
    """Each word of praise counts 1, each of blame -1, and the other way round behind a negation in its clause. The
    verdict is their mean: from -1 to 1, and 0 where the judge hears none of its words.

    >>> judge = happy_judge()
    >>> judge.heard("The soup was not bad, but the waiter was rude.")
    [('bad', 1), ('rude', -1)]
    >>> judge("The soup was not bad, but the waiter was rude.")
    0.0
    """

    worth: Mapping[str, int]  # of a word: 1 or -1

    def heard(self, text: str) -> list[tuple[str, int]]:
        """The words that it hears, and what each of them counts where it stands."""
        found = []
        for clause in CLAUSES.split(text.lower()):
            sign = -1 if NEGATIONS.search(clause) else 1
            found += [(word, sign * self.worth[word]) for word in re.findall("[a-z]+", clause) if word in self.worth]
        return found

    def __call__(self, text: str) -> float:
        counts = [count for _, count in self.heard(text)]
        return sum(counts) / len(counts) if counts else 0.0


def happy_judge() -> Judge:
    """The judge who chose in the task `happy`. Its words lie beside the rows, in words.json."""
    words = json.loads(data_path("tasks", "happy", "words.json").read_text(encoding="utf-8"))
    return Judge(dict.fromkeys(words["praise"], 1) | dict.fromkeys(words["blame"], -1))
