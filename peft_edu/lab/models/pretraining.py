"""How a bundled model came to know what it knows: the log of its pretraining."""

import pandas as pd

from peft_edu.lab.paths import bundled, data_path


def pretraining_log(name: str) -> pd.DataFrame:
    """A line for each probed state of each seed: tokens seen, losses, and the share of right answers of each probe."""
    logs = bundled("models", "probes.csv")
    if name not in logs:
        raise ValueError(f"no pretraining log of {name!r}; there are logs of {', '.join(logs)}")
    return pd.read_csv(data_path("models", name, "probes.csv"))


def ladder() -> pd.DataFrame:
    """The models of the ladder as their pretraining ended: a row each, named as in `backbone("ladder/w48-seed0")`."""
    log = pd.read_csv(data_path("models", "ladder", "rungs.csv"))
    ends = log.groupby(["width", "seed"], as_index=False).last()
    return ends.set_index("w" + ends.width.astype(str) + "-seed" + ends.seed.astype(str))
