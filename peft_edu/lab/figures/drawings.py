"""Drawings to scale: what a method puts beside a weight, behind a sub-layer, in front of a text."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from peft_edu.lab.figures import style
from peft_edu.lab.figures.seeds import Seeds


@style.styled
def low_rank(rank: int, rows: int, columns: int, title: str) -> Figure:
    """W, B and A to scale."""
    figure, axes = style.sheet(title)
    scale, left, top = 180 / max(rows, columns), 20, 290
    height, width, thin = scale * rows, scale * columns, scale * rank
    b, a = left + width + 40, left + width + 40 + thin + 14
    _box(axes, left, top - height, width, height, style.FROZEN_BOX)
    _box(axes, b, top - height, thin, height, style.TRAINED_BOX)
    _box(axes, a, top - thin, width, thin, style.TRAINED_BOX)
    axes.text(b - 20, top - height / 2, "+", ha="center", va="center", size=15)
    for x, y, text in (
        (left + width / 2, top - height, f"W  {rows} × {columns}\n{rows * columns:,} frozen"),
        (b + thin / 2, top - height, f"B  {rows} × {rank}\n{rows * rank:,}"),
        (a + width / 2, top - thin, f"A  {rank} × {columns}\n{rank * columns:,}"),
    ):
        axes.text(x, y - 8, text, ha="center", va="top")
    return figure


@style.styled
def bottleneck(size: int, width: int, title: str) -> Figure:
    """W_down and W_up to scale, in series behind a frozen sub-layer of `width`, with the way around them."""
    figure, axes = style.sheet(title)
    side, base, left = 120, 110, 20
    thin, way = max(1.5, side * size / width), {"color": style.INK, "linewidth": 1.1}
    down, up = left + side + 50, left + 2 * side + 110
    _box(axes, left, base, side, side, style.FROZEN_BOX)
    _box(axes, down, base + (side - thin) / 2, side, thin, style.TRAINED_BOX)  # (m, d): as high as it has rows
    _box(axes, up, base, thin, side, style.TRAINED_BOX)
    fork, end, middle, above = left + side + 12, up + thin + 50, base + side / 2, base + side + 26
    for start, stop in ((left + side, down), (down + side, up), (up + thin, end - 9)):
        axes.annotate("", (stop, middle), (start, middle), arrowprops={"arrowstyle": "->", **way})
    axes.plot([fork, fork, end, end], [middle, above, above, middle + 9], **way)
    axes.text(end, middle, "+", ha="center", va="center", size=15)
    for x, text in (
        (left + side / 2, f"a sub-layer's map\n{width} × {width}\nfrozen"),
        (down + side / 2, f"W_down\n{size} × {width}\n{size * width:,}"),
        (up + thin / 2, f"W_up\n{width} × {size}\n{width * size:,}"),
    ):
        axes.text(x, base - 12, text, ha="center", va="top")
    return figure


@style.styled
def virtual_tokens(
    length: int, text: int, depth: int, title: str, masses: Mapping[str, Seeds] = {}, deep=True, layers: tuple = ()
) -> Figure:
    """What every layer attends to: virtual tokens (teal) before the text's own (white), to scale.

    A prefix is trained in every layer, or in these `layers`; a prompt at the input alone (`deep=False`). Beside them
    the share of attention that each layer pays to the prefix, one mark a series.
    """
    figure, axes = style.sheet(title)
    left, right, bottom, step = 84, 310 if masses else 505, 96, 190 / depth
    cell, height = (right - left) / (length + text), min(24, 0.6 * 190 / depth)
    for layer in range(depth):
        y = bottom + layer * step
        axes.text(left - 10, y + height / 2, f"layer {layer + 1}", ha="right", va="center", color=style.MUTED)
        shared = {"linewidth": min(0.8, cell / 4), "edgecolor": style.MUTED}
        trained = deep or layer == 0
        face = style.VIRTUAL if trained else style.PAPER  # else it is what the layer below makes of it
        if not layers or layer in layers:
            axes.add_patch(Rectangle((left, y), cell * length, height, facecolor=face, edgecolor=style.VIRTUAL))
        for i in range(length, length + text):
            axes.add_patch(Rectangle((left + cell * i, y), cell, height, facecolor=style.PAPER, **shared))
    where = "" if deep else ", trained at the input alone"
    axes.text(left, bottom - 12, f"{length} virtual{where}", ha="left", va="top", color=style.VIRTUAL)
    axes.text(right, bottom - 12, f"{text} of a text", ha="right", va="top")
    if masses:
        _masses(axes, masses, [bottom + layer * step + height / 2 for layer in range(depth)])
    return figure


def _box(axes: Axes, x: float, y: float, width: float, height: float, look: Mapping) -> None:
    axes.add_patch(Rectangle((x, y), width, height, linewidth=0.8, **look))


def _masses(axes: Axes, masses: Mapping[str, Seeds], heights: Sequence[float]) -> None:
    """Shares between 0 and 1 at the height of their layers, on a scale of their own."""
    left, right, bottom = 345, 505, 96
    for share in (0, 0.5, 1):
        x = left + share * (right - left)
        axes.plot([x, x], [bottom - 8, heights[-1] + 16], color=style.GRID, linewidth=1, zorder=0)
        axes.text(x, bottom - 12, f"{share:.0%}", ha="center", va="top", color=style.MUTED, size=8.5)
    axes.text((left + right) / 2, bottom - 32, "attention on the prefix", ha="center", va="top", color=style.MUTED)
    for i, (name, shares) in enumerate(masses.items()):
        look = {"color": (style.MUTED, style.VIRTUAL)[i % 2], "marker": style.MARKERS[i]}
        axes.plot([left + share * (right - left) for share in shares], heights, **look, markersize=6, linewidth=1)
        axes.text(left, heights[-1] + 22 + 15 * i, name, color=look["color"], size=9)


@style.styled
def mark_scores(
    axes: Axes,
    scores: Mapping[int, Seeds],
    here: int,
    name: str,
    setting_name: str,
    own: Mapping[int, float] | None = None,
) -> None:
    """A small curve at the right of a sheet, each seed as a dot, the learner's own runs as rings; what lies between two
    stored settings stands there. The axis ends where scores end, so that noise does not look like a law."""
    left, right, bottom, top = 590, 745, 110, 265
    values = [value for seeds in scores.values() for value in seeds] + list((own or {}).values())
    highest = 100 if max(values) > 1 else 1
    lowest = highest / 2 if min(values) >= highest / 2 else 0

    def height(value: float) -> float:
        return bottom + (top - bottom) * (value - lowest) / (highest - lowest)

    across = np.linspace(left, right, len(scores))

    def place(setting: int) -> float:
        return np.interp(np.log2(setting), np.log2(list(scores)), across)

    if min(scores) <= here <= max(scores):
        axes.plot([place(here)] * 2, [bottom - 12, top + 8], color=style.INK, linestyle=":", linewidth=1.2)
    axes.plot(across, [height(fmean(seeds)) for seeds in scores.values()], "o-", color=style.TRAINED, markersize=5)
    axes.text((left + right) / 2, top + 24, name, ha="center", va="bottom")
    axes.text((left + right) / 2, bottom - 50, setting_name, ha="center", va="top", color=style.MUTED)
    for x, (setting, seeds) in zip(across, scores.items(), strict=True):
        axes.text(x, bottom - 28, setting, ha="center", va="top", color=style.MUTED, size=8.5)
        axes.plot([x] * len(seeds), [height(value) for value in seeds], ".", color=style.INK, alpha=0.5, markersize=4)
    for setting, value in (own or {}).items():
        axes.plot(place(setting), height(value), "o", markersize=9, markerfacecolor="none", color=style.INK)
    for value in (lowest, highest):
        axes.text(left - 12, height(value), f"{value:.3g}", ha="right", va="center", color=style.MUTED, size=8)
