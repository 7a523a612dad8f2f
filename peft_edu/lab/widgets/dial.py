"""Two dials on a trained update: how much of it counts, and after which step; a sentence is answered meanwhile."""

import html
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.anatomy import head, head_parameters
from peft_edu.checks import whole_number
from peft_edu.lab.figures import dial
from peft_edu.lab.figures.dial import Answer
from peft_edu.lab.models.backbones import complete
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import needs_function
from peft_edu.method import Method, attached

MUCH, FACTORS = "how much of the update", [round(0.1 * i, 1) for i in range(21)]


class Recorder:
    """Keeps what is trained, every few steps: hand it to `fit` as `on_step`, before the first of them.

    >>> model, tokenizer = backbone("tiny-gpt2")
    >>> recorder = Recorder(LoRA(rank=4).attach(model))
    >>> history = fit(model, task("tables").batches(tokenizer, "train", size=4), 7, lr=1e-3, on_step=recorder)
    >>> list(recorder.kept)
    [0, 5, 7]

    `kept` holds for each step a copy of every trained tensor by name, of the last step too. Step 0 is as it was made.
    A training that goes on is counted on.
    """

    def __init__(self, model: PreTrainedModel, every: int = 5):
        whole_number("every", every)
        if attached(model) is None:
            raise ValueError(f"nothing is attached to this {type(model).__name__}: attach a method, then record it")
        self.method, self.every, self.step = attached(model), every, 0
        self.kept: dict[int, dict[str, Tensor]] = {0: self._copy()}

    def __call__(self, step: int, loss: float) -> None:
        if self.step % self.every:
            del self.kept[self.step]  # it was only the last one so far
        self.step += 1
        self.kept[self.step] = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.method.learned().items()}


class Dial:
    """A model whose update can be turned: a copy of its own, so that the trained model is never touched.

    Of LoRA's kind, where parameters named B are trained, B is multiplied, and so the update (alpha / r) B A. Of any
    other method what it trains goes from its value at the start towards, or beyond, its value after the step:

        start + factor (after the step - start)

    The task head always stands as it was after the step.
    """

    def __init__(self, model: PreTrainedModel, recorder: Recorder):
        self.recorder = recorder
        with torch.random.fork_rng(devices=[]):  # what attaching draws is overwritten, and nobody's next numbers move
            self.model = _anew(model)
        self.parameters = attached(self.model).learned()
        start = recorder.kept[0]
        if missing := start.keys() ^ self.parameters.keys():
            raise ValueError(f"the recorder is of another model: {min(missing)} is trained in one of the two alone")
        heads = head_parameters(self.model)
        own = [name for name, parameter in self.parameters.items() if parameter not in heads]
        products = [name for name in own if name.rpartition(".")[2] == "B"]
        self.low_rank = bool(products)
        self.zero = {name: torch.zeros_like(start[name]) if products else start[name] for name in products or own}
        if not self.zero:
            raise ValueError(f"{recorder.method} trains the task head alone: there is no update to turn")

    @torch.no_grad()
    def turn(self, factor: float, step: int) -> PreTrainedModel:
        """The model with so much of what was learned up to this step."""
        for name, learned in self.recorder.kept[step].items():
            turned = torch.lerp(self.zero[name], learned, factor) if name in self.zero else learned
            self.parameters[name].copy_(turned)
        return self.model

    def says(self, step: int) -> str:
        """What the dial moves, and what it leaves alone."""
        how = "multiplies B, and so the update (alpha / r) B A" if self.low_rank else "multiplies what training changed"
        heads = f"; the task head stays as it was after step {step}" if head(self.model) else ""
        return f"The dial {how}{heads}. 0 is without the update, 1 is as trained, 2 is twice as much."


def _anew(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model, its method attached to it anew: a hook that is a closure would go on changing the first."""
    copied = deepcopy(model)
    method: Method = attached(copied)
    return replace(method).attach(method.detach()).eval()


@torch.no_grad()
def own_answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Answer:
    """The labels' probabilities of a classifier, the words of a language model."""
    if not head(model):
        return complete(model, tokenizer, text)
    read = tokenizer(text, truncation=True, return_tensors="pt", return_token_type_ids=False).to(model.device)
    (shares,) = model(**read).logits.softmax(-1).tolist()
    return {model.config.id2label[i]: share for i, share in enumerate(shares)}


@dataclass(frozen=True)
class Turned:
    """What a model answers to a text at a setting of the dials."""

    factor: float
    step: int
    text: str
    answer: Answer

    def __str__(self) -> str:
        named = {0: "Without the update", 1: "With the update"}
        much = named.get(self.factor, f"With {self.factor:g} times the update")
        after = f"{much}, after step {self.step}, the model"
        if isinstance(self.answer, str):
            return f"{after} writes"
        label = max(self.answer, key=self.answer.get)
        return f"{after} answers {label} ({self.answer[label]:.0%})"


class DialCard(Card):
    """Two dials beside a sentence: how much of the update counts, and after which step. What the model answers moves.

    `recorder` was handed to the training. `answer`: the tokenizer, or a function: answer(model, text) gives the text
    that the model writes, or the probability of each label. Nothing is trained while one plays.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        answer: PreTrainedTokenizerBase | Callable[[PreTrainedModel, str], Answer],
        recorder: Recorder,
        text: str = "Though the soup was stunning, the dessert was awful.",
    ):
        if not isinstance(recorder, Recorder):
            raise TypeError(f"recorder is {recorder!r}, but must be the Recorder(model) that the training was handed")
        needs_function("answer", answer, "answer(model, text), or a tokenizer")
        self.dial, self.answer = Dial(model, recorder), answer
        if isinstance(answer, PreTrainedTokenizerBase):
            self.answer = lambda model, text: own_answer(model, answer, text)
        self.inches = dial.inches(self.answer(self.dial.model, text))  # the labels, and so the height, stay
        steps = list(recorder.kept)
        wide, half = widgets.Layout(width="740px"), widgets.Layout(width="365px")
        controls = {
            "text": widgets.Text(text, description="your text", continuous_update=False, layout=wide),
            "factor": widgets.SelectionSlider(options=FACTORS, value=1.0, description=MUCH, layout=half),
            "step": widgets.SelectionSlider(options=steps, value=steps[-1], description="after step", layout=half),
        }
        super().__init__("Turn the update up and down", controls)

    def state(self) -> tuple[float, int, str]:
        return self.controls["factor"].value, self.controls["step"].value, self.controls["text"].value.strip()

    def measure(self, state: tuple[float, int, str]) -> Turned:
        factor, step, text = state
        if not text:
            raise ValueError("type a sentence for the model")
        return Turned(factor, step, text, self.answer(self.dial.turn(factor, step), text))

    def words(self, turned: Turned) -> str:
        said = html.escape(str(turned))
        if isinstance(turned.answer, str):
            said = f"{said}: <b>{html.escape(turned.answer)}</b>"
        return f"{said}<br>{self.dial.says(turned.step)}"

    def alt(self, turned: Turned) -> str:
        if isinstance(turned.answer, str):
            return f"{turned}: {turned.answer}"
        shares = ", ".join(f"{label} {share:.2f}" for label, share in turned.answer.items())
        return f"{turned}. To the text {turned.text!r} the probabilities are: {shares}."

    def draw(self, turned: Turned) -> Figure:
        return dial.figure(turned.answer, str(turned))
