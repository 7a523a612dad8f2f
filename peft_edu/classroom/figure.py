"""Figures to read: four bars of a stored study for each student, with their seeds, and one of two questions.

`floor`: somebody trains once and needs a score. Which reach it in every seed? Means choose otherwise.
`apart`: which of the others can be told from one of them, seed by seed, with 95%? Means seem to tell more of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from statistics import fmean
from types import SimpleNamespace

from peft_edu.classroom.task import Part, Task, expect, item, plain_number
from peft_edu.lab.exercises.check import Misconception, NotWritten
from peft_edu.lab.figures import plots
from peft_edu.lab.figures.display import show
from peft_edu.lab.study.results import gain, scores

Scores = dict[str, list[float]]
TRIES = 1000  # draws of four bars, until they hold a question


@dataclass(frozen=True)
class Bars:
    """Rows of a study, and what each is called in the figure. `lowest`: where the axis begins."""

    study: str
    called: Mapping[str, str]
    title: str
    score: str = "test accuracy, %"
    lowest: float = 0
    split: str = "test"

    @cached_property
    def _all(self) -> Scores:
        return scores(self.study, {name: row for row, name in self.called.items()}, self.split)

    def seeds(self, shown: list[str]) -> Scores:
        return {name: self._all[name] for name in shown}

    def drawn(self, draw: Random, ask: Callable[[Scores, Random], dict | None]) -> dict:
        """Four bars that hold a question, in an order that tells nothing."""
        for _ in range(TRIES):
            shown = draw.sample(list(self.called.values()), 4)
            if asked := ask(self.seeds(shown), draw):
                return {"shown": shown} | asked
        raise ValueError(f"no four rows of {self.study} hold a question")

    def show(self, n: SimpleNamespace) -> None:
        seeds = self.seeds(n.shown)
        drawn = plots.bars(
            {name.replace(", ", "\n"): each for name, each in seeds.items()}, self.title, self.score, lowest=self.lowest
        )
        show(drawn, "; ".join(f"{name}: {', '.join(map(str, each))}" for name, each in seeds.items()))


def floor(name: str, bars: Bars) -> Task:
    """The student gives {"kept": names, "lowest": the lowest score among them}; n.floor is in per cent."""

    def ask(seeds: Scores, draw: Random) -> dict | None:
        worst = sorted(map(min, seeds.values()))
        gaps = [(low, high) for low, high in pairwise(worst) if high - low > 2]
        if not gaps:
            return None
        low, high = draw.choice(gaps)
        wanted = round(low + (0.3 + 0.4 * draw.random()) * (high - low))
        told = low < wanted < high and _reach(seeds, wanted, min) != _reach(seeds, wanted, fmean)
        return {"floor": wanted} if told else None

    def kept(answer: object, n: SimpleNamespace) -> None:
        seeds = bars.seeds(n.shown)
        right = _reach(seeds, n.floor, min)
        wrong = {
            "these reach it in the mean: look at the lowest dot of each": _reach(seeds, n.floor, fmean),
            "these reach it with their best seed: look at the lowest dot of each": _reach(seeds, n.floor, max),
            "all of them are kept: does the lowest dot of each lie above?": set(n.shown),
            "these are the others: those that reach it are asked for": set(n.shown) - right,
        }
        _expect_names(answer, "kept", right, n.shown, wrong, "look at the lowest dot of each")

    def decides(answer: object, n: SimpleNamespace) -> None:
        """Of those that the student keeps, right or not."""
        seeds, given = bars.seeds(n.shown), item(answer, "kept")
        own = [seeds[each] for each in n.shown if each in given]
        if not own:
            raise NotWritten("this is the lowest of those in `kept`, which has none yet")
        right = min(map(min, own))
        wrong = {
            "this is the lowest mean of those that you keep: a mean hides its seeds": min(map(fmean, own)),
            "this is the number that is asked for: read the lowest dot of those that you keep": n.floor,
        }
        otherwise = "read the lowest dot of all that you keep, to half a point"
        expect(item(answer, "lowest"), right, wrong, otherwise, 0.5 / right, "read that dot once more")

    hints = (
        "One dot is one seed. Who trains once gets one of the dots.",
        "The line of a mean does not tell how low a seed can fall.",
        "Draw a line at your number. Which of them have no dot below it?",
    )
    return _task(name, bars, ask, {kept: 2, decides: 1}, hints, 6)


def apart(name: str, bars: Bars) -> Task:
    """The student gives {"apart": names, "low": lower end, "high": upper end of n.other's interval}.

    The difference to n.one, seed by seed; told apart is what has an interval without zero.
    """

    def ask(seeds: Scores, draw: Random) -> dict | None:
        one, other = draw.sample(list(seeds), 2)
        right = _apart(seeds, one)
        near = [min(map(abs, gain(seeds[each], seeds[one]))) for each in seeds if each != one]
        told = 0 < len(right) < 3 and min(near) > 0.2 and _means_apart(seeds, one) != right
        return {"one": one, "other": other, "seeds": seeds} if told else None

    def names(answer: object, n: SimpleNamespace) -> None:
        right = _apart(n.seeds, n.one)
        wrong = {
            "these differ in the mean by a point or more: does the interval of the difference hold zero?": _means_apart(
                n.seeds, n.one
            ),
            "these are the others: told apart is what has an interval without zero": set(n.shown) - right - {n.one},
            "these have seeds that do not overlap: seed by seed less is needed": _no_overlap(n.seeds, n.one),
        }
        _expect_names(answer, "apart", right, n.shown, wrong, "take the interval of the difference, seed by seed")

    def ends(answer: object, n: SimpleNamespace) -> None:
        right = gain(n.seeds[n.other], n.seeds[n.one])
        for which, end, far in zip(("low", "high"), right, reversed(right), strict=True):
            wrong = {
                "the difference is the other way round: `other` minus `one`": -far,
                "this is the mean of the difference: its interval has two ends around it": sum(right) / 2,
                "this is the other end of the interval": far,
            }
            given = plain_number(item(answer, which), which)
            if abs(given - end) > 0.06:
                expect(given, end, wrong, "mean -+ 2.776 s / sqrt(5) of the five differences, s with n - 1", 1e-3)

    hints = (
        "Take away the score of `one` from that of `other` for each seed: five numbers.",
        "The mean of five numbers lies with 95% within 2.776 s / sqrt(5) of theirs; statistics.stdev gives s.",
        "Where zero lies in that interval, five seeds do not tell which of the two is better.",
    )
    return _task(name, bars, ask, {names: 2, ends: 2}, hints, 10)


def _task(name: str, bars: Bars, ask, parts: dict[Part, int], hints: tuple[str, str, str], minutes: int) -> Task:
    return Task(
        name,
        "A figure",
        lambda draw: bars.drawn(draw, ask),
        parts,
        hints,
        stars=1,
        minutes=minutes,
        errors={"expected a number, got str": "give numbers, without the sign of per cent"},
        show=bars.show,
    )


def _expect_names(
    answer: object, key: str, right: set[str], shown: list[str], wrong: dict[str, set[str]], how: str
) -> None:
    given = item(answer, key)
    if isinstance(given, str) or not set(given) <= set(shown):
        raise Misconception(f"`{key}` is a list of names as they stand in `shown`; got {given!r:.80}")
    if set(given) != right:
        told = [why for why, names in wrong.items() if names == set(given)]
        more = "one that belongs there is missing" if right > set(given) else "one or more of them do not belong there"
        raise Misconception(told[0] if told else f"{more}: {how}")


def _reach(seeds: Scores, wanted: float, of: Callable) -> set[str]:
    return {name for name, each in seeds.items() if of(each) >= wanted}


def _apart(seeds: Scores, one: str) -> set[str]:
    """Those whose difference to `one` has an interval without zero."""
    ends = {name: gain(each, seeds[one]) for name, each in seeds.items() if name != one}
    return {name for name, (low, high) in ends.items() if low * high > 0}


def _means_apart(seeds: Scores, one: str) -> set[str]:
    return {name for name, each in seeds.items() if abs(fmean(each) - fmean(seeds[one])) >= 1 and name != one}


def _no_overlap(seeds: Scores, one: str) -> set[str]:
    mine = seeds[one]
    return {name for name, each in seeds.items() if max(each) < min(mine) or min(each) > max(mine)}
