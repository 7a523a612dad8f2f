"""A graded task: the numbers that it draws for a student, its parts with their points, and what it says of an answer.

A part is one function. It gets the answer and the student's numbers, and raises Misconception with the sentence that
says what is not right, never with the answer; if it returns, its points are the student's. What is right is computed
from the numbers each time, and stored nowhere.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isclose
from numbers import Number
from random import Random
from types import SimpleNamespace

from peft_edu.classroom.numbers import draw_for
from peft_edu.lab.exercises.check import Feedback, Misconception, NotWritten, judged

COPIED = "this is the answer to somebody else's numbers. Yours are those that `ask` shows under your own name"
OWN = re.compile(r"\bn\.(\w+)")  # in a sentence: one of the student's numbers, which the notebook has as n1.rank
Part = Callable[[object, SimpleNamespace], None]


@dataclass(frozen=True)
class Mark:
    """What one part gave: its points or none, and the sentence that says why ("" for all points)."""

    points: int
    worth: int
    why: str = ""


@dataclass(frozen=True)
class Task:
    """What is asked stands in the notebook. `parts`: the points of each. `shown`: which of the numbers stand under the
    question, if not all; `hidden`: which are not to be met by looking around; `show` draws something from
    them. `errors`: what to do about an error that people get here, by how it begins. `telling`: a right answer is right
    for hardly anybody else."""

    name: str
    title: str
    numbers: Callable[[Random], dict]
    parts: dict[Part, int]
    hints: tuple[str, str, str]
    stars: int  # difficulty, 1 to 3
    minutes: int
    errors: dict[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] | None = None
    hidden: tuple[str, ...] = ()
    show: Callable[[SimpleNamespace], None] | None = None
    telling: bool = False

    @property
    def points(self) -> int:
        return sum(self.parts.values())

    def numbers_of(self, student: str) -> SimpleNamespace:
        return SimpleNamespace(**self.numbers(draw_for(student, self.name)))

    def marks(self, answer: object, student: str, classmates: Iterable[str] = ()) -> list[Mark]:
        """A mark for each part. An answer that is not right here, but would be a classmate's, is told to be theirs."""
        said = self._judged(answer, self.numbers_of(student))
        if self.telling and not all(said) and self._of_somebody_else(answer, student, classmates):
            said = [Feedback(False, f"Not yet: {COPIED}.")] * len(said)
        return [
            Mark(worth, worth) if each else Mark(0, worth, OWN.sub(r"`\1`", each.message))
            for each, worth in zip(said, self.parts.values(), strict=True)
        ]

    def _of_somebody_else(self, answer: object, student: str, classmates: Iterable[str]) -> bool:
        own = self.numbers_of(student)
        others = (self.numbers_of(other) for other in classmates)
        return any(all(self._judged(answer, numbers)) for numbers in others if numbers != own)

    def _judged(self, answer: object, numbers: SimpleNamespace) -> list[Feedback]:
        return [judged(lambda part=part: _tested(part, answer, numbers)) for part in self.parts]


def _tested(part: Part, answer: object, numbers: SimpleNamespace) -> None:
    if answer is None or answer is ...:
        raise NotWritten("the answer is still empty")
    part(answer, numbers)


TASKS: dict[str, Task] = {}


def put_on_the_list(*tasks: Task) -> None:
    TASKS.update((task.name, task) for task in tasks)


def known_task(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]
    near = get_close_matches(str(name), TASKS, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(TASKS)}"
    raise ValueError(f"no task {name!r}; {meant}")


def item(answer: object, name: str) -> object:
    """One of several things that an answer holds by name."""
    if not isinstance(answer, dict) or name not in answer:
        raise Misconception(f"expected a dict with {name!r}, got {answer!r:.80}")
    if answer[name] is None or answer[name] is ...:
        raise NotWritten(f"{name} is still empty")
    return answer[name]


def plain_number(answer: object, what: str = "") -> float:
    """A number of Python's, or of a tensor or array that holds one."""
    if hasattr(answer, "item") and getattr(answer, "numel", lambda: getattr(answer, "size", 1))() == 1:
        answer = answer.item()
    if isinstance(answer, bool) or not isinstance(answer, Number):
        raise Misconception(f"{what or 'the answer'}: expected a number, got {type(answer).__name__}: {answer!r:.60}")
    return answer


def expect(
    answer: object,
    right: float,
    wrong: dict[str, float],
    otherwise: str,
    within: float = 0,
    nearly: str = "give one digit more",
) -> None:
    """A number, right to the relative error `within`. `wrong`: what it says of a misconception that gives that number.

    The right number itself is never told.
    """
    answer = plain_number(answer)
    if isclose(answer, right, rel_tol=within):
        return
    for sentence, value in wrong.items():
        if isclose(answer, value, rel_tol=min(within, 1e-3)):
            raise Misconception(sentence)
    if within and isclose(answer, right, rel_tol=0.05):
        raise Misconception(f"nearly: {nearly}")
    raise Misconception(otherwise)
