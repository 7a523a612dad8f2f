"""The change of a weight matrix beside its best copy of low rank, and what copies of each rank keep."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from peft_edu.lab.figures import style

SIGNED = LinearSegmentedColormap.from_list("signed", [style.HEAD, style.PAPER, style.TRAINED])
SIDE, BOTTOM = 205, 62  # pixels: of a heat map, and where it stands
LEFT, RIGHT = 545, 750  # of the curves


@style.styled
def figure(
    change: np.ndarray,
    copy: np.ndarray,
    rank: int,
    energy: Mapping[int, float],
    right: Mapping[int, float],
    whole: float,
    title: str,
    name: str,
) -> Figure:
    """The change and its copy, and what copies keep: shares between 0 and 1 by rank.

    `energy` is known of every rank, `right`, the right answers, of those that were tried; `whole`: of the whole change.
    """
    figure, axes = style.sheet(title)
    limits = axes.get_xlim(), axes.get_ylim()
    strongest = float(np.quantile(abs(change), 0.995)) or 1.0
    for left, matrix, what in ((20, change, name), (250, copy, f"its copy of rank {rank}")):
        extent = (left, left + SIDE, BOTTOM, BOTTOM + SIDE)
        axes.imshow(matrix, cmap=SIGNED, vmin=-strongest, vmax=strongest, extent=extent, interpolation="nearest")
        axes.plot(*_frame(left), color=style.MUTED, linewidth=0.8)
        axes.text(left, BOTTOM + SIDE + 6, what, va="bottom")
    axes.text(20, BOTTOM - 8, "orange: the weight rose; blue: it fell; white: it stayed", va="top", color=style.MUTED)
    _curves(axes, rank, energy, right, whole)
    axes.set(xlim=limits[0], ylim=limits[1], aspect="auto")  # which imshow moved
    return figure


def _curves(axes: Axes, rank: int, energy: Mapping[int, float], right: Mapping[int, float], whole: float) -> None:
    """The ranks at equal distances, and the one that is tried now ringed."""
    across = dict(zip(energy, np.linspace(LEFT, RIGHT, len(energy)), strict=True))
    for share in (0, 0.25, 0.5, 0.75, 1):
        axes.plot([LEFT, RIGHT], [_height(share)] * 2, color=style.GRID, linewidth=1, zorder=0)
        axes.text(LEFT - 12, _height(share), f"{share:.0%}", ha="right", va="center", color=style.MUTED, size=8.5)
    for each, x in across.items():
        axes.text(x, BOTTOM - 8, each, ha="center", va="top", color=style.MUTED, size=8.5)
    axes.text((LEFT + RIGHT) / 2, BOTTOM - 24, "rank of the copies", ha="center", va="top")
    note = "dotted: answers with all of the change"
    axes.text(RIGHT + 10, BOTTOM - 42, note, ha="right", va="top", color=style.MUTED, size=8.5)
    axes.plot([LEFT, RIGHT], [_height(whole)] * 2, color=style.TRAINED_LINE, linewidth=1, linestyle=":")
    ring = {"markersize": 12, "markerfacecolor": "none", "color": style.INK, "markeredgewidth": 1.3}
    looks = {"energy": (style.MUTED, "s", LEFT + 140), "right answers": (style.TRAINED_LINE, "o", LEFT + 8)}
    for (name, (color, marker, left)), shares in zip(looks.items(), (energy, right), strict=True):
        at = [across[each] for each in shares], [_height(share) for share in shares.values()]
        axes.plot(*at, color=color, marker=marker, markersize=5, label=name)
        axes.plot(across[rank], _height(shares[rank]), "o", **ring)
        axes.plot(left, BOTTOM + SIDE + 14, color=color, marker=marker, markersize=6)
        axes.text(left + 9, BOTTOM + SIDE + 13, name, va="center", color=color)


def _height(share: float) -> float:
    return BOTTOM + share * (SIDE - 6)


def _frame(left: float) -> tuple[list[float], list[float]]:
    """Around a heat map."""
    right, top = left + SIDE, BOTTOM + SIDE
    return [left, right, right, left, left], [BOTTOM, BOTTOM, top, top, BOTTOM]
