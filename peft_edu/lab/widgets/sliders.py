"""The sliders of the lessons: rank, bottleneck, lengths, and how many blocks are trained."""

from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from numbers import Real
from statistics import fmean

from matplotlib.figure import Figure
from transformers import PreTrainedModel

from peft_edu import Adapter, FullFineTuning, LoRA, PrefixTuning, PromptTuning, PTuningV2, TopBlocks, count
from peft_edu.anatomy import blocks, linear_maps
from peft_edu.checks import whole_number
from peft_edu.lab.figures import drawings, model_map
from peft_edu.lab.figures.seeds import Seeds, checked_scores, stored
from peft_edu.lab.measure.cost import readable, training_memory
from peft_edu.lab.models.architectures import architecture
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import html_table, needs_function, plural, slider_and_box
from peft_edu.lab.widgets.guess import Guess
from peft_edu.lab.widgets.training import OnStep, TrainButton
from peft_edu.lab.widgets.views import FIGURE
from peft_edu.method import Method
from peft_edu.storage.checkpoint import Count

HELD = "The scores appear once you have guessed, or pressed skip."
COLUMNS = ("", "trained parameters", "share", "gradients and AdamW's moments", "for all parameters")


@dataclass(frozen=True)
class Size:
    """A model with so many parameters beside or among it that are trained."""

    name: str
    trainable: int
    total: int

    def row(self) -> tuple[str, ...]:
        some, everything = (training_memory(self.total, n).optimizer for n in (self.trainable, self.total))
        share = f"{100 * self.trainable / self.total:.3g}%"
        return self.name, f"{self.trainable:,}", share, readable(some), readable(everything)


class SizeCard(Card):
    """A slider for the number that sets a method's size: what is trained in this model and in a paper's, and a picture.

    `scores` are those of a stored sweep: for each setting one number a seed. `train(setting, on_step)` trains at the
    slider's setting for `steps(setting)` steps. A number that it returns is a score, and enters the picture as a ring;
    anything else is shown. `after` is a guess that comes before the scores are seen. The head is left out of what is
    counted, as in the papers. A subclass gives `method(setting)`, `picture(setting)`, and in a sentence what it
    `says(setting)`.
    """

    title: str
    name: str  # of the setting
    start: int
    largest = 64

    def __init__(
        self,
        model: PreTrainedModel,
        scores: Mapping[int, Seeds] | None = None,
        score_name: str = "test score",
        train: Callable[[int, OnStep], object] | None = None,
        steps: Callable[[int], int] = lambda setting: 150,
        paper: str = "gpt2-medium",
        after: Guess | None = None,
    ):
        scores = checked_scores("scores", scores or {})
        for setting in scores:
            whole_number("a setting of scores", setting)
        self.model, self.scores, self.score_name = model, dict(sorted(scores.items())), score_name
        models = {"this model": model, paper: architecture(paper)}
        self.first, self.second = ({name: self.counted(each, n) for name, each in models.items()} for n in (1, 2))
        controls = slider_and_box(self.name, 1, self.largest, self.start)
        self.own: dict[int, float] = {}  # what the learner's own runs reached
        trained = train if train is None else self._scored(train)
        named = f"{self.name} {{}}".format
        trainer = _trainer(trained, steps, lambda: controls["slider"].value, named, self._trained)
        super().__init__(self.title, controls, trainer, after)

    def _trained(self) -> None:
        """The figure is shown again, with what training changed in it; the loss stays while scores are held back."""
        if not self.held:
            self.views.show(FIGURE)
        self.redraw()

    def _scored(self, train: Callable[[int, OnStep], object]) -> Callable[[int, OnStep], object]:
        """A training that gives a number gives a score: it is said, and enters the picture as a ring."""
        needs_function("train", train, "train(value, on_step)")

        def scored(setting: int, on_step: OnStep) -> object:
            result = train(setting, on_step)
            if isinstance(result, Real):
                self.own[setting] = float(result)
                return f"{self.score_name}: {result:.1f}"
            return result

        return scored

    def counted(self, model: PreTrainedModel, setting: int) -> Count:
        """What attaching to a copy gives. Each unit of the setting adds the same, so two settings tell all others."""
        return count(self.method(setting).attach(deepcopy(model)))

    def state(self) -> Hashable:
        return self.controls["slider"].value

    def attached(self, setting: int) -> PreTrainedModel:
        return self.method(setting).attach(deepcopy(self.model))

    def measure(self, setting: int) -> tuple:
        """The setting, the sizes, and what else a card shows."""
        sizes = []
        for name, first in self.first.items():
            more = (setting - 1) * (self.second[name].trainable - first.trainable)
            sizes.append(Size(name, first.trainable - first.head + more, first.total + more))
        return setting, sizes

    def words(self, numbers) -> str:
        setting, sizes, *_ = numbers
        return html_table(COLUMNS, [size.row() for size in sizes]) + (HELD if self.held else self._scores(setting))

    def _scores(self, setting: int) -> str:
        """What is stored of this setting, and what the learner's own run of it reached."""
        seeds = self.scores.get(setting, ())
        own = f" Your run: <b>{self.own[setting]:.1f}</b>." if setting in self.own else ""
        return own if own and not seeds else stored(seeds) + own if self.scores else own

    def draw(self, numbers) -> Figure:
        setting, _, *more = numbers
        figure = self.picture(setting, *more)
        if self.scores and not self.held:
            drawings.mark_scores(figure.axes[0], self.scores, setting, self.score_name, self.name, self.own)
        return figure

    def alt(self, numbers) -> str:
        setting, (here, there), *more = numbers
        sizes = f"{here.trainable:,} trained parameters here, {there.trainable:,} in {there.name}."
        return f"{self.says(setting, *more)} {sizes}"


class RankCard(SizeCard):
    """LoRA's rank: W, B and A to scale."""

    title, name, start = "LoRA's rank", "rank", 8

    def __init__(self, model: PreTrainedModel, *args, targets: tuple[str, ...] = ("query", "value"), **kwargs):
        self.targets = targets
        self.rows, self.columns = linear_maps(model, targets)[0].weight.shape
        self.largest = min(64, self.rows, self.columns)
        super().__init__(model, *args, **kwargs)

    def method(self, rank: int) -> Method:
        return LoRA(rank, targets=self.targets)

    def says(self, rank: int) -> str:
        rows, columns = self.rows, self.columns
        return f"Rank {rank}: B is {rows} by {rank} and A {rank} by {columns} beside a frozen W of {rows} by {columns}."

    def picture(self, rank: int) -> Figure:
        thin, whole = rank * (self.rows + self.columns), self.rows * self.columns
        title = f"Rank {rank}: {thin:,} trained beside {whole:,} frozen, {thin / whole:.0%} of W"
        return drawings.low_rank(rank, self.rows, self.columns, title)


class BottleneckCard(SizeCard):
    """An adapter's bottleneck: W_down and W_up to scale, behind a frozen map. The LayerNorms are trained as well."""

    title, name, start = "An adapter's bottleneck", "bottleneck", 16

    def method(self, size: int) -> Method:
        return Adapter(size)

    def says(self, size: int) -> str:
        width = self.model.config.hidden_size
        return f"Bottleneck {size}: W_down is {size} by {width}, W_up {width} by {size}, behind each frozen sub-layer."

    def picture(self, size: int) -> Figure:
        width = self.model.config.hidden_size
        each = 2 * size * width + size + width
        title = f"Bottleneck {size}: {each:,} trained behind each sub-layer, {size + width} of them biases"
        return drawings.bottleneck(size, width, title)


class PrefixCard(SizeCard):
    """A prefix's length: what every layer attends to, and how much of its attention falls on the prefix.

    `masses(length)` gives, for each name of a line, a share between 0 and 1 a layer; it is asked again after training.
    """

    title, name, start, text = "A prefix's length", "length", 10, 30

    def __init__(self, model: PreTrainedModel, masses: Callable[[int], Mapping[str, Seeds]], *args, **kwargs):
        needs_function("masses", masses, "masses(length) gives the shares by name")
        self.masses = masses
        super().__init__(model, *args, **kwargs)

    def method(self, length: int) -> Method:
        return PrefixTuning(length, hidden=0)

    def state(self) -> Hashable:
        length, depth = self.controls["slider"].value, len(blocks(self.model))
        masses = checked_scores("masses", self.masses(length))
        if not masses or any(len(shares) != depth for shares in masses.values()):
            raise ValueError(f"masses({length}) is {masses}, but must be one share for each of {depth} layers, by name")
        return length, tuple((name, tuple(shares)) for name, shares in masses.items())

    def attached(self, state: tuple) -> PreTrainedModel:
        return super().attached(state[0])

    def measure(self, state: tuple) -> tuple:
        length, masses = state
        return *super().measure(length), dict(masses)

    def says(self, length: int, masses: Mapping[str, Seeds]) -> str:
        shares = [f"{name}: {', '.join(f'{share:.0%}' for share in values)}" for name, values in masses.items()]
        tokens, them = plural(length, "virtual token"), "it" if length == 1 else "them"
        return f"{tokens} in front of the text in every layer. Attention on {them}, {'; '.join(shares)}."

    def picture(self, length: int, masses: Mapping[str, Seeds]) -> Figure:
        name, shares = list(masses.items())[-1]
        title = f"Length {length}, {name}: {fmean(shares):.0%} of the attention falls on the prefix"
        depth = len(blocks(self.model))
        return drawings.virtual_tokens(length, self.text, depth, title, masses)


class PromptCard(SizeCard):
    """A prompt's length: virtual tokens at the input alone."""

    title, name, start, text, largest = "A prompt's length", "length", 20, 30, 100

    def method(self, length: int) -> Method:
        return PromptTuning(length, init="random")  # which of them it starts from makes no difference to their number

    def says(self, length: int) -> str:
        return f"{plural(length, 'virtual token')} in front of the text, at the input alone."

    def picture(self, length: int) -> Figure:
        depth, width = len(blocks(self.model)), self.model.config.hidden_size
        title = f"Length {length}: {length} × {width} numbers at the input; the blocks above it are frozen"
        return drawings.virtual_tokens(length, self.text, depth, title, deep=False)


class DepthCard(SizeCard):
    """P-tuning v2 in the top layers: in how many of them there are prompts of `length` positions."""

    title, name, start, text, length = "Layers with prompts, from the top", "layers", 1, 30, 4

    def __init__(self, model: PreTrainedModel, *args, **kwargs):
        self.largest = len(blocks(model))
        super().__init__(model, *args, **kwargs)

    def top(self, model: PreTrainedModel, n: int) -> tuple[int, ...]:
        depth = len(blocks(model))
        return tuple(range(depth - n, depth))

    def counted(self, model: PreTrainedModel, n: int) -> Count:
        return count(PTuningV2(self.length, layers=self.top(model, n)).attach(deepcopy(model)))

    def attached(self, n: int) -> PreTrainedModel:
        return PTuningV2(self.length, layers=self.top(self.model, n)).attach(deepcopy(self.model))

    def says(self, n: int) -> str:
        return f"Prompts of {self.length} positions in the top {n} of {self.largest} layers."

    def picture(self, n: int) -> Figure:
        title = f"Prompts in the top {n} of {self.largest} layers; the others attend to the text alone"
        layers = self.top(self.model, n)
        return drawings.virtual_tokens(self.length, self.text, self.largest, title, layers=layers)


class FreezingCard(Card):
    """A slider from the head alone over the top blocks to everything: the model map, and what is trained.

    A position is called "head only", "top 1" ... or "full". `scores` are stored ones: for each position one number a
    seed. `train(position, on_step)` trains for `steps(position)` steps, and what it returns is shown. `after` is a
    guess that comes before the scores are seen.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        scores: Mapping[str, Seeds] | None = None,
        train: Callable[[str, OnStep], object] | None = None,
        steps: Callable[[str], int] = lambda position: 150,
        after: Guess | None = None,
    ):
        self.model, self.scores = deepcopy(model), checked_scores("scores", scores or {})
        self.depth = len(blocks(model))
        controls = slider_and_box("blocks", 0, self.depth + 1, min(2, self.depth))
        trainer = _trainer(train, steps, lambda: self.position(controls["slider"].value), str, self.update)
        title = "What is trained, from the top: 0 is the head alone, the last is everything"
        super().__init__(title, controls, trainer, after)

    def position(self, n: int) -> str:
        return "head only" if n == 0 else f"top {n}" if n <= self.depth else "full"

    def state(self) -> int:
        return self.controls["slider"].value

    def attached(self, n: int) -> PreTrainedModel:
        method = TopBlocks(n) if n <= self.depth else FullFineTuning()
        return method.attach(deepcopy(self.model))  # a copy of its own: whatever interrupts this, no method is left

    def measure(self, n: int) -> tuple[int, Count, list[model_map.Part]]:
        model = self.attached(n)
        return n, count(model), model_map.parts(model)

    def words(self, numbers) -> str:
        n, counted, _ = numbers
        row = Size("this model", counted.trainable, counted.total).row()
        scores = HELD if self.held else stored(self.scores.get(self.position(n), ())) if self.scores else ""
        return html_table(COLUMNS, [row]) + self._backward(n) + scores

    def alt(self, numbers) -> str:
        return model_map.describe(numbers[-1])

    def draw(self, numbers) -> Figure:
        n, counted, found = numbers
        some = f"The top {n} of {self.depth} blocks and the head" if n else "The head alone"
        what = some if n <= self.depth else "All blocks, the embeddings and the rest"
        return model_map.figure(found, f"{what}: {counted.share:.2%} of the parameters are trained")

    def _backward(self, n: int) -> str:
        if n > self.depth:
            return "The gradient goes through every block, down to the embeddings."
        where = f"block {self.depth - n + 1}" if n else "the head: no block is gone through backwards"
        return f"The gradient stops below {where}."


def _trainer(train, steps, value: Callable[[], object], name: Callable[[object], str], after) -> TrainButton | None:
    """What trains at the value that the slider has when the button is pressed."""
    if train is None:
        return None
    needs_function("train", train, "train(value, on_step)")
    return TrainButton(lambda on_step: train(value(), on_step), lambda: steps(value()), lambda: name(value()), after)
