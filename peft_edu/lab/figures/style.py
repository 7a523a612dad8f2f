"""The picture language: the only file with a colour in it.

A colour is a role, the same in every lesson, and a second mark carries it without colour:

    frozen   cool grey, hatched            head      dark blue
    trained  orange, solid                 virtual   teal (tokens that only the model sees)
    ours     filled markers                paper     hollow markers
    text     white with an outline

A method has one colour and one marker where methods are compared: METHODS.

The palette is told apart with the common forms of colour blindness. Figures are made without pyplot, so that a training
thread can draw one too.
"""

import threading
from collections.abc import Callable, Iterable
from functools import wraps
from io import BytesIO
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

FROZEN, FROZEN_LINE = "#dde2e7", "#97a1ab"
TRAINED, TRAINED_LINE = "#e8800c", "#8a4a00"
HEAD, VIRTUAL = "#1f3f77", "#17908a"
PAPER, INK, MUTED, GRID = "#ffffff", "#20262c", "#5c6670", "#e6e9ec"
SERIES = (TRAINED, HEAD, VIRTUAL, "#a3487f", "#5c6670", "#7a9a01", "#4a9bd9", "#b3362b")  # each with a marker
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
METHODS = {  # one colour and one marker each, in every lesson; a name that begins so is of the method
    "P-tuning v2": ("#0b5d58", "<"),
    "P-tuning": ("#7a5195", "X"),
    "LoRA": (TRAINED, "o"),
    "adapter": ("#a3487f", "D"),
    "prefix": (VIRTUAL, "^"),
    "prompt": ("#4a9bd9", "P"),
    "BitFit": ("#b3362b", "*"),
    "top": ("#7a9a01", "v"),
    "head": ("#97a1ab", "h"),
    "full": (HEAD, "s"),
    "yours": (INK, "H"),  # what a learner built, among the methods
}
HEAT = matplotlib.colors.LinearSegmentedColormap.from_list("heat", [PAPER, "#f6c388", TRAINED, "#5a2f00"])

FROZEN_BOX = {"facecolor": FROZEN, "edgecolor": FROZEN_LINE, "hatch": "////"}
TRAINED_BOX = {"facecolor": TRAINED, "edgecolor": TRAINED_LINE}

WIDTH, HEIGHT, DPI = 7.0, 3.2, 110  # inches, inches, dots an inch: 770 x 352 pixels

_RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "figure.dpi": DPI,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a title with a $ is a title
}


_LOCK = threading.RLock()  # matplotlib's settings are global, and a training thread draws too


def styled(draw: Callable) -> Callable:
    """Decorate a function that draws: everything in it gets this style, and no other thread changes it meanwhile."""

    @wraps(draw)
    def drawn(*args, **kwargs):
        with _LOCK, matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return drawn


@styled
def panels(title: str, columns: int = 1, widths=None, height: float = HEIGHT, room: bool = True):
    """A figure with its finding as title, and its axes side by side. `room=False`: place the axes yourself, faster."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained" if room else None)
    FigureCanvasAgg(figure)
    place = {"x": 0.012, "ha": "left", "va": "top"} | ({} if room else {"y": 1 - 0.1 / height})
    figure.suptitle(fill(str(title), 76), size=11, **place)
    axes = figure.subplots(1, columns, squeeze=False, width_ratios=widths)[0] if room else []
    return figure, list(axes)


@styled
def sheet(title: str, height: float = HEIGHT):
    """A figure to draw boxes on: axes without ticks, in pixels from the lower left. Quick enough for a slider."""
    figure, _ = panels(title, height=height, room=False)
    axes = figure.add_axes([0, 0, 1, 1])
    axes.axis("off")
    axes.set(xlim=(0, WIDTH * DPI), ylim=(0, height * DPI))
    return figure, axes


@styled
def png(figure: Figure) -> bytes:
    """The figure as it is, opaque: about 10 ms faster than savefig, and the size never moves."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    data = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "PNG", compress_level=4)
    return data.getvalue()


def line_style(i: int) -> dict:
    """Colour and marker of the i-th series."""
    return {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i % len(MARKERS)]}


def looks(names: Iterable[str]) -> list[dict]:
    """Colour and marker of each series: its method's, if each is of a method and no two of the same; else by order."""
    names = list(names)
    found = [next((method for method in METHODS if _starts(str(name), method)), None) for name in names]
    if None in found or len(set(found)) < len(found):
        return [line_style(i) for i in range(len(names))]
    return [dict(zip(("color", "marker"), METHODS[method], strict=True)) for method in found]


def _starts(name: str, method: str) -> bool:
    return name.lower().startswith(method.lower())
