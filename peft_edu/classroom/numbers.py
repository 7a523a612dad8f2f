"""Numbers of one's own: what a task asks of a student follows from their name.

Two students' answers differ, and the same student finds the same numbers on every day and every machine.
"""

import re
import unicodedata
from random import Random

EVERYBODY = "everybody"  # whose numbers all get where own ones are switched off


def canonical(name: object) -> str:
    """A name as it counts, however it is written.

    >>> canonical("Li, Ánna")
    'anna li'
    """
    letters = unicodedata.normalize("NFKD", str(name).casefold())
    words = re.findall(r"[^\W_]+", "".join(each for each in letters if not unicodedata.combining(each)))
    return " ".join(sorted(words))


def draw_for(name: object, task: str) -> Random:
    """Where this student's numbers for a task come from: drawn in the same order they are the same."""
    return Random(f"{task}: {canonical(name)}")
