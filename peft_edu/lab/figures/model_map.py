"""The model map: every block of a model with what is frozen and what is trained, the area of a box its parameters."""

from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from transformers import PreTrainedModel

from peft_edu.lab.figures import style
from peft_edu.lab.figures.display import show
from peft_edu.lab.measure.parts import Part, Slab, describe, parts
from peft_edu.storage.checkpoint import count

# The picture, in pixels

_LEFT, _RIGHT, _BOTTOM, _TOP = 14, 756, 74, 296
_LABELS, _LONGEST = 62, 9  # room for the names of the maps, left of the first block, and the letters that fit
_THIN, _END = 3, 46  # what stays visible however small it is; the least room of what is not a block, for its name
_LOOKS = {
    "frozen": {"facecolor": style.FROZEN, "edgecolor": style.FROZEN_LINE},
    "hatched": {"facecolor": "none", "edgecolor": style.FROZEN_LINE, "hatch": "////"},
    "trained": style.TRAINED_BOX,
    "virtual tokens": {"facecolor": style.VIRTUAL, "edgecolor": style.INK},
    "trained task head": {"facecolor": style.HEAD, "edgecolor": style.INK},
}
_COLUMNS = 48  # more blocks than these do not fit: then every second or third is drawn


def draw(model: PreTrainedModel, title: str = "") -> None:
    """Show what is trained in this model, and where."""
    found = parts(model)
    show(figure(found, title or str(count(model))), describe(found))


@style.styled
def figure(found: list[Part], title: str) -> Figure:
    """Columns from the embedding to the head, as wide as their parameters; in each block a slab for each map."""
    picture, axes = style.sheet(title)
    boxes, every = {role: [] for role in _LOOKS}, -(-sum(part.kind == "block" for part in found) // _COLUMNS)
    found = [part for part in found if part.kind != "block" or part.number % every == 0]
    gap = 3 if len(found) > 14 else 8
    scale = _scale(found, gap)
    x, labelled = _LEFT, False
    for part in found:
        if part.kind == "block" and not labelled:
            x, labelled = x + _LABELS, True
            _name_maps(axes, part, x - 6)
        width = _width(part, scale)
        _column(boxes, part, x, width)
        _name_part(axes, part, x, width, last=part is found[-1] or found[found.index(part) + 1].kind != "block")
        x += _room(part, scale) + gap
    for role, look in _LOOKS.items():  # one call a role keeps a slider quick
        axes.add_collection(PatchCollection(boxes[role], linewidth=0.5, label=role, **look))
    note = "area = parameters; the smallest are drawn larger" + (f"; 1 block of {every}" if every > 1 else "")
    _legend(axes, boxes, note)
    return picture


def _scale(found: list[Part], gap: float) -> float:
    """Pixels of width for a parameter, so that all columns with what stands beside them fill the page: by bisection."""
    available = _RIGHT - _LEFT - _LABELS - gap * (len(found) - 1)
    low, high = 0.0, available / max(part.weights for part in found)
    for _ in range(40):
        middle = (low + high) / 2
        fits = sum(_room(part, middle) for part in found) <= available
        low, high = (middle, high) if fits else (low, middle)
    return low


def _width(part: Part, scale: float) -> float:
    return max((2 if part.kind == "block" else 3) * _THIN, scale * part.weights)


def _room(part: Part, scale: float) -> float:
    """The width of a column with what stands beside it; what is not a block needs room for its name."""
    width = _width(part, scale)
    if part.kind != "block":
        return max(width, _END)
    return width + max((_extra(slab, width) for slab in part.slabs), default=0)


def _extra(slab: Slab, width: float) -> float:
    """As high as its slab, so as wide as its share of the slab's parameters."""
    return max(_THIN, width * slab.beside / slab.weights) if slab.beside else 0.0


def _heights(part: Part) -> list[float]:
    """The heights of the slabs share the column; the thinnest stay visible at the cost of the others."""
    full = _TOP - _BOTTOM
    thin = [max(_THIN, full * slab.weights / part.weights) for slab in part.slabs]
    return [height * full / sum(thin) for height in thin]


def _column(boxes: dict[str, list[Rectangle]], part: Part, x: float, width: float) -> None:
    """Draw a part's slabs from the top down, with one hatching over neighbours that are frozen."""
    y = run = _TOP

    def hatch(bottom: float) -> None:
        if run - bottom > 1e-6:
            boxes["hatched"].append(Rectangle((x, bottom), width, run - bottom))

    for slab, height in zip(part.slabs, _heights(part), strict=True):
        y -= height
        role = "virtual tokens" if slab.virtual else "trained task head" if part.kind == "head" else "trained"
        if slab.trained:
            boxes["trained" if slab.beside else role].append(Rectangle((x, y), width, height))
            hatch(y + height)
            run = y
        else:
            boxes["frozen"].append(Rectangle((x, y), width, height))
        if slab.biases:
            boxes["trained"].append(Rectangle((x, y), width, min(_THIN, height)))
        if slab.beside:
            boxes[role].append(Rectangle((x + width, y), _extra(slab, width), height))
    hatch(y)


def _name_maps(axes, part: Part, x: float) -> None:
    y, last = _TOP, _TOP + 20
    for slab, height in zip(part.slabs, _heights(part), strict=True):
        last = min(y - height / 2, last - 12)
        name = slab.name if len(slab.name) <= _LONGEST else slab.name[: _LONGEST - 1] + "…"
        axes.text(x, last, name, ha="right", va="center", size=8.5, color=style.MUTED)
        y -= height


def _name_part(axes, part: Part, x: float, width: float, last: bool) -> None:
    """Names under wide columns, some of the numbers under narrow ones."""
    if part.kind != "block":
        axes.text(x, _BOTTOM - 6, part.name, va="top", size=9)
    elif width > 45:
        axes.text(x + width / 2, _BOTTOM - 6, part.name, ha="center", va="top", size=9)
    elif width > 25 or part.number == 1 or (part.number % (4 if width > 12 else 8) == 0 and not (last and width < 12)):
        axes.text(x + width / 2, _BOTTOM - 6, part.number, ha="center", va="top", size=9)


def _legend(axes, boxes: dict[str, list[Rectangle]], note: str) -> None:
    """What the colours say that are there."""
    x = _LEFT
    for role, look in _LOOKS.items():
        if boxes[role] and role != "hatched":
            look = style.FROZEN_BOX if role == "frozen" else look
            axes.add_patch(Rectangle((x, 18), 16, 12, linewidth=0.5, **look))
            axes.text(x + 22, 24, role, va="center", size=9)
            x += 42 + 7 * len(role)
    axes.text(_RIGHT, 24, note, ha="right", va="center", size=8.5, color=style.MUTED)
