"""How far a policy went from its reference, and what it got for that: over beta, and for each way to get there."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from peft_edu.lab.figures import plots, style
from peft_edu.lab.figures.display import show
from peft_edu.lab.figures.seeds import Seeds

Line = Mapping[str, float]  # what was measured of one policy
SHOWN = {"win": "wins, %", "slots": "facts kept, %", "KL": "KL, nats a text"}


@style.styled
def leash(
    runs: Mapping[float, Sequence[Line]],
    beta: float,
    title: str,
    own: Mapping[float, Line] = {},
    shown: bool = True,
) -> Figure:
    """Win rate, what was kept of the task, and KL by beta: seeds as dots, the beta of now in a ring, own runs as
    hexagons. Not `shown`, the panels stay empty."""
    figure, panels = style.panels(title, len(SHOWN))
    places = {each: i for i, each in enumerate(sorted(runs))}
    for i, (axes, (column, label)) in enumerate(zip(panels, SHOWN.items(), strict=True)):
        found = {each: [line[column] for line in lines] for each, lines in runs.items()}
        if shown:
            _by_beta(axes, places, found, style.line_style(i), beta)
            mine = dict(zip(("color", "marker"), style.METHODS["yours"], strict=True))
            for each, line in own.items():
                axes.plot(places[each], line[column], **mine, linestyle="", markersize=8)
        axes.set_xticks(list(places.values()), [f"{each:g}" for each in places])
        axes.margins(x=0.12)
        axes.set_title(label, fontsize=9.5)
        axes.set(xlabel="beta")
    _per_cent(panels[0], 40, 100)
    low = min(line["slots"] for line in (*own.values(), *(line for lines in runs.values() for line in lines)))
    _per_cent(panels[1], min(low - 3, 80), 101)
    _nats(panels[2].yaxis)
    return figure


def _by_beta(axes: Axes, places: Mapping[float, int], found: Mapping[float, Seeds], look: dict, beta: float) -> None:
    for each, seeds in found.items():
        plots.dots(axes, places[each], seeds, color=look["color"])
    axes.plot(list(places.values()), [fmean(found[each]) for each in places], **look, markersize=5)
    ring = {"markersize": 13, "markerfacecolor": "none", "color": style.INK, "markeredgewidth": 1.4}
    axes.plot(places[beta], fmean(found[beta]), "o", **ring)


def show_chase(points: Mapping[str, Sequence[tuple[float, float]]], title: str) -> None:
    """Show for each way to train (KL, happy texts in per cent) of every seed."""
    means = {name: tuple(map(fmean, zip(*seeds, strict=True))) for name, seeds in points.items()}
    told = "; ".join(f"{name}: {happy:.0f}% happy at {apart:.1f} nats" for name, (apart, happy) in means.items())
    show(chase(points, title), f"{title}. {told}.")


@style.styled
def chase(points: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Figure:
    """How far each policy went (KL, on a logarithmic axis), and how many of its texts are happy: a dot is a seed."""
    figure, (axes,) = style.panels(title)
    for look, (name, seeds) in zip(style.looks(points), points.items(), strict=True):
        apart, happy = zip(*seeds, strict=True)
        axes.plot(apart, happy, **look, linestyle="", markersize=4.5, alpha=0.45)
        axes.plot(fmean(apart), fmean(happy), **look, linestyle="", markersize=9, label=name)
    axes.set(xscale="log", xlabel="KL to the supervised model, nats a text", ylabel="happy texts, %")
    _nats(axes.xaxis)
    _per_cent(axes, 40, 102)
    axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.beside(axes, "small: a seed", (1, 1), (0, 3), ha="right", va="bottom", size=8, color=style.MUTED,
                 xycoords="axes fraction")  # fmt: skip
    return figure


def show_climbs(found: Mapping[str, Mapping[str, Mapping[int, Seeds]]], title: str) -> None:
    """Show of each quantity, for each way to train, the seeds at every step."""
    ends = [
        f"{quantity}, {name}: {', '.join(f'{fmean(seeds):.2f} at step {step:g}' for step, seeds in steps.items())}"
        for quantity, ways in found.items()
        for name, steps in ways.items()
    ]
    show(climbs(found, title), f"{title}. {'. '.join(ends)}.")


@style.styled
def climbs(found: Mapping[str, Mapping[str, Mapping[int, Seeds]]], title: str) -> Figure:
    """A panel for each quantity: lines by step, for each way to train; thin lines are the seeds."""
    figure, panels = style.panels(title, len(found))
    for axes, (quantity, ways) in zip(panels, found.items(), strict=True):
        for look, (name, steps) in zip(style.looks(ways), ways.items(), strict=True):
            at = sorted(steps)
            for seed in zip(*(steps[step] for step in at), strict=True):
                axes.plot(at, seed, color=look["color"], linewidth=0.7, alpha=0.45)
            axes.plot(at, [fmean(steps[step]) for step in at], **look, markersize=5, label=name)
        axes.set(xlabel="step")
        axes.set_title(quantity, fontsize=9.5)
        axes.set_xticks(at)
        if "KL" in quantity:
            _nats(axes.yaxis)
    panels[0].legend(frameon=False, fontsize=8.5)
    return figure


def _nats(axis) -> None:
    """0.3, 1, 3, 10 and so on, as people write them."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def _per_cent(axes: Axes, low: float, high: float) -> None:
    axes.set_ylim(low, high)
