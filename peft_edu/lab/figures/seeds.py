"""A score is measured once a seed: what such numbers must be, and how they are said."""

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from statistics import fmean

Seeds = Sequence[float]  # the same measurement, once a seed


def checked_scores(name: str, scores: object) -> dict:
    """Scores by setting, as they came, or an error that names the first setting without a finite number a seed."""
    if not isinstance(scores, Mapping):
        raise TypeError(f"{name} is {scores!r}, but must be a dict: for each setting a list of numbers, one a seed")
    for setting, seeds in scores.items():
        listed = isinstance(seeds, Sequence) and len(seeds) > 0
        if not listed or not all(isinstance(value, Real) and isfinite(value) for value in seeds):
            raise ValueError(f"{name}[{setting!r}] is {seeds!r}, but must be a list of finite numbers, one a seed")
    return dict(scores)


def stored(seeds: Seeds) -> str:
    """Mean and range in HTML, if there are any."""
    if not seeds:
        return " The stored runs have other settings."
    runs = f"{min(seeds):.1f} to {max(seeds):.1f} over {len(seeds)} seeds" if len(seeds) > 1 else "1 seed"
    return f" Stored: <b>{fmean(seeds):.1f}</b> ({runs})."
