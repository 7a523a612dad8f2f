"""Predict, run, explain: a learner commits to a guess, the experiment runs, and both are put side by side.

In either order: a guess that is committed or changed after the measurement is compared at once, in its own card and
where the measurement was revealed. A guess is kept in the workbook by its question.
"""

import html
import math
import re
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Protocol

import ipywidgets as widgets
from IPython.display import DisplayHandle, display

from peft_edu.checks import choice
from peft_edu.lab import workbook
from peft_edu.lab.figures.display import present

Value = float | str
FACTOR = 1.5  # on a log scale a guess is right within it; on a linear one within a twentieth of the range
_ASKED: dict[str, "Guess"] = {}  # in this kernel, by question


class Held(Protocol):
    """What keeps an answer back until there is a guess, and is then told to show it."""

    def update(self) -> None: ...


class Guess:
    """A learner's guess. `value` is None until one is committed, `measured` until it is revealed."""

    def __init__(
        self,
        question: str,
        low: float | None = None,
        high: float | None = None,
        choices: Sequence[str] | None = None,
        scale: str = "linear",
        unit: str = "",
    ):
        _check(question, low, high, choices, scale, unit)
        self.question, self.low, self.high, self.choices = question, low, high, list(choices or ())
        self.scale, self.unit = scale, unit
        self.value: Value | None = None
        self.measured: Value | None = None
        self.skipped = False
        self._hint: Mapping[str, str] = {}
        self._held: list[Held] = []
        self._revealed: DisplayHandle | None = None
        self._entered = -math.inf  # when Enter was pressed last

        label = {"description": "your guess", "style": {"description_width": "initial"}}
        if self.choices:
            self.asked = f"one of: {', '.join(self.choices)}"
            narrow = widgets.Layout(width="max-content")
            self.box = widgets.RadioButtons(options=self.choices, value=None, layout=narrow, **label)
        else:
            self.asked = f"a number from {_said(low)} to {_said(high, unit)}"
            wide = widgets.Layout(width="300px")
            self.box = widgets.Text(placeholder=self.asked, continuous_update=False, layout=wide, **label)
        self.button = widgets.Button(description="commit", tooltip="Commit this guess")
        self.skip = widgets.Button(description="show me without a guess", layout=widgets.Layout(width="max-content"))
        self.note = widgets.HTML()
        self._recall()
        self.button.on_click(lambda _: self.commit(self.box.value))
        self.skip.on_click(lambda _: self._skip())
        if not self.choices:
            self.box.on_msg(self._on_message)
            self.box.observe(self._on_text, "value")
        heading = widgets.HTML(f"<b>Predict.</b> {html.escape(question)}")
        row = widgets.HBox([self.box, self.button, self.skip], layout={"flex_flow": "row wrap"})
        self.view = widgets.VBox([heading, row, self.note])

    @property
    def open(self) -> bool:
        """Whether answers may be seen: there is a guess, or none was wanted, or the measurement has been revealed."""
        return self.skipped or self.value is not None or self.measured is not None

    def hold(self, card: Held) -> None:
        """Call the card's `update()` once answers may be seen."""
        if not self.open:
            self._held.append(card)

    def commit(self, value: object) -> None:
        """Take the guess, or say under the box what is missing."""
        try:
            self.value = self._read(value)
        except ValueError as error:
            self.note.value = _status(str(error))
            return
        self._keep()
        self._show()

    def reveal(self, measured: Value, hint: Mapping[str, str] | None = None) -> None:
        """Print the measurement, and put the guess beside it, with what the difference usually means.

        `hint` has the keys "too high", "too low" and "right", or for choices the choices themselves. Without a guess,
        as when a notebook runs by itself, it is the measurement alone; a guess that comes later is compared here.
        """
        if self.choices and measured not in self.choices:
            raise ValueError(f"measured {measured!r} is none of the choices {', '.join(self.choices)}")
        if not self.choices and not _finite(measured):
            raise ValueError(f"measured is {measured!r}, but must be a finite number")
        if self.scale == "log" and measured <= 0:
            raise ValueError(f"measured is {measured!r}, but must be above 0 on a log scale")
        known = self.choices or ["too high", "too low", "right"]
        if not isinstance(hint or {}, Mapping) or set(hint or {}) - set(known):
            raise ValueError(f"hint is {hint!r}, but must be a dict whose keys are among {', '.join(known)}")
        self.measured, self._hint = measured if self.choices else float(measured), hint or {}
        self._keep()
        self._show()
        print(f"Measured: {_said(self.measured, self.unit)}.")
        self._revealed = display(self._beside(), raw=True, display_id=True)

    def _recall(self) -> None:
        """The guess of an earlier day, if it is one that could be made today."""
        try:
            self.value = self._read((workbook.kept("guess", self.question) or {}).get("value"))
        except ValueError:
            return
        self.box.value = self.value if self.choices else f"{self.value:.15g}"
        self._show()

    def _keep(self) -> None:
        if self.value is None:
            return
        facts = {"value": self.value} | ({} if self.measured is None else {"measured": self.measured})
        if not facts.items() <= (workbook.kept("guess", self.question) or {}).items():
            workbook.keep("guess", self.question, **facts)

    def _skip(self) -> None:
        self.skipped = True
        self._show()

    def _on_message(self, _box, content: Mapping, _buffers) -> None:
        """Enter. What was typed arrives a moment after it, or has arrived before, when the box was left."""
        if content.get("event") == "submit":
            self._entered = time.monotonic()
            self.commit(self.box.value)

    def _on_text(self, change) -> None:
        """New text comes with Enter, and also when the box is left, which commits nothing."""
        if time.monotonic() - self._entered < 1:
            self._entered = -math.inf
            self.commit(change.new)

    def _show(self) -> None:
        """Say in the card, where it was revealed, and to what was held back, how things stand."""
        self.skip.disabled = self.open
        if self.value is None:
            self.note.value = _status("Shown without a guess. You can still commit one.") if self.skipped else ""
        elif self.measured is None:
            self.note.value = _status(f"Your guess: {_said(self.value, self.unit)}. Run the cells below to compare it.")
        else:
            self.note.value = _status(f"{self._comparison()} Measured: {_said(self.measured, self.unit)}.")
        if self._revealed is not None:
            self._revealed.update(self._beside(), raw=True)
        if self.open:
            held, self._held = self._held, []
            for card in held:
                card.update()

    def _beside(self) -> dict[str, str]:
        """What stands under the measurement: nothing to see as long as there is no guess."""
        if self.value is None:
            return {"text/html": ""}
        return {"text/plain": self._comparison(), "text/html": _status(self._comparison())}

    def _comparison(self) -> str:
        verdict = self._verdict()
        explanation = self._hint.get(self.value if self.choices else verdict, "")
        return f"Your guess: {_said(self.value, self.unit)}, {verdict}{self._apart()}. {explanation}".rstrip()

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

    def _factor(self) -> float:
        """How many times the smaller of guess and measurement goes into the larger."""
        return max(self.value / self.measured, self.measured / self.value)

    def _verdict(self) -> str:
        if self.choices:
            return "right" if self.value == self.measured else "not what was measured"
        if self.scale == "log":
            near = self._factor() <= FACTOR
        else:
            near = abs(self.value - self.measured) <= (self.high - self.low) / 20
        return "right" if near else "too high" if self.value > self.measured else "too low"

    def _apart(self) -> str:
        """How far the guess lies from the measurement; nothing if both read the same."""
        if self.choices or _said(self.value) == _said(self.measured):
            return ""
        right = self._verdict() == "right"
        if self.scale == "log":
            factor = f"{self._factor():.2g}" if self._factor() < 100 else _said(self._factor())
            much = "much" if self.value > self.measured else "little"
            return f", within a factor of {factor}" if right else f": {factor} times too {much}"
        far = _said(abs(self.value - self.measured), "points" if self.unit == "%" else self.unit)
        return f" to within {far}" if right else f" by {far}"


def predict(
    question: str,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
    scale: str = "linear",
    unit: str = "",
) -> Guess:
    """Ask for a number between `low` and `high`, or for one of `choices`; `reveal` compares it, before or after.

    Right is a number within a twentieth of the range; with scale="log", where smallness is the point, one within a
    factor of 1.5. `unit` stands behind the numbers: "%", "points". The same question again is the same guess: a cell
    that is run twice wipes nothing, and the workbook knows it the next day.
    """
    guess = Guess(question, low, high, choices, scale, unit)
    before = _ASKED.get(question)
    if before is not None and (before.asked, before.scale) == (guess.asked, guess.scale):
        guess = before
    _ASKED[question] = guess
    present(guess.view, f"Predict. {question} ({guess.asked})")
    return guess


def _check(question: object, low: object, high: object, choices: object, scale: object, unit: object) -> None:
    for name, text in (("question", question), ("unit", unit)):
        if not isinstance(text, str) or (name == "question" and not text):
            raise TypeError(f"{name} is {text!r}, but must be a text")
    bounds = choices is None and _finite(low) and _finite(high) and low < high
    texts = isinstance(choices, (list, tuple)) and all(isinstance(each, str) for each in choices)
    if not bounds and not (low is high is None and texts and len(set(choices)) == len(choices) > 1):
        got = f"low={low!r}, high={high!r}, choices={choices!r}"
        raise ValueError(f"predict needs numbers low < high, or two or more different texts as choices; got {got}")
    choice("scale", scale, ("linear", "log"))
    if scale == "log" and not (bounds and low > 0):
        raise ValueError(f"a log scale needs numbers above 0, got low={low!r}, high={high!r}")


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _said(value: Value, unit: str = "") -> str:
    """A number as people read it: three digits, or all of a large one; 12,288, 0.37, 40%, 1 point."""
    if isinstance(value, str):
        return value
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if unit == "%":
        return f"{number}%"
    return f"{number} {'point' if (number, unit) == ('1', 'points') else unit}".rstrip()


def _status(text: str) -> str:
    """Words that a screen reader tells when they change."""
    return f'<div role="status">{html.escape(text)}</div>'
