"""The model map: every block of a model with what is frozen and what is trained, computed from `requires_grad`.

parts(model)   numbers: which weights lie where, and what a method put beside them
figure(...)    the picture: the area of a box is its number of parameters
draw(model)    both, into the notebook
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, blocks, ends, head, linear_maps
from peft_edu.checkpoint import count
from peft_edu.lab import style
from peft_edu.lab.display import show
from peft_edu.method import attached


@dataclass(frozen=True)
class Slab:
    """One weight of a part, its bias, and what a method put beside it."""

    name: str
    weights: int
    trained: bool
    bias_trained: bool = False
    beside: int = 0
    virtual: bool = False  # what is beside are virtual tokens, or the slab itself is a prompt


@dataclass(frozen=True)
class Part:
    kind: str  # embedding, block, final (the last norm, a pooler, a language-model head of its own), head
    name: str
    slabs: tuple[Slab, ...]

    @property
    def weights(self) -> int:
        return sum(slab.weights for slab in self.slabs)

    @property
    def number(self) -> int:
        """Which block it is, from 1 at the bottom."""
        return int(self.name.split()[-1])


def draw(model: PreTrainedModel, title: str = "") -> None:
    """Show what is trained in this model, and where."""
    found = parts(model)
    show(figure(found, title or str(count(model))), describe(found))


def parts(model: PreTrainedModel) -> list[Part]:
    """The model from its embedding to its head. What lies neither in a block nor in the head is in front or behind."""
    seen: set[nn.Parameter] = set()
    maps: dict[nn.Module, list[LinearMap]] = {}
    for each in linear_maps(model):
        maps.setdefault(each.module, []).append(each)
    added = [set(module.parameters()) for module in attached(model).added] if attached(model) else []
    shared = {parameter for a, b in combinations(added, 2) for parameter in a & b}  # an MLP that makes all prefixes
    mine = set().union(*added)
    stack = [_block(model, block, i, maps, seen | shared) for i, block in enumerate(blocks(model), start=1)]
    seen.update(parameter for block in blocks(model) for parameter in block.parameters() if parameter not in shared)
    heads = [Part("head", "head", tuple(_owned(part, seen))) for part in head(model)]
    outer = [parameter for parameter in outside_blocks(model) if parameter not in seen]
    front = set(outer[: _in_front(model)]) | shared | (mine & set(outer))  # a prompt stands before the text
    embedding = Part("embedding", "embedding", tuple(_owned(model, seen, within=front, virtual=mine)))
    final = Part("final", "final", tuple(_owned(model, seen, within=set(outer))))
    return [part for part in (embedding, *stack, final, *heads) if part.weights]


def outside_blocks(model: PreTrainedModel) -> list[nn.Parameter]:
    """Embeddings, the last norm, a pooler, the head: all that lies in no block."""
    inside = {parameter for block in blocks(model) for parameter in block.parameters()}
    return [parameter for parameter in model.parameters() if parameter not in inside]


def _in_front(model: PreTrainedModel) -> int:
    """How many parameters come before the first block: transformers registers modules from the input to the output."""
    first = next(blocks(model)[0].parameters())
    return next(i for i, parameter in enumerate(model.parameters()) if parameter is first)


def describe(found: list[Part]) -> str:
    """The map in words: runs of equal blocks together."""
    runs: list[tuple[str, list[str]]] = []
    for part in found:
        state = _state(part)
        if runs and runs[-1][0] == state and part.kind == "block" and "block" in runs[-1][1][-1]:
            runs[-1][1].append(part.name)
        else:
            runs.append((state, [part.name]))
    return "Model map. " + "; ".join(f"{_span(names)}: {state}" for state, names in runs) + "."


def _block(model: PreTrainedModel, block: nn.Module, number: int, maps: dict, seen: set[nn.Parameter]) -> Part:
    """The linear maps, from the bottom up, and the norms. An adapter stands beside the map before it, a prefix beside
    key and value."""
    beside: dict[str, list[nn.Parameter]] = defaultdict(list)
    places = ends(model, block)
    for place in places:
        if hasattr(place, "adapter"):
            beside["down" if place is places[-1] else "output"] += place.adapter.parameters()
    for prefix in (module.prefix for module in block.modules() if hasattr(module, "prefix")):
        own = [parameter for parameter in prefix.parameters() if parameter not in seen]
        for role in ("key", "value"):
            beside[role] += own
    prefixes = set(beside["key"])
    seen = seen | {parameter for each in beside.values() for parameter in each}
    slabs = []
    for each in (each for module in block.modules() for each in maps.get(module, ())):
        near = beside.pop(each.role, [])
        numbers = sum(p.numel() // 2 if p in prefixes else p.numel() for p in near)
        slabs.append(_map_slab(each, seen, numbers, virtual=not prefixes.isdisjoint(near)))
    return Part("block", f"block {number}", (*slabs, *_owned(block, seen, name="norm")))


def _map_slab(each: LinearMap, seen: set[nn.Parameter], near: int, virtual: bool) -> Slab:
    """A linear map with its children; of a fused module's children those that change the same rows."""
    module, bias = each.module, getattr(each.module, "bias", None)
    children = [child for child in module.children() if getattr(child, "rows", None) == each.rows]
    beside = [parameter for child in children for parameter in child.parameters()]
    seen.update(module.parameters(recurse=False), beside)
    return Slab(
        each.role,
        each.weight.numel(),
        module.weight.requires_grad,
        bias_trained=bias is not None and bias.requires_grad,
        beside=near + sum(parameter.numel() for parameter in beside),
        virtual=virtual,
    )


def _owned(root: nn.Module, seen: set, within: set | None = None, name="", virtual=()) -> Iterator[Slab]:
    """What is not drawn yet: one slab a module, or with a name all of them in one."""
    left: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for path, parameter in root.named_parameters():
        if parameter not in seen and (within is None or parameter in within):
            owner, _, kind = path.rpartition(".")
            left.setdefault(name or owner or path, []).append((kind, parameter))
            seen.add(parameter)
    for owner, parameters in left.items():
        biases = [p for kind, p in parameters if kind == "bias"]
        others = [p for kind, p in parameters if kind != "bias"] or biases
        yield Slab(
            owner.rpartition(".")[2],
            sum(p.numel() for p in others),
            any(p.requires_grad for p in others),
            bias_trained=any(p.requires_grad for p in biases),
            virtual=any(p in virtual for _, p in parameters),
        )


def _state(part: Part) -> str:
    trained = [slab.name for slab in part.slabs if slab.trained]
    if len(trained) == len(part.slabs):
        return "trained"
    told = [f"{', '.join(trained)} trained"] if trained else ["frozen"]
    if beside := [slab for slab in part.slabs if slab.beside]:
        names, what = ", ".join(dict.fromkeys(slab.name for slab in beside)), "trained parameters beside"
        if any(slab.virtual for slab in beside):
            what = "trained parameters of virtual tokens for"
        told.append(f"{sum(slab.beside for slab in beside):,} {what} {names}")
    if any(slab.bias_trained and not slab.trained for slab in part.slabs):
        told.append("biases trained")
    return ", ".join(told)


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0].replace('block', 'blocks')} to {names[-1].split()[-1]}"


# The picture, in pixels

_LEFT, _RIGHT, _BOTTOM, _TOP = 14, 756, 74, 296
_LABELS = 62  # room for the names of the maps, left of the first block
_THIN, _END = 3, 46  # what stays visible however small it is; the least room of what is not a block, for its name
_COLUMNS = 48  # more blocks than these do not fit: then every second or third is drawn


@style.styled
def figure(found: list[Part], title: str) -> Figure:
    """Columns from the embedding to the head, as wide as their parameters; in each block a slab for each map."""
    picture, axes = style.sheet(title)
    boxes, every = _Boxes(), -(-sum(part.kind == "block" for part in found) // _COLUMNS)
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
    boxes.put_on(axes)
    note = "area = parameters; the smallest are drawn larger" + (f"; 1 block of {every}" if every > 1 else "")
    _legend(axes, any(slab.virtual for part in found for slab in part.slabs), note)
    return picture


class _Boxes:
    """Rectangles by role, drawn together: one call a role keeps a slider quick."""

    def __init__(self):
        self.frozen, self.hatched, self.trained, self.virtual, self.head = [], [], [], [], []

    def put_on(self, axes) -> None:
        for rectangles, look in (
            (self.frozen, {"facecolor": style.FROZEN, "edgecolor": style.FROZEN_LINE}),
            (self.hatched, {"facecolor": "none", "edgecolor": style.FROZEN_LINE, "hatch": "////"}),
            (self.trained, {"facecolor": style.TRAINED, "edgecolor": style.TRAINED_LINE}),
            (self.virtual, {"facecolor": style.VIRTUAL, "edgecolor": style.INK}),
            (self.head, {"facecolor": style.HEAD, "edgecolor": style.INK}),
        ):
            axes.add_collection(PatchCollection(rectangles, linewidth=0.5, **look))


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


def _column(boxes: _Boxes, part: Part, x: float, width: float) -> None:
    """Draw a part's slabs from the top down, with one hatching over neighbours that are frozen."""
    trained = boxes.head if part.kind == "head" else boxes.trained
    y = run = _TOP
    for slab, height in zip(part.slabs, _heights(part), strict=True):
        y -= height
        look = (boxes.virtual if slab.virtual else trained) if slab.trained else boxes.frozen
        look.append(Rectangle((x, y), width, height))
        if slab.trained:
            _hatch(boxes, x, y + height, width, run)
            run = y
        elif slab.bias_trained:
            boxes.trained.append(Rectangle((x, y), width, min(_THIN, height)))
        if slab.beside:
            look = boxes.virtual if slab.virtual else boxes.trained
            look.append(Rectangle((x + width, y), _extra(slab, width), height))
    _hatch(boxes, x, y, width, run)


def _hatch(boxes: _Boxes, x: float, bottom: float, width: float, top: float) -> None:
    if top - bottom > 1e-6:
        boxes.hatched.append(Rectangle((x, bottom), width, top - bottom))


def _name_maps(axes, part: Part, x: float) -> None:
    y, last = _TOP, _TOP + 20
    for slab, height in zip(part.slabs, _heights(part), strict=True):
        last = min(y - height / 2, last - 12)
        axes.text(x, last, slab.name, ha="right", va="center", size=8.5, color=style.MUTED)
        y -= height


def _name_part(axes, part: Part, x: float, width: float, last: bool) -> None:
    """Names under wide columns, some of the numbers under narrow ones."""
    if part.kind != "block":
        axes.text(x, _BOTTOM - 6, part.name, va="top", size=9)
    elif width > 45:
        axes.text(x + width / 2, _BOTTOM - 6, part.name, ha="center", va="top", size=9)
    elif width > 25 or part.number == 1 or (part.number % (4 if width > 12 else 8) == 0 and not (last and width < 12)):
        axes.text(x + width / 2, _BOTTOM - 6, part.number, ha="center", va="top", size=9)


def _legend(axes, virtual: bool, note: str) -> None:
    looks = {
        "frozen": {"facecolor": style.FROZEN, "edgecolor": style.FROZEN_LINE, "hatch": "////"},
        "trained": {"facecolor": style.TRAINED, "edgecolor": style.TRAINED_LINE},
        "task head" if virtual else "trained task head": {"facecolor": style.HEAD, "edgecolor": style.INK},
    } | ({"virtual tokens": {"facecolor": style.VIRTUAL, "edgecolor": style.INK}} if virtual else {})
    for x, (name, look) in zip((_LEFT, 100, 182, 282), looks.items(), strict=False):
        axes.add_patch(Rectangle((x, 18), 16, 12, linewidth=0.5, **look))
        axes.text(x + 22, 24, name, va="center", size=9)
    axes.text(_RIGHT, 24, note, ha="right", va="center", size=8.5, color=style.MUTED)
