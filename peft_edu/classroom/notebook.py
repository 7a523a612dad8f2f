"""What an exercise notebook calls: `student` once, then for each task `ask`, `check` at any time, `graded`."""

import html
import os
from textwrap import fill
from types import SimpleNamespace

from IPython.display import display

from peft_edu.classroom import tasks  # noqa: F401
from peft_edu.classroom.numbers import EVERYBODY, canonical
from peft_edu.classroom.task import Mark, Task, known_task
from peft_edu.lab.workbook import keep

WIDE = 90  # characters in a line of a cell's output, where the window is 1024 points wide
GRADED_AS = "PEFT_EDU_STUDENT"  # set where submissions are graded: this name holds, whatever the notebook says
_typed = EVERYBODY
_hints_given: dict[str, int] = {}


def student(name: str, own_numbers: bool = True) -> None:
    """Say who is at work. From the name follow the numbers of all tasks, unless `own_numbers` is switched off."""
    global _typed
    _typed = name if own_numbers and canonical(name) else EVERYBODY
    if own_numbers and _typed == EVERYBODY:
        print("Write your name above, between the quotes, and run both cells again. Until then nothing is yours.")
    else:
        print(f"The numbers below are those of: {_student()}")


def _student() -> str:
    return os.environ.get(GRADED_AS) or _typed


class NoPoint(AssertionError):
    """What a graded cell raises: its sentence alone is shown, without the way to it."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def ask(name: str) -> SimpleNamespace:
    """Show your own numbers for a task, and give them: n1.rank, n1.width, ..."""
    task = known_task(name)
    numbers = task.numbers_of(_student())
    display({"text/html": _card(task, numbers), "text/plain": f"Your numbers for {name}"}, raw=True)
    if task.show:
        task.show(numbers)
    return _without_hidden(task, numbers)


def _without_hidden(task: Task, numbers: SimpleNamespace) -> SimpleNamespace:
    """What is printed and completed holds no answer; the functions that make data of it find all."""

    class Numbers(SimpleNamespace):
        def __getattr__(self, name: str) -> object:
            return getattr(numbers, name)

    return Numbers(**{name: value for name, value in vars(numbers).items() if name not in task.hidden})


def _card(task: Task, numbers: SimpleNamespace) -> str:
    about = f"{'★' * task.stars} {_points(task.points)}, about {task.minutes} minutes"
    told = in_html(task, numbers)
    return f"<p>{about}{f'. Your numbers, <b>{html.escape(_student())}</b>:' if told else ''}</p>{told}"


LISTED = "font:12px/1.5 monospace;white-space:pre-wrap;word-break:normal;padding-left:12ch;text-indent:-12ch"


def in_html(task: Task, numbers: SimpleNamespace) -> str:
    """Those of the numbers that a student is to see. A long line of code goes on under itself, and is never cut off."""
    parts = []
    for name in vars(numbers) if task.shown is None else task.shown:
        lines = html.escape(str(getattr(numbers, name))).split("\n")
        listing = "".join(f'<div style="{LISTED}">{line or " "}</div>' for line in lines)
        parts.append(listing if len(lines) > 1 else f"<code>{name}</code> = <b>{lines[0]}</b><br>")
    return "".join(parts)


def _points(n: int) -> str:
    return "1 point" if n == 1 else f"{n} points"


def check(name: str, answer: object) -> None:
    """What your answer gets so far, and why. It costs nothing, and may be asked as often as you like."""
    marks = known_task(name).marks(answer, _student())
    print(told(marks))
    keep("task", name, points=sum(mark.points for mark in marks), of=sum(mark.worth for mark in marks))


def graded(name: str, answer: object) -> int:
    """The points, as nbgrader reads them from a cell. No point at all is an error, since a cell that gives nothing
    would count as all of them."""
    marks = known_task(name).marks(answer, _student())
    reached = sum(mark.points for mark in marks)
    if not reached:
        raise NoPoint(told(marks))
    print(told(marks))
    return reached


def part(name: str, answer: object, number: int) -> None:
    """One part of a task, for graders in which a test passes or raises."""
    mark = known_task(name).marks(answer, _student())[number]
    if not mark.points:
        raise NoPoint(mark.why)


def hint(name: str = "") -> None:
    """The next of three hints, then what to do about errors that people get here."""
    task, given = known_task(name), _hints_given.get(name, 0)
    _hints_given[name] = given + 1
    if given < len(task.hints):
        print(fill(f"Hint {given + 1} of {len(task.hints)}: {task.hints[given]}", WIDE, break_on_hyphens=False))
        return
    print("There is no further hint. If you see this error:" if task.errors else "There is no further hint.")
    for error, remedy in task.errors.items():
        print(fill(f"{error}: {remedy}", WIDE, initial_indent="  ", subsequent_indent="    "))


def told(marks: list[Mark]) -> str:
    """The points, and a sentence for each part that has not all of them; parts that fail alike say it once."""
    reached, worth = sum(mark.points for mark in marks), sum(mark.worth for mark in marks)
    missing: dict[str, int] = {}
    for mark in marks:
        if mark.why:
            missing[mark.why] = missing.get(mark.why, 0) + mark.worth
    lines = [f"{reached} of {worth} points."] + [f"{why} ({_points(points)})" for why, points in missing.items()]
    return "\n".join(fill(line, WIDE, break_on_hyphens=False) for line in lines)
