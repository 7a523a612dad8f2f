"""What `make study` stored: every run of a sweep, and for each row the steps and rate that won on validation."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from peft_edu.lab.paths import data_path

TRAINING = ["lr", "steps"]
# Student's t at 97.5% for 1 to 9 degrees of freedom: 95% of the distribution lie between -t and t.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def stored(study: str) -> pd.DataFrame:
    """All runs of a study, a line for each run and split. `value` is the metric, between 0 and 1."""
    path = data_path("results", f"{study}.csv")
    if not path.is_file():
        names = ", ".join(sorted(other.stem for other in path.parent.glob("*.csv"))) or "none"
        raise ValueError(f"no study {study!r}; stored are {names}")
    return pd.read_csv(path, comment="#")


def lines_of(run: str, table: pd.DataFrame, shares: Sequence[str]) -> pd.DataFrame:
    """Of a study without rows the lines of a run, one a seed; these columns in per cent."""
    if run not in set(table.run):
        raise ValueError(f"no run {run!r}; there are {', '.join(dict.fromkeys(table.run))}")
    lines = table[table.run == run]
    return lines.assign(**{name: (100 * lines[name]).round(2) for name in shares}).set_index("seed")


def winners(runs: pd.DataFrame) -> pd.DataFrame:
    """The steps and rate of each row that did best on validation, in the mean of all seeds: those that have all."""
    tried = runs[runs.split == "validation"].groupby(["row", *TRAINING], sort=False).value.agg(["size", "mean"])
    finalists = tried[tried["size"] == tried.groupby("row")["size"].transform("max")].reset_index()
    return finalists.loc[finalists.groupby("row", sort=False)["mean"].idxmax(), ["row", *TRAINING]]


@cache
def best(study: str) -> dict[str, dict]:
    """The winners as numbers: {row: {"lr": ..., "steps": ...}}."""
    return winners(stored(study)).set_index("row").to_dict("index")


def results(study: str) -> pd.DataFrame:
    """The runs of each row at its winning steps and rate, all seeds and splits."""
    runs = stored(study)
    return runs.merge(winners(runs), on=["row", *TRAINING])


def scores(study: str, rows: Iterable[str], split: str = "test", column: str = "value") -> dict[str, list[float]]:
    """Per cent on a split, one number a seed, for each of these rows: of the metric, or of a column beside it.

    A dict of rows gives each row the name that it shall have in a figure: {"trained whole": "full"}.
    """
    table = results(study)
    if not isinstance(rows, Iterable):
        raise TypeError(f"rows is {rows!r}, but must be a list of names: {study} has {', '.join(table.row.unique())}")
    rows = [rows] if isinstance(rows, str) else rows
    named = rows if isinstance(rows, Mapping) else {row: row for row in rows}
    measured = [name for name in ("value", "exact", "name") if name in table]
    choices = [("split", split, table.split), ("column", column, measured)]
    for what, asked, known in choices + [("row", row, table.row) for row in named.values()]:
        if asked not in set(known):
            raise ValueError(f"{study} has no {what} {asked!r}; it has {', '.join(dict.fromkeys(known))}")
    table = table[table.split == split].set_index("row")[column]
    return {name: (100 * table.loc[[row]]).round(2).tolist() for name, row in named.items()}


def scores_by(study: str, pattern: str, settings: Iterable, split: str = "test") -> dict[Any, list[float]]:
    """The scores of rows that differ in one setting, by that setting.

    >>> scores_by("aspects", "LoRA r={}", (1, 16))[1][:2]
    [93.77, 78.31]
    """
    settings = list(settings)
    return dict(zip(settings, scores(study, map(pattern.format, settings), split).values(), strict=True))


def averages(found: Mapping[Any, Sequence[float]]) -> dict[Any, float]:
    """The mean of each row's seeds to one decimal; a name that was broken for a figure comes back on one line."""
    if not isinstance(found, Mapping):
        raise TypeError(f"found is {found!r:.80}, but must be a dict: for each row a list of numbers, one a seed")
    return {
        name.replace("\n", " ") if isinstance(name, str) else name: round(fmean(seeds), 1)
        for name, seeds in found.items()
    }


def interval(seeds: Sequence[float]) -> tuple[float, float]:
    """Where the mean over all seeds lies with 95%, if seeds are drawn from a normal distribution.

    mean -+ t s / sqrt(n), with s the standard deviation of the n seeds and t of Student's distribution (1908).

    >>> [round(end, 1) for end in interval([93.0, 94.0, 95.0])]
    [91.5, 96.5]
    """
    if not 2 <= len(seeds) <= len(T) + 1:
        raise ValueError(f"seeds are {len(seeds)} numbers: an interval needs 2 to {len(T) + 1}")
    half = T[len(seeds) - 2] * stdev(seeds) / len(seeds) ** 0.5
    return fmean(seeds) - half, fmean(seeds) + half


def gain(seeds: Sequence[float], over: Sequence[float]) -> tuple[float, float]:
    """Where the mean of the difference lies with 95%, seed by seed: what one setting is worth more than another.

    >>> [round(end, 1) for end in gain([93.0, 94.0, 95.0], over=[92.0, 92.5, 94.5])]
    [-0.2, 2.2]
    """
    return interval([one - other for one, other in zip(seeds, over, strict=True)])


def spread(found: Mapping[Any, Sequence[float]]) -> pd.DataFrame:
    """What the seeds of each row carry: their mean, where it lies with 95% (of a per cent that ends at 100), the worst.

    >>> spread({"rank 1": [93.0, 94.0, 95.0]}).loc["rank 1", "95%"]
    '91.5 to 96.5'
    """
    ends = {name: [min(end, 100) for end in interval(seeds)] for name, seeds in found.items()}
    columns = {
        "mean": averages(found),
        "95%": {name: "{:.1f} to {:.1f}".format(*both) for name, both in ends.items()},
        "worst seed": {name: round(min(seeds), 1) for name, seeds in found.items()},
    }
    return pd.DataFrame(columns)
