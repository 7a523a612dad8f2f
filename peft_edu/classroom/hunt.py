"""Hunts: code that runs and does not do what it should, with three faults of a student's own.

A listing is right as it stands here; each fault takes the place of one line. A student answers with the lines as they
should be, by their numbers. Each fault is judged by itself: the right code with the student's line in that place has to
work. So whoever finds one of three has the points for one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace

from peft_edu.classroom.task import Part
from peft_edu.lab.exercises.check import Misconception, NotWritten


@dataclass(frozen=True)
class Fault:
    """`right` is a line of the listing, `wrong` what stands there instead, `seen` how a measurement shows it."""

    right: str
    wrong: str
    seen: str


@dataclass(frozen=True)
class Listing:
    """`test` gets the names that the code defines, and raises Misconception where they do not work."""

    code: str
    faults: tuple[Fault, ...]
    test: Callable[[dict], None]
    names: dict  # what the code may use

    def draw(self, draw: Random) -> list[Fault]:
        """Three faults in three lines, one of those that a line can have."""
        lines = sorted({fault.right for fault in self.faults})
        return [draw.choice([f for f in self.faults if f.right == line]) for line in draw.sample(lines, 3)]

    def with_faults(self, faults: list[Fault]) -> str:
        lines = self.code.splitlines()
        for fault in faults:
            lines[self._place(fault)] = self._indented(fault, fault.wrong)
        return "\n".join(lines)

    def numbered(self, faults: list[Fault]) -> str:
        lines = enumerate(self.with_faults(faults).splitlines(), start=1)
        return "\n".join(f"{number:2}  {line}" for number, line in lines)

    def parts(self, each: int, rest: int) -> dict[Part, int]:
        """Points for each fault that is mended, in the order in which they stand, and for breaking nothing else."""
        parts = {
            lambda answer, n, k=k: self._mended(answer, n.faults, self._sorted(n.faults)[k]): each for k in range(3)
        }
        return parts | {lambda answer, n: self._unbroken(answer, n): rest}

    def run(self, code: str) -> dict:
        """The names that the code defines."""
        found = dict(self.names)
        try:
            exec(compile(code, "<the listing>", "exec"), found)
        except Exception as error:
            raise Misconception(f"it does not run: {type(error).__name__}: {error}") from error
        return found

    def _place(self, fault: Fault) -> int:
        return [line.strip() for line in self.code.splitlines()].index(fault.right)

    def _sorted(self, faults: list[Fault]) -> list[Fault]:
        return sorted(faults, key=self._place)

    def _indented(self, fault: Fault, text: str) -> str:
        line = self.code.splitlines()[self._place(fault)]
        return line[: len(line) - len(line.lstrip())] + text

    def _mended(self, answer: object, faults: list[Fault], fault: Fault) -> None:
        given = self._lines(answer)
        if self._place(fault) + 1 not in given:
            left = [each for each in faults if self._place(each) + 1 not in given]
            how = f". {fault.seen}" if len(left) == 1 else f": {len(left)} are not mended"
            raise Misconception(f"a fault is still in{how}")
        self._with(self._place(fault), given[self._place(fault) + 1])

    def _with(self, place: int, text: str) -> None:
        lines = self.code.splitlines()
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place] = indent + text.strip()
        try:
            self.test(self.run("\n".join(lines)))
        except Misconception as error:
            raise Misconception(f"with your line {place + 1}: {error}") from error
        except Exception as error:
            raise Misconception(f"with your line {place + 1} it stops: {type(error).__name__}: {error}") from error

    def _unbroken(self, answer: object, n: SimpleNamespace) -> None:
        given, places = self._lines(answer), {self._place(fault) + 1 for fault in n.faults}
        for number, text in given.items():
            if number not in places:
                self._with(number - 1, text)
        if not given.keys() & places:
            raise Misconception("no fault is mended by these lines")

    def _lines(self, answer: object) -> dict[int, str]:
        if not isinstance(answer, dict) or not all(isinstance(line, str) for line in answer.values()):
            raise Misconception('expected a dict of line numbers and lines, as in {3: "self.rank = rank"}')
        if not answer:
            raise NotWritten("no line is mended yet")
        last = len(self.code.splitlines())
        for number in answer:
            if not str(number).isdecimal() or not 1 <= int(number) <= last:
                raise Misconception(f"there is no line {number!r}: the lines are 1 to {last}")
        if len(answer) > 3:
            raise Misconception(f"{len(answer)} lines are given: there are three faults, in one line each")
        return {int(number): line for number, line in answer.items()}
