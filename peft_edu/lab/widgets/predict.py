"""Predict, run, explain: a learner commits to a guess, the experiment runs, and both are put side by side."""

import math
import re
from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from peft_edu.lab.figures.display import present

Value = float | str


class Guess:
    """A learner's guess. `value` is None until one is committed."""

    def __init__(self, question: str, low: float | None, high: float | None, choices: Sequence[str] | None):
        self.question, self.low, self.high, self.choices = question, low, high, choices
        self.value: Value | None = None
        self.box = (
            widgets.RadioButtons(options=choices, value=None)
            if choices
            else widgets.Text(placeholder=f"a number from {low:g} to {high:g}", layout=widgets.Layout(width="220px"))
        )
        self.button = widgets.Button(description="commit", tooltip="Commit this guess")
        self.note = widgets.HTML()
        self.button.on_click(lambda _: self.commit(self.box.value))
        self.view = widgets.VBox(
            [widgets.HTML(f"<b>Predict.</b> {question}"), widgets.HBox([self.box, self.button]), self.note]
        )

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
            raise ValueError(f"Type a number from {self.low:g} to {self.high:g}.")
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
    if choices is None and (low is None or high is None or low >= high):
        raise ValueError(f"predict needs low < high or choices, got low={low}, high={high}, choices={choices}")
    guess = Guess(question, low, high, list(choices) if choices else None)
    asked = f"one of: {', '.join(guess.choices)}" if choices else f"a number from {low:g} to {high:g}"
    present(guess.view, f"Predict. {question} ({asked})")
    return guess


def _said(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
