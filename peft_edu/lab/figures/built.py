"""What a learner put together, beside what was stored: trained parameters against a score."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from matplotlib.figure import Figure

from peft_edu.lab.figures import plots, style
from peft_edu.lab.figures.seeds import Seeds


class Attempt(NamedTuple):
    """A run of the learner's."""

    name: str
    parameters: int
    score: float


@style.styled
def figure(
    runs: Mapping[str, tuple[int, Seeds]], own: Sequence[Attempt], here: int, title: str, score_name: str
) -> Figure:
    """The stored runs in their methods' colours, the learner's as numbered rings; a dotted line at what is put together
    now."""
    drawn, (axes,) = style.panels(title)
    for look, (name, (parameters, seeds)) in zip(style.looks(runs), runs.items(), strict=True):
        plots.dots(axes, parameters, seeds, color=look["color"])
        axes.plot(parameters, fmean(seeds), **look, markersize=8, linestyle="", label=name)
    ring = {"markersize": 13, "markerfacecolor": "none", "color": style.INK, "linestyle": ""}
    for i, attempt in enumerate(own, 1):
        axes.plot(attempt.parameters, attempt.score, "o", **ring, label="yours" if i == 1 else None)
        plots.beside(axes, str(i), attempt[1:], (9, 5), size=8.5)
    axes.axvline(here, color=style.INK, linestyle=":", linewidth=1)
    plots.log_axis(axes, "trained parameters, the head's included", score_name)
    axes.margins(x=0.1, y=0.15)
    axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn
