"""The sliders of the lessons: LoRA's rank, and how many blocks are trained."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure
from transformers import PreTrainedModel

from peft_edu import FullFineTuning, TopBlocks, count
from peft_edu.anatomy import blocks, linear_maps
from peft_edu.checkpoint import Count
from peft_edu.lab import model_map, plots
from peft_edu.lab.architectures import architecture
from peft_edu.lab.memory import readable, training_memory
from peft_edu.lab.widgets import Card, OnStep, Trainer, number, table

Seeds = Sequence[float]  # the same measurement, once a seed
COLUMNS = ("", "trained parameters", "share", "gradients and AdamW's moments", "for all parameters")


@dataclass(frozen=True)
class Size:
    """A model with so many parameters beside or among it that are trained."""

    name: str
    trainable: int
    total: int

    def row(self) -> tuple[str, ...]:
        some, everything = (training_memory(self.total, n).optimizer for n in (self.trainable, self.total))
        share = f"{self.trainable / self.total:.2%}"
        return self.name, f"{self.trainable:,}", share, readable(some), readable(everything)


def lora_size(name: str, shapes: Sequence[tuple[int, int]], base: int, rank: int) -> Size:
    """r (in + out) for each adapted matrix, beside a base model of `base` parameters."""
    added = rank * sum(rows + columns for rows, columns in shapes)
    return Size(name, added, base + added)


class RankCard(Card):
    """A slider for LoRA's rank: W, B and A to scale; what is trained in this model and in a paper's.

    `scores` are those of a stored sweep: for each rank one number a seed. `train(rank, on_step)` trains at the slider's
    rank for `steps(rank)` steps, and what it returns is shown.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        scores: Mapping[int, Seeds] | None = None,
        score_name: str = "test score",
        train: Callable[[int, OnStep], object] | None = None,
        steps: Callable[[int], int] = lambda rank: 150,
        paper: str = "gpt2-medium",
        targets: tuple[str, ...] = ("query", "value"),
    ):
        self.scores, self.score_name = dict(sorted((scores or {}).items())), score_name
        self.models = {"this model": _shapes(model, targets), paper: _shapes(architecture(paper), targets)}
        self.rows, self.columns = self.models["this model"][0][0]
        controls = number("rank", 1, min(64, self.rows, self.columns), 8)
        trainer = _trainer(train, steps, lambda: controls["slider"].value, lambda rank: f"rank {rank}")
        super().__init__("LoRA's rank", controls, trainer)

    def state(self) -> int:
        return self.controls["slider"].value

    def measure(self, rank: int) -> tuple[int, list[Size]]:
        return rank, [lora_size(name, shapes, base, rank) for name, (shapes, base) in self.models.items()]

    def words(self, numbers) -> str:
        rank, sizes = numbers
        return table(COLUMNS, [size.row() for size in sizes]) + _stored(self.scores.get(rank))

    def alt(self, numbers) -> str:
        rank, (here, there) = numbers
        return (
            f"Rank {rank}: B is {self.rows} by {rank} and A {rank} by {self.columns} beside a frozen W of {self.rows} "
            f"by {self.columns}. {here.trainable:,} trained parameters here, {there.trainable:,} in {there.name}."
        )

    def draw(self, numbers) -> Figure:
        rank, _ = numbers
        thin, whole = rank * (self.rows + self.columns), self.rows * self.columns
        title = f"Rank {rank}: {thin:,} trained beside {whole:,} frozen, {thin / whole:.0%} of W"
        return plots.low_rank(rank, self.rows, self.columns, title, self.scores, self.score_name)


class FreezingCard(Card):
    """A slider from the head alone over the top blocks to everything: the model map, and what is trained.

    A position is called "head only", "top 1" ... or "full". `scores` are stored ones: for each position one number a
    seed. `train(position, on_step)` trains for `steps(position)` steps, and what it returns is shown.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        scores: Mapping[str, Seeds] | None = None,
        train: Callable[[str, OnStep], object] | None = None,
        steps: Callable[[str], int] = lambda position: 150,
    ):
        self.model, self.scores = deepcopy(model), dict(scores or {})
        self.depth = len(blocks(model))
        controls = number("blocks", 0, self.depth + 1, min(2, self.depth))
        trainer = _trainer(train, steps, lambda: self.position(controls["slider"].value), str)
        super().__init__(
            "What is trained, from the top: 0 is the head alone, the last is everything", controls, trainer
        )

    def position(self, n: int) -> str:
        return "head only" if n == 0 else f"top {n}" if n <= self.depth else "full"

    def state(self) -> int:
        return self.controls["slider"].value

    def measure(self, n: int) -> tuple[int, Count, list[model_map.Part]]:
        method = TopBlocks(n) if n <= self.depth else FullFineTuning()
        method.attach(self.model)
        try:
            return n, count(self.model), model_map.parts(self.model)
        finally:
            method.detach()

    def words(self, numbers) -> str:
        n, counted, _ = numbers
        row = Size("this model", counted.trainable, counted.total).row()
        return table(COLUMNS, [row]) + self._backward(n) + _stored(self.scores.get(self.position(n)))

    def alt(self, numbers) -> str:
        return model_map.describe(numbers[-1])

    def draw(self, numbers) -> Figure:
        n, counted, found = numbers
        what = f"The top {n} of {self.depth} blocks and the head" if n else "The head alone"
        if n > self.depth:
            what = "All blocks, the embeddings and the rest"
        return model_map.figure(found, f"{what}: {counted.share:.2%} of the parameters are trained")

    def _backward(self, n: int) -> str:
        if n == 0:
            return "The gradient stops below the head: no block is gone through backwards."
        if n > self.depth:
            return "The gradient goes through every block, down to the embeddings."
        return f"The gradient stops below block {self.depth - n + 1}."


def _trainer(train, steps, value: Callable[[], object], name: Callable[[object], str]) -> Trainer | None:
    """What trains at the value that the slider has when the button is pressed."""
    if train is None:
        return None
    return Trainer(lambda on_step: train(value(), on_step), lambda: steps(value()), lambda: name(value()))


def _stored(seeds: Seeds | None) -> str:
    if not seeds:
        return ""
    runs = f"{min(seeds):.1f} to {max(seeds):.1f} over {len(seeds)} seeds" if len(seeds) > 1 else "1 seed"
    return f" Stored: <b>{fmean(seeds):.1f}</b> ({runs})."


def _shapes(model: PreTrainedModel, targets) -> tuple[list[tuple[int, int]], int]:
    return [tuple(each.weight.shape) for each in linear_maps(model, targets)], count(model).total
