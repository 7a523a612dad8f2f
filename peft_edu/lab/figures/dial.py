"""What a model answers at a setting of the dial: the labels' probabilities as bars, or the text that it writes."""

from collections.abc import Mapping
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from peft_edu.lab.figures import style

Answer = str | Mapping[str, float]  # a text that was written, or the probability of each label
LEFT, RIGHT, BAR, LINE, ROWS = 150, 690, 26, 19, 4  # pixels, and how many lines of a written text are shown
NAME, BELOW = 32, 10  # pixels above a text for its name, and under the last one
FRAME = 46 + 34  # pixels: the title, and below the answer its axis


def inches(answer: Answer) -> float:
    """How high the figure of such an answer is. All texts have one height, so that nothing jumps."""
    rows = ROWS * LINE + 14 if isinstance(answer, str) else len(answer) * BAR
    return (FRAME + rows) / style.DPI


@style.styled
def figure(answer: Answer, title: str) -> Figure:
    """The answer, under a title that says how the dials stand."""
    figure, axes = style.sheet(title, inches(answer))
    top = inches(answer) * style.DPI - 46
    if isinstance(answer, str):
        _written(axes, answer, top)
    else:
        _bars(axes, answer, top)
    return figure


def inches_beside(texts: int) -> float:
    """How high the figure of so many texts is."""
    return (46 + texts * (ROWS * LINE + 14 + NAME) + BELOW) / style.DPI


@style.styled
def beside(answers: Mapping[str, str], title: str) -> Figure:
    """Texts one under the other, each in a frame under its name."""
    height = ROWS * LINE + 14 + NAME
    figure, axes = style.sheet(title, inches_beside(len(answers)))
    for i, (name, text) in enumerate(reversed(answers.items()), start=1):
        axes.text(20, BELOW + i * height - 10, name, va="top", weight="bold")
        _written(axes, text, BELOW + i * height - NAME)
    return figure


def _bars(axes: Axes, probabilities: Mapping[str, float], top: float) -> None:
    """From 0 to 1, whatever is answered; the likeliest is full."""
    bottom, likeliest = top - BAR * len(probabilities), max(probabilities, key=probabilities.get)
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = LEFT + share * (RIGHT - LEFT)
        axes.plot([x, x], [bottom, top], color=style.GRID, linewidth=1, zorder=0)
        axes.text(x, bottom - 4, f"{share:g}", ha="center", va="top", color=style.MUTED, size=8.5)
    for i, (label, share) in enumerate(probabilities.items()):
        y, chosen = top - BAR * (i + 1), label == likeliest
        look = {"alpha": 1 if chosen else 0.35, "weight": "bold" if chosen else "normal"}
        bar = Rectangle((LEFT, y + 4), share * (RIGHT - LEFT), BAR - 8, facecolor=style.TRAINED, alpha=look["alpha"])
        axes.add_patch(bar)
        axes.text(LEFT - 10, y + BAR / 2, label, ha="right", va="center", weight=look["weight"])
        axes.text(RIGHT + 14, y + BAR / 2, f"{share:.2f}", va="center", weight=look["weight"])


def _written(axes: Axes, text: str, top: float) -> None:
    """In a frame, in as many lines as it takes; what does not fit is cut."""
    height = ROWS * LINE + 14
    look = {"facecolor": style.PAPER, "edgecolor": style.TRAINED_LINE, "linewidth": 1.2}
    axes.add_patch(Rectangle((20, top - height), 730, height, **look))
    lines = wrap(text, 80) or ["(nothing: it ends the text at once)"]
    shown = [*lines[: ROWS - 1], lines[ROWS - 1] + " ..."] if len(lines) > ROWS else lines
    for i, line in enumerate(shown):
        axes.text(32, top - 8 - LINE * i, line, va="top", size=11)
