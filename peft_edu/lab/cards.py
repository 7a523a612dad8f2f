"""The sliders of the lessons: LoRA's rank, and how many blocks are trained."""

import html
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import ipywidgets as widgets
from matplotlib.figure import Figure
from transformers import PreTrainedModel

from peft_edu import TopBlocks, count
from peft_edu.anatomy import blocks, linear_maps
from peft_edu.checkpoint import Count
from peft_edu.lab import model_map, plots
from peft_edu.lab.architectures import architecture
from peft_edu.lab.memory import readable, training_memory
from peft_edu.lab.widgets import Card, OnStep, Trainer, number, table

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

    `scores` are those of a stored sweep, by rank; `train(rank, on_step)` trains at the slider's rank and returns what
    to say.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        paper: str = "gpt2-medium",
        scores: Mapping[int, float] | None = None,
        score_name: str = "test score",
        train: Callable[[int, OnStep], str] | None = None,
        steps: int = 150,
        targets: tuple[str, ...] = ("query", "value"),
    ):
        self.scores, self.score_name = dict(sorted((scores or {}).items())), score_name
        self.models = {"this model": _shapes(model, targets), paper: _shapes(architecture(paper), targets)}
        self.rows, self.columns = self.models["this model"][0][0]
        rank = number("rank", 1, min(64, self.rows, self.columns), 8)
        trainer = None
        if train:
            slider = rank["slider"]
            trainer = Trainer(lambda on_step: train(slider.value, on_step), steps, lambda: f"rank {slider.value}")
        super().__init__("LoRA's rank", rank, trainer)

    def state(self) -> int:
        return self.controls["slider"].value

    def measure(self, rank: int) -> tuple[int, list[Size]]:
        return rank, [lora_size(name, shapes, base, rank) for name, (shapes, base) in self.models.items()]

    def words(self, numbers) -> str:
        rank, sizes = numbers
        stored = f"Stored sweep at rank {rank}: {self.scores[rank]:.3f}." if rank in self.scores else ""
        return table(COLUMNS, [size.row() for size in sizes]) + stored

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
    """A slider for how many blocks are trained, from the top: the model map, and what is trained.

    `scores` are stored ones, by the number of blocks, and "full" for everything; `train(n, on_step)` trains the top n
    blocks and returns what to say.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        scores: Mapping[int | str, float] | None = None,
        train: Callable[[int, OnStep], str] | None = None,
        steps: int = 150,
    ):
        self.model, self.scores = deepcopy(model), dict(scores or {})
        self.depth = len(blocks(model))
        top = number("top blocks", 0, self.depth, min(2, self.depth))
        rest = widgets.Checkbox(
            description="embeddings and the rest", indent=False, layout=widgets.Layout(width="196px")
        )
        trainer = None
        if train:
            slider = top["slider"]
            trainer = Trainer(lambda on_step: train(slider.value, on_step), steps, lambda: f"top {slider.value}")
        super().__init__("How many blocks are trained", {**top, "rest": rest}, trainer)

    def state(self) -> tuple[int, bool]:
        return self.controls["slider"].value, self.controls["rest"].value

    def measure(self, state: tuple[int, bool]) -> tuple[int, bool, Count, list[model_map.Part]]:
        n, rest = state
        method = TopBlocks(n)
        method.attach(self.model)
        try:
            if rest:
                for parameter in model_map.outside_blocks(self.model):
                    parameter.requires_grad_(True)
            return n, rest, count(self.model), model_map.parts(self.model)
        finally:
            method.detach()

    def words(self, numbers) -> str:
        n, rest, counted, _ = numbers
        key = "full" if rest and n == self.depth else None if rest else n
        stored = f" Stored score: {self.scores[key]:.3f}." if key in self.scores else ""
        row = Size("this model", counted.trainable, counted.total).row()
        return table(COLUMNS, [row]) + html.escape(_backward(n, rest, self.depth)) + stored

    def alt(self, numbers) -> str:
        return model_map.describe(numbers[-1])

    def draw(self, numbers) -> Figure:
        n, rest, counted, found = numbers
        what = f"The top {n} of {self.depth} blocks" if n else "The head alone"
        also = " and all that is no block" if rest else " and the head" if n else ""
        return model_map.figure(found, f"{what}{also}: {counted.share:.2%} of the parameters are trained")


def _shapes(model: PreTrainedModel, targets) -> tuple[list[tuple[int, int]], int]:
    return [tuple(each.weight.shape) for each in linear_maps(model, targets)], count(model).total


def _backward(n: int, rest: bool, depth: int) -> str:
    if rest:
        return "The gradient goes down to the embeddings, through every block."
    if n == 0:
        return "The gradient stops below the head: no block is gone through backwards."
    lowest = depth - n + 1
    return f"The gradient stops below block {lowest}." if n < depth else "The gradient stops below the first block."
