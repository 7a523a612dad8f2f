"""Every method on every task, as what it loses against one of them: most cells are pale, and a loss stands out."""

from collections.abc import Mapping
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from peft_edu.lab.figures import style
from peft_edu.lab.figures.seeds import Seeds

FAR = 20  # points: what loses more is as dark as this


@style.styled
def differences(found: Mapping[str, Mapping[str, Seeds]], title: str, beside: str = "full", near: float = 2) -> Figure:
    """A row a task, a column a method; a cell is the mean minus that of `beside`, in points. Within `near` it is grey
    and small, further below it is the darker, the more is lost. Where a method has no score the cell is empty."""
    tasks, methods = list(found), list(dict.fromkeys(name for scores in found.values() for name in scores))
    mean = {task: {name: fmean(seeds) for name, seeds in scores.items()} for task, scores in found.items()}
    lost = np.array([[mean[t][beside] - mean[t].get(m, np.nan) for m in methods] for t in tasks])
    figure, (axes,) = style.panels(title, height=3.6)
    axes.imshow(lost.clip(0, FAR), cmap=style.HEAT, vmin=0, vmax=FAR, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(methods)), methods)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for (row, column), points in np.ndenumerate(lost):
        if np.isnan(points):
            continue
        words = f"{mean[tasks[row]][beside]:.0f}" if methods[column] == beside else f"{-points:+.0f}".replace("-0", "0")
        bold = points > near or methods[column] == beside
        color = style.PAPER if points > FAR / 2 else style.INK if bold else style.MUTED
        axes.text(column, row, words.replace("+0", "0"), ha="center", va="center", size=9, color=color,
                  weight="bold" if bold else "normal")  # fmt: skip
    return figure
