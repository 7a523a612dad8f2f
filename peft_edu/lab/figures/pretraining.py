"""How a bundled model came to know what it knows, drawn: losses and probes."""

import pandas as pd
from matplotlib.figure import Figure

from peft_edu.lab.figures import style

NOT_PROBES = ("seed", "step", "tokens", "minutes", "loss", "held_out_loss")


@style.styled
def pretraining_figure(
    log: pd.DataFrame, title: str = "The loss falls early and smoothly; abilities come late"
) -> Figure:
    """The loss on held-out text, and beside it the right answers of each probe. A faint line is another seed."""
    figure, (left, right) = style.panels(title, 2, [1, 1.9])
    probes = [column for column in log if column not in NOT_PROBES]
    for again, (_, run) in enumerate(log.groupby("seed")):
        alpha, millions = (1.0, 0.3)[min(again, 1)], run.tokens / 1e6
        left.plot(millions, run.held_out_loss, color=style.INK, alpha=alpha)
        for i, probe in enumerate(probes):
            look = style.line_style(i) | {"alpha": alpha}
            dashes = ("-", "--")[i // len(style.SERIES)]
            right.plot(
                millions,
                100 * run[probe],
                **look,
                markersize=3,
                markevery=4,
                linestyle=dashes,
                linewidth=1.3,
                label=probe if again == 0 else None,
            )
    left.set(xlabel="million tokens", ylabel="held-out loss, nats", ylim=(0, None))
    right.set(xlabel="million tokens", ylabel="right answers, %", ylim=(0, 103))
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
