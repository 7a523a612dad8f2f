"""The learner's memory: what was guessed, explained and solved, kept in the workbook from one day to the next.

A workbook is a folder with copies of the lessons (`make lab` makes it) and one file, progress.jsonl: a line for each
thing that was done, the newest last. It never leaves the machine. Where there is no workbook, as when a lesson is run
in place by a test, things are kept for as long as the kernel lives.
"""

import json
import os
import sys
from datetime import datetime
from pathlib import Path

PROGRESS = "progress.jsonl"
_in_this_kernel: list[dict] = []  # what no file holds


def folder() -> Path | None:
    """The workbook: $PEFT_EDU_WORKBOOK, or where the kernel runs, if progress is kept there."""
    named = os.environ.get("PEFT_EDU_WORKBOOK")
    here = Path(named).expanduser() if named else Path.cwd()
    return here if named or (here / PROGRESS).is_file() else None


def keep(kind: str, name: str, **facts: object) -> None:
    """Remember that something was done: a "guess", an "explanation", an "exercise", by its name. A full disk is told,
    and stops nobody."""
    entry = {"time": datetime.now().isoformat(timespec="seconds"), "lesson": _lesson(), "kind": kind, "name": name}
    entry |= facts
    place = folder()
    try:
        if place is not None:
            _append(place / PROGRESS, json.dumps(entry, ensure_ascii=False, default=str))
            return
    except OSError as error:
        print(f"This is not kept for tomorrow: {place / PROGRESS} cannot be written ({error}).", file=sys.stderr)
    _in_this_kernel.append(entry)


def kept(kind: str, name: str) -> dict | None:
    """The last thing of this kind and name, or None."""
    return next((each for each in reversed(everything()) if (each["kind"], each["name"]) == (kind, name)), None)


def everything() -> list[dict]:
    """All that is kept, in its order. A line that is damaged is left out; the others count."""
    place, entries = folder(), []
    try:
        lines = [] if place is None else (place / PROGRESS).read_bytes().splitlines()
    except OSError:
        lines = []  # not there yet, or not for us to read
    for line in lines:
        try:
            entry = json.loads(line.decode("utf-8", errors="replace"))
            entries.append(entry | {"kind": entry["kind"], "name": entry["name"]})
        except (ValueError, KeyError, TypeError):
            continue
    return entries + _in_this_kernel


def _append(path: Path, line: str) -> None:
    """One write for one line, so that two kernels do not mix theirs; after half a line it begins a new one."""
    with open(path, "ab+", buffering=0) as file:
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
        broken = file.read(1) not in (b"", b"\n")
        file.write(("\n" * broken + line + "\n").encode("utf-8", errors="replace"))


def _lesson() -> str:
    """The lesson that this kernel belongs to, as JupyterLab names it to the kernel; elsewhere it is not known: ""."""
    return Path(os.environ.get("JPY_SESSION_NAME", "")).stem.partition(" (new")[0]
