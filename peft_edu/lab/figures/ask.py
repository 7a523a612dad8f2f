"""What models answer to one text, as bars side by side, and below what the asked token attends to, layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.colors import to_hex

from peft_edu.lab.figures import style
from peft_edu.lab.figures.pen import FONT, Pen, shortened
from peft_edu.lab.measure.ask import Reply

WIDTH = 760  # pixels
_TITLE, _NAMES, _BAR, _GAP, _LABELS = 34, 24, 21, 26, 78  # pixels: how high the parts are, from top to bottom
_LEFT, _RIGHT = 62, 748  # of the maps


@dataclass(frozen=True)
class Column:
    """A token that can be attended to."""

    text: str
    virtual: bool = False
    off: bool = False
    asked: bool = False  # the one whose attention is shown


def height(models: int, layers: int, answers: int) -> float:
    """How high the picture is, whatever is asked, so that nothing jumps."""
    maps = models * (_GAP + layers * _row(layers)) + _LABELS if layers else 10
    return _TITLE + _NAMES + answers * _BAR + maps


def _row(layers: int) -> float:
    return min(20, max(7, 120 / layers))


def svg(
    replies: Mapping[str, Reply], columns: Sequence[Column], title: str, words: str, about: str, high: float
) -> str:
    """`about` says whose attention it is; each reply's has one column for each of `columns`. `words` tell it all."""
    pen, wide = Pen(), WIDTH / len(replies)
    pen.text(14, 18, shortened(title, WIDTH - 100), "start", 13)
    for i, (name, reply) in enumerate(replies.items()):
        _bars(pen, name, reply, i * wide, wide, last=i == len(replies) - 1)
    top = _TITLE + _NAMES + max(len(reply.answers) for reply in replies.values()) * _BAR
    heard = {name: reply for name, reply in replies.items() if len(reply.attention)}
    known = [reply.attention[~np.isnan(reply.attention)] for reply in heard.values()]
    largest = max([0.01, *(float(each.max()) for each in known if each.size)])
    for name, reply in heard.items():
        top = _map(pen, f"{name}: " if name else "", about, reply, columns, top, largest)
    if heard:
        _tokens(pen, columns, top)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high:g}" width="{WIDTH}" height="{high:g}" '
        f'role="img" font-family="{escape(FONT)}">'
    )
    about = f"<title>{escape(title)}</title><desc>{escape(words)}</desc>"
    ground = f'<rect width="{WIDTH}" height="{high:g}" rx="6" fill="{style.PAPER}"/>'  # readable on a dark page too
    return "\n".join([head + about, ground, *pen.shapes, "</svg>"])


def _bars(pen: Pen, name: str, reply: Reply, left: float, wide: float, last: bool) -> None:
    """From 0 to 1; the likeliest is full. The last model is the one that was trained, where there are several."""
    start, end = left + 0.34 * wide, left + wide - 56
    pen.text(start, _TITLE + 10, name, "start", 12.5, bold=True)
    colour = style.TRAINED if last else style.FROZEN_LINE
    for i, (answer, share) in enumerate(reply.answers.items()):
        y, likeliest = _TITLE + _NAMES + _BAR * (i + 0.5), answer == reply.answer
        _rectangle(pen, start, y - 7, end - start, 14, style.GRID)
        _rectangle(pen, start, y - 7, share * (end - start), 14, colour, opacity=1 if likeliest else 0.45)
        pen.text(start - 8, y, shortened(answer, 0.34 * wide - 16), "end", 12, bold=likeliest)
        pen.text(end + 8, y, f"{share:.2f}", "start", 12, bold=likeliest)


def _map(pen: Pen, name: str, about: str, reply: Reply, columns: Sequence[Column], top: float, largest: float) -> float:
    """One row a layer, the first at the top, and a tip on each cell for the mouse; where it ends."""
    layers, row, wide = len(reply.attention), _row(len(reply.attention)), (_RIGHT - _LEFT) / len(columns)
    unread = np.isnan(reply.attention).all()
    said = "it does not read this token" if unread else f"darkest: {largest:.2f}"
    pen.text(_LEFT, top + _GAP - 9, f"{name}attention of {about} ({said})", "start", 12)
    top += _GAP
    for layer, shares in enumerate(reply.attention):
        for i, share in enumerate(shares):
            tip = "" if np.isnan(share) else f"layer {layer + 1}, {columns[i].text}: {share:.2f}"
            colour = style.FROZEN if not tip else to_hex(style.HEAT(share / largest))
            _rectangle(pen, _LEFT + i * wide, top + layer * row, wide, row, colour, tip)
    frame = f'width="{_RIGHT - _LEFT}" height="{layers * row:g}" fill="none" stroke="{style.FROZEN_LINE}"'
    pen.shapes.append(f'<rect x="{_LEFT}" y="{top:g}" {frame}/>')
    for layer in {0, layers - 1}:
        pen.text(_LEFT - 6, top + (layer + 0.5) * row, f"layer {layer + 1}", "end", colour=style.MUTED)
    return top + layers * row


def _tokens(pen: Pen, columns: Sequence[Column], top: float) -> None:
    """The names of the columns, upright; in a long text not every one has room."""
    wide = (_RIGHT - _LEFT) / len(columns)
    every = max(1, round(11 / wide))
    for i, column in enumerate(columns):
        if column.virtual and not column.off:
            _rectangle(pen, _LEFT + i * wide, top + 2, wide - 1, 5, style.VIRTUAL)
        if i % every and not column.asked and not column.off:
            continue
        colour, text = (style.MUTED, f"{column.text} off") if column.off else (style.INK, column.text)
        x, weight = _LEFT + (i + 0.5) * wide + 4, ' font-weight="600"' if column.asked else ""
        pen.shapes.append(
            f'<text transform="translate({x:.1f} {top + 11:g}) rotate(-90)" text-anchor="end" font-size="11" '
            f'fill="{colour}"{weight}>{escape(shortened(text, 70))}</text>'
        )


def _rectangle(
    pen: Pen, x: float, y: float, w: float, h: float, colour: str, tip: str = "", opacity: float = 1
) -> None:
    about = f"><title>{escape(tip)}</title></rect>" if tip else "/>"
    faint = f' fill-opacity="{opacity}"' if opacity < 1 else ""
    pen.shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{colour}"{faint}{about}')
