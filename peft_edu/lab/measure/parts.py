"""A model in parts: which weights lie where, which of them `requires_grad` marks, what a method put beside them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from torch import nn
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, blocks, head, linear_maps, sublayer_outputs
from peft_edu.method import attached
from peft_edu.prefix_tuning import Prefix, Trunk


@dataclass(frozen=True)
class Slab:
    """What is trained of a part's weight, or what is frozen of it, and what a method put beside it."""

    name: str
    weights: int
    trained: bool
    biases: int = 0  # trained ones of a frozen weight, not among its numbers
    beside: int = 0
    virtual: bool = False  # what is beside are virtual tokens, or the slab itself is a prompt


@dataclass(frozen=True)
class Part:
    kind: str  # embedding, block, final (the last norm, a pooler, a language-model head of its own), head
    name: str
    slabs: tuple[Slab, ...]
    number: int = 0  # of a block, from 1 at the bottom

    @property
    def weights(self) -> int:
        return sum(slab.weights for slab in self.slabs)


def parts(model: PreTrainedModel) -> list[Part]:
    """The model from its embedding to its head. What lies neither in a block nor in the head is in front or behind."""
    seen: set[nn.Parameter] = set()
    maps: dict[nn.Module, list[LinearMap]] = defaultdict(list)
    for each in linear_maps(model):
        maps[each.module].append(each)
    added = set(attached(model).added if attached(model) else ())
    owned = [set(module.parameters()) for module in added]
    shared = {p for module in model.modules() if isinstance(module, Trunk) for p in module.parameters()}
    stack = [_block(model, block, i, maps, added, seen, shared) for i, block in enumerate(blocks(model), start=1)]
    heads = [Part("head", "head", tuple(_owned(part, seen))) for part in head(model)]
    mine, first = set().union(*owned), next(blocks(model)[0].parameters())
    front = set(takewhile(lambda parameter: parameter is not first, model.parameters()))  # as transformers registers
    front |= mine - seen  # a prompt stands before the text
    embedding = Part("embedding", "embedding", tuple(_owned(model, seen, front, virtual=mine)))
    final = Part("final", "final", tuple(_owned(model, seen)))
    return [part for part in (embedding, *stack, final, *heads) if part.weights]


def describe(found: list[Part]) -> str:
    """The map in words: runs of equal blocks together."""
    runs: list[tuple[str, list[str]]] = []
    for part in found:
        state = _state(part)
        if runs and runs[-1][0] == state and part.number > 1:
            runs[-1][1].append(part.name)
        else:
            runs.append((state, [part.name]))
    return "Model map. " + "; ".join(f"{_span(names)}: {state}" for state, names in runs) + "."


def _block(model: PreTrainedModel, block: nn.Module, number: int, maps: dict, added: set, seen, shared) -> Part:
    """The linear maps, from the bottom up, each with what was put beside it; then the norms, and what else there is."""
    here = [each for module in block.modules() for each in maps.get(module, ())]
    ends = [each for each in here if each.role in ("output", "down")]
    behind = {place: [end] for place, end in zip(sublayer_outputs(model, block), ends, strict=True)}
    beside: dict[tuple[nn.Module, str], int] = defaultdict(int)
    virtual = set()
    pairs = [(parent, child) for parent in block.modules() for child in parent.children() if child in added]
    for parent, child in pairs:
        homes = _homes(parent, child, maps, behind)
        trained = {parameter for parameter in child.parameters() if parameter.requires_grad} - shared
        seen |= trained if homes else set()  # what stands beside no map gets a slab of its own
        for home in homes:  # what changes three maps that are stored as one is drawn a third beside each
            beside[home.module, home.role] += sum(parameter.numel() for parameter in trained) // len(homes)
            virtual |= {(home.module, home.role)} if isinstance(child, Prefix) else set()
    slabs = [_map_slab(each, beside[each.module, each.role], (each.module, each.role) in virtual) for each in here]
    seen.update(parameter for each in here for parameter in each.module.parameters(recurse=False))
    rest = set(block.parameters()) - shared
    return Part("block", f"block {number}", (*slabs, *_owned(block, seen, rest, norms_as_one=True)), number)


def _homes(parent: nn.Module, child: nn.Module, maps: dict, behind: dict) -> list[LinearMap]:
    """The linear maps that a method's module stands beside: those of its parent, or the one before it in the block.

    A prefix stands beside key and value. Of a fused module's maps it is the one whose rows it changes, or all of them.
    """
    if isinstance(child, Prefix):
        inside = (each for module in parent.modules() for each in maps.get(module, ()))
        return [each for each in inside if each.role in ("key", "value")]
    homes = maps.get(parent) or behind.get(parent, [])
    return [each for each in homes if getattr(child, "rows", each.rows) == each.rows]


def _map_slab(each: LinearMap, beside: int, virtual: bool) -> Slab:
    trained, bias = each.module.weight.requires_grad, getattr(each.module, "bias", None)
    numbers, bias_trained = (0, False) if bias is None else (len(each.weight), bias.requires_grad)
    together, alone = numbers * (bias_trained == trained), numbers * (bias_trained and not trained)
    return Slab(each.role, each.weight.numel() + together, trained, alone, beside, virtual)


def _owned(root: nn.Module, seen: set, within: set | None = None, norms_as_one=False, virtual=()) -> Iterator[Slab]:
    """What is not drawn yet: of each module a slab of what is trained, and one of what is frozen."""
    left: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for path, parameter in root.named_parameters():
        if parameter not in seen and (within is None or parameter in within):
            seen.add(parameter)
            owner, _, kind = path.rpartition(".")
            norm = norms_as_one and type(root.get_submodule(owner)).__name__.endswith("Norm")
            name = "norm" if norm else (owner or path).rpartition(".")[2]
            left[name, parameter.requires_grad].append((kind, parameter))
    alone = {
        name: sum(p.numel() for _, p in found)
        for (name, trained), found in left.items()
        if trained and (name, False) in left and all(kind == "bias" for kind, _ in found)
    }
    for (name, trained), found in left.items():
        if not (trained and name in alone):
            numbers, soft = sum(p.numel() for _, p in found), any(p in virtual for _, p in found)
            yield Slab(name, numbers, trained, alone.get(name, 0), virtual=soft)


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
    if any(slab.biases for slab in part.slabs):
        told.append("biases trained")
    return ", ".join(told)


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0].replace('block', 'blocks')} to {names[-1].split()[-1]}"
