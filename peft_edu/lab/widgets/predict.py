"""Predict, run, explain: a learner commits to a guess, the experiment runs, and both are put side by side."""

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real

import ipywidgets as widgets

from peft_edu.lab.figures.display import present

Value = float | str


class Guess:
    """A learner's guess. `value` is None until one is committed."""

    def __init__(self, question: str, low: float | None, high: float | None, choices: Sequence[str] | None):
        _check(question, low, high, choices)
        self.question, self.low, self.high, self.choices = question, low, high, list(choices or ())
        self.value: Value | None = None
        if self.choices:
            self.asked, self.box = f"one of: {', '.join(choices)}", widgets.RadioButtons(options=choices, value=None)
        else:
            self.asked = f"a number from {low:g} to {high:g}"
            self.box = widgets.Text(placeholder=self.asked, layout=widgets.Layout(width="220px"))
        self.button = widgets.Button(description="commit", tooltip="Commit this guess")
        self.note = widgets.HTML()
        self.button.on_click(lambda _: self.commit(self.box.value))
        heading, row = widgets.HTML(f"<b>Predict.</b> {question}"), widgets.HBox([self.box, self.button])
        self.view = widgets.VBox([heading, row, self.note])

    def commit(self, value: object) -> None:
        """Take the guess, or say under the box what is missing."""
        try:
            self.value = self._read(value)
            self.note.value = f"Your guess: <b>{_said(self.value)}</b>. Run the cells below to compare it."
        except ValueError as error:
            self.note.value = str(error)

    def reveal(self, measured: Value, hint: Mapping[str, str] | None = None) -> None:
        """Print the measurement beside the guess, and what the difference usually means.

        `hint` has the keys "too high", "too low" and "right", or for choices the choices themselves. Without a guess,
        as when a notebook runs by itself, it is the measurement and one neutral line.
        """
        if self.choices and measured not in self.choices:
            raise ValueError(f"measured {measured!r} is none of the choices {', '.join(self.choices)}")
        if not self.choices and not _finite(measured):
            raise ValueError(f"measured is {measured!r}, but must be a finite number")
        known = self.choices or ["too high", "too low", "right"]
        if not isinstance(hint or {}, Mapping) or set(hint or {}) - set(known):
            raise ValueError(f"hint is {hint!r}, but must be a dict whose keys are among {', '.join(known)}")
        print(f"Measured: {_said(measured)}.")
        if self.value is None:
            print("No guess was committed. To compare one, commit it above and run this cell again.")
            return
        verdict = self._verdict(measured)
        explanation = (hint or {}).get(self.value if self.choices else verdict, "")
        print(f"Your guess: {_said(self.value)}, {verdict}. {explanation}".rstrip())

    def _read(self, value) -> Value:
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

    def _verdict(self, measured) -> str:
        """A number is right within a twentieth of the range."""
        if self.choices:
            return "right" if self.value == measured else "not what was measured"
        if abs(self.value - measured) <= (self.high - self.low) / 20:
            return "right"
        return "too high" if self.value > measured else "too low"


def predict(
    question: str, low: float | None = None, high: float | None = None, choices: Sequence[str] | None = None
) -> Guess:
    """Ask for a number between `low` and `high`, or for one of `choices`; `reveal` compares it later."""
    guess = Guess(question, low, high, choices)
    present(guess.view, f"Predict. {question} ({guess.asked})")
    return guess


def _check(question: object, low: object, high: object, choices: object) -> None:
    if not isinstance(question, str) or not question:
        raise TypeError(f"question is {question!r}, but must be a text")
    bounds = choices is None and _finite(low) and _finite(high) and low < high
    texts = isinstance(choices, (list, tuple)) and all(isinstance(each, str) for each in choices)
    if not bounds and not (low is high is None and texts and len(set(choices)) == len(choices) > 1):
        got = f"low={low!r}, high={high!r}, choices={choices!r}"
        raise ValueError(f"predict needs numbers low < high, or two or more different texts as choices; got {got}")


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _said(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
