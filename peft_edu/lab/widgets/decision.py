"""Which method? An answer with its reasons, from what was measured: scores on a task, seconds, bytes."""

import html
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import ipywidgets as widgets
from matplotlib.figure import Figure

from peft_edu.lab.figures import style
from peft_edu.lab.measure.cost import readable
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import table

Seeds = Sequence[float]  # the same measurement, once a seed
CLOSE = 2.0  # points: a method this near to the best does as well, for a choice between three seeds
SLOWER = 1.03  # times the base model's operations: so little more is let pass


@dataclass(frozen=True)
class Cost:
    """What a method asks for where it is used: bytes kept for a task, and the operations of a forward pass, as a
    multiple of the base model's: counted, so that every machine gives the same answer."""

    kept: int
    operations: float


@dataclass(frozen=True)
class Verdict:
    """A method, its mean score, and why it is left out, if it is."""

    method: str
    score: float
    cost: Cost
    reason: str = ""


def judge(
    scores: Mapping[str, Seeds], costs: Mapping[str, Cost], tasks: int = 1, room: int | None = None, slower: bool = True
) -> list[Verdict]:
    """All methods, first those that are possible, from the fewest bytes on; then the others, from the best score on.

    Possible is what comes within two points of the best score, keeps no more than `room` bytes for so many `tasks`,
    and, unless it may be `slower`, computes no more than the base model.
    """
    means = {method: fmean(seeds) for method, seeds in scores.items()}
    best = max(means.values())
    verdicts = []
    for method, score in means.items():
        cost, reason = costs[method], ""
        if score < best - CLOSE:
            reason = f"{best - score:.1f} points below the best"
        elif room is not None and cost.kept * tasks > room:
            reason = f"{readable(cost.kept * tasks)} for {tasks} tasks, more than {readable(room)}"
        elif not slower and cost.operations > SLOWER:
            reason = f"{cost.operations:.2f} times the base model's operations"
        verdicts.append(Verdict(method, score, cost, reason))
    return sorted(verdicts, key=lambda one: (bool(one.reason), -one.score if one.reason else one.cost.kept))


class DecisionCard(Card):
    """A task, how many such tasks are served from one base, the room for them, and whether they may be slower."""

    ROOM = {"any": None, "1 MB": 10**6, "10 MB": 10**7, "100 MB": 10**8}

    def __init__(self, scores: Mapping[str, Mapping[str, Seeds]], costs: Mapping[str, Cost]):
        self.scores, self.costs = scores, costs
        wide, narrow = widgets.Layout(width="190px"), widgets.Layout(width="150px")
        controls: dict[str, widgets.Widget] = {
            "task": widgets.Dropdown(options=list(scores), description="task", layout=wide),
            "tasks": widgets.BoundedIntText(1, 1, 10_000, description="how many", layout=narrow),
            "room": widgets.Dropdown(options=list(self.ROOM), description="room for all", layout=wide),
            "slower": widgets.Checkbox(True, description="may be slower", layout=narrow, indent=False),
        }
        for control in controls.values():
            control.style.description_width = "initial"
        super().__init__("Which method, and why", controls)

    def state(self) -> Hashable:
        return tuple(control.value for control in self.controls.values())

    def measure(self, state: tuple) -> tuple[int, list[Verdict]]:
        task, tasks, room, slower = state
        return tasks, judge(self.scores[task], self.costs, tasks, self.ROOM[room], slower)

    def words(self, numbers: tuple[int, list[Verdict]]) -> str:
        tasks, verdicts = numbers
        columns = ("", "score", f"kept for {tasks}", "operations", "why not")
        rows = [
            (
                one.method,
                f"{one.score:.1f}",
                readable(one.cost.kept * tasks),
                f"× {one.cost.operations:.2f}",
                one.reason,
            )
            for one in verdicts
        ]
        return f"<b>{html.escape(self._answer(numbers))}</b>{table(columns, rows)}"

    def alt(self, numbers: tuple[int, list[Verdict]]) -> str:
        return f"{self._answer(numbers)} {', '.join(f'{one.method} {one.score:.1f}' for one in numbers[1])}."

    def draw(self, numbers: tuple[int, list[Verdict]]) -> Figure:
        return verdict_bars(numbers[1], self._answer(numbers))

    def _answer(self, numbers: tuple[int, list[Verdict]]) -> str:
        tasks, (first, *_) = numbers
        if first.reason:
            return f"Nothing fits. The best, {first.method}, is left out: {first.reason}."
        kept = readable(first.cost.kept * tasks)
        return f"{first.method}: within {CLOSE:g} points of the best, and keeps least, {kept}."


@style.styled
def verdict_bars(verdicts: Sequence[Verdict], title: str) -> Figure:
    """The scores: what is possible in the colour of what is trained, the rest hatched."""
    figure, (axes,) = style.panels(title)
    for i, one in enumerate(verdicts):
        look = (
            {"color": style.TRAINED} if not one.reason else {"facecolor": style.FROZEN, "edgecolor": style.FROZEN_LINE}
        )
        axes.bar(i, one.score, width=0.62, hatch="////" if one.reason else "", **look)
        axes.annotate(f"{one.score:.1f}", (i, one.score), (0, 4), textcoords="offset points", ha="center", size=8.5)
    axes.set_xticks(range(len(verdicts)), [one.method for one in verdicts])
    axes.set(ylabel="test score, %", ylim=(0, 109))
    return figure
