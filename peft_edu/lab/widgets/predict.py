"""Predict, run, explain: a learner commits to a guess, the experiment runs, and both are put side by side."""

import html
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

import ipywidgets as widgets
from torch import Tensor

from peft_edu.lab import workbook
from peft_edu.lab.exercises.model_answers import HINTS
from peft_edu.lab.figures.display import present

Value = float | str
FACTOR = 1.5  # on a logarithmic scale a guess is right within this factor
SKIPPED = "Skipped. A guess can still be committed."
_ASKED: dict[str, "Guess"] = {}  # in this kernel, by question


class Guess:
    """A learner's guess, kept by its question: the cell can be run again, today or tomorrow, and it is still there.

    `value` is None until one is committed. `open`: committed, skipped or measured, so that the answer may be shown.
    """

    def __init__(
        self, question: str, low: float | None, high: float | None, choices: Sequence[str] | None, scale: str = "linear"
    ):
        _check(question, low, high, choices, scale)
        self.question, self.low, self.high, self.scale = question, low, high, scale
        self.choices = list(choices or ())
        self.value: Value | None = None
        self.open = False
        self.measured: Value | None = None
        self.late = False  # whether the measurement was seen before this guess
        self._hint: Mapping[str, str] = {}
        self._waiting: list[Callable[[], None]] = []
        self._entered = -math.inf  # when Enter was pressed last
        label = {"description": "your guess", "style": {"description_width": "initial"}}
        if self.choices:
            self.asked = f"one of: {', '.join(choices)}"
            self.box = widgets.RadioButtons(options=choices, value=None, **label)
        else:
            self.asked = f"a number from {low:g} to {high:g}"
            wide = widgets.Layout(width="300px")
            self.box = widgets.Text(placeholder=self.asked, continuous_update=False, layout=wide, **label)
        small = widgets.Layout(width="80px")
        self.button = widgets.Button(description="commit", tooltip="Commit this guess (or press Enter)", layout=small)
        self.skip = widgets.Button(description="skip", tooltip="Go on without a guess", layout=small)
        self.note, self.compared = widgets.HTML(), widgets.HTML()
        self.button.on_click(lambda _: self.commit(self.box.value))
        self.skip.on_click(lambda _: self._skip())
        heading = widgets.HTML(f"<b>Predict.</b> {html.escape(question)}")
        row = widgets.HBox([self.box, self.button, self.skip])
        self.view = widgets.VBox([heading, row, self.note])
        self._remember()
        if not self.choices:
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

    def _remember(self) -> None:
        """The guess of an earlier run, if it still answers the question."""
        entry = workbook.kept("guess", self.question) or {}
        try:
            self.value, self.late = self._read(entry["value"]), bool(entry.get("late"))
        except (KeyError, ValueError):
            if workbook.kept("skip", self.question):
                self._open(SKIPPED)
            return
        self.box.value = self.value if self.choices else f"{self.value:.15g}"
        self._open(f"Your guess: <b>{html.escape(_said(self.value))}</b>.")

    def commit(self, value: object) -> None:
        """Take the guess and keep it, or say under the box what is missing."""
        before = self.value
        try:
            self.value = self._read(value)
        except ValueError as error:
            self.note.value = str(error)
            return
        if self.value != before:
            self.late = self.measured is not None
        self._keep()
        said = f"Your guess: <b>{html.escape(_said(self.value))}</b>."
        self._open(f"{said} Run the cells below to compare it." if self.measured is None else said)
        self._compare()

    def _skip(self) -> None:
        workbook.keep("skip", self.question)
        self._open(SKIPPED)

    def _keep(self) -> None:
        """The guess, and what was measured once that is known; the same again adds no line."""
        facts = {"value": self.value, "late": self.late}
        facts |= {} if self.measured is None else {"measured": self.measured}
        known = workbook.kept("guess", self.question) or {}
        if self.value is not None and not facts.items() <= known.items():
            workbook.keep("guess", self.question, **facts)

    def when_open(self, show: Callable[[], None]) -> None:
        """Call this once the answer may be shown: at a guess, at "skip", or at the measurement."""
        self._waiting.append(show)

    def _open(self, note: str) -> None:
        self.note.value, self.open = note, True
        for show in self._waiting:
            show()

    def reveal(self, measured: Value, hint: Mapping[str, str] | None = None) -> None:
        """Show the measurement beside the guess, and what the difference usually means.

        `hint` has the keys "too high", "too low" and "right", or for choices the choices themselves; without one it is
        looked up in peft_edu/lab/exercises/model_answers.py, so that no cell gives it away. Without a guess, as when a
        notebook runs by itself, it is the measurement alone; one that is committed later is compared at once.
        """
        measured = measured.item() if isinstance(measured, Tensor) and measured.numel() == 1 else measured
        if self.choices and measured not in self.choices:
            raise ValueError(f"measured {measured!r} is none of the choices {', '.join(self.choices)}")
        if not self.choices and not _finite(measured):
            raise ValueError(f"measured is {measured!r}, but must be a finite number")
        known = self.choices or ["too high", "too low", "right"]
        if not isinstance(hint or {}, Mapping) or set(hint or {}) - set(known):
            raise ValueError(f"hint is {hint!r}, but must be a dict whose keys are among {', '.join(known)}")
        self.measured = measured if self.choices else float(measured)
        self._hint = hint or HINTS.get(self.question, {})
        self._keep()
        self._compare()
        self._open(self.note.value)
        present(self.compared, self.says())

    def says(self) -> str:
        """The measurement, and the guess beside it."""
        measured = f"Measured: {_said(self.measured)}."
        if self.value is None:
            return measured
        verdict = self._verdict()
        hint = self._hint.get(self.value if self.choices else verdict, "")
        after = " (after you saw it)" if self.late else ""
        return f"{measured} Your guess{after}: {_said(self.value)}, {verdict}{self._how_far(verdict)}. {hint}".rstrip()

    def _compare(self) -> None:
        if self.measured is not None:
            late = " <i>A guess that you commit above is compared here.</i>" if self.value is None else ""
            self.compared.value = f'<div aria-live="polite">{html.escape(self.says())}{late}</div>'

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
        return f" by {_said(abs(self.value - self.measured))}"


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
    guess = Guess(question, low, high, choices, scale)
    before = _ASKED.get(question)
    if before is not None and (before.asked, before.scale) == (guess.asked, guess.scale):
        guess = before
    _ASKED[question] = guess
    present(guess.view, f"Predict. {question} ({guess.asked})")
    return guess


def _check(question: object, low: object, high: object, choices: object, scale: object) -> None:
    if not isinstance(question, str) or not question:
        raise TypeError(f"question is {question!r}, but must be a text")
    bounds = choices is None and _finite(low) and _finite(high) and low < high
    texts = isinstance(choices, (list, tuple)) and all(isinstance(each, str) for each in choices)
    if not bounds and not (low is high is None and texts and len(set(choices)) == len(choices) > 1):
        got = f"low={low!r}, high={high!r}, choices={choices!r}"
        raise ValueError(f"predict needs numbers low < high, or two or more different texts as choices; got {got}")
    if scale not in ("linear", "log") or (scale == "log" and (choices is not None or low < 0)):
        raise ValueError(f"scale is {scale!r}, but must be 'linear', or 'log' for numbers from 0 on")


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _said(value: Value) -> str:
    """As people read it: three digits, or a large number whole, as in 12,288."""
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
