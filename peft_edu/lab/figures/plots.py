"""Charts: each function takes numbers and the title that states the finding, and returns a Figure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import fmean

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from peft_edu.lab.figures import style
from peft_edu.lab.figures.seeds import Seeds


@style.styled
def learning_curves(
    curves: Mapping[str, Sequence[float]], title: str, ylabel="training loss", steps: int = 1, height=style.HEIGHT
) -> Figure:
    """One line a run, step by step; each is the mean over the last steps, the noisy values lie faint behind it.

    `steps`: how far the axis goes at least, for runs that are still going on.
    """
    figure, (axes,) = style.panels(title, height=height)
    ends = []
    for look, (name, values) in zip(style.looks(curves), curves.items(), strict=True):
        at, smooth = np.arange(1, len(values) + 1), smoothed(values)
        axes.plot(at, values, color=look["color"], alpha=0.25, linewidth=0.8)
        axes.plot(at, smooth, **look, markevery=max(1, len(values) // 8), markersize=4, clip_on=False)
        ends.append((smooth[-1], name, look["color"]))
    axes.set(xlabel="step", ylabel=ylabel, ylim=(0, None), xlim=(0, max([steps, *map(len, curves.values())])))
    _label_ends(axes, ends)
    return figure


@style.styled
def sweep(
    series: Mapping[str, Mapping[object, Seeds]],
    title: str,
    xlabel: str,
    ylabel: str,
    bands: Mapping[str, Seeds] = {},
    paper: Mapping[str, Mapping[object, float]] = {},
    mark: object = None,
    legend: str = "best",
) -> Figure:
    """A setting against a score: the mean as a line, each seed as a dot behind it. The series may differ in settings.

    `bands` are references that have no such setting (full fine-tuning), from their lowest to their highest seed.
    `paper` is the paper's own sweep, on its own scale in a panel beside ours. `mark` rings one setting, `legend`
    is where the names stand.
    """
    figure, (ours, *theirs) = style.panels(title, *([2, [1.9, 1]] if paper else [1]))
    places, ends = _places(series), []
    for look, (name, settings) in zip(style.looks(series), series.items(), strict=True):
        means = {setting: fmean(seeds) for setting, seeds in settings.items()}
        for setting, seeds in settings.items():
            dots(ours, places[setting], seeds, color=look["color"], zorder=2)
        _line(ours, places, means, **look, markersize=6, label=name, zorder=3)
        ends.append((means[max(means, key=places.get)], name, look["color"]))
        if mark in means:
            ring = {"markersize": 14, "markerfacecolor": "none", "color": style.INK, "markeredgewidth": 1.4}
            ours.plot(places[mark], means[mark], "o", **ring)
    _name_settings(ours, places)
    ours.margins(x=0.06)
    for i, (name, values) in enumerate(bands.items()):
        _band(ours, name, values, i)
    ours.set(xlabel=xlabel, ylabel=ylabel)
    if len(series) > 4:
        _label_ends(ours, ends)
    elif len(series) > 1:
        ours.legend(frameon=False, fontsize=8.5, loc=legend)
    for axes in theirs:
        places = _places(paper)
        for i, values in enumerate(paper.values()):
            look = style.line_style(i) | {"markerfacecolor": style.PAPER}
            _line(axes, places, values, **look, linestyle="--", linewidth=1)
        _name_settings(axes, places)
        axes.set(xlabel=xlabel)
        axes.set_title("\n".join(paper), fontsize=9)
        _same_span(ours, axes)
    _tell_dots(ours, [seeds for settings in series.values() for seeds in settings.values()])
    return figure


@style.styled
def bars(
    values: Mapping[str, Seeds],
    title: str,
    ylabel: str,
    paper: Mapping[str, float] = {},
    paper_name: str = "the paper",
    lowest: float = 0,
    left_out: Collection[str] = (),
) -> Figure:
    """One bar a setting, hatched if it is left out, its height the mean, each seed a dot. The paper's are hollow.

    A bar starts at 0: where the axis does not (`lowest`), the mean is a short line instead.
    """
    figure, (ours, *theirs) = style.panels(title, *([2, [1.6, 1]] if paper else [1]))
    for i, (name, seeds) in enumerate(values.items()):
        look = style.FROZEN_BOX if name in left_out else {"color": style.TRAINED, "alpha": 0.85}
        if lowest:
            line = style.FROZEN_LINE if name in left_out else style.TRAINED
            ours.hlines(fmean(seeds), i - 0.31, i + 0.31, color=line, linewidth=4)
        else:
            ours.bar(i, fmean(seeds), width=0.62, **look)
        dots(ours, i, seeds)
        beside(ours, _short(fmean(seeds)), (i, max(seeds)), (0, 5), ha="center", size=8.5)
    _name_settings(ours, values)
    ours.set(ylabel=ylabel, ylim=(lowest, None))
    ours.margins(y=0.12)
    for axes in theirs:
        for i, value in enumerate(paper.values()):
            axes.plot(i, value, "o", color=style.HEAD, markerfacecolor=style.PAPER, markersize=7)
            beside(axes, _short(value), (i, value), (0, 7), ha="center", size=8.5)
        _name_settings(axes, paper)
        axes.margins(x=0.15, y=0.25)
        axes.set_title(paper_name, fontsize=9.5)
        if lowest:
            _same_span(ours, axes)
    _tell_dots(ours, values.values())
    return figure


@style.styled
def trade_off(points: Mapping[str, tuple[float, Seeds]], title: str, ylabel: str) -> Figure:
    """Score against the share of the parameters that is trained, one point a method, on a logarithmic scale."""
    figure, (axes,) = style.panels(title)
    for look, (share, seeds) in zip(style.looks(points), points.values(), strict=True):
        dots(axes, 100 * share, seeds, color=look["color"])
        axes.plot(100 * share, fmean(seeds), **look, markersize=8, linestyle="")
    log_axis(axes, "trained share of the parameters, %", ylabel)
    axes.margins(x=0.12, y=0.15)
    _label_points(axes, {name: (100 * share, fmean(seeds)) for name, (share, seeds) in points.items()})
    return figure


@style.styled
def spectrum(matrices: Mapping[str, Seeds], title: str, share: float = 0.9) -> Figure:
    """Singular values, and the part of the energy (their squares) that the largest of them hold."""
    figure, (left, right) = style.panels(title, 2)
    for i, (name, values) in enumerate(matrices.items()):
        color, squares = style.SERIES[i], np.square(values)
        held = np.cumsum(squares) / squares.sum()
        ranks = np.arange(1, len(values) + 1)
        reached = int(np.searchsorted(held, share)) + 1
        at = reached, 100 * held[reached - 1]
        left.plot(ranks, values, color=color, label=name)
        right.plot(ranks, 100 * held, color=color)
        right.plot(*at, **style.line_style(i))
        beside(right, str(reached), at, (7, -11), color=color)
    right.axhline(100 * share, color=style.MUTED, linewidth=0.8, linestyle=":")
    left.set(xlabel="direction", ylabel="singular value", ylim=(0, None))
    right.set(xlabel="directions kept", ylabel="energy held, %", ylim=(0, 103))
    if len(matrices) > 1:
        left.legend(frameon=False)
    return figure


@style.styled
def heat_maps(
    matrices: Mapping[str, np.ndarray],
    title: str,
    xlabel: str,
    ylabel: str,
    scale: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Figure:
    """Matrices with values between 0 and 1 (nan: nothing), side by side on one scale; small ones with their numbers.

    `rows` and `columns` are names; without them both are counted from 1.
    """
    figure, panels = style.panels(title, len(matrices))
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        matrix = np.asarray(matrix)
        image = axes.imshow(matrix, cmap=style.HEAT, vmin=0, vmax=1, aspect="auto")
        axes.grid(False)
        axes.set(xlabel=xlabel, ylabel=ylabel if axes is panels[0] else "")
        axes.set_title(name, fontsize=9.5)
        for ticks, count, names in zip((axes.set_yticks, axes.set_xticks), matrix.shape, (rows, columns), strict=True):
            positions = range(0, count, 1 if names else -(-count // 8))
            ticks(positions, [names[p] if names else str(p + 1) for p in positions])
        if max(map(len, columns), default=0) > 8:  # every other one lower
            axes.set_xticks(range(len(columns)), ["\n" * (p % 2) + name for p, name in enumerate(columns)])
        if matrix.shape[1] <= 9:
            for y, x in np.argwhere(~np.isnan(matrix)):
                value = matrix[y, x]
                said = "1" if value >= 0.995 else f"{value:.2f}".removeprefix("0")
                axes.text(
                    x, y, said, ha="center", va="center", size=7.5, color=style.PAPER if value > 0.6 else style.INK
                )
    figure.colorbar(image, ax=panels, label=scale, fraction=0.04)
    return figure


@style.styled
def frontier(
    series: Mapping[str, Mapping[float, Seeds]], title: str, xlabel: str, ylabel: str, bands: Mapping[str, Seeds] = {}
) -> Figure:
    """A quantity on a logarithmic axis against a score: each family of settings as a line, each seed as a dot."""
    figure, (axes,) = style.panels(title)
    for look, (name, points) in zip(style.looks(series), series.items(), strict=True):
        means = [fmean(seeds) for seeds in points.values()]
        for x, seeds in points.items():
            dots(axes, x, seeds, color=look["color"])
        axes.plot(list(points), means, **look, markersize=6, label=name)
    for i, (name, seeds) in enumerate(bands.items()):
        _band(axes, name, seeds, i)
    log_axis(axes, xlabel, ylabel)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8.5)
    return figure


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """As a learning curve shows them: each the mean over the last twentieth of all steps."""
    return trailing_mean(losses, max(1, len(losses) // 20))


def trailing_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Each value averaged with those before it, at most `window` of them."""
    return pd.Series(values, dtype=float).rolling(window, min_periods=1).mean().to_numpy()


def _places(series: Mapping[str, Mapping[object, object]]) -> dict[object, int]:
    """Where each setting stands on the axis: numbers by size, else in the order in which they first come."""
    settings = list(dict.fromkeys(setting for each in series.values() for setting in each))
    with suppress(TypeError, ValueError):  # names stay as they come
        settings.sort(key=float)
    return {setting: place for place, setting in enumerate(settings)}


def _line(axes: Axes, places: Mapping[object, int], values: Mapping[object, float], **look) -> None:
    at = sorted(values, key=places.get)
    axes.plot([places[setting] for setting in at], [values[setting] for setting in at], **look)


def log_axis(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.7g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _band(axes: Axes, name: str, seeds: Seeds, i: int) -> None:
    color = (style.HEAD, style.MUTED)[i % 2]
    axes.axhspan(min(seeds), max(seeds), color=color, alpha=0.15, linewidth=0)
    axes.axhline(fmean(seeds), color=color, linewidth=1, linestyle=("-", "--")[i % 2])
    beside(axes, name, (0, fmean(seeds)), (4, 3), xycoords=("axes fraction", "data"), color=color, size=8.5)


def _name_settings(axes: Axes, names) -> None:
    axes.set_xticks(range(len(names)), [str(name) for name in names])


def _same_span(*panels: Axes) -> None:
    """The same length on both y axes: a point lost here is as long as a point lost there."""
    limits = [axes.get_ylim() for axes in panels]
    half = max(high - low for low, high in limits) / 2
    for axes, (low, high) in zip(panels, limits, strict=True):
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)


def _tell_dots(axes: Axes, every: Iterable[Seeds]) -> None:
    if any(len(seeds) > 1 for seeds in every):
        place = {"ha": "right", "va": "bottom", "xycoords": "axes fraction"}
        beside(axes, "a dot is one seed", (1, 1), (0, 3), size=8, color=style.MUTED, **place)


def dots(axes: Axes, x: float, seeds: Seeds, **look) -> None:
    axes.plot([x] * len(seeds), seeds, ".", **{"color": style.INK, "alpha": 0.4, "markersize": 5} | look)


def beside(axes: Axes, text: str, point: tuple[float, float], shift: tuple[float, float], **look) -> None:
    """`shift` in points, so that it is the same whatever the axes measure."""
    axes.annotate(text, point, shift, textcoords="offset points", **look)


def _short(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right end of their lines, moved apart where two would touch."""
    low, high = axes.get_ylim()
    place = -np.inf
    for y, name, color in sorted(ends):
        place = max(y, place + 0.075 * (high - low))
        look = {"annotation_clip": False, "color": color, "va": "center", "size": 9}
        beside(axes, name, (1, place), (6, 0), xycoords=("axes fraction", "data"), **look)


def _label_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Names beside their points, alternately above and below along the axis."""
    for i, (name, point) in enumerate(sorted(points.items(), key=lambda item: item[1])):
        shift, va = ((0, 9), "bottom") if i % 2 == 0 else ((0, -10), "top")
        beside(axes, name, point, shift, ha="center", va=va, size=9)
