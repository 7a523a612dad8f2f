"""A guess that is kept by its question: what a typed one and a drawn one have in common."""

import html
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real

import ipywidgets as widgets
from torch import Tensor

from peft_edu.lab import workbook
from peft_edu.lab.exercises.model_answers import HINTS
from peft_edu.lab.figures.display import present

SKIPPED = "Skipped. A guess can still be committed."
VERDICTS = ("too high", "too low", "right")


class Guess:
    """A learner's guess, kept by its question: the cell can be run again, today or tomorrow, and it is still there.

    `value` is None until one is committed. `open`: committed, skipped or measured, so that the answer may be shown.
    `facts` are kept beside each guess. A subclass gives seven functions:

    given()             what stands in its controls
    fill(value)         put a guess of an earlier run there
    read(value)         the guess, or a ValueError that says what is missing
    said(value)         a guess in words
    checked(measured)   the measurement, or a ValueError
    compared_words()    the measurement, and the guess beside it
    picture()           of both, as SVG; "" if there is none
    """

    verdicts: tuple[str, ...] = VERDICTS  # the keys that a hint may have

    def __init__(
        self,
        question: str,
        asked: str,
        facts: Mapping[str, object] = {},
        above: Iterable[widgets.Widget] = (),
        beside: Iterable[widgets.Widget] = (),
    ):
        """`asked` says what a guess is. The controls stand above the two buttons, or in their row."""
        self.question, self.asked, self.facts = question, asked, dict(facts)
        self.value = self.measured = None
        self.open = False
        self.late = False  # whether the measurement was seen before this guess
        self._hint: Mapping[str, str] = {}
        self._waiting: list[Callable[[], None]] = []
        small = widgets.Layout(width="80px", flex="0 0 auto")
        self.button = widgets.Button(description="commit", tooltip="Commit this guess", layout=small)
        self.skip = widgets.Button(description="skip", tooltip="Go on without a guess", layout=small)
        self.note, self.compared = widgets.HTML(), widgets.HTML()
        self.button.on_click(lambda _: self.commit(self.given()))
        self.skip.on_click(lambda _: self._skip())
        heading = widgets.HTML(f"<b>Predict.</b> {html.escape(question)}")
        row = widgets.HBox([*beside, self.button, self.skip], layout=widgets.Layout(flex_flow="row wrap"))
        self.view = widgets.VBox([heading, *above, row, self.note])
        self._remember()

    def _remember(self) -> None:
        """The guess of an earlier run, if it still answers the question."""
        entry = workbook.kept("guess", self.question) or {}
        try:
            self.value, self.late = self.recalled(entry), bool(entry.get("late"))
        except (KeyError, TypeError, ValueError):
            if workbook.kept("skip", self.question):
                self._open(SKIPPED)
            return
        self.fill(self.value)
        self._open(self._yours())

    def commit(self, value: object) -> None:
        """Take the guess and keep it, or say under the controls what is missing."""
        before = self.value
        try:
            self.value = self.read(value)
        except ValueError as error:
            self.note.value = str(error)
            return
        if self.value != before:
            self.late = self.measured is not None
        self._keep()
        self._open(f"{self._yours()} Run the cells below to compare it." if self.measured is None else self._yours())
        self._compare()

    def _yours(self) -> str:
        return f"Your guess: <b>{html.escape(self.said(self.value))}</b>."

    def _skip(self) -> None:
        workbook.keep("skip", self.question)
        self._open(SKIPPED)

    def _keep(self) -> None:
        """The guess, and what was measured once that is known; the same again adds no line."""
        facts = {"value": self.value, "late": self.late, **self.facts}
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

    def reveal(self, measured: object, hint: Mapping[str, str] | None = None) -> None:
        """Show the measurement beside the guess, and what the difference usually means.

        `hint` has the keys "too high", "too low" and "right", or for choices the choices themselves; without one it is
        looked up in peft_edu/lab/exercises/model_answers.py, so that no cell gives it away. Without a guess, as when a
        notebook runs by itself, it is the measurement alone; one that is committed later is compared at once.
        """
        measured = self.checked(measured)
        if not isinstance(hint or {}, Mapping) or set(hint or {}) - set(self.verdicts):
            raise ValueError(f"hint is {hint!r}, but must be a dict whose keys are among {', '.join(self.verdicts)}")
        self.measured = measured
        self._hint = hint or HINTS.get(self.question, {})
        self._keep()
        self._compare()
        self._open(self.note.value)
        present(self.compared, self.says(), self.picture())

    def says(self) -> str:
        """The measurement, and the guess beside it."""
        return self.compared_words().rstrip()

    def _compare(self) -> None:
        if self.measured is not None:
            late = " <i>A guess that you commit above is compared here.</i>" if self.value is None else ""
            self.compared.value = f'{self.picture()}<div aria-live="polite">{html.escape(self.says())}{late}</div>'

    def after_word(self) -> str:
        return " (after you saw it)" if self.late else ""

    def recalled(self, entry: Mapping[str, object]) -> object:
        """The guess that an entry of the workbook holds, if it answers this question."""
        return self.read(entry["value"])

    def given(self) -> object:
        raise NotImplementedError

    def fill(self, value: object) -> None:
        raise NotImplementedError

    def read(self, value: object) -> object:
        raise NotImplementedError

    def said(self, value: object) -> str:
        raise NotImplementedError

    def checked(self, measured: object) -> object:
        raise NotImplementedError

    def compared_words(self) -> str:
        raise NotImplementedError

    def picture(self) -> str:
        return ""


def ask(guess: Guess, asked: dict[str, Guess]) -> Guess:
    """Show the question. One that was asked before in this kernel is the same guess, with all that follows it."""
    before = asked.get(guess.question)
    if before is not None and (before.asked, before.facts) == (guess.asked, guess.facts):
        guess = before
    asked[guess.question] = guess
    present(guess.view, f"Predict. {guess.question} ({guess.asked})")
    return guess


def is_a_question(question: object) -> None:
    if not isinstance(question, str) or not question:
        raise TypeError(f"question is {question!r}, but must be a text")


def one_number(value: object) -> object:
    """A tensor of one number as that number; anything else as it is."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def short(value: float | str) -> str:
    """As people read it: three digits, or a large number whole, as in 12,288."""
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
