"""Hunts: code that runs and does not do what it should, with three faults of a student's own.

A listing is right as it stands here; each fault takes the place of one line. A student answers with the lines as they
should be, by their numbers. Each fault is judged by itself: the right code with the student's line in that place has to
work. So whoever finds one of three has the points for one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from types import MappingProxyType, SimpleNamespace

from peft_edu.classroom.task import Part, Task
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

    def task(self, name: str, hints: tuple[str, str, str], errors: Mapping[str, str] = MappingProxyType({})) -> Task:
        """The hunt as a task: two points for each fault that is mended, in the order in which they stand, and one for
        breaking nothing else."""
        parts: dict[Part, int] = {partial(self._mended, place=place): 2 for place in range(3)}
        parts[self._unbroken] = 1
        known = {"NameError": "exec(the code as text) in a cell of its own defines what the listing defines"}
        visible = {"stars": 3, "minutes": 25, "shown": ("listing",), "hidden": ("faults",)}
        return Task(name, "Hunt", self._numbers, parts, hints, errors=known | dict(errors), **visible)

    def _numbers(self, draw: Random) -> dict:
        faults = self.draw(draw)
        return {"faults": faults, "listing": self.numbered(faults), "code": self.with_faults(faults)}

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

    def _indented(self, fault: Fault, text: str) -> str:
        line = self.code.splitlines()[self._place(fault)]
        return line[: len(line) - len(line.lstrip())] + text

    def _mended(self, answer: object, n: SimpleNamespace, place: int) -> None:
        left = self._left(self._changed(answer, n.faults), n.faults)
        fault = sorted(n.faults, key=self._place)[place]
        if fault in left:
            raise Misconception(f"a fault is still in{f'. {fault.seen}' if len(left) == 1 else ''}")

    def _left(self, given: dict[int, str], faults: list[Fault]) -> list[Fault]:
        """Those that are not mended. Where a line does not help it is not told whether it had a fault."""
        return [each for each in faults if not self._works(self._place(each), given.get(self._place(each) + 1))]

    def _works(self, place: int, text: str | None) -> bool:
        try:
            return text is not None and self._with(place, text) is None
        except Misconception:
            return False

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
        given = self._changed(answer, n.faults)
        for number, text in given.items():
            self._with(number - 1, text)
        if len(self._left(given, n.faults)) == 3:
            raise Misconception("no fault is mended by these lines")

    def _changed(self, answer: object, faults: list[Fault]) -> dict[int, str]:
        """The lines that are not as they stand in the student's listing."""
        stood = self.with_faults(faults).splitlines()
        given = {k: line for k, line in self._lines(answer).items() if line.strip() != stood[k - 1].strip()}
        if not given:
            raise NotWritten("the lines are as they stand in the listing")
        if len(given) > 3:
            raise Misconception(f"{len(given)} lines are changed: there are three faults, in one line each")
        return given

    def _lines(self, answer: object) -> dict[int, str]:
        if not isinstance(answer, dict) or not all(isinstance(line, str) for line in answer.values()):
            raise Misconception('expected a dict of line numbers and lines, as in {3: "self.rank = rank"}')
        if not answer:
            raise NotWritten("no line is mended yet")
        last = len(self.code.splitlines())
        for number in answer:
            if not str(number).isdecimal() or not 1 <= int(number) <= last:
                raise Misconception(f"there is no line {number!r}: the lines are 1 to {last}")
        return {int(number): line for number, line in answer.items()}
