"""How a bundled model came to know what it knows: the log of its pretraining, and its picture."""

import pandas as pd
from matplotlib.figure import Figure

from peft_edu.lab import style
from peft_edu.lab.paths import bundled, data_path

NOT_PROBES = ("seed", "step", "tokens", "minutes", "loss", "held_out_loss")


def pretraining_log(name: str) -> pd.DataFrame:
    """A line for each probed state of each seed: tokens seen, losses, and the share of right answers of each probe."""
    path = data_path("models", name, "probes.csv")
    if not path.is_file():
        raise ValueError(
            f"no pretraining log of {name!r}; there are logs of {', '.join(bundled('models', 'probes.csv'))}"
        )
    return pd.read_csv(path)


def ladder() -> pd.DataFrame:
    """The models of the ladder as their pretraining ended: a row each, named as in `backbone("ladder/w48-seed0")`."""
    log = pd.read_csv(data_path("models", "ladder", "rungs.csv"))
    ends = log.groupby(["width", "seed"], as_index=False).last()
    return ends.set_index("w" + ends.width.astype(str) + "-seed" + ends.seed.astype(str))


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
