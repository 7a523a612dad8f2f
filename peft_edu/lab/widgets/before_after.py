"""One text, two answers: of the model as it was, and of the model with what it learned."""

from collections.abc import Callable

import ipywidgets as widgets
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.lab.figures import dial
from peft_edu.lab.tasks.answer import reply
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import needs_function
from peft_edu.method import attached

BEFORE, AFTER = "without the adapter", "with the adapter"


class BeforeAfterCard(Card):
    """A box for a text, and under it what the model answers without its adapter (`method.off()`) and with it.

    `asked` makes the question of the text, as the training rows were asked.
    """

    inches = dial.inches_beside(2)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        asked: Callable[[str], str] = str,
        tokens: int = 60,
    ):
        self.method = attached(model)
        if self.method is None:
            raise ValueError(f"nothing is attached to this {type(model).__name__}: there is no before and after")
        needs_function("asked", asked, "asked(text) gives the question")
        self.model, self.tokenizer, self.asked, self.tokens = model, tokenizer, asked, tokens
        size = widgets.Layout(width="100%", max_width="740px", height="70px")
        look = {"continuous_update": False, "layout": size}
        super().__init__("Ask both", {"text": widgets.Textarea(text, description="your text", **look)})

    def state(self) -> str:
        return self.controls["text"].value.strip()

    def update(self, change=None) -> None:
        """The old answers go at once: two new ones take a while."""
        if self.state() not in self._measured:
            self.result.value, self.image.value = "Both are writing ...", self.frame().value
        super().update(change)

    def measure(self, text: str) -> dict[str, str]:
        if not text:
            raise ValueError("type a text for the model")
        question = self.asked(text)
        after = reply(self.model, self.tokenizer, question, self.tokens)
        with self.method.off():
            return {BEFORE: reply(self.model, self.tokenizer, question, self.tokens), AFTER: after}

    def words(self, answers: dict[str, str]) -> str:
        same = "word for word the same" if len(set(answers.values())) == 1 else "not the same"
        return f"The two answers are {same}."

    def alt(self, answers: dict[str, str]) -> str:
        return "; ".join(f"{name}: {text}" for name, text in answers.items())

    def draw(self, answers: dict[str, str]) -> Figure:
        return dial.beside(answers, "One base model answers twice")

    def __str__(self) -> str:
        """Without the answers, of which no two processors write the same to the last word."""
        return f"To the text {self.state()!r} two answers stand one under the other: {BEFORE}, and {AFTER}."
