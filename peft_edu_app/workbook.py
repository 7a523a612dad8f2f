"""A workbook: copies of the lessons, without outputs, in a folder of the learner's own.

    hand_out(Path("notebooks"), Path("workbook"))  # what there is to say, a line each

What a learner changed is never overwritten. Changed means: a cell's text is another one than was handed out. Opening,
running and saving change no text, so such a copy gives way to a newer lesson, with its outputs, which would not fit it.
Beside a copy that was changed the newer lesson is laid, once. What was handed out is noted in .workbook.json as a
checksum; where that file is lost or damaged, each copy that differs from its lesson counts as changed.

Exercises are handed out without their solutions, as `peft-edu release` does it for a class.
"""

import hashlib
import json
import os
import re
from datetime import date

import nbformat

NOTE = ".workbook.json"
FOR_TEACHERS = "exercises/README.md"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION$.*?^ *### END SOLUTION$", re.DOTALL | re.MULTILINE)
PROGRESS = "progress.jsonl"  # which peft_edu.lab.workbook writes


def hand_out(lessons, workbook):
    """Lay out in the folder `workbook` what is new in the folder `lessons`. Returns the lines to tell the learner."""
    workbook.mkdir(parents=True, exist_ok=True)
    (workbook / PROGRESS).touch()
    noted, told = read_note(workbook), []
    for lesson in sorted(path for path in lessons.rglob("*") if path.is_file()):
        name = lesson.relative_to(lessons).as_posix()
        if name == FOR_TEACHERS or any(part.startswith((".", "__")) for part in name.split("/")):
            continue  # or Jupyter's and Python's own
        try:
            content = clean(lesson)
        except Exception as error:
            told.append(f"{lesson} is left out: it is no notebook ({str(error).splitlines()[0]:.80}).")
            continue
        told += hand_out_one(workbook / name, name, content, noted)
    write(workbook / NOTE, json.dumps(noted, indent=1).encode())
    return told


def hand_out_one(copy, name, content, noted):
    new = checksum(content, copy.suffix)
    known = noted.setdefault(name, [])  # checksums: of what the copy was made from, and of what lies beside it
    now = checksum(copy.read_bytes(), copy.suffix) if copy.is_file() else None
    if now is None or now == new or (known and now == known[0]):
        if now != new:
            write(copy, content)
        noted[name] = [new]
        return [f"{name} is newer now: you had changed nothing in it."] if now not in (None, new) else []
    if new in known:
        return []
    beside = beside_name(copy)
    write(beside, content)
    noted[name] = [*known[:1], new] if known else ["", new]
    return [f"{name} has a newer version. Yours stays as it is; the newer one lies beside it: {beside.name}"]


def beside_name(copy):
    stem, tries = f"{copy.stem} (new {date.today()}", 1
    while (path := copy.with_name(f"{stem}{f', {tries}' if tries > 1 else ''}){copy.suffix}")).exists():
        tries += 1
    return path


def clean(path):
    """The bytes of a lesson to hand out: without outputs, solutions, and the numbers and times of a run."""
    if path.suffix != ".ipynb":
        return path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = SOLUTION.sub(r"\1...", cell.source)
    return (nbformat.writes(notebook) + "\n").encode()


def checksum(content, suffix):
    """Of a notebook the kinds and texts of its cells count, of all else, and of a damaged notebook, each byte."""
    try:
        cells = nbformat.reads(content.decode(), as_version=4).cells if suffix == ".ipynb" else None
    except Exception:
        cells = None
    if cells is not None:
        content = json.dumps([(cell.cell_type, cell.source) for cell in cells]).encode()
    return hashlib.sha256(content).hexdigest()


def read_note(workbook):
    try:
        noted = json.loads((workbook / NOTE).read_bytes())
        return {name: list(map(str, sums)) for name, sums in noted.items() if isinstance(sums, list)}
    except (OSError, ValueError, AttributeError):
        return {}


def write(path, content):
    """Beside the old one, which gives way when all is written: a full disk leaves it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
