"""Shapes of an SVG, in the looks that frozen, trained and virtual things have in every picture."""

from html import escape
from typing import NamedTuple

from peft_edu.lab.figures import style

SMALL, FONT = 11, 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", Verdana, sans-serif'
_LETTER = 0.62  # of a letter's size its width, on average and rather too much
LOOKS = {  # fill, edge, how thick
    "frozen": ("url(#block-frozen)", style.FROZEN_LINE, 1),
    "trained": (style.TRAINED, style.TRAINED_LINE, 1.6),
    "virtual": (style.PAPER, style.VIRTUAL, 2),
    "token": (style.VIRTUAL, style.INK, 0.8),
    "head": (style.HEAD, style.INK, 1.6),
    "plain": (style.PAPER, style.INK, 1),
}
LOOKS["biases"] = LOOKS["partly"] = LOOKS["frozen"]
DEFS = f"""<defs><pattern id="block-frozen" width="7" height="7" patternUnits="userSpaceOnUse"\
 patternTransform="rotate(45)"><rect width="7" height="7" fill="{style.FROZEN}"/>\
<path d="M0 0V7" stroke="{style.FROZEN_LINE}" stroke-width="0.9" stroke-opacity="0.55"/></pattern></defs>"""


class Place(NamedTuple):
    """Where something has its place in a picture, or would have it: centre and size, in pixels."""

    name: str
    x: float
    y: float
    w: float
    h: float


class Pen:
    """Collects the shapes of a picture, and the places in it that have a name."""

    def __init__(self):
        self.shapes: list[str] = []
        self.places: list[Place] = []

    def box(self, x: float, y: float, w: float, h: float, look: str, tip: str = "", radius: float = 3) -> None:
        """Centred at (x, y), which is how all shapes are placed."""
        fill, edge, width = LOOKS[look]
        left, top = x - w / 2, y - h / 2
        about = f"<title>{escape(tip)}</title>" if tip else ""
        self._add(
            f'<rect x="{left:g}" y="{top:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" fill="{fill}" '
            f'stroke="{edge}" stroke-width="{width}">{about}</rect>'
        )
        if look == "biases":  # the edge through which the bias enters
            self._add(
                f'<rect x="{left + w - 3:g}" y="{top - 2:g}" width="7" height="{h + 4:g}" rx="1.5" '
                f'fill="{style.TRAINED}" stroke="{style.TRAINED_LINE}"/>'
            )
        if look == "partly":
            self._add(
                f'<rect x="{left:g}" y="{top + h - 5:g}" width="{w:g}" height="5" fill="{style.TRAINED}" '
                f'stroke="{style.TRAINED_LINE}"/>'
            )

    def shape(self, corners: list[tuple[float, float]], look: str, tip: str = "") -> None:
        fill, edge, width = LOOKS[look]
        points = " ".join(f"{x:g},{y:g}" for x, y in corners)
        about = f"<title>{escape(tip)}</title>" if tip else ""
        self._add(
            f'<polygon points="{points}" fill="{fill}" stroke="{edge}" stroke-width="{width}" '
            f'stroke-linejoin="round">{about}</polygon>'
        )

    def line(self, *points: tuple[float, float], arrow: bool = False, width: float = 1.3, dashed: bool = False) -> None:
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self._add(
            f'<path d="{path}" fill="none" stroke="{style.INK}" stroke-width="{width}" '
            f'stroke-linejoin="round"{dashes}/>'
        )
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            along, across = (x > x0) - (x < x0), (y > y0) - (y < y0)
            back = [(x - 6 * along - 3.5 * side * across, y - 6 * across - 3.5 * side * along) for side in (1, -1)]
            head = " ".join(f"{a:g},{b:g}" for a, b in [(x, y), *back])
            self._add(f'<polygon points="{head}" fill="{style.INK}"/>')

    def plus(self, x: float, y: float, radius: float = 7, tip: str = "sum") -> None:
        self._circle(x, y, radius, tip)
        arm = radius - 3
        self._add(
            f'<path d="M{x - arm:g} {y:g}H{x + arm:g}M{x:g} {y - arm:g}V{y + arm:g}" stroke="{style.INK}" '
            f'stroke-width="1.5"/>'
        )

    def times(self, x: float, y: float) -> None:
        self._circle(x, y, 7, "product, number by number")
        self._add(f'<path d="M{x - 3:g} {y - 3:g}l6 6m0 -6l-6 6" stroke="{style.INK}" stroke-width="1.5"/>')

    def bend(self, x: float, y: float) -> None:
        """An activation: the line that bends."""
        self._circle(x, y, 9, "activation")
        self._add(f'<path d="M{x - 5:g} {y + 3:g}h5l4 -6" fill="none" stroke="{style.INK}" stroke-width="1.5"/>')

    def dot(self, x: float, y: float) -> None:
        self._add(f'<circle cx="{x:g}" cy="{y:g}" r="2.8" fill="{style.INK}"/>')

    def text(self, x: float, y: float, words: str, anchor="middle", size=SMALL, bold=False, colour=style.INK) -> None:
        """`y` is the middle of the letters."""
        weight = ' font-weight="600"' if bold else ""
        self._add(
            f'<text x="{x:g}" y="{y + 0.36 * size:.1f}" text-anchor="{anchor}" font-size="{size:g}" '
            f'fill="{colour}"{weight}>{escape(words)}</text>'
        )

    def place(self, name: str, x: float, y: float, w: float, h: float) -> None:
        self.places.append(Place(name, x, y, w, h))

    def _circle(self, x: float, y: float, radius: float, tip: str) -> None:
        self._add(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{style.PAPER}" stroke="{style.INK}" '
            f'stroke-width="1.2"><title>{tip}</title></circle>'
        )

    def _add(self, shape: str) -> None:
        self.shapes.append(shape)


def wide(words: str, size: float = SMALL) -> float:
    """How many pixels a text takes, rather too many."""
    return _LETTER * size * len(words)


def shortened(words: str, room: float) -> str:
    """As much of a text as fits into so many pixels."""
    most = int(room / SMALL / _LETTER)
    return words if len(words) <= most else words[: most - 1] + "…"
