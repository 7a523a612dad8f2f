"""The picture of one transformer block: how the data flow, what is frozen, and where the attached method acts.

The residual stream runs from left to right. Attention and feed-forward leave it, and what they give is summed back in.
Nothing is drawn by hand: `block_parts` reads the model, `svg` draws what it found. Each way to act has a shape:

    in parallel       two thin boxes beside a map, with a sum of their own           LoRA
    in series         a waisted box in the line itself                               adapters
    keys and values   a pill that no text flows into, below key and value            prefix tuning, P-tuning v2
    in front, among   tokens of their own, before the text or within it              prompt tuning, P-tuning v1
    own weights       filled boxes; where biases alone are trained, an edge          top blocks, full, BitFit
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape
from itertools import chain, takewhile
from textwrap import wrap

import torch
from IPython.display import display
from torch import nn
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, blocks, evaluating, head_parameters, linear_maps, sublayer_outputs
from peft_edu.lab.figures import style
from peft_edu.lab.figures.display import unseen
from peft_edu.method import Method, attached, unwrapped
from peft_edu.p_tuning import PSEUDO
from peft_edu.prefix_tuning import Prefix, Trunk
from peft_edu.storage.checkpoint import count

PARALLEL, SERIES, KEYS_VALUES = "in parallel", "in series", "keys and values"
IN_FRONT, AMONG, IDLE = "in front", "among the text", "without a hook"
WAYS = (PARALLEL, SERIES, KEYS_VALUES, IN_FRONT, AMONG, IDLE)


@dataclass(frozen=True)
class Added:
    """What a method put at one place, and how it acts there."""

    name: str
    acts: str  # one of WAYS
    trained: int
    size: int = 0  # of two matrices the narrow side: rank or bottleneck; of virtual tokens how many
    letters: tuple[str, ...] = ()  # the names of the two matrices, in the order of the flow
    made: int = 0  # parameters of a network that makes the virtual tokens while they learn


@dataclass(frozen=True)
class Weights:
    """A box of the model's own weights, and what stands beside or behind it."""

    name: str
    size: int = 0
    trained: int = 0
    biases: bool = False  # what is trained of it are biases alone
    shape: tuple[int, ...] = ()  # of a map: out, in
    added: tuple[Added, ...] = ()

    @property
    def look(self) -> str:
        if not self.trained:
            return "frozen"
        return "biases" if self.biases else "trained" if self.trained == self.size else "partly"


@dataclass(frozen=True)
class SubLayer:
    """A branch of the stream. `behind`: what acts on its output, before the sum; `around`: from its input on."""

    name: str  # attention, cross-attention, feed-forward
    maps: tuple[Weights, ...]
    norm: Weights
    norm_first: bool
    behind: tuple[Added, ...] = ()
    around: tuple[Added, ...] = ()

    def map(self, role: str) -> Weights | None:
        return next((each for each in self.maps if each.name == role), None)


@dataclass(frozen=True)
class BlockParts:
    """One block, and what lies before and behind the blocks."""

    method: str
    kind: str  # block, encoder block, decoder block
    number: int  # from 1, among its kind
    of: int
    alike: int  # how many of its kind are the same in every part, itself included
    width: int
    heads: int
    sublayers: tuple[SubLayer, ...]
    rest: Weights  # of the block, what is drawn nowhere
    embedding: Weights  # with what is in front of the text, or among it
    final: Weights  # behind the blocks: the last norm, a pooler, a language-model head of its own
    head: Weights
    shared: int  # trained parameters that several blocks share: the trunk of the MLP that makes a prefix
    elsewhere: tuple[Added, ...] = ()
    tokens: tuple[bool, ...] = ()  # of a template: which are virtual

    def in_block(self) -> Iterator[tuple[str, int]]:
        """What is trained in the block, by kind."""
        for each in self.sublayers:
            for box in (*each.maps, each.norm):
                kind = "biases" if box.biases else "norms" if box is each.norm else "maps"
                yield kind, box.trained
                yield from ((added.acts, added.trained) for added in box.added)
            yield from ((added.acts, added.trained) for added in (*each.behind, *each.around))
        yield "biases" if self.rest.biases else "rest", self.rest.trained

    def trained(self) -> Counter:
        """Trained parameters of the block, by kind: those of the ways to act, maps, biases, norms, rest."""
        totals = Counter()
        for kind, number in self.in_block():
            totals[kind] += number
        return +totals

    def outside(self) -> Counter:
        """Trained parameters outside of the blocks, by kind."""
        totals = Counter(embedding=self.embedding.trained, final=self.final.trained, head=self.head.trained)
        totals["shared"] = self.shared
        for added in (*self.embedding.added, *self.elsewhere):
            totals[added.acts] += added.trained
        return +totals

    @property
    def size(self) -> int:
        """Parameters of the block, with what was added to it."""
        own = sum(box.size for each in self.sublayers for box in (*each.maps, each.norm)) + self.rest.size
        return own + sum(number for kind, number in self.in_block() if kind in (PARALLEL, SERIES, KEYS_VALUES, IDLE))


def block_parts(model: PreTrainedModel, block: int | None = None) -> BlockParts:
    """What one block is made of, and what the attached method did to it.

    block: counted from 0 at the bottom, as the methods count; in T5 the decoder's come after the encoder's. Without it,
        the first block in which something is trained.
    """
    reader = _Reader(unwrapped(model))
    index = reader.chosen(block)
    sublayers = [reader.sublayers(each) for each in reader.blocks]
    mine = [i for i, each in enumerate(sublayers) if len(each) == len(sublayers[index])]
    config = reader.model.config
    kinds = ("encoder block", "decoder block")
    return BlockParts(
        method=type(reader.method).__name__ if reader.method else "",
        kind=kinds[len(sublayers[index]) > 2] if config.is_encoder_decoder else "block",
        number=mine.index(index) + 1,
        of=len(mine),
        alike=sum(sublayers[i] == sublayers[index] for i in mine),
        width=config.hidden_size,
        heads=config.num_attention_heads,
        sublayers=sublayers[index],
        rest=reader.rest(reader.blocks[index]),
        shared=reader.trained(reader.shared),
        tokens=_template(reader.method),
        **reader.ends(),
    )


class _Reader:
    """One pass over a model: where its maps are, and what was added to which module."""

    def __init__(self, model: PreTrainedModel):
        self.model, self.method, self.blocks = model, attached(model), blocks(model)
        self.maps: dict[nn.Module, list[LinearMap]] = defaultdict(list)
        for each in linear_maps(model):
            self.maps[each.module].append(each)
        self.parents = {child: parent for parent in model.modules() for child in parent.children()}
        self.children = set(self.method.added if self.method else ())
        self.inside = {module for child in self.children for module in child.modules()}
        self.added = {parameter for child in self.children for parameter in child.parameters()}
        trunks = [module for module in model.modules() if isinstance(module, Trunk)]
        self.shared = {parameter for trunk in trunks for parameter in trunk.parameters()}
        self.drawn: set[nn.Parameter] = set()

    def chosen(self, block: int | None) -> int:
        total = len(self.blocks)
        if block is None:
            live = (i for i, each in enumerate(self.blocks) if any(p.requires_grad for p in each.parameters()))
            return next(live, 0)
        if not isinstance(block, int) or isinstance(block, bool) or not -total <= block < total:
            raise ValueError(f"block is {block!r}, but {type(self.model).__name__} has the blocks 0 to {total - 1}")
        return block % total

    def trained(self, parameters: Iterable[nn.Parameter]) -> int:
        return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)

    def sublayers(self, block: nn.Module) -> tuple[SubLayer, ...]:
        """The attention or two, then the feed-forward network, each with the norm that belongs to it."""
        maps = [each for module in block.modules() for each in self.maps.get(module, ())]
        outputs = sublayer_outputs(self.model, block)
        norms = [each for each in block.modules() if type(each).__name__.endswith("Norm") and each not in self.inside]
        beside, behind, around = self._additions(block, maps, outputs)
        found = []
        for i, (output, norm) in enumerate(zip(outputs, norms, strict=False)):
            last = output is outputs[-1]
            roles = ("up", "gate", "down") if last else ("query", "key", "value", "output")
            mine = [[each for each in maps if each.role == role][0 if last else i : i + 1] for role in roles]
            boxes = [self._map(each, beside[each.module, each.role]) for each in chain(*mine)]
            found.append(
                SubLayer(
                    "feed-forward" if last else "cross-attention" if i else "attention",
                    tuple(boxes),
                    self.weights(
                        "RMSNorm" if "RMS" in type(norm).__name__ else "LayerNorm",
                        dict(norm.named_parameters()),
                        beside[norm, ""],
                    ),
                    not _adds_up_itself(block, norm, maps),
                    tuple(behind[output]),
                    tuple(around[i]),
                )
            )
        return tuple(found)

    def _additions(self, block: nn.Module, maps: list[LinearMap], outputs: list[nn.Module]) -> tuple[dict, dict, dict]:
        """What a method put into this block: beside maps (or at a norm), behind sub-layers, around them."""
        beside, behind, around = defaultdict(list), defaultdict(list), defaultdict(list)
        for parent, child in [(p, c) for p in block.modules() for c in p.children() if c in self.children]:
            name = next(name for name, each in parent.named_children() if each is child)
            here, heads = self.maps.get(parent, []), {each.role for each in maps if _holds(parent, each.module)}
            if isinstance(child, Prefix) or (not here and getattr(parent, "prefix", None) is child):
                homes = [each for each in maps if each.role in ("key", "value") and _holds(parent, each.module)]
                self._share(beside, homes, child, name, KEYS_VALUES)
            elif here:
                acts = self._acts(parent, child, here)
                homes = [each for each in here if getattr(child, "rows", each.rows) == each.rows]
                if acts == SERIES and parent in outputs:
                    behind[parent].append(self._describe(child, name, acts))
                else:
                    self._share(beside, homes or here, child, name, acts)
            elif parent in outputs:
                behind[parent].append(self._describe(child, name, SERIES if self._hooked(parent) else IDLE))
            elif type(parent).__name__.endswith("Norm"):
                beside[parent, ""].append(self._describe(child, name, SERIES if self._hooked(parent) else IDLE))
            else:  # at a whole sub-layer, or between its parts
                which = len(outputs) - 1 if "down" in heads or "up" in heads else 0
                around[which].append(self._describe(child, name, PARALLEL if self._hooked(parent) else IDLE))
        return beside, behind, around

    def _share(self, beside: dict, homes: list[LinearMap], child: nn.Module, name: str, acts: str) -> None:
        """What changes several maps that are stored as one is drawn beside each, with its share of the parameters."""
        whole = self._describe(child, name, acts)
        for i, home in enumerate(homes):
            share = whole.trained // len(homes) + (i < whole.trained % len(homes))
            made = whole.made // len(homes)
            beside[home.module, home.role].append(Added(name, acts, share, whole.size, whole.letters, made))

    def _describe(self, child: nn.Module, name: str, acts: str) -> Added:
        own = set(child.parameters()) - self.shared
        trained = self.trained(own)
        self.drawn |= own
        if acts in (KEYS_VALUES, IN_FRONT, AMONG):
            size, free = _virtual(child)
            return Added(name, acts, trained, size, made=trained - min(free, trained))
        size, letters = _waist(child)
        return Added(name, acts, trained, size, letters)

    def _acts(self, module: nn.Module, child: nn.Module, maps: list[LinearMap]) -> str:
        """What the hooks of a map are asked: does what you give follow from its input, or from its output alone?

        The graph of autograd answers, not the values: B A x is 0 at the start, and follows from x.
        """
        hooks = module._forward_hooks
        own = [each for each in hooks.values() if getattr(each, "__self__", None) is child] or list(hooks.values())
        if not own:
            return PARALLEL if self._hooked(module) else IDLE
        weight, rows = maps[0].weight, max(each.rows.stop for each in maps)
        named = {id(hooks[key]) for key in module._forward_hooks_with_kwargs}
        x, output = weight.new_zeros(1, 1, weight.shape[1]).requires_grad_(), weight.new_zeros(1, 1, rows)
        with evaluating(module), torch.enable_grad():
            for each in own:
                given = each(module, (x,), {}, output) if id(each) in named else each(module, (x,), output)
                if isinstance(given, torch.Tensor) and given.requires_grad:
                    (follows,) = torch.autograd.grad(given.sum(), x, allow_unused=True)
                    return SERIES if follows is None else PARALLEL
        return IDLE  # hooks that give nothing back change nothing

    def _hooked(self, module: nn.Module) -> bool:
        """Whether a hook, or a forward of its own, lies on the way through this module."""
        while module is not None:
            if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
                return True
            module = self.parents.get(module)
        return False

    def _map(self, each: LinearMap, added: list[Added]) -> Weights:
        """Of what a fused module holds, this map's rows."""
        bias, owner = getattr(each.module, "bias", None), each.module.weight
        self.drawn |= {owner} | ({bias} if bias is not None else set())
        rows, columns = each.weight.shape
        trained = owner.requires_grad * rows * columns
        alone = 0 if bias is None else rows * bias.requires_grad
        size = rows * columns + (0 if bias is None else rows)
        return Weights(each.role, size, trained + alone, bool(alone and not trained), (rows, columns), tuple(added))

    def weights(self, name: str, parameters: dict[str, nn.Parameter], added: Iterable[Added] = ()) -> Weights:
        own = {key: each for key, each in parameters.items() if each not in self.added}
        self.drawn |= set(own.values())
        trained = {key: each for key, each in own.items() if each.requires_grad}
        biases = bool(trained) and len(trained) < len(own) and all(key.endswith("bias") for key in trained)
        size = sum(each.numel() for each in own.values())
        return Weights(name, size, self.trained(trained.values()), biases, added=tuple(added))

    def rest(self, block: nn.Module) -> Weights:
        left = {name: each for name, each in block.named_parameters() if each not in self.drawn | self.shared}
        return self.weights("rest", left)

    def ends(self) -> dict:
        """Before the blocks and behind them, in the order in which transformers registers parameters."""
        inside = {parameter for block in self.blocks for parameter in block.parameters()} | self.shared
        heads, first = head_parameters(self.model), next(self.blocks[0].parameters())
        named = dict(self.model.named_parameters())
        front = set(takewhile(lambda each: each is not first, named.values()))
        groups = {"embedding": {}, "final": {}, "head": {}}
        for name, each in named.items():
            if each not in inside | self.added:
                groups["head" if each in heads else "embedding" if each in front else "final"][name] = each
        names = {"embedding": "embedding", "head": "task head", "final": _final(groups["final"])}
        boxes = {end: self.weights(names[end], own) for end, own in groups.items()}
        within = {module for block in self.blocks for module in block.modules()}
        texts, others = [], []
        for parent in self.model.modules():
            for name, child in parent.named_children():
                if child not in self.children or parent in within:
                    continue
                if self.blocks[0] in set(parent.modules()):
                    texts.append(self._describe(child, name, IN_FRONT))
                elif isinstance(parent, nn.Embedding):
                    texts.append(self._describe(child, name, AMONG))
                else:
                    others.append(self._describe(child, name, SERIES))
        embedding = replace(boxes["embedding"], added=tuple(texts))
        return boxes | {"embedding": embedding, "elsewhere": tuple(others)}


def _holds(outer: nn.Module, inner: nn.Module) -> bool:
    return outer is not inner and any(each is inner for each in outer.modules())


def _adds_up_itself(block: nn.Module, norm: nn.Module, maps: list[LinearMap]) -> bool:
    """Whether the norm stands behind the sum: then it shares a module with the map whose output is added there."""
    ends = {each.module for each in maps if each.role in ("output", "down")}
    siblings = next(set(parent.children()) for parent in block.modules() if norm in set(parent.children()))
    return bool(ends & siblings)


def _waist(child: nn.Module) -> tuple[int, tuple[str, ...]]:
    """Of a module of two matrices the narrow side that they share, and their names, the one that narrows first."""
    matrices = [(name, each) for name, each in child.named_parameters() if each.ndim == 2]
    if len(matrices) != 2:
        return 0, ()
    (_, one), (_, other) = matrices
    narrow = min(set(one.shape) & set(other.shape), default=0)
    names = [
        name.removesuffix(".weight") for name, each in sorted(matrices, key=lambda pair: pair[1].shape[0] != narrow)
    ]
    return narrow, tuple(names)


@torch.no_grad()
def _virtual(child: nn.Module) -> tuple[int, int]:
    """How many virtual tokens, and how many of the parameters they are themselves: those of a network may make them."""
    free = next((each for each in child.parameters(recurse=False) if each.ndim > 1), None)
    if free is not None:
        return free.shape[-2], free.numel()
    made = getattr(child, "keys_values", None)
    return (0 if made is None else made.shape[-2]), 0


def _final(parameters: dict[str, nn.Parameter]) -> str:
    """A name for what lies behind the blocks."""
    for word in ("pooler", "lm_head", "cls", "norm", "ln_f"):
        if any(word in name.lower() for name in parameters):
            return {"pooler": "pooler", "lm_head": "word head", "cls": "word head"}.get(word, "last norm")
    return "the rest" if parameters else ""


def _template(method: Method | None) -> tuple[bool, ...]:
    words = getattr(method, "template", "")
    return tuple(word == PSEUDO for word in words.split()) if PSEUDO in words else ()


# In words


def describe(parts: BlockParts) -> str:
    """The picture in words: what the block is, how the method acts on it, what is trained at both ends."""
    steps = ", ".join(each.name for each in parts.sublayers)
    before = "before each of them" if parts.sublayers[0].norm_first else "behind each sum"
    ends = [box.name for box in (parts.embedding, parts.final, parts.head) if box.trained and box.look != "biases"]
    told = [
        f"{_which(parts)}. The residual stream is t x {parts.width}; its branches {steps} are summed back into it, "
        f"with a {parts.sublayers[0].norm.name} {before}",
        f"{parts.method or 'No method'}: {'; '.join(acting(parts)) or 'nothing in this block is trained'}",
        f"Trained here: {sum(parts.trained().values()):,} of {parts.size:,} parameters",
        f"Trained outside of the blocks: {', '.join(ends) or 'nothing'}",
    ]
    return ". ".join(told) + "."


def acting(parts: BlockParts) -> list[str]:
    """How the method acts here, a phrase for each way: what lies in series, in parallel, in front, what is trained."""
    ways: dict[tuple, list[str]] = {}
    for added, place in _places(parts):
        name = "" if added.acts == PARALLEL and added.size else added.name
        ways.setdefault((added.acts, name, added.size, added.made > 0), []).append(place)
    return [_phrase(*way, _list(dict.fromkeys(places))) for way, places in ways.items()] + _own(parts)


def _places(parts: BlockParts) -> Iterator[tuple[Added, str]]:
    for sublayer in parts.sublayers:
        cross = "cross-" if sublayer.name.startswith("cross") else ""
        for box in (*sublayer.maps, sublayer.norm):
            yield from ((added, cross + box.name) for added in box.added)
        yield from ((added, sublayer.name) for added in (*sublayer.behind, *sublayer.around))
    yield from ((added, "the text") for added in parts.embedding.added)
    yield from ((added, "what lies outside of the blocks") for added in parts.elsewhere)


def _phrase(acts: str, name: str, size: int, made: bool, where: str) -> str:
    by = ", made by a network while they learn" if made else ""
    return {
        PARALLEL: f"in parallel with {where}, " + (f"rank {size}" if size else name),
        SERIES: f"in series behind {where}, " + (f"{name} of width {size}" if size else name),
        KEYS_VALUES: f"{size} virtual tokens more for {where}{by}",
        IN_FRONT: f"{size} virtual tokens in front of the text{by}",
        AMONG: f"{size} virtual tokens within the text{by}",
        IDLE: f"{name} at {where} changes nothing: no hook uses it",
    }[acts]


def _own(parts: BlockParts) -> list[str]:
    """What is trained of the block's own weights."""
    maps = [each for sublayer in parts.sublayers for each in sublayer.maps]
    norms = [each.norm for each in parts.sublayers]
    if all(each.look == "trained" for each in (*maps, *norms)):
        return ["the whole block is trained"]
    named = [each.name for each in maps if each.look in ("trained", "partly")]
    biases = ["the biases are trained"] if any(each.look == "biases" for each in (*maps, *norms)) else []
    scales = ["the norms are trained"] if any(each.look in ("trained", "partly") for each in norms) else []
    return ([f"{_list(dict.fromkeys(named))} trained"] if named else []) + biases + scales


def _which(parts: BlockParts) -> str:
    same = {1: "no other is like this", 2: "two are like this", parts.of: f"all {parts.of} are like this"}
    same |= {2: "both are like this"} if parts.of == 2 else {}
    name = parts.kind[0].upper() + parts.kind[1:]
    told = same.get(parts.alike, f"{parts.alike} are like this")
    return f"{name} {parts.number} of {parts.of}" + (f", {told}" if parts.of > 1 else "")


def _list(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


# The picture, in pixels from the upper left

WIDTH, HEIGHT, SMALL, FONT = 760, 412, 11, 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", Verdana, sans-serif'
_LETTER = 0.62  # of a letter's size its width, on average and rather too much
_TOP, _PITCH, _STREAM, _STRIP = 104, 52, 296, 344  # the first row of maps, from row to row, the stream, what is below
_START, _END = 30, 730  # of the stream
_MIDDLE = _TOP + _PITCH  # of the rows
_LOOKS = {  # fill, edge, how thick
    "frozen": ("url(#block-frozen)", style.FROZEN_LINE, 1),
    "trained": (style.TRAINED, style.TRAINED_LINE, 1.6),
    "virtual": (style.PAPER, style.VIRTUAL, 2),
    "token": (style.VIRTUAL, style.INK, 0.8),
    "head": (style.HEAD, style.INK, 1.6),
    "plain": (style.PAPER, style.INK, 1),
}
_LOOKS["biases"] = _LOOKS["partly"] = _LOOKS["frozen"]
_DEFS = f"""<defs><pattern id="block-frozen" width="7" height="7" patternUnits="userSpaceOnUse"\
 patternTransform="rotate(45)"><rect width="7" height="7" fill="{style.FROZEN}"/>\
<path d="M0 0V7" stroke="{style.FROZEN_LINE}" stroke-width="0.9" stroke-opacity="0.55"/></pattern></defs>"""


@dataclass(frozen=True)
class Room:
    """How wide things are: three branches, or norms on the stream itself, leave less room for each."""

    map: int
    end: int  # output, up, gate and down
    zone: int  # behind a map, where a sum or a box in the line finds its place
    core: int
    gap: int  # between the core and the output map
    act: int  # the activation
    bus: int  # from where a branch forks to its first maps
    norm: int


_BEFORE = Room(map=78, end=68, zone=30, core=78, gap=22, act=48, bus=18, norm=68)
_BEHIND = Room(map=72, end=66, zone=24, core=69, gap=13, act=36, bus=14, norm=66)  # norms take room on the stream
_NARROW = Room(map=52, end=50, zone=18, core=54, gap=9, act=30, bus=10, norm=40)


class Pen:
    """Collects the shapes of a picture."""

    def __init__(self):
        self.shapes: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, look: str, tip: str = "", radius: float = 3) -> None:
        """Centred at (x, y), which is how all shapes are placed."""
        fill, edge, width = _LOOKS[look]
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
        fill, edge, width = _LOOKS[look]
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


def svg(parts: BlockParts, title: str = "") -> str:
    """The picture as SVG: a title and a description for screen readers, a tip on each part for the mouse."""
    pen = Pen()
    pen.text(14, 18, title, "start", 13, bold=True)
    _frame(pen, parts)
    first = parts.sublayers[0].norm_first
    room = _NARROW if len(parts.sublayers) > 2 else _BEFORE if first else _BEHIND
    x = 24 + room.norm / 2 if first else 46
    pen.line((_START, _STRIP), (_START, _STREAM), (_END, _STREAM), (_END, _STRIP - 1), arrow=True, width=2.6)
    for sublayer in parts.sublayers:
        x = _branch(pen, parts, sublayer, room, x)
    pen.text(_START + 7, _STREAM + 18, _stream(parts), "start", colour=style.MUTED)
    pen.text(_END - 7, _STREAM + 18, _stream(parts), "end", colour=style.MUTED)
    _ends(pen, parts)
    _legend(pen, parts)
    words = describe(parts)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" font-family="{escape(FONT)}" style="max-width:100%;height:auto">'
    )
    about = f"<title>{escape(title or _which(parts))}</title><desc>{escape(words)}</desc>"
    edge = f'width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="6" fill="{style.PAPER}" stroke="{style.GRID}"'
    ground = f'<rect x="0.5" y="0.5" {edge}/>'  # opaque: readable on a dark page too
    return "\n".join([head + about, _DEFS, ground, *pen.shapes, "</svg>"]) + "\n"


def draw_block(model: PreTrainedModel, title: str = "", block: int | None = None) -> None:
    """Show one block of this model, and where the attached method acts in it.

    block: which one, from 0 at the bottom (default: the first in which something is trained); in T5 the decoder's come
        after the encoder's.
    """
    parts = block_parts(model, block)
    words = describe(parts)
    picture = svg(parts, title or str(count(unwrapped(model))))
    display({"image/svg+xml": picture, "text/plain": words}, metadata={"image/svg+xml": {"alt": words}}, raw=True)
    display({"text/html": unseen(f"Figure: {words}")}, raw=True)


def _frame(pen: Pen, parts: BlockParts) -> None:
    pen.shapes.append(
        f'<rect x="10" y="32" width="740" height="{_STREAM - 4}" rx="8" fill="none" stroke="{style.FROZEN_LINE}" '
        f'stroke-dasharray="2 3"/>'
    )
    pen.text(20, 46, _which(parts), "start")
    numbers = f"{sum(parts.trained().values()):,} of its {parts.size:,} parameters are trained"
    pen.text(740, 46, numbers, "end")


def _stream(parts: BlockParts) -> str:
    return f"{_tokens(parts)} × {parts.width}"


def _tokens(parts: BlockParts) -> str:
    front = sum(each.size for each in parts.embedding.added if each.acts == IN_FRONT)
    return f"({front} + t)" if front and parts.kind != "decoder block" else "t"


def _branch(pen: Pen, parts: BlockParts, sublayer: SubLayer, room: Room, x: float) -> float:
    """A sub-layer that leaves the stream at x; where the next one may leave it."""
    pen.dot(x, _STREAM)
    if sublayer.name == "feed-forward":
        leg = _feed_forward(pen, parts, sublayer, room, x)
    else:
        leg = _attention(pen, parts, sublayer, room, x)
    if sublayer.norm_first:
        _norm(pen, sublayer.norm, room, x, _STREAM - 26)
    for i, added in enumerate(sublayer.behind):
        _in_series(pen, added, leg, 212 + 44 * i)
    pen.plus(leg, _STREAM, 8, "sum into the residual stream")
    if sublayer.norm_first:
        return leg + room.norm / 2 + 10
    _norm(pen, sublayer.norm, room, leg + 13 + room.norm / 2, _STREAM)
    return leg + 13 + room.norm + 10


def _norm(pen: Pen, norm: Weights, room: Room, x: float, y: float) -> None:
    pen.box(x, y, room.norm, 22, norm.look, f"{norm.name}: {norm.trained:,} of {norm.size:,} trained", radius=11)
    short = norm.name if wide(norm.name) < room.norm else "norm"
    pen.text(x, y, short)
    for added in norm.added:
        pen.box(x + room.norm / 2 + 3, y, 10, 26, "trained", _tip(added))


def _attention(pen: Pen, parts: BlockParts, sublayer: SubLayer, room: Room, x: float) -> float:
    """Query, key and value one below the other, the attention proper, the output map, and down to the stream."""
    cross = sublayer.name == "cross-attention"
    rows = {
        role: _TOP + i * _PITCH
        for i, role in enumerate(("value", "key", "query") if cross else ("query", "key", "value"))
    }
    left = x + room.bus
    core = left + room.map + room.zone + room.core / 2
    out = core + room.core / 2 + room.gap + room.end / 2
    leg = out + room.end / 2 + room.zone
    pen.text(left, 66, sublayer.name, "start", 12, bold=True)
    pen.line((x, _STREAM), (x, rows["query"] if cross else _TOP))
    if cross:
        pen.text(left, 82, f"from the encoder: {_source(parts)} × {parts.width}", "start", colour=style.MUTED)
        pen.line((left - 2, 82), (x, 82), (x, rows["key"]), dashed=True)
    for role, y in rows.items():
        _map(pen, sublayer.map(role), left + room.map / 2, y, room.map, room, x, core - room.core / 2)
    pen.box(core, _MIDDLE + 12, room.core, 2 * _PITCH + 50, "plain", "attention proper: it has no weights", radius=8)
    scores = _scores(parts, sublayer, cross, room)
    for dy, words in ((-46, f"{parts.heads} heads"), (-10, "softmax"), (6, "(QKᵀ) V")):
        pen.text(core, _MIDDLE + dy, words)
    for i, words in enumerate(scores):
        pen.text(core, _MIDDLE + 36 + 14 * i, words, colour=style.MUTED)
    _map(pen, sublayer.map("output"), out, _MIDDLE, room.end, room, core + room.core / 2, leg)
    pen.line((leg, _MIDDLE), (leg, _STREAM - 8), arrow=True)
    _around(pen, sublayer, x, leg)
    return leg


def _source(parts: BlockParts) -> str:
    front = sum(each.size for each in parts.embedding.added if each.acts == IN_FRONT)
    return f"({front} + s)" if front else "s"


def _scores(parts: BlockParts, sublayer: SubLayer, cross: bool, room: Room) -> list[str]:
    """The shape of the scores: queries times keys."""
    more = sum(each.size for each in sublayer.map("key").added if each.acts == KEYS_VALUES)
    keys = _source(parts) if cross else _tokens(parts)
    keys = f"({more} + {keys})" if more else keys
    whole = f"{_tokens(parts)} × {keys}"
    return [whole] if wide(whole) < room.core else [f"{_tokens(parts)} ×", keys]


def _feed_forward(pen: Pen, parts: BlockParts, sublayer: SubLayer, room: Room, x: float) -> float:
    """Up, the activation, down; in the gated kind two maps lead up, and their products go down."""
    gate, left = sublayer.map("gate"), x + room.bus
    act = left + room.end + room.zone + room.act / 2
    down = act + room.act / 2 + room.end / 2
    leg = down + room.end / 2 + room.zone
    pen.text(left, 66, sublayer.name, "start", 12, bold=True)
    heights = (_MIDDLE - 30, _MIDDLE + 30) if gate else (_MIDDLE,)
    pen.line((x, _STREAM), (x, heights[0]))
    for name, y in zip(("gate", "up") if gate else ("up",), heights, strict=True):
        _map(pen, sublayer.map(name), left + room.end / 2, y, room.end, room, x, act)
    if gate:
        pen.line((act, heights[0]), (act, heights[1]))
        pen.times(act, _MIDDLE)
    pen.bend(act, heights[0])
    pen.text(act, heights[0] - 36, "activation", colour=style.MUTED)
    pen.text(act, heights[0] - 21, f"{_tokens(parts)} × {sublayer.map('down').shape[1]}", colour=style.MUTED)
    start = act + (7 if gate else 9)
    _map(pen, sublayer.map("down"), down, _MIDDLE, room.end, room, start, leg)
    pen.line((leg, _MIDDLE), (leg, _STREAM - 8), arrow=True)
    _around(pen, sublayer, x, leg)
    return leg


def _map(pen: Pen, box: Weights, x: float, y: float, w: float, room: Room, start: float, end: float) -> None:
    """A map from the line at `start` to the line at `end`, with what stands beside it in the row's lower half."""
    rows, columns = box.shape
    right, joint = x + w / 2, x + w / 2 + room.zone / 2 - 1
    last = end > right + room.zone - 1 and end < right + room.zone + 1 and w == room.end  # down to the stream, no arrow
    pen.line((start, y), (x - w / 2, y), arrow=True)
    pen.line((right, y), (end, y), arrow=not last and w == room.map and end - right < room.zone + 1)
    pen.box(x, y, w, 26, box.look, f"{box.name}: {columns} to {rows}, {box.trained:,} of {box.size:,} trained")
    pen.text(x, y, box.name)
    for i, added in enumerate(box.added):
        slot = y + 27 + 20 * i
        if added.acts == PARALLEL:
            _beside(pen, added, x, slot, w, start, (joint, y))
        elif added.acts == KEYS_VALUES:
            _pill(pen, added, x, slot, w, end)
        elif added.acts == SERIES:
            pen.box(joint, y, 12, 22, "trained", _tip(added))
            pen.text(x, slot, added.name if wide(added.name) < w else added.name[: int(w / SMALL / _LETTER) - 1] + "…")
        else:
            pen.box(x, slot, w, 17, "trained", _tip(added))
            pen.text(x, slot, "no hook")


def _beside(pen: Pen, added: Added, x: float, y: float, w: float, start: float, joint: tuple[float, float]) -> None:
    """A and B: from the map's input, through the narrow rank, to a sum at the map's output."""
    tap = start if start < x - w / 2 - 11 else start + 5
    pen.line((tap, joint[1]), (tap, y), (x - w / 2 + 2, y), arrow=True)
    pen.line((x + w / 2 - 2, y), (joint[0], y), (joint[0], joint[1] + 7), arrow=True)
    look = "trained" if added.trained else "frozen"
    if added.size:
        left, right, side = x - w / 2 + 2, x + w / 2 - 2, 16
        pen.line((left, y), (right, y))
        pen.shape([(left, y - 9), (left + side, y - 5), (left + side, y + 5), (left, y + 9)], look, _tip(added))
        pen.shape([(right, y - 9), (right - side, y - 5), (right - side, y + 5), (right, y + 9)], look, _tip(added))
        rank = f"r={added.size}" if wide(f"r={added.size}") < w - 2 * side - 6 else f"{added.size}"
        plate = wide(rank) + 2
        pen.shapes.append(
            f'<rect x="{x - plate / 2:g}" y="{y - 7:g}" width="{plate:g}" height="14" fill="{style.PAPER}"/>'
        )
        pen.text(x, y, rank)
        for at, letter in zip((left + side / 2, right - side / 2), added.letters, strict=False):
            short = letter.rpartition("_")[2]
            pen.text(at, y, short if len(short) == 1 else "")
    else:
        pen.box(x, y, w - 4, 17, look, _tip(added))
        pen.text(x, y, added.name if wide(added.name) < w else added.name[: int(w / SMALL / _LETTER) - 1] + "…")
    pen.plus(*joint)


def _pill(pen: Pen, added: Added, x: float, y: float, w: float, end: float) -> None:
    """Virtual keys or values: they come from nowhere, and enter attention as those of the text do."""
    pen.line((x + w / 2, y), (end, y), arrow=True)
    pen.box(x, y, w, 18, "virtual", _tip(added), radius=9)
    words = f"+{added.size}"
    cells = 3 if 3 * 8 + wide(words) + 14 < w else 1
    left = x - (8 * cells + 3 + wide(words)) / 2
    for i in range(cells):
        pen.box(left + 4 + 8 * i, y, 6, 8, "token", radius=0)
    pen.text(left + 8 * cells + 3, y, words, "start")


def _in_series(pen: Pen, added: Added, x: float, y: float) -> None:
    """A bottleneck in the line itself: wide, narrow, wide."""
    look = "trained" if added.trained else "frozen"
    half, waist, high = 17, 6, 19
    corners = [(-half, -high), (half, -high), (waist, 0), (half, high), (-half, high), (-waist, 0)]
    if added.acts == IDLE:
        x += 40
    if not added.size:
        corners = [(-half, -high / 2), (half, -high / 2), (half, high / 2), (-half, high / 2)]
    pen.shape([(x + dx, y + dy) for dx, dy in corners], look, _tip(added))
    name = added.name if len(added.name) <= 9 else added.name[:8] + "…"
    pen.text(x - half - 6, y - 7 if added.size else y, name, "end")
    if added.size:
        pen.text(x - half - 6, y + 7, f"m={added.size}", "end")


def _around(pen: Pen, sublayer: SubLayer, x: float, leg: float) -> None:
    """What leads around a whole sub-layer."""
    for i, added in enumerate(sublayer.around):
        y = 232 + 22 * i
        middle = (x + leg) / 2
        if added.acts == PARALLEL:
            pen.line((x, y), (leg, y), arrow=True)
            pen.plus(leg, y)
        pen.box(middle, y, max(60, wide(added.name) + 10), 18, "trained", _tip(added))
        pen.text(middle, y, added.name)


def _tip(added: Added) -> str:
    made = f", {added.made:,} of them a network that makes it" if added.made else ""
    return f"{added.name}, {added.acts}: {added.trained:,} trained{made}"


def _ends(pen: Pen, parts: BlockParts) -> None:
    """Below the block: the text and its embedding on the left, what reads the last states on the right."""
    y = _STRIP + 12
    front = [each for each in parts.embedding.added if each.acts == IN_FRONT]
    among = [each for each in parts.embedding.added if each.acts == AMONG]
    x = 108 if front and parts.kind != "decoder block" else 56
    if x > 56:  # what is in front joins the stream behind the embedding
        pen.line((x, _STRIP), (x, _STRIP - 12), (_START, _STRIP - 12))
        pen.line((_START, _STRIP), (_START, _STRIP + 5))
        for i in range(3):
            pen.box(_START - 11 + 11 * i, y, 10, 14, "token", _tip(front[0]), radius=0)
        pen.text(_START, y + 20, f"{front[0].size}", bold=True)
        pen.text(_START - 16, y + 34, "virtual", "start", colour=style.MUTED)
    pen.box(x, y, 84, 24, parts.embedding.look, f"{parts.embedding.name}: {parts.embedding.size:,} parameters")
    pen.text(x, y, "embedding")
    tokens = (parts.tokens[:8] or (False, True) * 3) if among else (False,) * 5
    pen.line((x, y + 25), (x, y + 13), arrow=True)
    for i, virtual in enumerate(tokens):
        left = x + 11 * (i - (len(tokens) - 1) / 2)
        pen.box(left, y + 32, 9, 12, "token" if virtual else "plain", radius=0 if virtual else 3)
    words = f"text, {among[0].size} virtual" if among else "text: t tokens"
    pen.text(x, y + 47, words, colour=style.MUTED)
    for i, box in enumerate(each for each in (parts.final, parts.head) if each.size):
        look = "head" if box is parts.head and box.trained else box.look
        if i:
            pen.line((704, y + 12), (704, y + 21), arrow=True)
        pen.box(704, y + 33 * i, 84, 24, look, f"{box.name}: {box.trained:,} of {box.size:,} parameters trained")
        colour = style.PAPER if look == "head" else style.INK
        pen.text(704, y + 33 * i, box.name, colour=colour)
    if not (parts.final.size or parts.head.size):
        pen.text(746, y, "last hidden states", "end", colour=style.MUTED)


def _legend(pen: Pen, parts: BlockParts) -> None:
    """What the looks that are there mean, and what the method does, in a sentence."""
    y, x = _STRIP + 6, 184
    boxes = [box for each in parts.sublayers for box in (*each.maps, each.norm)] + [parts.embedding, parts.final]
    looks = {box.look for box in boxes if box.size}
    acts = {added.acts for box in boxes for added in box.added} | {each.acts for each in parts.elsewhere}
    acts |= {added.acts for each in parts.sublayers for added in (*each.behind, *each.around)}
    virtual = bool(acts & {KEYS_VALUES, IN_FRONT, AMONG})
    entries = {
        "frozen": bool(looks - {"trained"}),
        "trained": "trained" in looks or bool(acts & {PARALLEL, SERIES}),
        "partly": "partly" in looks,
        "biases": "biases" in looks,
        "token": virtual,
    }
    names = {"partly": "a part trained", "biases": "bias trained", "token": "virtual token, trained"}
    for look in (look for look, there in entries.items() if there):
        pen.box(x, y, *((10, 12) if look == "token" else (20, 13)), look, radius=0 if look == "token" else 3)
        name = names.get(look, look)
        pen.text(x + 16, y, name, "start")
        x += 44 + wide(name)
    told = "; ".join(acting(parts)) or "nothing in this block is trained"
    told = f"{parts.method or 'No method is attached'}: {told}".replace("rank ", "rank\N{NO-BREAK SPACE}")
    for i, line in enumerate(wrap(told, 68, break_on_hyphens=False, max_lines=3, placeholder=" …")):
        pen.text(174, y + 20 + 15 * i, line, "start", 11.5)
