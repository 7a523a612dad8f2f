"""How far training moved the parameters, and what came of it: one dot a learning rate, the steps' own reach behind."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from peft_edu.lab.figures import style


@style.styled
def moves(
    series: Mapping[str, Mapping[float, tuple[float, float]]],
    title: str,
    levels: Mapping[str, float] = {},
    reach: float = 50,
) -> Figure:
    """For each method and learning rate how far a parameter moved (root mean square), and the per cent that is right.

    `levels` are sizes to compare with, as lines. `reach`: how many whole steps the schedule adds up to; all of them one
    way are the furthest that AdamW can go.
    """
    figure, (axes,) = style.panels(title, height=3.6)
    rates = sorted({rate for each in series.values() for rate in each})
    axes.plot(rates, [reach * rate for rate in rates], color=style.MUTED, linewidth=1, linestyle=":")
    beside = {"textcoords": "offset points", "size": 8.5}
    furthest = rates[-1], reach * rates[-1]
    axes.annotate("all steps one way", furthest, (-18, 0), color=style.MUTED, ha="right", va="top", **beside)
    for i, ((name, points), look) in enumerate(zip(series.items(), style.looks(series), strict=True)):
        axes.plot(list(points), [moved for moved, _ in points.values()], **look, markersize=7, label=name)
        for rate, (moved, right) in points.items():
            place = {"xytext": (0, 9) if i else (5, -13), "ha": "right" if i else "left"}  # above the line, or below
            axes.annotate(f"{right:.0f}%", (rate, moved), color=look["color"], **place, **beside)
    for name, size in levels.items():
        axes.axhline(size, color=style.HEAD, linewidth=1, linestyle="--")
        axes.annotate(name, (rates[-1], size), (0, 4), color=style.HEAD, ha="right", **beside)
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="how far a parameter moved")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.margins(x=0.1, y=0.12)
    axes.legend(frameon=False, fontsize=8.5)
    return figure
