"""The card of P-tuning: pseudo tokens before, between and after the words of a template."""

import re
from collections.abc import Callable, Hashable

import ipywidgets as widgets
from matplotlib.figure import Figure

from peft_edu.checks import whole_number
from peft_edu.lab.figures.sentences import sentences, template_tokens
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import WholeNumber, html_table, needs_function, plural
from peft_edu.lab.widgets.training import OnStep, TrainButton
from peft_edu.p_tuning import ENCODERS, MASK, PSEUDO

SPOTS = ("before", "between", "after")


class TemplateCard(Card):
    """How many pseudo tokens stand before the subject, between it and the gap, and after; and words between them.

    `train(template, on_step)` trains such a template for `steps` steps, and what it returns is shown.
    """

    inches = 1.6  # two lines of boxes

    def __init__(self, width: int, subject: str, train: Callable[[str, OnStep], object], steps: int = 80):
        whole_number("width", width)
        needs_function("train", train, "train(template, on_step)")
        self.width, self.subject = width, _plain("subject", subject)
        self.encoder = sum(parameter.numel() for parameter in ENCODERS["lstm"](width).parameters())
        narrow, wide = widgets.Layout(width="120px"), widgets.Layout(width="250px")
        words = {"description": "words", "placeholder": "is a native of", "continuous_update": False}
        controls: dict[str, widgets.Widget] = {
            spot: WholeNumber(value=3, min=0, max=6, description=spot, layout=narrow) for spot in SPOTS
        } | {"words": widgets.Text("", layout=wide, **words)}
        trainer = TrainButton(lambda on_step: train(self.template(), on_step), lambda: steps, self.short)
        super().__init__("Where the pseudo tokens stand", controls, trainer)

    def update(self, change=None) -> None:
        super().update(change)
        self.trainer.allow(any(self.state()[:3]))

    def template(self) -> str:
        before, between, after, words = self.state()
        words = _plain("words", words.strip())
        pieces = [*[PSEUDO] * before, "{subject}", words, *[PSEUDO] * between, MASK, *[PSEUDO] * after]
        return " ".join(filter(None, pieces))

    def short(self) -> str:
        """The template's name beside its curve."""
        before, between, after, words = self.state()
        return f"{before}+{between}+{after} {words.strip()}".strip()

    def state(self) -> Hashable:
        return *(int(self.controls[spot].value) for spot in SPOTS), self.controls["words"].value

    def measure(self, state: tuple) -> tuple[str, int]:
        """The template, and how many pseudo tokens it has."""
        return self.template(), sum(state[:3])

    def words(self, numbers: tuple[str, int]) -> str:
        template, n = numbers
        kept, encoder = n * self.width, self.encoder if n else 0
        sizes = [("kept afterwards", f"{kept:,}"), ("with BiLSTM and MLP, while it learns", f"{kept + encoder:,}")]
        nothing = "" if n else " Without a pseudo token there is nothing to train: it is a template written by hand."
        return f"{html_table(('', 'trained parameters'), sizes)} {plural(n, 'pseudo token')}.{nothing}"

    def alt(self, numbers: tuple[str, int]) -> str:
        template, n = numbers
        return f"The template {template}: {plural(n, 'pseudo token')} among its words."

    def draw(self, numbers: tuple[str, int]) -> Figure:
        template, n = numbers
        title = f"{plural(n, 'pseudo token')} of {self.width} numbers each; the other words are the model's own"
        return sentences([("", template_tokens(template, self.subject))], title, self.inches)


def _plain(name: str, words: object) -> str:
    """Words, in which nothing stands for something else."""
    if not isinstance(words, str) or re.search(r"[{}]|\[P\]|\[MASK\]", words):
        raise ValueError(f"{name} is {words!r}, but must be plain words, without braces, {PSEUDO} and {MASK}")
    return words
