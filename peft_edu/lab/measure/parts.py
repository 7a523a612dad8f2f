"""A model in parts: which weights lie where, which of them `requires_grad` marks, what a method put beside them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from torch import nn
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, blocks, head, linear_maps, sublayer_outputs
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
    places = sublayer_outputs(model, block)
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
