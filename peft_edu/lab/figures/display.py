"""What a cell shows, so that eyes, screen readers and tests all get it."""

import base64
import html
from pathlib import Path

from IPython.display import display
from ipywidgets import Widget
from matplotlib.figure import Figure

from peft_edu.lab.figures import style

NAMES = f"<script>{Path(__file__).with_name('names.js').read_text(encoding='utf-8')}</script>"


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its text.

    JupyterLab gives a PNG no alternative text, so the text follows for screen readers, out of sight; the PNG's metadata
    hold it for exported pages, and its text/plain for tests.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"show needs a figure and its text, got {figure!r}")
    image = base64.b64encode(style.png(figure)).decode()
    display({"image/png": image, "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)
    display({"text/html": unseen(f"Figure: {alt}") + NAMES}, raw=True)


def unseen(text: str) -> str:
    """HTML that a screen reader reads and nobody sees."""
    style = "display:block;width:1px;height:1px;overflow:hidden;white-space:nowrap;clip-path:inset(50%)"
    return f'<span class="peft-edu-alt" style="{style}">{html.escape(text)}</span>'


def present(view: Widget, text: str, svg: str = "") -> None:
    """Display a widget. Where no widget can live, on GitHub or in a test, its text and picture stand in its place."""
    display({"text/html": NAMES}, raw=True)
    bundle, metadata = view._repr_mimebundle_() | {"text/plain": text}, {}
    if svg:
        bundle, metadata = bundle | {"image/svg+xml": svg}, {"image/svg+xml": {"alt": text}}
    display(bundle, metadata=metadata, raw=True)
