"""Weights that are rounded to few levels: which level takes how many, what it costs, what a model then needs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from peft_edu.lab.figures import plots, style
from peft_edu.lab.figures.display import show
from peft_edu.lab.measure.cost import Memory
from peft_edu.lab.measure.rounding import Rounding, levels_of, rounded

BINS = np.linspace(-1, 1, 121)
STACK = {  # from the floor up
    "weights": style.FROZEN_BOX,
    "copies": {"color": style.MUTED},
    "gradients": {"color": style.TRAINED},
    "moments": {"color": style.TRAINED_LINE},
    "activations": {"color": style.VIRTUAL},
}


def show_levels(weight: Tensor, kinds: Sequence[str] = ("nf4", "int4")) -> None:
    """Show the weights of a matrix, cut into what each level takes."""
    found = {kind: rounded(weight, levels_of(kind)) for kind in kinds}
    inner = {kind: each.shares[1:-1] for kind, each in found.items()}  # the ends take what is rare
    told = ", ".join(f"of {kind} {each.min():.0%} to {each.max():.0%}" for kind, each in inner.items())
    title = f"Of the weights a level takes, apart from those at the ends: {told}"
    show(levels(found, title), f"{title}.")


@style.styled
def levels(found: Mapping[str, Rounding], title: str) -> Figure:
    """One panel for each kind of levels: the weights, cut into what each level takes."""
    figure, panels = style.panels(title, len(found))
    for axes, (name, each) in zip(panels, found.items(), strict=True):
        cut(axes, each)
        axes.set_title(name, fontsize=9.5)
        axes.set(ylabel="how many weights" if axes is panels[0] else "")
    return figure


def cut(axes: Axes, found: Rounding) -> None:
    """The histogram of w / s in slices, grey and orange by turns: the area of a slice is the share of its level."""
    heights, _ = np.histogram(found.relative.numpy(), BINS)
    at, known = np.repeat(BINS, 2)[1:-1], found.levels.numpy()
    borders = np.concatenate([[-1], (known[1:] + known[:-1]) / 2, [1]])
    for i, (low, high) in enumerate(zip(borders, borders[1:], strict=False)):
        inside = np.concatenate([[low], at[(at > low) & (at < high)], [high]])
        slots = np.clip(np.searchsorted(BINS, (inside[1:] + inside[:-1]) / 2) - 1, 0, len(heights) - 1)
        edges, tops = np.repeat(inside, 2)[1:-1], np.repeat(heights[slots], 2)
        axes.fill_between(edges, tops, color=(style.FROZEN, style.TRAINED)[i % 2], linewidth=0)
    axes.plot(known, np.zeros_like(known), "|", color=style.INK, markersize=11, clip_on=False)
    axes.set(xlim=(-1.02, 1.02), ylim=(0, None), yticks=[], xlabel="weight / scale; a mark is a level")


@style.styled
def tried(found: Rounding, curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Figure:
    """The levels that are chosen now, and for each kind of levels bits against error, block by block."""
    figure, (left, right) = style.panels(title, 2)
    cut(left, found)
    for look, (name, points) in zip(map(style.line_style, range(len(curves))), curves.items(), strict=True):
        bits, errors = zip(*points, strict=True)
        right.plot(bits, [100 * error for error in errors], **look, markersize=4, linewidth=1.2, label=name)
    ring = {"markersize": 13, "markerfacecolor": "none", "color": style.INK, "markeredgewidth": 1.4}
    right.plot(found.bits, 100 * found.error, "o", **ring)
    right.set(xlabel="bits a weight, scales included", ylabel="error, %", ylim=(0, None))
    right.legend(frameon=False, fontsize=8.5)
    return figure


def show_memory(needs: Mapping[str, Memory], room: float = 16) -> None:
    """Show what each way to train needs, beside the gigabytes that there are."""
    fits = [name for name, each in needs.items() if each.total <= room * 1e9]
    title = f"Within {room:g} GB: {', '.join(fits) or 'none'}"
    told = "; ".join(f"{name}: {each}" for name, each in needs.items())
    show(memory(needs, title, room), f"{title}. {told}.")


@style.styled
def memory(needs: Mapping[str, Memory], title: str, room: float) -> Figure:
    """A bar for each way to train, in parts, and a mark at the fullest moment; the line is what there is.

    The parts are not all there at once, and an operation needs room of its own: the mark is beside the bar's end.
    """
    figure, (axes,) = style.panels(title)
    stack = {name: look for name, look in STACK.items() if any(getattr(each, name) for each in needs.values())}
    for place, each in enumerate(needs.values()):
        floor = 0.0
        for name, look in stack.items():
            part, label = getattr(each, name) / 1e9, None if place else name
            axes.bar(place, part, bottom=floor, width=0.4, linewidth=0.6, **look, label=label)
            floor += part
        peak, label = each.total / 1e9, None if place else "at once"
        axes.hlines(peak, place - 0.25, place + 0.25, color=style.INK, linewidth=2.2, label=label)
        away = "bottom" if peak > room else "top"  # from the line
        plots.beside(axes, f"{peak:.1f} GB", (place + 0.25, peak), (3, 0), va=away, size=9.5)
    axes.axhline(room, color=style.INK, linestyle="--", linewidth=1.2, zorder=1)
    plots.beside(axes, f"{room:g} GB", (0, room), (4, 3), xycoords=("axes fraction", "data"), size=9)
    axes.set_xticks(range(len(needs)), needs)
    axes.set(ylabel="GB", ylim=(0, None), xlim=(-0.6, len(needs) - 0.2))
    axes.margins(y=0.1)
    axes.legend(frameon=False, fontsize=8.5)
    return figure
