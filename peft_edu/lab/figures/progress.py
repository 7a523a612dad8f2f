"""A map of what a learner did: the guesses, explanations and exercises of each lesson."""

import html
from collections.abc import Iterable

from IPython.display import display

from peft_edu.lab import workbook

KINDS = {"guess": "guessed", "explanation": "explained", "exercise": "solved"}
NOTHING = (
    "Nothing is here yet. Your guesses, your explanations and the exercises you solve will appear, lesson by lesson."
)
KEPT_NOT = "It is kept from day to day when the lessons are opened with `make lab`."


def progress() -> None:
    """Show how much was guessed, explained and solved in each lesson, from what the workbook keeps.

    A thing counts once, however often it was done, and an exercise when it was solved. Without a workbook it is what
    this kernel saw.
    """
    counts = _counts(workbook.everything())
    place = workbook.folder()
    note = KEPT_NOT if place is None else f"Kept in {place / workbook.PROGRESS}, on this machine only."
    text = "\n".join([*(_sentences(counts) if counts else [NOTHING]), note])
    page = (_table(counts) if counts else f"<p>{NOTHING}</p>") + f"<p>{html.escape(note)}</p>"
    display({"text/html": page, "text/plain": text}, raw=True)


def _counts(entries: Iterable[dict]) -> dict[str, dict[str, int]]:
    """Lesson -> kind -> how many different ones were done."""
    done: dict[str, dict[str, set[str]]] = {}
    for entry in entries:
        if entry["kind"] in KINDS and entry.get("solved", True):
            kinds = done.setdefault(str(entry.get("lesson") or ""), {kind: set() for kind in KINDS})
            kinds[entry["kind"]].add(str(entry["name"]))
    lessons = {lesson: done.get(lesson, {}) for lesson in sorted(_handed_out() | done.keys(), key=_unknown_last)}
    return (
        {lesson: {kind: len(kinds.get(kind, ())) for kind in KINDS} for lesson, kinds in lessons.items()}
        if done
        else {}
    )


def _handed_out() -> set[str]:
    """The lessons of the workbook, so that those to come stand in the map as well."""
    place = workbook.folder()
    return {path.stem for path in place.glob("[0-9][0-9]_*.ipynb") if "(new" not in path.stem} if place else set()


def _unknown_last(lesson: str) -> tuple[bool, str]:
    return not lesson, lesson


def _title(lesson: str) -> str:
    return lesson.replace("_", " ") or "elsewhere"


def _sentences(counts: dict[str, dict[str, int]]) -> list[str]:
    for_each = [
        (_title(lesson), [f"{number} {KINDS[kind]}" for kind, number in row.items()]) for lesson, row in counts.items()
    ]
    return [f"{title}: {', '.join(parts)}" for title, parts in for_each]


def _table(counts: dict[str, dict[str, int]]) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("lesson", *KINDS.values()))
    rows = "".join(f'<tr><th scope="row">{_link(lesson)}</th>{_cells(row)}</tr>' for lesson, row in counts.items())
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _link(lesson: str) -> str:
    title = html.escape(_title(lesson))
    return f'<a href="{html.escape(lesson)}.ipynb">{title}</a>' if lesson else title


def _cells(row: dict[str, int]) -> str:
    return "".join(f'<td><span aria-hidden="true">{"●" * number}</span> {number}</td>' for number in row.values())
