"""Students' copies of the exercises: no line of a solution, no hidden test, no output; the same bytes each time."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from peft_edu.lab.workbook import PROGRESS

STUB = {"python": "..."}
TIME = (1980, 1, 1, 0, 0, 0)  # of every file in the zip: releasing twice leaves no difference


def released(source: NotebookNode) -> NotebookNode:
    """The copy of one exercise, made by nbgrader's own steps."""
    try:
        from nbgrader import preprocessors
    except ImportError as error:
        raise ImportError("releasing needs nbgrader: pip install 'peft-edu[classroom]'") from error
    notebook, resources = nbformat.from_dict(source), {}
    steps = (
        preprocessors.LockCells(),
        preprocessors.ClearSolutions(code_stub=STUB),
        preprocessors.ClearOutput(),
        preprocessors.CheckCellMetadata(),
        preprocessors.ComputeChecksums(),
        preprocessors.ClearHiddenTests(),
        preprocessors.ClearMarkScheme(),
        preprocessors.ComputeChecksums(),
    )
    for step in steps:
        notebook, resources = step.preprocess(notebook, resources)
    return notebook


def release(sources: Iterable[Path], target: Path) -> Path:
    """A zip with a copy of each exercise."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sources:
            text = nbformat.writes(released(nbformat.read(path, as_version=4)))
            packed.writestr(zipfile.ZipInfo(path.name, TIME), text + "\n")
        packed.writestr(zipfile.ZipInfo(PROGRESS, TIME), "")  # where it lies, tries are kept
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.getvalue())
    return target
