"""Who is who on the learning platform: what Moodle or Canvas needs to read marks, from a gradebook that it exported."""

from collections import defaultdict
from pathlib import Path

import pandas as pd

from peft_edu.classroom.numbers import canonical

NAMES = (["Student"], ["First name", "Last name"], ["First name", "Surname"], ["Full name"])
IDS = ("ID", "SIS User ID", "SIS Login ID", "Section", "Username", "ID number", "Email address")


def identities(path: Path) -> dict[str, dict[str, str]]:
    """For each name, as `key` gives it, the columns by which the platform knows its student.

    Where two students have the same name neither is in it: whose the marks are is for the teacher to say.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeError) as error:
        raise ValueError(
            f"{path} is no table that can be read ({error}): a gradebook exported as CSV is needed"
        ) from None
    found = next((columns for columns in NAMES if set(columns) <= set(table)), None)
    if found is None:
        raise ValueError(
            f"{path} has the columns {', '.join(table)}: a gradebook has Student (Canvas), or First name and Last "
            "name, or Full name (Moodle)"
        )
    kept = table[[*found, *(name for name in IDS if name in table)]].to_dict("records")
    by_name = defaultdict(list)
    for row in kept:
        by_name[key(" ".join(row[name] for name in found))].append(row)
    return {name: rows[0] for name, rows in by_name.items() if name and len(rows) == 1}


def key(name: str) -> str:
    """The letters of a name in order: Canvas joins the words in the names of files."""
    return "".join(sorted(canonical(name).replace(" ", "")))
