"""Predict, run, explain: a learner commits to a guess, the experiment runs, and both are put side by side."""

import math
import re
import time
from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from peft_edu.lab.widgets.guess import Guess, ask, finite, is_a_question, one_number, short

Value = float | str
FACTOR = 1.5  # on a logarithmic scale a guess is right within this factor
_ASKED: dict[str, Guess] = {}  # in this kernel, by question


class TypedGuess(Guess):
    """A number from `low` to `high`, or one of `choices`."""

    def __init__(
        self, question: str, low: float | None, high: float | None, choices: Sequence[str] | None, scale: str = "linear"
    ):
        _check(question, low, high, choices, scale)
        self.low, self.high, self.scale, self.choices = low, high, scale, list(choices or ())
        self._entered = -math.inf  # when Enter was pressed last
        label = {"description": "your guess", "style": {"description_width": "initial"}}
        if self.choices:
            asked, self.verdicts = f"one of: {', '.join(choices)}", tuple(choices)
            self.box = widgets.RadioButtons(options=choices, value=None, **label)
            super().__init__(question, asked, beside=[self.box])
            return
        asked, wide = f"a number from {low:g} to {high:g}", widgets.Layout(width="300px")
        self.box = widgets.Text(placeholder=asked, continuous_update=False, layout=wide, **label)
        facts = {"low": float(low), "high": float(high), "scale": scale}
        super().__init__(question, asked, facts, beside=[self.box])
        self.button.tooltip = "Commit this guess (or press Enter)"
        self.box.on_msg(self._on_message)
        self.box.observe(self._on_text, "value")

    def _on_message(self, _box, message: Mapping, _buffers) -> None:
        """Enter. The page sends new text right after it; text that was there when the box was left has come before."""
        if message.get("event") == "submit":
            self._entered = time.monotonic()
            self.commit(self.box.value)

    def _on_text(self, change) -> None:
        """New text comes with Enter, and also when the box is left, which commits nothing."""
        if time.monotonic() - self._entered < 1:
            self._entered = -math.inf
            self.commit(change.new)

    def given(self) -> object:
        return self.box.value

    def fill(self, value: Value) -> None:
        self.box.value = value if self.choices else f"{value:.15g}"

    def said(self, value: Value) -> str:
        return short(value)

    def read(self, value: object) -> Value:
        if self.choices:
            if value not in self.choices:
                raise ValueError("Choose one first.")
            return value
        try:
            plain = re.sub(r"(?<=\d),(?=\d{3}(\D|$))", "", str(value))  # 12,288 is a large number, and 2,5 a small one
            number = float(plain.strip().rstrip("%").replace(",", "."))
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:
            raise ValueError(f"Type {self.asked}.")
        return number

    def checked(self, measured: object) -> Value:
        measured = one_number(measured)
        if self.choices and measured not in self.choices:
            raise ValueError(f"measured {measured!r} is none of the choices {', '.join(self.choices)}")
        if not self.choices and not finite(measured):
            raise ValueError(f"measured is {measured!r}, but must be a finite number")
        return measured if self.choices else float(measured)

    def compared_words(self) -> str:
        measured = f"Measured: {short(self.measured)}."
        if self.value is None:
            return measured
        verdict = self._verdict()
        hint = self._hint.get(self.value if self.choices else verdict, "")
        guessed = f"Your guess{self.after_word()}: {short(self.value)}, {verdict}{self._how_far(verdict)}."
        return f"{measured} {guessed} {hint}"

    def _verdict(self) -> str:
        """Right is within a twentieth of the range, or on a logarithmic scale within a factor of 1.5."""
        if self.choices:
            return "right" if self.value == self.measured else "not what was measured"
        near = abs(self.value - self.measured) <= (self.high - self.low) / 20
        if self.scale == "log":
            near = max(self.value, self.measured) <= FACTOR * min(self.value, self.measured)
        return "right" if near else "too high" if self.value > self.measured else "too low"

    def _how_far(self, verdict: str) -> str:
        if self.choices or verdict == "right":
            return ""
        if self.scale == "log" and min(self.value, self.measured) > 0:
            times = max(self.value, self.measured) / min(self.value, self.measured)
            return f" by a factor of {times:.2g}"
        return f" by {short(abs(self.value - self.measured))}"


def predict(
    question: str,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
    scale: str = "linear",
) -> Guess:
    """Ask for a number between `low` and `high`, or for one of `choices`; `reveal` compares it later.

    With scale="log" a number is right within a factor of 1.5: for shares and sizes, where smallness is the point. The
    same question again is the same guess: what was revealed and held back before still follows it.
    """
    return ask(TypedGuess(question, low, high, choices, scale), _ASKED)


def _check(question: object, low: object, high: object, choices: object, scale: object) -> None:
    is_a_question(question)
    bounds = choices is None and finite(low) and finite(high) and low < high
    texts = isinstance(choices, (list, tuple)) and all(isinstance(each, str) for each in choices)
    if not bounds and not (low is high is None and texts and len(set(choices)) == len(choices) > 1):
        got = f"low={low!r}, high={high!r}, choices={choices!r}"
        raise ValueError(f"predict needs numbers low < high, or two or more different texts as choices; got {got}")
    if scale not in ("linear", "log") or (scale == "log" and (choices is not None or low < 0)):
        raise ValueError(f"scale is {scale!r}, but must be 'linear', or 'log' for numbers from 0 on")
