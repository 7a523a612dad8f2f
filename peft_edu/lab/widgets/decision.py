"""Which method? An answer with its reasons, from what was measured: scores on a task, operations, bytes.

What was measured is training on labels. Who has another signal is told what it needs, and the lesson that trains on it.

Validation chooses, and the test scores are told afterwards: who chooses by the test set reports the luckiest.
"""

import html
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import fmean

import ipywidgets as widgets
from matplotlib.figure import Figure

from peft_edu.checks import number
from peft_edu.lab.figures import plots, rounding, style
from peft_edu.lab.figures.seeds import Seeds, checked_scores
from peft_edu.lab.measure.cost import Memory, readable
from peft_edu.lab.measure.stages import REAL, STAGES, Stage, real_sizes
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import WholeNumber, html_table, plural
from peft_edu.lab.widgets.guess import Guess
from peft_edu.lab.widgets.sliders import HELD

Scores = Mapping[str, Seeds]  # for each method
CARD = 16  # GB: the graphics card of lesson 10
CLOSE = 2.0  # points: a method this near to the best does as well, for a choice between three seeds
SLOWER = 1.03  # times the base model's operations: so little more is let pass


@dataclass(frozen=True)
class Cost:
    """What a method asks for where it is used: bytes kept for a task, and the operations of a forward pass, as a
    multiple of the base model's: counted, so that every machine gives the same answer."""

    kept: int
    operations: float

    def __post_init__(self):
        number("kept", self.kept, "of bytes, 0 or more", lambda kept: kept >= 0)
        number("operations", self.operations, "above 0", lambda times: times > 0)


@dataclass(frozen=True)
class Verdict:
    """A method, its scores, and why it is left out, if it is."""

    method: str
    validation: Seeds
    test: Seeds
    cost: Cost
    reason: str = ""


def judge(
    validation: Scores, test: Scores, costs: Mapping[str, Cost], tasks: int = 1, room: int | None = None, slower=True
) -> list[Verdict]:
    """All methods, first those that are possible, from the fewest bytes on; then the others, from the best score on.

    Possible is what comes within two points of the best on validation, keeps no more than `room` bytes for so many
    `tasks`, and, unless it may be `slower`, computes no more than the base model.
    """
    validation, test = checked_scores("validation", validation), checked_scores("test", test)
    if not validation:
        raise ValueError("validation has no method")
    for method in validation:
        if method not in test or not isinstance(costs.get(method), Cost):
            raise ValueError(f"{method!r} needs scores on test and a Cost(kept, operations), got {costs.get(method)!r}")
    best = max(map(fmean, validation.values()))
    verdicts = []
    for method, seeds in validation.items():
        cost, reason = costs[method], ""
        behind = round(best - fmean(seeds), 6)  # means of decimals: 90.3 - 88.3 is a little more than 2
        if behind > CLOSE:
            reason = f"{behind:.3g} points below the best"
        elif room is not None and cost.kept * tasks > room:
            reason = f"{readable(cost.kept * tasks)} for {plural(tasks, 'task')}, more than {readable(room)}"
        elif not slower and cost.operations > SLOWER:
            reason = f"{cost.operations:.2f} times the base model's operations"
        verdicts.append(Verdict(method, seeds, test[method], cost, reason))
    return sorted(verdicts, key=lambda one: (bool(one.reason), -fmean(one.validation) if one.reason else one.cost.kept))


@dataclass(frozen=True)
class Choice:
    """What was found for so many tasks."""

    tasks: int
    verdicts: list[Verdict]

    @property
    def answer(self) -> str:
        first = self.verdicts[0]
        if first.reason:
            return f"Nothing fits. The best, {first.method}, is left out: {first.reason}."
        kept = readable(first.cost.kept * self.tasks)
        return f"{first.method}: within {CLOSE:g} points of the best on validation, and keeps least, {kept}."

    def words(self) -> str:
        columns = ("", "validation", "worst seed", "test", f"kept for {self.tasks}", "operations", "why not")
        rows = []
        for one in self.verdicts:
            scores = fmean(one.validation), min(one.validation), fmean(one.test)
            cost = readable(one.cost.kept * self.tasks), f"× {one.cost.operations:.2f}"
            rows.append((one.method, *(f"{score:.1f}" for score in scores), *cost, one.reason))
        return f"<b>{html.escape(self.answer)}</b>{html_table(columns, rows)}"

    def alt(self) -> str:
        scores = ", ".join(f"{one.method} {fmean(one.validation):.1f} ({fmean(one.test):.1f})" for one in self.verdicts)
        return f"{self.answer} On validation, and in brackets on test: {scores}."

    def draw(self) -> Figure:
        left_out = {one.method for one in self.verdicts if one.reason}
        validation = {one.method: one.validation for one in self.verdicts}
        return plots.bars(validation, self.answer, "validation score, %", left_out=left_out)


@dataclass(frozen=True)
class Advice:
    """What to do with a signal that is no label."""

    answer: str
    stage: Stage

    @property
    def memory(self) -> dict[str, Memory]:
        counted = real_sizes()
        return {
            "everything trained": counted.everything(self.stage),
            f"with {counted.method}": counted.beside_one_base(self.stage),
        }

    @property
    def title(self) -> str:
        told = ", ".join(f"{way} {readable(memory.total)}" for way, memory in self.memory.items())
        return f"In memory for {REAL}, without activations: {told}"

    def rows(self) -> list[tuple[str, str]]:
        """Name and value, for a table."""
        stage, method = self.stage, real_sizes().method
        everything, beside = (readable(memory.total) for memory in self.memory.values())
        return [
            ("what you need", stage.data),
            ("the signal", stage.signal),
            ("how many here", stage.amount()),
            ("you judge it by", stage.judged),
            ("memory", f"{' and '.join(stage.models)} {everything}; with {method} {beside}: {stage.saved}"),
        ]

    def words(self) -> str:
        link = f'<a href="{self.stage.lesson}" target="_blank"><u>{self.stage.where}</u></a>'
        table = html_table(("", self.stage.name), self.rows())
        return f"<b>{html.escape(self.answer)}</b>{table}Read {link}. Paper: {html.escape(self.stage.source)}."

    def alt(self) -> str:
        told = "; ".join(f"{name}: {value}" for name, value in self.rows())
        return f"{self.answer} {told}. {self.title}. Read {self.stage.where}. Paper: {self.stage.source}."

    def draw(self) -> Figure:
        return rounding.memory(self.memory, self.title, CARD)


HAVE = {  # what a user may have to learn from; labels are what the methods were measured on
    "labels": None,
    "rules instead of labels": Advice("Let the rules label your texts, and train on their votes.", STAGES["rules"]),
    "preferences: pairs": Advice(
        "Train on the pairs themselves, by DPO: it needs no reward model, and writes nothing while it learns.",
        STAGES["pairs"],
    ),
    "a score that code computes": Advice(
        "Let the model write, score it, and make likelier what scored more, with a KL penalty.", STAGES["reward"]
    ),
    "only text": Advice(
        "Go on with pretraining. It teaches how such texts go on; for a task of yours, write rules: lesson 11.",
        STAGES["text"],
    ),
}


class DecisionCard(Card):
    """What there is to learn from; for labels a task, how many such tasks are served from one base, the room for them,
    and whether they may be slower."""

    ROOM = {"any": None, "1 MB": 10**6, "10 MB": 10**7, "100 MB": 10**8}

    def __init__(
        self,
        validation: Mapping[str, Scores],
        test: Mapping[str, Scores],
        costs: Mapping[str, Cost],
        after: Guess | None = None,
    ):
        if not isinstance(validation, Mapping) or not validation:
            raise ValueError(f"validation is {validation!r}, but must be a dict: for each task the scores by method")
        for task, scores in validation.items():
            judge(scores, test.get(task), costs)  # whatever is missing is told here, not when the task is chosen
        self.validation, self.test, self.costs = validation, test, costs
        wide, narrow = widgets.Layout(width="190px"), widgets.Layout(width="150px")
        controls: dict[str, widgets.Widget] = {
            "have": widgets.Dropdown(options=list(HAVE), description="you have", layout=widgets.Layout(width="270px")),
            "task": widgets.Dropdown(options=list(validation), description="task", layout=wide),
            "tasks": WholeNumber(value=1, min=1, max=10_000, description="how many", layout=narrow),
            "room": widgets.Dropdown(options=list(self.ROOM), description="room for all", layout=wide),
            "slower": widgets.Checkbox(True, description="may be slower", layout=narrow, indent=False),
        }
        super().__init__("Which method, and why", controls, after=after)

    def state(self) -> Hashable:
        return tuple(control.value for control in self.controls.values())

    def update(self, change=None) -> None:
        for name, control in self.controls.items():
            control.disabled = name != "have" and HAVE[self.controls["have"].value] is not None
        super().update(change)

    def measure(self, state: tuple) -> Choice | Advice:
        have, task, tasks, room, slower = state
        if advice := HAVE[have]:
            return advice
        scores = self.validation[task], self.test[task]
        return Choice(int(tasks), judge(*scores, self.costs, int(tasks), self.ROOM[room], slower))

    def words(self, numbers: Choice | Advice) -> str:
        return HELD if self.held else numbers.words()

    def alt(self, numbers: Choice | Advice) -> str:
        return HELD if self.held else numbers.alt()

    def draw(self, numbers: Choice | Advice) -> Figure:
        return style.panels("")[0] if self.held else numbers.draw()
