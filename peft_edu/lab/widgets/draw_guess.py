"""A prediction that is drawn: a slider at each setting of a sweep, and a line that follows them."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import ipywidgets as widgets

from peft_edu.lab.figures import guessed_line
from peft_edu.lab.figures.guessed_line import Axes
from peft_edu.lab.widgets.guess import Guess, ask, finite, is_a_question, one_number, short

_ASKED: dict[str, Guess] = {}  # in this kernel, by question
SHAPES = {
    "rising": "it rises",
    "falling": "it falls",
    "flat": "it is flat",
    "with a peak": "it has a peak",
    "with a valley": "it has a valley",
    "up and down": "it goes up and down",
}


class DrawnGuess(Guess):
    """A value at each of `xs`. A point is right within a twentieth of the range, and so is a whole line on average."""

    def __init__(self, question: str, axes: Axes):
        is_a_question(question)
        self.axes, self.near = axes, (axes.high - axes.low) / 20
        names = [axes.name(i) for i in range(len(axes.xs))]
        asked = f"a line over {', '.join(names)}, from {axes.low:g} to {axes.high:g}"
        self.touched = False
        self.sliders, self.boxes, columns = [], [], []
        for name in names:
            slider, box, column = _column(name, axes)
            slider.observe(self._moved, "value")
            self.sliders.append(slider), self.boxes.append(box), columns.append(column)
        self.drawing = widgets.HTML()
        room = widgets.Layout(margin="0", padding=f"0 0 0 {guessed_line.LEFT}px")
        facts = {"xs": list(axes.xs), "low": float(axes.low), "high": float(axes.high)}
        super().__init__(question, asked, facts, above=[self.drawing, widgets.HBox(columns, layout=room)])
        self._draw()

    def _moved(self, _change) -> None:
        self.touched = True
        self._draw()

    def _draw(self) -> None:
        line = self.given() or ()
        about = f"Your line: {self.said(line)}." if line else guessed_line.EMPTY
        self.drawing.value = guessed_line.svg(self.axes, self.question, about, line)

    def given(self) -> list[float] | None:
        return [slider.value for slider in self.sliders] if self.touched else None

    def fill(self, value: Sequence[float]) -> None:
        for slider, each in zip(self.sliders, value, strict=True):
            slider.value = each
        self.touched = True  # also where it lies in the middle, as the sliders do

    def read(self, value: object) -> list[float]:
        if value is None:
            raise ValueError("Draw first: move the sliders until the line is your guess.")
        if len(value) != len(self.sliders) or not all(
            finite(v) and self.axes.low <= v <= self.axes.high for v in value
        ):
            raise ValueError(f"Draw {self.asked}.")
        return [float(each) for each in value]

    def said(self, value: Sequence[float]) -> str:
        return ", ".join(f"{self.axes.name(i)}: {short(each)}" for i, each in enumerate(value))

    def recalled(self, entry: Mapping[str, object]) -> list[float]:
        if entry["xs"] != self.facts["xs"]:
            raise ValueError("it was drawn over other settings")
        return super().recalled(entry)

    def checked(self, measured: object) -> list[float]:
        xs = list(self.axes.xs)
        if not isinstance(measured, Mapping) or measured.keys() != set(xs):
            got = list(measured) if isinstance(measured, Mapping) else repr(measured)
            raise ValueError(f"reveal needs what was measured at each of {xs}, as a dict; got {got}")
        values = [one_number(measured[x]) for x in xs]
        if bad := [(x, value) for x, value in zip(xs, values, strict=True) if not finite(value)]:
            raise ValueError(f"measured[{bad[0][0]!r}] is {bad[0][1]!r}, but must be a finite number")
        return [float(value) for value in values]

    def compared_words(self) -> str:
        shape = SHAPES[_shape(self.measured, self.near)]
        measured = f"Measured: {self.said(self.measured)}; {shape}."
        if self.value is None:
            return measured
        apart = [guessed - true for guessed, true in zip(self.value, self.measured, strict=True)]
        verdict, mean = self._verdict(apart), fmean(apart)
        far = "" if verdict == "right" else f" by {short(abs(mean))}"
        furthest = max(range(len(apart)), key=lambda i: abs(apart[i]))
        drawn = _shape(self.value, self.near)
        right = SHAPES[drawn] == shape
        hint = self._hint.get(verdict, "") if right or verdict != "right" else ""  # on average, but not as a line
        return (
            f"{measured} Your line{self.after_word()}: {self.said(self.value)}, on average {verdict}{far}. "
            f"{self._furthest(furthest, apart[furthest])} "
            f"You drew it {drawn}, and {'so it is' if right else shape}. {hint}"
        )

    def _verdict(self, apart: Sequence[float]) -> str:
        mean = fmean(apart)
        return "right" if abs(mean) <= self.near else "too high" if mean > 0 else "too low"

    def _furthest(self, i: int, apart: float) -> str:
        if abs(apart) <= self.near:
            return "It was right at every point."
        return f"It was furthest off at {self.axes.name(i)}: {short(abs(apart))} too {'high' if apart > 0 else 'low'}."

    def picture(self) -> str:
        if self.measured is None:
            return ""
        return guessed_line.svg(self.axes, self.question, self.says(), self.value or (), self.measured)


def draw_guess(
    question: str, xs: Sequence[float | str], low: float, high: float, x: str = "", y: str = ""
) -> DrawnGuess:
    """Ask for a line: a value from `low` to `high` at each of `xs`; `reveal({x: value, ...})` draws the measured one.

    `x` and `y` name the axes. It is kept by its question and stands before a card (`after=`), as what `predict` gives.
    """
    _check(xs, low, high, x, y)
    plain = tuple(each if isinstance(each, str) else int(each) if each == int(each) else float(each) for each in xs)
    return ask(DrawnGuess(question, Axes(plain, low, high, x, y)), _ASKED)


def _column(name: str, axes: Axes) -> tuple[widgets.FloatSlider, widgets.BoundedFloatText, widgets.VBox]:
    """A slider as wide as the place of its setting in the picture, and a box for the same number, which has a name."""
    whole = widgets.Layout(width=f"{axes.slot:.0f}px", margin="0", align_items="center")
    span = {"min": float(axes.low), "max": float(axes.high), "step": (axes.high - axes.low) / 100}
    middle, upright = (axes.low + axes.high) / 2, widgets.Layout(width=whole.width, height="140px", margin="0")
    slider = widgets.FloatSlider(
        middle, **span, orientation="vertical", readout=False, description=name, tooltip=name, layout=upright
    )
    about = f"{name}: your guess, from {axes.low:g} to {axes.high:g}"
    box = widgets.BoundedFloatText(middle, **span, tooltip=about, layout=widgets.Layout(width="76px"))
    widgets.link((slider, "value"), (box, "value"))
    return slider, box, widgets.VBox([slider, box], layout=whole)


def _shape(values: Sequence[float], near: float) -> str:
    """What a line does, where differences up to `near` do not count."""
    first, last = values[0], values[-1]
    peak = max(values) - max(first, last) > near
    valley = min(first, last) - min(values) > near
    if peak or valley:
        return "up and down" if peak and valley else "with a peak" if peak else "with a valley"
    return "rising" if last - first > near else "falling" if first - last > near else "flat"


def _check(xs: object, low: object, high: object, x: object, y: object) -> None:
    listed = list(xs) if isinstance(xs, Sequence | range) and not isinstance(xs, str) else []
    numbers = all(finite(each) for each in listed) and listed == sorted(listed)
    if (
        not 2 <= len(listed) <= 8
        or len(set(listed)) < len(listed)
        or not (numbers or all(isinstance(each, str) for each in listed))
    ):
        raise ValueError(f"xs is {xs!r}, but must be two to eight different texts, or numbers in rising order")
    if not (finite(low) and finite(high) and low < high):
        raise ValueError(f"draw_guess needs numbers low < high; got low={low!r}, high={high!r}")
    if not (isinstance(x, str) and isinstance(y, str)):
        raise TypeError(f"x and y name the axes, and must be texts; got x={x!r}, y={y!r}")
