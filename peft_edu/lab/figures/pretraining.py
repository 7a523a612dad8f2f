"""How a bundled model came to know what it knows, drawn: losses and probes."""

import pandas as pd
from matplotlib.figure import Figure

from peft_edu.lab.figures import style

NOT_PROBES = ("seed", "step", "tokens", "minutes", "loss", "held_out_loss")


@style.styled
def pretraining_figure(log: pd.DataFrame, title: str = "") -> Figure:
    """The loss on held-out text, and beside it the right answers of each probe. A faint line is another seed.

    Without a title the first run's losses are it.
    """
    if missing := [name for name in ("seed", "tokens", "held_out_loss") if name not in getattr(log, "columns", ())]:
        raise ValueError(f"the log has no column {missing[0]!r}: expected a table as pretraining_log(name) gives it")
    first, last = log[log.seed == log.seed.iloc[0]].held_out_loss.iloc[[0, -1]]
    title = title or f"{log.tokens.max() / 1e6:.0f} million tokens: the loss goes from {first:.2f} to {last:.2f} nats"
    figure, (left, right) = style.panels(title, 2, [1, 1.9])
    probes = [column for column in log if column not in NOT_PROBES]
    for again, (_, run) in enumerate(log.groupby("seed")):
        alpha, millions = (1.0, 0.3)[min(again, 1)], run.tokens / 1e6
        left.plot(millions, run.held_out_loss, color=style.INK, alpha=alpha)
        for i, probe in enumerate(probes):
            look = style.line_style(i) | {"linestyle": ("-", "--")[i // len(style.SERIES)], "alpha": alpha}
            look |= {"linewidth": 1.3, "markersize": 3, "markevery": 4, "label": probe if again == 0 else None}
            right.plot(millions, 100 * run[probe], **look)
    left.set(xlabel="million tokens", ylabel="held-out loss, nats", ylim=(0, None))
    right.set(xlabel="million tokens", ylabel="right answers, %", ylim=(0, 103))
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
