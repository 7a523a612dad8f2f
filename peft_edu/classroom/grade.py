"""Grade what a class handed in: each submission by itself, what is new only, and every mark with its reason."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from peft_edu.classroom.numbers import EVERYBODY, canonical
from peft_edu.classroom.restore import known_cells, marked, restored
from peft_edu.classroom.sandbox import Limits, Outcome, run
from peft_edu.classroom.submissions import Submission, collect
from peft_edu.classroom.task import TASKS, Mark, Task
from peft_edu_app.workbook import SOLUTION

# Where a check changes, marks are given anew.
CHECKS = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))).hexdigest()
SOURCE = "the teacher's solution"
LONG = 200  # characters from which on two equal answers are no chance


@dataclass
class Graded:
    """What one student got: `marks` of each task (none for a file that cannot be read) with the numbers of the name
    `counted_as`, what there is to tell beside them, and what only the teacher is told."""

    student: str
    counted_as: str
    checksum: str
    marks: dict[str, list[Mark]]
    notes: list[str]
    for_teacher: list[str]

    @property
    def points(self) -> dict[str, int]:
        return {task: sum(mark.points for mark in marks) for task, marks in self.marks.items()}


def grade(
    source: NotebookNode, exercise: str, place: Path, results: Path, limits: Limits, jobs: int, own_numbers: bool = True
) -> tuple[list[Graded], dict[str, bytes]]:
    """All submissions of an exercise in `place`, and the students' progress files. What was graded before, and is
    the same, is taken from `results`."""
    submissions, progress = collect(place, exercise)
    if not submissions:
        raise ValueError(f"in {place} there is no notebook: what students hand in ends in .ipynb")
    class_list = [each.student for each in submissions]
    known = {each.student: each for each in _read(results)}
    todo, done = [], []
    for each in submissions:
        checksum = _checksum(each, source, own_numbers)
        before = known.get(each.student)
        if before and before.checksum == checksum:
            done.append(before)
        else:
            todo.append((each, checksum))
    with ThreadPoolExecutor(jobs) as pool:
        asked = ((each, checksum, source, class_list, limits, own_numbers) for each, checksum in todo)
        for graded in tqdm(
            pool.map(lambda about: _one(*about), asked), total=len(todo), desc="graded", disable=not todo
        ):
            done.append(graded)
            _write(results, done)  # after each, so that an interrupt loses one at most
    _tell_copies(done, submissions, source)
    return sorted(done, key=lambda each: canonical(each.student)), progress


def _tell_copies(graded: list[Graded], submissions: list[Submission], source: NotebookNode) -> None:
    """Answers that are word for word the same, and more than a line: for the teacher to look at."""
    writers: dict[tuple[str, str], list[str]] = {}
    stubs = {written(SOLUTION.sub("", cell.source)) for cell in known_cells(source)}
    for cell in known_cells(source):
        writers[cell.id, written(cell.source)] = [SOURCE]
    for each in submissions:
        try:
            cells = each.notebook().cells
        except ValueError:
            continue
        for cell in (cell for cell in cells if marked(cell).get("solution")):
            text = written(cell.source)
            if len(text) > LONG and text not in stubs:
                writers.setdefault((marked(cell).get("grade_id"), text), []).append(each.student)
    for each in graded:
        for (name, _), students in writers.items():
            if each.student in students and len(students) > 1:
                others = ", ".join(other for other in students if other != each.student)
                told = f"The cell {name} is word for word that of {others}."
                each.for_teacher += [] if told in each.for_teacher else [told]


def written(text: str) -> str:
    """A cell's text without the places where nothing was written."""
    left_out = ("", "...", "### BEGIN SOLUTION", "### END SOLUTION")
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip() not in left_out)


def _one(
    each: Submission, checksum: str, source: NotebookNode, class_list: list[str], limits: Limits, own: bool
) -> Graded:
    for_teacher: list[str] = []
    try:
        notebook = each.notebook()
        _expect_this_exercise(notebook, source)
        for_teacher = _looks_up(notebook, source)
        notes, name = _whose(each.student, each.typed_name(), class_list) if own else ([], EVERYBODY)
        others = [other for other in class_list if other != each.student] if own else []
        outcome = run(restored(notebook, source), name, others, limits)
        notes += _changed(notebook, source)
    except ValueError as error:
        told = f"Not graded: {error}. Hand it in again."
        return Graded(each.student, each.student, checksum, {}, [*each.notes, told], [])
    marks = {
        task.name: outcome.marks.get(task.name) or _missing(task, cell, outcome) for task, cell in asked_in(source)
    }
    return Graded(each.student, name, checksum, marks, each.notes + notes + outcome.notes, for_teacher)


def asked_in(source: NotebookNode) -> Iterable[tuple[Task, str]]:
    """The tasks of an exercise, with the id of the cell in which each is answered."""
    own = ""
    for cell in known_cells(source):
        own = cell.id if cell.kind == "own" else own
        if cell.task:
            yield TASKS[cell.task], own


def _missing(task: Task, cell: str, outcome: Outcome) -> list[Mark]:
    """Where no mark came: the cell stopped, or there is no such thing."""
    why = f"the cell stopped with {outcome.stopped[cell]}" if cell in outcome.stopped else "nothing was found to mark"
    return [Mark(0, worth, f"Not yet: {why}.") for worth in task.parts.values()]


def _expect_this_exercise(notebook: NotebookNode, source: NotebookNode) -> None:
    ours = {cell.id for cell in known_cells(source) if cell.kind != "given"}
    theirs = {marked(cell).get("grade_id") for cell in notebook.cells}
    if not ours & theirs - {"name"}:
        seen = ", ".join(sorted(str(name) for name in theirs if name)[:3]) or "none that was handed out"
        raise ValueError(f"this is the notebook of another lesson, or none of ours: it has the cells {seen}")


def _changed(notebook: NotebookNode, source: NotebookNode) -> list[str]:
    """What the student did to cells that are ours."""
    ours = {cell.id: cell for cell in known_cells(source)}
    theirs = [(marked(cell).get("grade_id"), cell.source) for cell in notebook.cells if marked(cell)]
    counts = Counter(name for name, _ in theirs)
    gone = [name for name in ours if name not in counts]
    doubled = [name for name, n in counts.items() if n > 1 and name in ours]
    edited = [name for name, text in theirs if name in ours and ours[name].kind != "own" and text != ours[name].source]
    notes = []
    for what, names in (("deleted", gone), ("doubled", doubled), ("edited", dict.fromkeys(edited))):
        if names:
            notes.append(f"Cells that were {what}: {', '.join(names)}. What is ours was run as it was handed out.")
    return notes


def _looks_up(notebook: NotebookNode, source: NotebookNode) -> list[str]:
    """Whether a student's cell reads answers where the checks have them."""
    ours = {cell.source for cell in source.cells}
    hidden = {f".{name}" for task, _ in asked_in(source) for name in task.hidden}
    theirs = [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source not in ours]
    found = [name for name in sorted({"classroom.tasks", *hidden}) if any(name in text for text in theirs)]
    return [f"A cell reads {', '.join(found)}, where the answers are: look at it."] if found else []


def _whose(student: str, typed: str | None, class_list: list[str]) -> tuple[list[str], str]:
    """Whose numbers hold: those of the name in the notebook, unless that is somebody else's in the class."""
    if typed is None:
        told = (
            f"No name stands in the notebook, which showed everybody's numbers: it was graded with those of {student}."
        )
        return [told], student
    if _same(student, typed):
        return [], typed
    told = f"In the notebook stands the name {typed!r}, and it was handed in by {student!r}"
    if any(_same(other, typed) for other in class_list if other != student):
        return [f"{told}: {student}'s numbers were taken, as the other is of the class."], student
    return [f"{told}: {typed}'s numbers were taken."], typed


def _same(one: str, other: str) -> bool:
    """Whether two names can be one person's: the words of one are among the other's, or they have the same letters."""
    words = [set(canonical(name).split()) for name in (one, other)]
    letters = [Counter(canonical(name).replace(" ", "")) for name in (one, other)]
    return bool(words[0] and words[1]) and (words[0] <= words[1] or words[1] <= words[0] or letters[0] == letters[1])


def _checksum(each: Submission, source: NotebookNode, own: bool) -> str:
    about = json.dumps([each.student, own, CHECKS, [cell.source for cell in source.cells]])
    return hashlib.sha256(each.data + about.encode()).hexdigest()


def _read(path: Path) -> list[Graded]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [
            Graded(
                **each | {"marks": {name: [Mark(**mark) for mark in marks] for name, marks in each["marks"].items()}}
            )
            for each in found
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # nothing yet, or of another version: then all are graded anew


def _write(path: Path, graded: list[Graded]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps([asdict(each) for each in graded], ensure_ascii=False, indent=1), encoding="utf-8")
    new.replace(path)


def read_source(path: Path) -> NotebookNode:
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.ipynb"))) or "none"
        raise ValueError(f"there is no exercise {path.stem}; there are {there}")
    return nbformat.read(path, as_version=4)
