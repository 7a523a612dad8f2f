"""Answers of two tokens: a first and a last name, for a town that somebody was born in."""

from collections.abc import Sequence

from torch import Tensor

from peft_edu.lab.tasks.encode import answer_id
from peft_edu.lab.tasks.task import Task


class FullNames:
    """The first names, the last names and the towns of a task, and who was born where."""

    def __init__(self, people: Task, tokenizer):
        rows = [row for split in people.splits.values() for row in split]
        self.towns = people.candidates
        self.born = {(row["subject"], row["answer"]) for row in rows}
        self.first, self.last = (
            sorted(set(part)) for part in zip(*(name.split() for name, _ in self.born), strict=True)
        )
        self.first_ids, self.last_ids = (
            [answer_id(tokenizer, name) for name in part] for part in (self.first, self.last)
        )

    def best(self, scores: Tensor) -> list[str]:
        """The full name with the largest score for each town, of (towns, first names, last names)."""
        places = scores.flatten(1).argmax(1).tolist()
        return [f"{self.first[place // len(self.last)]} {self.last[place % len(self.last)]}" for place in places]

    def real(self, names: Sequence[str]) -> int:
        """How many of these are somebody's."""
        return sum(name in {known for known, _ in self.born} for name in names)

    def born_there(self, names: Sequence[str]) -> int:
        """How many are somebody's who was born in the town of the same place in the list."""
        return len(self.born & set(zip(names, self.towns, strict=True)))
