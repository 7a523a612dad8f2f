"""The whole line in one picture: pretrained, supervised, preferences, with what each stage needs.

Below each stage stand the copies of the model that are in memory: once where everything is trained, once with the
method that is attached. `measure/stages.py` says what a stage needs, and counts the bytes.
"""

from html import escape
from itertools import groupby
from textwrap import wrap

from IPython.display import display
from transformers import PreTrainedModel

from peft_edu.lab.figures import style
from peft_edu.lab.figures.display import unseen
from peft_edu.lab.figures.pen import DEFS, FONT, Pen, wide
from peft_edu.lab.measure.cost import readable
from peft_edu.lab.measure.stages import REFERENCE, STAGES, TRAINED, Sizes, Stage, sizes

# In pixels from the upper left

WIDTH, HEIGHT = 780, 488
SHOWN = ("text", "labels", "rules", "pairs", "feedback")
_LEFT, _COLUMN, _INSIDE, _BETWEEN = 12, 139, 6, 24  # the gap between two columns of a part, and between two parts
BASE_IS_MADE = "the base is made here, once for all"
_LINE, _HIGH, _LETTERS = 14, 20, 20  # of a text; the height of a copy of the model; the letters that fit into a column
_NEEDS, _SIGNAL, _AMOUNT, _ALL, _BESIDE, _LEGEND = 116, 174, 232, 276, 362, 472  # where the rows begin


def svg(counted: Sizes, title: str = "") -> str:
    """The picture as SVG, with a title and a description for screen readers."""
    pen, columns = Pen(), _columns()
    title = title or _finding(counted)
    pen.text(14, 20, title, "start", 13, bold=True)
    _parts(pen, columns)
    _headings(pen, counted)
    for key, x in columns.items():
        _column(pen, STAGES[key], x, counted, base=key != "text")
    _legend(pen, counted)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" font-family="{escape(FONT)}" style="max-width:100%;height:auto">'
    )
    about = f"<title>{escape(title)}</title><desc>{escape(describe(counted))}</desc>"
    edge = f'width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="6" fill="{style.PAPER}" stroke="{style.GRID}"'
    ground = f'<rect x="0.5" y="0.5" {edge}/>'  # opaque: readable on a dark page too
    return "\n".join([head + about, DEFS, ground, *pen.shapes, "</svg>"]) + "\n"


def describe(counted: Sizes) -> str:
    """The picture in words."""
    told = []
    for key in SHOWN:
        stage, needed = STAGES[key], readable(counted.everything(STAGES[key]).total)
        told.append(
            f"{stage.part}, {stage.name} ({stage.where}). What you need: {stage.data}. The signal: {stage.signal}."
        )
        told.append(f"In the lessons: {stage.amount()}.")
        told.append(f"Everything trained, in memory: {', '.join(stage.models)}; {needed}.")
        told.append(f"With {counted.method}: {_saved(key, counted)}.")
    return f"A line from left to right. {' '.join(told)}"


def draw_stages(model: PreTrainedModel, title: str = "") -> None:
    """Show what each stage needs, and what the method that is attached to this model saves in it.

    The method stands beside frozen weights: draw_stages(LoRA(rank=8).attach(architecture("Llama-3.2-1B"))).
    """
    counted = sizes(model)
    words, picture = describe(counted), svg(counted, title)
    display({"image/svg+xml": picture, "text/plain": words}, metadata={"image/svg+xml": {"alt": words}}, raw=True)
    display({"text/html": unseen(f"Figure: {words}")}, raw=True)


def _finding(counted: Sizes) -> str:
    last = STAGES[SHOWN[-1]]
    both = readable(counted.everything(last).total), readable(counted.beside_one_base(last).total)
    return f"From pretraining to preferences: four models, {both[0]}, become one base, {both[1]}"


def _saved(key: str, counted: Sizes) -> str:
    if key == "text":
        return BASE_IS_MADE
    return f"{STAGES[key].saved}; {readable(counted.beside_one_base(STAGES[key]).total)}"


def _columns() -> dict[str, float]:
    """The middle of each stage's column."""
    found, x, part = {}, _LEFT, STAGES[SHOWN[0]].part
    for key in SHOWN:
        x += 0 if not found else _INSIDE if STAGES[key].part == part else _BETWEEN
        found[key], part = x + _COLUMN / 2, STAGES[key].part
        x += _COLUMN
    return found


def _parts(pen: Pen, columns: dict[str, float]) -> None:
    """The line: a box for each part over its columns, and arrows between them."""
    end = None
    for part, keys in groupby(SHOWN, key=lambda key: STAGES[key].part):
        keys = list(keys)
        left, right = columns[keys[0]] - _COLUMN / 2, columns[keys[-1]] + _COLUMN / 2
        pen.box((left + right) / 2, 52, right - left, 26, "plain", radius=13)
        pen.text((left + right) / 2, 52, part, size=13, bold=True)
        if end is not None:
            pen.line((end, 52), (left, 52), arrow=True, width=2)
        end = right


def _headings(pen: Pen, counted: Sizes) -> None:
    headings = {
        _NEEDS: "What you need",
        _SIGNAL: "The signal",
        _AMOUNT: "How many, in the lessons",
        _ALL: "In memory, everything trained: weights, gradients, moments",
        _BESIDE: f"In memory, with {counted.method}",
    }
    for y, words in headings.items():
        pen.shapes.append(f'<path d="M{_LEFT} {y - 10}H{WIDTH - _LEFT}" stroke="{style.FROZEN_LINE}"/>')
        pen.text(_LEFT, y, words, "start", bold=True, colour=style.MUTED)


def _column(pen: Pen, stage: Stage, x: float, counted: Sizes, base: bool) -> None:
    """One stage, from its name down to its bytes. `base`: whether there is a base model already."""
    pen.text(x, 76, stage.name, size=12, bold=True)
    pen.text(x, 92, stage.where, colour=style.MUTED)
    for y, words in ((_NEEDS, stage.data), (_SIGNAL, stage.signal), (_AMOUNT, stage.amount())):
        _lines(pen, x, y + 18, words)
    for i, name in enumerate(stage.models):
        across = min(2, len(stage.models))
        width = _COLUMN / across - 3
        at = x + (i % across - (across - 1) / 2) * _COLUMN / across
        _model(pen, at, _ALL + 20 + i // across * (_HIGH + 3), width, name, name in TRAINED)
    pen.text(x, _ALL + 62, readable(counted.everything(stage).total), bold=True)
    if not base:
        _lines(pen, x, _BESIDE + 20, BASE_IS_MADE)
        return
    _model(pen, x, _BESIDE + 20, _COLUMN - 3, "base", trained=False)
    parts = [name for name in stage.models if name != REFERENCE]
    for i, name in enumerate(parts):
        at = x + (i - (len(parts) - 1) / 2) * (wide("reward") + 6)
        _model(pen, at, _BESIDE + 43, wide("reward") + 3, name if len(stage.models) > 1 else "part", name in TRAINED)
    _lines(pen, x, _BESIDE + 64, stage.saved)
    pen.text(x, _BESIDE + 92, readable(counted.beside_one_base(stage).total), bold=True)


def _model(pen: Pen, x: float, y: float, width: float, name: str, trained: bool) -> None:
    pen.box(x, y, width, _HIGH, "trained" if trained else "frozen")
    pen.text(x, y, name)


def _lines(pen: Pen, x: float, y: float, words: str) -> None:
    for i, line in enumerate(wrap(words, _LETTERS)):
        pen.text(x, y + i * _LINE, line)


def _legend(pen: Pen, counted: Sizes) -> None:
    x = _LEFT
    for look in ("trained", "frozen"):
        pen.box(x + 10, _LEGEND, 20, 13, look)
        pen.text(x + 26, _LEGEND, look, "start")
        x += 40 + wide(look)
    numbers = f"{counted.base:,} parameters in float32, {counted.beside:,} beside them; activations come on top"
    pen.text(WIDTH - _LEFT, _LEGEND, numbers, "end", colour=style.MUTED)
