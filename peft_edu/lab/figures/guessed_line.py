"""A learner's line over the settings of a sweep, and the measured one beside it once it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.ticker import MaxNLocator

from peft_edu.lab.figures import style
from peft_edu.lab.figures.pen import FONT, Pen

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 740, 272, 66, 40, 226  # pixels
EMPTY = "Move the sliders: your line is drawn here."
_ROOM, _WIDEST = 112, 150  # behind the last setting for the lines' names; of the place of a setting


@dataclass(frozen=True)
class Axes:
    """What is asked for: a value from `low` to `high` at each of `xs`. `x` and `y` name the two axes."""

    xs: Sequence[float | str]
    low: float
    high: float
    x: str = ""
    y: str = ""

    @property
    def slot(self) -> float:
        """How wide the place of a setting is, in pixels: the controls below the picture have the same."""
        return min(_WIDEST, (WIDTH - LEFT - _ROOM) / len(self.xs))

    def name(self, i: int) -> str:
        at = self.xs[i]
        return f"{self.x} {at if isinstance(at, str) else f'{at:g}'}".strip()


def svg(axes: Axes, title: str, about: str, guess: Sequence[float] = (), measured: Sequence[float] = ()) -> str:
    """The lines that are there, in one picture; where they lie furthest apart is marked."""
    pen, (low, high) = Pen(), (min([axes.low, *measured]), max([axes.high, *measured]))

    def place(i: int, value: float) -> tuple[float, float]:
        return LEFT + (i + 0.5) * axes.slot, BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    _frame(pen, axes, low, high, place)
    if guess and measured:
        _gap(pen, place, guess, measured)
    if not guess and not measured:
        pen.text(LEFT + len(axes.xs) * axes.slot / 2, (TOP + BOTTOM) / 2, EMPTY, size=12.5, colour=style.MUTED)
    ends = []
    if guess:
        _line(pen, [place(i, value) for i, value in enumerate(guess)], style.HEAD, "square", dashed=True)
        ends.append([place(len(guess) - 1, guess[-1])[1], "your line", style.HEAD])
    if measured:
        _line(pen, [place(i, value) for i, value in enumerate(measured)], style.TRAINED, "dot", dashed=False)
        ends.append([place(len(measured) - 1, measured[-1])[1], "measured", style.TRAINED_LINE])
    ends.sort()
    if len(ends) == 2 and (near := 16 - (ends[1][0] - ends[0][0])) > 0:  # names that would touch move apart
        ends[0][0], ends[1][0] = ends[0][0] - near / 2, ends[1][0] + near / 2
    right = LEFT + len(axes.xs) * axes.slot
    for y, name, colour in ends:
        pen.text(right + 6, y, name, "start", 12.5, bold=True, colour=colour)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" font-family="{escape(FONT)}">'
    )
    words = f"<title>{escape(title)}</title><desc>{escape(about)}</desc>"
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{style.PAPER}"/>'  # readable on a dark page too
    return "\n".join([head + words, ground, *pen.shapes, "</svg>"])


def _frame(pen: Pen, axes: Axes, low: float, high: float, place) -> None:
    right = LEFT + len(axes.xs) * axes.slot
    for value in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high):
        if low <= value <= high:
            y = place(0, value)[1]
            pen.shapes.append(f'<path d="M{LEFT} {y:.1f}H{right:g}" stroke="{style.GRID}"/>')
            pen.text(LEFT - 8, y, f"{value:,.6g}", "end", colour=style.MUTED)
    pen.shapes.append(f'<path d="M{LEFT} {TOP}V{BOTTOM}H{right:g}" fill="none" stroke="{style.MUTED}"/>')
    for i, at in enumerate(axes.xs):
        x = place(i, low)[0]
        pen.shapes.append(f'<path d="M{x:g} {BOTTOM}v5" stroke="{style.MUTED}"/>')
        pen.text(x, BOTTOM + 15, at if isinstance(at, str) else f"{at:g}", size=12)
    pen.text(LEFT, 18, axes.y, "start", 12.5, bold=True)
    pen.text((LEFT + right) / 2, BOTTOM + 34, axes.x, size=12, colour=style.MUTED)


def _line(pen: Pen, points: Sequence[tuple[float, float]], colour: str, marker: str, dashed: bool) -> None:
    """A guess is dashed with hollow squares, a measurement solid with filled dots: told apart without colour."""
    path, dashes = "L".join(f"{x:.1f} {y:.1f}" for x, y in points), ' stroke-dasharray="6 4"' if dashed else ""
    pen.shapes.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.2"{dashes}/>')
    for x, y in points:
        if marker == "dot":
            pen.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        else:
            at = f'x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"'
            pen.shapes.append(f'<rect {at} fill="{style.PAPER}" stroke="{colour}" stroke-width="2.2"/>')


def _gap(pen: Pen, place, guess: Sequence[float], measured: Sequence[float]) -> None:
    """Where the two lie furthest apart."""
    i = max(range(len(guess)), key=lambda i: abs(guess[i] - measured[i]))
    (x, top), (_, bottom) = place(i, guess[i]), place(i, measured[i])
    if abs(top - bottom) > 24:
        dots = f'stroke="{style.MUTED}" stroke-width="1.4" stroke-dasharray="2 3"'
        pen.shapes.append(f'<path d="M{x:g} {top:.1f}V{bottom:.1f}" {dots}/>')
        pen.text(x + 8, (top + bottom) / 2, f"{abs(guess[i] - measured[i]):.3g} apart", "start", colour=style.MUTED)
