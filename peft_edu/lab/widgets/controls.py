"""The pieces of a card: boxes for whole numbers, a table, an error, an image that has its size from the start."""

import html
import traceback
from collections.abc import Sequence

import ipywidgets as widgets
from traitlets import validate

from peft_edu.lab.figures import style


class WholeNumber(widgets.BoundedFloatText):
    """A box for a whole number. Jupyter's own drops the point of a typed 7.5 and reads 75."""

    @validate("value")
    def _validate_value(self, proposal):
        return float(round(super()._validate_value(proposal)))


def slider_and_box(label: str, low: int, high: int, value: int) -> dict[str, widgets.Widget]:
    """A slider and a number box for the same number."""
    wide, narrow = widgets.Layout(width="280px"), widgets.Layout(width="140px")
    slider = widgets.IntSlider(value, low, high, description=label, readout=False, layout=wide)
    box = WholeNumber(value=value, min=low, max=high, description=label, layout=narrow)
    widgets.link((slider, "value"), (box, "value"))
    return {"slider": slider, "box": box}


def html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table; the first cell of a row names it."""
    cell = "padding:2px 14px 2px 0;text-align:left"
    head = "".join(
        f'<th scope="col" style="{cell}">{html.escape(name)}</th>' if name else f'<td style="{cell}"></td>'
        for name in columns
    )
    body = "".join(
        f'<tr><th scope="row" style="{cell};font-weight:normal">{html.escape(first)}</th>'
        + "".join(f'<td style="{cell}">{html.escape(value)}</td>' for value in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f'<table role="status"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def as_error(error: BaseException) -> str:
    """The error in a line, and where it came from for those who want to know."""
    trace = html.escape("".join(traceback.format_exception(error)))
    summary = f"<b>{type(error).__name__}:</b> {html.escape(str(error))}"
    return f'<details role="alert"><summary>{summary}</summary><pre>{trace}</pre></details>'


def needs_function(name: str, given: object, call: str) -> None:
    if not callable(given):
        raise TypeError(f"{name} is {given!r}, but must be a function: {call}")


def plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def reserved_image(inches: float = style.HEIGHT) -> widgets.Image:
    """It has its size before it has a picture, so that nothing jumps; on a narrow page it shrinks as a whole."""
    width, height = f"{style.WIDTH * style.DPI:.0f}px", f"{inches * style.DPI:.0f}px"
    return widgets.Image(format="png", layout=widgets.Layout(width=width, height=height, object_fit="contain"))
