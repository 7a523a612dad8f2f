"""The pieces of a card: a slider with its number box, a table, an error, an image that has its size from the start."""

import html
import traceback
from collections.abc import Sequence

import ipywidgets as widgets

from peft_edu.lab.figures import style


def number(label: str, low: int, high: int, value: int) -> dict[str, widgets.Widget]:
    """A slider and a number box for the same number."""
    wide, narrow = widgets.Layout(width="280px"), widgets.Layout(width="140px")
    slider = widgets.IntSlider(value, low, high, description=label, readout=False, layout=wide)
    box = widgets.BoundedIntText(value, low, high, description=label, layout=narrow)
    for control in (slider, box):
        control.style.description_width = "initial"
    widgets.link((slider, "value"), (box, "value"))
    return {"slider": slider, "box": box}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table as HTML; the first cell of a row names it."""
    cell = "padding:2px 14px 2px 0;text-align:left"
    head = "".join(f'<th scope="col" style="{cell}">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row" style="{cell};font-weight:normal">{html.escape(first)}</th>'
        + "".join(f'<td style="{cell}">{html.escape(value)}</td>' for value in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f'<table role="status"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def as_error(error: Exception) -> str:
    """The error in a line, and where it came from for those who want to know."""
    trace = html.escape("".join(traceback.format_exception(error)))
    summary = f"<b>{type(error).__name__}:</b> {html.escape(str(error))}"
    return f'<details role="alert"><summary>{summary}</summary><pre>{trace}</pre></details>'


def reserved_image(inches: float = style.HEIGHT) -> widgets.Image:
    """It has its size before it has a picture, so that nothing jumps."""
    width, height = style.WIDTH * style.DPI, inches * style.DPI
    return widgets.Image(format="png", layout=widgets.Layout(width=f"{width:.0f}px", height=f"{height:.0f}px"))
