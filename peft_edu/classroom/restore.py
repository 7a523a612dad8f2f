"""What is run of a submission: the student's own cells, and ours as they were handed out.

A cell is known by the id that nbgrader gave it. Graded and locked cells come from the source, whatever became of them
in the copy: deleted, doubled, moved, edited. Of the student's own cells none is left out or changed, in their order.
"""

import re
from dataclasses import dataclass
from itertools import takewhile

from nbformat import NotebookNode


@dataclass(frozen=True)
class Cell:
    """A cell to run. `kind`: "own" is the student's, "given" and "graded" are ours."""

    source: str
    kind: str
    id: str  # "" for a cell that the student added

    @property
    def task(self) -> str | None:
        """The task that a graded cell marks."""
        found = re.search(r'\bgraded\("([\w.]+)"', self.source) if self.kind == "graded" else None
        return found and found[1]


def marked(cell: NotebookNode) -> dict:
    """What nbgrader says of a cell; nothing of a cell that is no code."""
    said = cell.get("metadata", {}).get("nbgrader", {})
    return said if cell.get("cell_type") == "code" and isinstance(said, dict) else {}


def as_cell(cell: NotebookNode) -> Cell:
    said = marked(cell)
    kind = "graded" if said.get("grade") else "given" if said.get("locked") else "own"
    return Cell(cell.source, kind, said["grade_id"])


def known_cells(source: NotebookNode) -> list[Cell]:
    """The code cells of an exercise's source."""
    return [as_cell(cell) for cell in source.cells if marked(cell)]


def restored(submission: NotebookNode, source: NotebookNode) -> list[Cell]:
    """The cells to run, in order.

    What is given in front of a student's cell, and what grades it, follows that cell wherever it stands. Where such a
    cell was deleted its marking comes last: what is asked for may stand in another cell.
    """
    ours = known_cells(source)
    opening = list(takewhile(lambda cell: cell.kind == "given", ours))
    before, after = _around(ours[len(opening) :])
    written = [(marked(cell).get("grade_id"), _text(cell)) for cell in submission.cells if cell.cell_type == "code"]
    written = [(name, text) for name, text in written if name in before or name not in {cell.id for cell in ours}]
    last = {name: place for place, (name, _) in enumerate(written)}
    run, begun = list(opening), set()
    for place, (name, text) in enumerate(written):
        if name in before:
            run += before[name]  # each time, as `n` may be another task's by now
            begun.add(name)
        run.append(Cell(text, "own", name if name in before else ""))
        if name in before and last[name] == place:
            run += after[name]
    for name in (each for each in before if each not in begun):
        run += before[name] + after[name]
    return run


def _around(ours: list[Cell]) -> tuple[dict[str, list[Cell]], dict[str, list[Cell]]]:
    """For each of the student's cells what is given before it, and what is marked after it."""
    before, after, given = {}, {}, []
    for cell in ours:
        if cell.kind == "own":
            name, before[cell.id], after[cell.id], given = cell.id, given, [], []
        elif cell.kind == "graded":
            after[name] += [*given, cell]
            given = []
        else:
            given.append(cell)
    return before, after


def _text(cell: NotebookNode) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(map(str, source))
