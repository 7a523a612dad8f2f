"""The change of a weight matrix beside its best copy of low rank, and what copies of each rank keep."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from peft_edu.lab.figures import style

SIGNED = LinearSegmentedColormap.from_list("signed", [style.HEAD, style.PAPER, style.TRAINED])
SIDE, LOW, LEFT = 205, 62, 42  # pixels: of a heat map, and of the panels' lower left corner


@style.styled
def figure(
    change: np.ndarray,
    copy: np.ndarray,
    rank: int,
    kept: Mapping[int, float],
    scores: Mapping[int, float],
    whole: float,
    title: str,
    name: str,
) -> Figure:
    """`kept`: the share of the energy by rank. `scores`: the share of right answers of the ranks tried so far.

    `whole`: the share of right answers with the whole change.
    """
    figure, _ = style.panels(title, room=False)
    limit = float(np.quantile(abs(change), 0.995)) or 1.0
    for i, (matrix, what) in enumerate(((change, name), (copy, f"its copy of rank {rank}"))):
        axes = _axes(figure, LEFT + i * (SIDE + 24), SIDE)
        axes.imshow(matrix, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(what, fontsize=9.5, pad=5)
    _axes_text(figure, LEFT, 44, "orange: the weight rose; blue: it fell; white: it stayed")
    _kept(_axes(figure, 2 * LEFT + 2 * SIDE + 56, 205), rank, kept, scores, whole)
    return figure


def _kept(axes: Axes, rank: int, kept: Mapping[int, float], scores: Mapping[int, float], whole: float) -> None:
    """In per cent, over the ranks at equal distances; what is tried now is ringed."""
    place = {r: i for i, r in enumerate(kept)}
    tried = sorted(scores)
    series = {"right answers": (tried, scores, 1), "energy": (list(kept), kept, 0)}
    for name, (ranks, shares, i) in series.items():
        look = {"color": (style.MUTED, style.TRAINED_LINE)[i], "marker": style.MARKERS[1 - i]}
        axes.plot([place[r] for r in ranks], [100 * shares[r] for r in ranks], **look, markersize=5, label=name)
        ring = {"markersize": 12, "markerfacecolor": "none", "color": style.INK, "markeredgewidth": 1.3}
        axes.plot(place[rank], 100 * shares[rank], "o", **ring, clip_on=False)
    axes.axhline(100 * whole, color=style.TRAINED_LINE, linewidth=1, linestyle=":", label="with the whole change")
    axes.set_xticks(range(len(place)), [str(r) for r in place], fontsize=8.5)
    axes.set(ylim=(0, 103), xlabel="rank of the copies")
    axes.set_title("kept, %", fontsize=9.5, pad=5)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")


def _axes(figure: Figure, left: float, width: float) -> Axes:
    """Axes at these pixels."""
    across, up = (style.DPI * side for side in figure.get_size_inches())
    return figure.add_axes([left / across, LOW / up, width / across, SIDE / up])


def _axes_text(figure: Figure, left: float, low: float, text: str) -> None:
    across, up = (style.DPI * side for side in figure.get_size_inches())
    figure.text(left / across, low / up, text, va="center", color=style.MUTED, fontsize=8.5)
