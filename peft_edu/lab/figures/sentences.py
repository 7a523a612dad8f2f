"""Sentences as pictures: each word in a box whose colour and letters say what it is to the model."""

from collections.abc import Sequence
from itertools import count

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from peft_edu.lab.figures import style

CHARACTER, PAD, GAP, LINE, LEFT = 8.75, 9, 5, 58, 14  # pixels
BOXES = {  # what a word is: face, edge, letters, hatch
    "word": (style.PAPER, style.MUTED, style.INK, ""),
    "pseudo": (style.VIRTUAL, style.VIRTUAL, style.PAPER, ""),
    "gap": (style.FROZEN, style.FROZEN_LINE, style.INK, ""),
    "asked": (style.FROZEN, style.FROZEN_LINE, style.INK, ""),
    "learned": (style.TRAINED, style.TRAINED, style.INK, ""),
    "PRAISED": (style.PAPER, style.VIRTUAL, style.INK, ""),
    "CRITICISED": (style.PAPER, style.TRAINED, style.INK, "////"),
    "FIRST": (style.PAPER, style.HEAD, style.INK, ""),
    "MIDDLE": (style.PAPER, style.TRAINED, style.INK, "////"),
    "LAST": (style.PAPER, style.VIRTUAL, style.INK, "\\\\\\\\"),
}
Token = tuple[str, str]  # the text in the box, and what it is: a key of BOXES


@style.styled
def sentences(rows: Sequence[tuple[str, Sequence[Token]]], title: str, inches: float | None = None) -> Figure:
    """Each row is a name and a sentence. What a word is stands under its box, if it is more than a word."""
    lines = [line for name, tokens in rows for line in _broken(name, tokens)]
    figure, axes = style.sheet(title, height=inches or (len(lines) * LINE + 52) / style.DPI)
    y = figure.get_size_inches()[1] * style.DPI - 52
    for name, tokens in lines:
        x = LEFT
        if name:
            axes.text(LEFT, y - 13, name, va="center", color=style.MUTED)
            x += CHARACTER * len(name) + PAD
        for text, kind in tokens:
            face, edge, ink, hatch = BOXES[kind]
            width, heavy = _width(text), 2.2 if kind.isupper() else 0.9
            look = {"facecolor": face, "edgecolor": edge, "linewidth": heavy, "hatch": hatch, "alpha": 1}
            axes.add_patch(Rectangle((x, y - 26), width, 26, **look))
            look = {"ha": "center", "va": "center", "color": ink, "family": "DejaVu Sans Mono"}
            if hatch:
                look["bbox"] = {"boxstyle": "square,pad=0.1", "facecolor": style.PAPER, "edgecolor": "none"}
            axes.text(x + width / 2, y - 13.5, text, **look)
            if kind.isupper():
                axes.text(x + width / 2, y - 30, kind.lower(), ha="center", va="top", fontsize=7.5, color=style.MUTED)
            x += width + GAP
        y -= LINE
    return figure


def _width(text: str) -> float:
    return CHARACTER * len(text) + PAD


def _broken(name: str, tokens: Sequence[Token]) -> list[tuple[str, list[Token]]]:
    """The sentence in lines that fit the figure."""
    lines, room = [(name, [])], style.WIDTH * style.DPI - 2 * LEFT - (CHARACTER * len(name) + PAD if name else 0)
    for token in tokens:
        needed = _width(token[0]) + GAP
        if needed > room and lines[-1][1]:
            lines.append(("", []))
            room = style.WIDTH * style.DPI - 2 * LEFT
        lines[-1][1].append(token)
        room -= needed
    return lines


def template_tokens(template: str, subject: str) -> list[Token]:
    """The boxes of a template whose subject is filled in."""
    kinds, numbers = {"[P]": "pseudo", "[MASK]": "gap"}, count(1)
    spaced = template.replace("[P]", " [P] ").replace("[MASK]", " [MASK] ").replace("{subject}", subject)
    return [(str(next(numbers)) if piece == "[P]" else piece, kinds.get(piece, "word")) for piece in spaced.split()]
