"""The card of P-tuning: pseudo tokens before, between and after the words of a template."""

from collections.abc import Callable, Hashable

import ipywidgets as widgets
from matplotlib.figure import Figure

from peft_edu.lab.figures.sentences import sentences, template_tokens
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import table
from peft_edu.lab.widgets.training import OnStep, TrainButton
from peft_edu.p_tuning import MASK, PSEUDO

PLACES = ("before", "between", "after")


class TemplateCard(Card):
    """How many pseudo tokens stand before the subject, between it and the gap, and after; and words between them.

    `train(template, on_step)` trains such a template for `steps` steps, and what it returns is shown.
    """

    inches = 1.6  # two lines of boxes

    def __init__(self, width: int, subject: str, train: Callable[[str, OnStep], object], steps: int = 80):
        self.width, self.subject = width, subject
        narrow = widgets.Layout(width="120px")
        controls: dict[str, widgets.Widget] = {
            place: widgets.BoundedIntText(3, 0, 6, description=place, layout=narrow) for place in PLACES
        }
        controls["words"] = widgets.Text("", description="words", placeholder="is a native of", continuous_update=False,
                                         layout=widgets.Layout(width="250px"))  # fmt: skip
        for control in controls.values():
            control.style.description_width = "initial"
        trainer = TrainButton(lambda on_step: train(self.template(), on_step), lambda: steps, self.short)
        super().__init__("Where the pseudo tokens stand", controls, trainer)

    def template(self) -> str:
        before, between, after, words = self.state()
        pieces = [*[PSEUDO] * before, "{subject}", words.strip(), *[PSEUDO] * between, MASK, *[PSEUDO] * after]
        return " ".join(filter(None, pieces))

    def short(self) -> str:
        """The template's name beside its curve."""
        before, between, after, words = self.state()
        return f"{before}+{between}+{after} {words.strip()}".strip()

    def state(self) -> Hashable:
        return tuple(self.controls[name].value for name in (*PLACES, "words"))

    def measure(self, state: tuple) -> tuple[str, int]:
        """The template, and how many pseudo tokens it has."""
        return self.template(), sum(state[:3])

    def words(self, numbers: tuple[str, int]) -> str:
        template, n = numbers
        d = self.width
        lstm = 2 * 2 * (4 * (d // 2) * (d + d // 2) + 2 * 4 * (d // 2)) + 2 * (d * d + d)
        sizes = [("kept afterwards", f"{n * d:,}"), ("with BiLSTM and MLP, while it learns", f"{n * d + lstm:,}")]
        nothing = "" if n else " Without a pseudo token there is nothing to train: it is a template written by hand."
        return f"{table(('', 'trained parameters'), sizes)} {n} pseudo tokens.{nothing}"

    def alt(self, numbers: tuple[str, int]) -> str:
        template, n = numbers
        return f"The template {template}: {n} pseudo tokens among its words."

    def draw(self, numbers: tuple[str, int]) -> Figure:
        template, n = numbers
        title = f"{n} pseudo tokens of {self.width} numbers each; the other words are the model's own"
        return sentences([("", template_tokens(template, self.subject))], title, self.inches)
