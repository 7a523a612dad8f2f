"""What was handed in: notebooks by student, from a folder, a zip of Moodle or Canvas, or an nbgrader exchange."""

import ast
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

import nbformat
from nbformat import NotebookNode

from peft_edu.classroom.numbers import canonical
from peft_edu.classroom.restore import marked
from peft_edu.lab.workbook import PROGRESS

KEPT = PurePosixPath(PROGRESS).suffix
LARGEST = 50_000_000  # bytes of a notebook that is read
MOODLE = re.compile(r"(?P<name>.+?)_\d+_assignsubmission_\w+")
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?\d+_\d+_(?P<file>.+)")
NBGRADER = re.compile(r"(?P<name>[^+]+)\+[^+]+\+\d{4}-\d\d-\d\d .*")


@dataclass
class Submission:
    """One student's newest file; whether it is a notebook shows when it is read."""

    student: str
    path: str
    when: datetime
    data: bytes
    notes: list[str] = field(default_factory=list)

    def notebook(self) -> NotebookNode:
        """Its cells; raises ValueError with what is wrong with the file."""
        if len(self.data) > LARGEST:
            raise ValueError(f"the file has {len(self.data):,} bytes, more than the {LARGEST:,} that are read")
        try:
            found = nbformat.reads(self.data.decode("utf-8-sig"), as_version=4)
            [(cell.cell_type, cell.source, cell.metadata) for cell in found.cells]
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"the file is no notebook that can be read ({said:.100})") from error
        return found

    def typed_name(self) -> str | None:
        """What stands behind NAME = in the cell for it."""
        try:
            cells = [cell for cell in self.notebook().cells if marked(cell).get("grade_id") == "name"]
            nodes = ast.parse(cells[-1].source).body
            values = [ast.literal_eval(each.value) for each in nodes if isinstance(each, ast.Assign)]
        except (ValueError, SyntaxError, IndexError):
            return None
        return str(values[-1]) if values and canonical(values[-1]) else None


def collect(place: Path, exercise: str) -> tuple[list[Submission], dict[str, bytes]]:
    """The newest notebook of each student, in the order of their names, and the progress files by student."""
    newest: dict[str, Submission] = {}
    progress: dict[str, bytes] = {}
    for path, when, data in _files(place):
        student = student_of(path, exercise)
        if path.suffix == KEPT:
            progress[student] = data
            continue
        found = Submission(student, str(path), when, data)
        found.student = student or found.typed_name() or str(path)
        other = newest.get(key := canonical(found.student) or found.student)
        if other is not None:
            found, other = sorted((found, other), key=lambda each: each.when, reverse=True)
            found.notes += [*other.notes, f"There are two of this student: {found.path} is newer than {other.path}."]
        newest[key] = found
    return [newest[key] for key in sorted(newest)], progress


def _files(place: Path) -> Iterator[tuple[PurePosixPath, datetime, bytes]]:
    """Notebooks and progress files, with their time; a zip counts as the folder that is in it."""
    if not place.exists():
        raise ValueError(f"there is no {place}: give a folder of notebooks, or a zip")
    if place.is_file():
        if not zipfile.is_zipfile(place):
            raise ValueError(f"{place} is no zip and no folder: give a folder of notebooks, or a zip")
        yield from _zipped(place.read_bytes())
        return
    for path in sorted(place.rglob("*")):
        inside = PurePosixPath(path.relative_to(place).as_posix())
        when = datetime.fromtimestamp(path.lstat().st_mtime)
        if _wanted(inside) and path.is_file():
            yield inside, when, path.read_bytes()
        elif path.suffix == ".zip" and path.is_file():
            try:
                packed = list(_zipped(path.read_bytes()))
            except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, OSError):
                packed = []  # damaged, or with a password: told for this student, as a file that is no notebook
            yield from ((inside.with_suffix("") / each, time, data) for each, time, data in packed)
            if not packed:
                yield inside.with_suffix(".ipynb"), when, b""


def _zipped(content: bytes) -> Iterator[tuple[PurePosixPath, datetime, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        for each in packed.infolist():
            inside = PurePosixPath(each.filename)
            if _wanted(inside) and each.file_size <= 4 * LARGEST:
                yield inside, datetime(*each.date_time), packed.read(each)


def _wanted(path: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.suffix in (".ipynb", KEPT)


def student_of(path: PurePosixPath, exercise: str) -> str:
    """Whose file this is, by the names that learning platforms, nbgrader and people give; "" where none is given.

    >>> student_of(PurePosixPath("Anna Li_123_assignsubmission_file/07_lora.ipynb"), "07_lora")
    'Anna Li'
    >>> student_of(PurePosixPath("07_lora - Anna Li.ipynb"), "07_lora")
    'Anna Li'
    """
    for part in path.parts:
        for pattern in (MOODLE, NBGRADER):
            if found := pattern.fullmatch(part) or (pattern is MOODLE and pattern.match(part)):
                return found["name"]
    if found := CANVAS.fullmatch(path.stem):
        return found["name"]
    no_name = rf"{re.escape(exercise)}|\(\d+\)|-(copy|kopie)\d*|[_ -](final|new|solution|abgabe)\b|-checkpoint"
    own = re.sub(no_name, " ", path.stem, flags=re.IGNORECASE).strip(" -_")
    if own and path.name != PROGRESS:
        return own
    folders = [part for part in path.parts[:-1] if canonical(part) != canonical(exercise) and part != "submitted"]
    return folders[-1] if folders else ""
