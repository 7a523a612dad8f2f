"""Rules that vote: how right each of them is, and what students learn from labels that are partly wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure

from peft_edu.lab.figures import plots, style
from peft_edu.lab.figures.seeds import Seeds

Curves = Mapping[str, Mapping[str, Mapping[int, Seeds]]]  # kind of noise -> method -> step -> a number a seed


@dataclass(frozen=True)
class Heard:
    """What rules say of texts without labels, and how that compares with some that have one. All shares in per cent;
    None of a rule that never votes."""

    labels: int
    texts: int
    conflicts: float
    right: Mapping[str, float | None]  # of each rule, measured on labelled texts
    estimate: Mapping[str, float]  # of each rule, by the label model
    combined: Mapping[str, float]  # right labels by majority, and by the label model
    alone: int  # labelled texts on which nobody but a wrong rule votes
    wrong: Sequence[tuple[str, str]]  # some texts on which the label model is wrong, and what they are


@style.styled
def rules(heard: Heard, title: str) -> Figure:
    """On the left how often each rule is right, and how often the label model thinks so; on the right who combines."""
    figure, (left, right) = style.panels(title, 2, [1.6, 1])
    names = list(heard.right)
    hollow = {"color": style.HEAD, "markerfacecolor": style.PAPER, "markersize": 9}
    for y, name in enumerate(names):
        left.plot(heard.estimate[name], y, "o", **hollow, zorder=2)
        if heard.right[name] is not None:
            left.plot(heard.right[name], y, "o", color=style.TRAINED, markersize=6, zorder=3)
    left.plot([], [], "o", color=style.TRAINED, markersize=6, label="right, measured")
    left.plot([], [], "o", **hollow, label="what the label model thinks")
    left.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handletextpad=0.2)
    left.set(xlim=(-4, 104), ylim=(len(names) - 0.4, -0.6), xlabel="right votes, %")
    left.set_yticks(range(len(names)), names)
    left.grid(axis="x", color=style.GRID)
    for i, share in enumerate(heard.combined.values()):
        right.bar(i, share, width=0.55, color=(style.MUTED, style.HEAD)[i % 2], alpha=0.85)
        plots.beside(right, f"{share:.1f}", (i, share), (0, 4), ha="center", size=9)
    right.set(ylim=(0, 112), ylabel="right labels, %", yticks=range(0, 101, 25))
    right.set_xticks(range(len(heard.combined)), list(heard.combined))
    return figure


@style.styled
def noise(fit: Curves, test: Curves, title: str) -> Figure:
    """A panel for each kind of noise: of each method what it says of what it was told (dashed), and of the test."""
    figure, panels = style.panels(title, len(fit))
    for axes, kind in zip(panels, fit, strict=True):
        for method, look in zip(fit[kind], style.looks(fit[kind]), strict=True):
            for what, found, line in (("repeats its labels", fit, "--"), ("right on test", test, "-")):
                means = {step: fmean(seeds) for step, seeds in found[kind][method].items()}
                axes.plot(means.keys(), means.values(), **look, markersize=5, linestyle=line, label=f"{method}, {what}")
        axes.set(xlabel="step", ylabel="%" if axes is panels[0] else "", ylim=(45, 103))
        axes.set_title(kind, fontsize=9.5)
    panels[-1].legend(frameon=False, fontsize=8.5, handlelength=3.5, loc="lower right")
    return figure
