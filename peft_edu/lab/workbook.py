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
_in_this_kernel: list[dict] = []


def folder() -> Path | None:
    """The workbook: $PEFT_EDU_WORKBOOK, or where the kernel runs, if progress is kept there."""
    named = os.environ.get("PEFT_EDU_WORKBOOK")
    here = Path(named).expanduser() if named else Path.cwd()
    return here if named or (here / PROGRESS).is_file() else None


def keep(kind: str, name: str, **facts: object) -> None:
    """Remember that something was done: a "guess", an "explanation", an "exercise", by its name. A full disk is told,
    and stops nobody."""
    entry = {"time": datetime.now().isoformat(timespec="seconds"), "kind": kind, "name": name, **facts}
    _in_this_kernel.append(entry)
    if (place := folder()) is None:
        return
    try:
        with open(place / PROGRESS, "a", encoding="utf-8") as file:  # one short write: two kernels do not mix lines
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    except OSError as error:
        print(f"This is not kept for tomorrow: {place / PROGRESS} cannot be written ({error}).", file=sys.stderr)


def kept(kind: str, name: str) -> dict | None:
    """The last thing of this kind and name, or None."""
    return next((each for each in reversed(everything()) if (each["kind"], each["name"]) == (kind, name)), None)


def everything() -> list[dict]:
    """All that is kept, in its order. A line that is damaged is left out; the others count."""
    place, entries = folder(), []
    if place is None or not (place / PROGRESS).is_file():
        return list(_in_this_kernel)
    for line in (place / PROGRESS).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            entries.append(entry | {"kind": entry["kind"], "name": entry["name"]})
        except (ValueError, KeyError, TypeError):
            continue
    return entries
