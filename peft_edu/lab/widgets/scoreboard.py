"""Scores of several runs in one table, for runs whose last digits differ from one processor to another."""

from collections.abc import Mapping

from IPython.display import display

from peft_edu.lab.widgets.controls import html_table

NAMES = {"valid": "valid JSON", "f1": "F1 of the fields", "exact": "all fields right", "slots": "right answers"}


def scoreboard(found: Mapping[str, Mapping[str, float]], columns: tuple[str, ...] = ("valid", "f1", "exact")) -> None:
    """A row a run, in per cent. The numbers stand in the page alone, so that no test compares them: in float32 a
    model answers now and then otherwise on another processor."""
    rows = [(name, *(f"{100 * scores[column]:.0f}%" for column in columns)) for name, scores in found.items()]
    names = tuple(NAMES.get(column, column) for column in columns)
    text = f"Scores ({', '.join(names)}) of: {', '.join(found)}."
    display({"text/html": html_table(("", *names), rows), "text/plain": text}, raw=True)


def show_texts(texts: Mapping[str, str], columns: tuple[str, str]) -> None:
    """What a model wrote, beside what it was asked or should have written; as scores, in the page alone."""
    display({"text/html": html_table(columns, list(texts.items())), "text/plain": " and ".join(columns)}, raw=True)
