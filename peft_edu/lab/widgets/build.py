"""Build a method: click on places in the picture of a block, see what that costs, train it, compare."""

import html
from collections.abc import Callable, Hashable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from numbers import Real

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel

from peft_edu import FullFineTuning, count
from peft_edu.anatomy import linear_maps
from peft_edu.lab.figures import built
from peft_edu.lab.figures.built import Attempt
from peft_edu.lab.figures.seeds import Seeds, checked_scores
from peft_edu.lab.measure.cost import backward_cost, readable, training_memory
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.assembled import BEHIND, MAPS, NORMS, PLACES, PREFIX, PROMPT, Assembled
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.results import scores
from peft_edu.lab.study.run import finetune, problem_of, recipe
from peft_edu.lab.tasks.task import task
from peft_edu.lab.widgets.block_view import BlockView, ClickableBlock
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import html_table, needs_function, plural
from peft_edu.lab.widgets.training import OnStep, TrainButton
from peft_edu.lab.widgets.views import BLOCK, FIGURE
from peft_edu.storage.checkpoint import Count

DOES = {
    **dict.fromkeys(MAPS, "LoRA beside it"),
    **dict.fromkeys(BEHIND, "an adapter in series"),
    PREFIX: "a prefix in every layer",
    PROMPT: "virtual tokens in front",
    NORMS: "trained themselves",
}
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Built:
    """What was put together, and what it costs."""

    method: Assembled
    numbers: Count
    share: float  # of the operations in full fine-tuning's backward pass

    @property
    def name(self) -> str:
        return f"{', '.join(self.method.places)} ({self.method.size})" if self.method.places else "the head alone"

    def __str__(self) -> str:
        places = ", ".join(f"{place} ({DOES[place]})" for place in self.method.places)
        sized = f", each of size {self.method.size}" if set(self.method.places) - {NORMS} else ""
        return f"{places}{sized}" if places else "nothing yet: the head alone is trained"


class BuildCard(Card):
    """The picture of a block to click on. `train(method, lr, on_step)` trains for `steps` steps and returns a score,
    which enters the figure as a ring, beside `runs`: for each name its trained parameters and its stored scores.

    `batch`: of a few texts with labels, in which operations are counted.
    """

    first_view = BLOCK

    def __init__(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, Tensor],
        train: Callable[[Assembled, float, OnStep], float],
        runs: Mapping[str, tuple[int, Seeds]],
        score_name: str = "score, %",
        steps: int = 40,
    ):
        needs_function("train", train, "train(method, lr, on_step)")
        checked_scores("runs", {name: seeds for name, (_, seeds) in runs.items()})
        self.model, self.batch, self.train, self.runs, self.score_name = model, batch, train, dict(runs), score_name
        self.full = backward_cost(FullFineTuning().attach(deepcopy(model)), batch).operations
        roles = {target.role for target in linear_maps(model)}
        self.does = {place: what for place, what in DOES.items() if place not in MAPS or place in roles}
        self.places: tuple[str, ...] = ()
        self.own: list[Attempt] = []
        narrow = widgets.Layout(width="250px")
        controls = {
            "size": widgets.IntSlider(4, 1, 32, description="size", layout=narrow),
            "lr": widgets.Dropdown(options=RATES, value=0.01, description="learning rate", layout={"width": "170px"}),
        }
        trainer = TrainButton(self._train, lambda: steps, lambda: self._built().name, self._trained)
        super().__init__("Build a method: click on the places where it is to act", controls, trainer)

    @classmethod
    def on(cls, study: str, rows: Iterable[str], steps: int = 100) -> "BuildCard":
        """The card on a study's problem, beside stored rows of it; all scores are those on validation."""
        made = {row: recipe(study, row) for row in rows}
        problem = problem_of(study, next(iter(made.values())))
        data = task(problem.task)

        def fresh() -> tuple:
            return backbone(problem.backbone, **data.head)

        def train(method: Assembled, lr: float, on_step: OnStep) -> float:
            return 100 * finetune(study, Recipe(method, steps=steps, lr=lr), on_step=on_step).score("validation")

        numbers = {row: count(replace(each.method).attach(fresh()[0])).trainable for row, each in made.items()}
        runs = {row: (numbers[row], seeds) for row, seeds in scores(study, list(made), "validation").items()}
        model, tokenizer = fresh()
        batch = next(iter(data.batches(tokenizer, "train", size=4)))
        return cls(model, batch, train, runs, f"{data.metric} on {study} (validation), %", steps)

    def block_view(self) -> BlockView:
        return ClickableBlock(self.attached, self.does, self.click)

    def click(self, place: str) -> None:
        """Put what belongs to a place there, or take it away again."""
        self.places = tuple(each for each in PLACES if (each in self.places) != (each == place))
        self.update()

    def update(self, change=None) -> None:
        super().update(change)
        self.block.mark(self.places)

    def state(self) -> Hashable:
        return self.places, self.controls["size"].value

    def attached(self, state: tuple) -> PreTrainedModel:
        return Assembled(*state).attach(deepcopy(self.model))

    def measure(self, state: tuple) -> Built:
        model = self.attached(state)
        return Built(Assembled(*state), count(model), backward_cost(model, self.batch).operations / self.full)

    def words(self, numbers: Built) -> str:
        some = training_memory(numbers.numbers.total, numbers.numbers.trainable).optimizer
        own = numbers.numbers.trainable - numbers.numbers.head
        columns = ("", "trained, without the head", "operations of backward", "gradients and AdamW's moments")
        row = ("this method", f"{own:,}", f"{numbers.share:.0%} of full fine-tuning's", readable(some))
        return f"{html.escape(str(numbers))}{html_table(columns, [row])}"

    def alt(self, numbers: Built) -> str:
        runs = ", ".join(f"{name} {min(seeds):.1f} to {max(seeds):.1f}" for name, (_, seeds) in self.runs.items())
        own = "".join(f" Yours, {i}: {each.name}, {each.score:.1f}." for i, each in enumerate(self.own, 1))
        return f"{numbers}. {numbers.numbers}. {self.score_name} of the stored runs: {runs}.{own}"

    def draw(self, numbers: Built) -> Figure:
        title = f"{plural(len(self.own), 'run')} of yours beside the stored ones; dotted: what is put together now"
        return built.figure(self.runs, self.own, numbers.numbers.trainable, title, self.score_name)

    def _built(self) -> Built:
        return self._numbers(self.state())

    def _train(self, on_step: OnStep) -> str:
        chosen, lr = self._built(), self.controls["lr"].value
        score = self.train(Assembled(*self.state()), lr, on_step)
        if not isinstance(score, Real):
            raise TypeError(f"train gave {score!r}, but must give a score: a number")
        self.own.append(Attempt(chosen.name, chosen.numbers.trainable, float(score)))
        return f"{self.score_name}: {score:.1f} at a learning rate of {lr:g}, ring {len(self.own)}"

    def _trained(self) -> None:
        self._drawn.clear()
        self.views.show(FIGURE)
        self.update()
