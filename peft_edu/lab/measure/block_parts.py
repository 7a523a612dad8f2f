"""One transformer block as it stands in a model: its weights, what is trained, and how the attached method acts on it.

Everything is read from the model: what was added to which module, what `requires_grad` marks, and what a hook gives.

    in parallel       a hook of a map gives what follows from the map's input           LoRA
    in series         it gives what follows from the output alone                       adapters
    keys and values   at an attention module, as its `prefix`                           prefix tuning, P-tuning v2
    in front          at the module that holds the blocks                               prompt tuning
    among the text    at the embedding                                                  P-tuning v1
    without a hook    it changes nothing, which a learner will want to see
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, takewhile

import torch
from torch import nn
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, blocks, evaluating, head_parameters, linear_maps, sublayer_outputs
from peft_edu.method import Method, attached, unwrapped
from peft_edu.p_tuning import PSEUDO
from peft_edu.prefix_tuning import Prefix, Trunk

PARALLEL, SERIES, KEYS_VALUES = "in parallel", "in series", "keys and values"
IN_FRONT, AMONG, IDLE = "in front", "among the text", "without a hook"
WAYS = (PARALLEL, SERIES, KEYS_VALUES, IN_FRONT, AMONG, IDLE)
OTHER = "other weights"


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
        for parent, name, child in self._children(block):
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

    def _children(self, block: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
        """What was added in this block, its name and where. An A and a B that were added each alone are one pair."""
        for parent in block.modules():
            here = {name: child for name, child in parent.named_children() if child in self.children}
            pair = nn.ModuleDict(here)
            if parent in self.maps and len(here) == 2 and _waist(pair)[0]:  # each holds one matrix
                here = {" and ".join(here): pair}
            yield from ((parent, name, child) for name, child in here.items())

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
        if any(getattr(each, "__self__", None) is child for each in module._forward_pre_hooks.values()):
            return SERIES  # it changes what the map reads
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
    return OTHER if parameters else ""


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
        f"{which(parts)}. The residual stream is t x {parts.width}; its branches {steps} are summed back into it, "
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
    return [_phrase(*way, _listed(dict.fromkeys(places))) for way, places in ways.items()] + _own(parts)


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
    return ([f"{_listed(dict.fromkeys(named))} trained"] if named else []) + biases + scales


def which(parts: BlockParts) -> str:
    same = {1: "no other is like this", 2: "two are like this", parts.of: f"all {parts.of} are like this"}
    same |= {2: "both are like this"} if parts.of == 2 else {}
    name = parts.kind[0].upper() + parts.kind[1:]
    told = same.get(parts.alike, f"{parts.alike} are like this")
    return f"{name} {parts.number} of {parts.of}" + (f", {told}" if parts.of > 1 else "")


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
