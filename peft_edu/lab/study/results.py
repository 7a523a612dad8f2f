"""What `make study` stored: every run of a sweep, and for each row the setting that won on validation."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from peft_edu.lab.paths import data_path

SETTING = ["lr", "steps"]


def stored(study: str) -> pd.DataFrame:
    """All runs of a study, a line for each run and split. `value` is the metric, between 0 and 1."""
    path = data_path("results", f"{study}.csv")
    if not path.is_file():
        names = ", ".join(sorted(other.stem for other in path.parent.glob("*.csv"))) or "none"
        raise ValueError(f"no study {study!r}; stored are {names}")
    return pd.read_csv(path, comment="#")


def winners(runs: pd.DataFrame) -> pd.DataFrame:
    """The steps and rate of each row that did best on validation, in the mean of all seeds: those that have all."""
    tried = runs[runs.split == "validation"].groupby(["row", *SETTING], sort=False).value.agg(["size", "mean"])
    finalists = tried[tried["size"] == runs.seed.nunique()].reset_index()
    return finalists.loc[finalists.groupby("row", sort=False)["mean"].idxmax(), ["row", *SETTING]]


def results(study: str) -> pd.DataFrame:
    """The runs of each row at its winning steps and rate, all seeds and splits."""
    runs = stored(study)
    return runs.merge(winners(runs), on=["row", *SETTING])


def scores(study: str, rows: Iterable[str], split: str = "test", column: str = "value") -> dict[str, list[float]]:
    """Per cent on a split, one number a seed, for each of these rows: of the metric, or of a column beside it."""
    table = results(study)
    table = table[table.split == split]
    found = {row: (100 * table.loc[table.row == row, column]).round(2).tolist() for row in rows}
    if missing := [row for row, seeds in found.items() if not seeds]:
        raise ValueError(f"{study} has no row {missing[0]!r}; it has {', '.join(table.row.unique())}")
    return found


def averages(found: Mapping[Any, Sequence[float]]) -> dict[Any, float]:
    """The mean of each row's seeds to one decimal; a name that was broken for a figure comes back on one line."""
    return {
        name.replace("\n", " ") if isinstance(name, str) else name: round(fmean(seeds), 1)
        for name, seeds in found.items()
    }
