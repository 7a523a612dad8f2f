"""Lesson 02, the hunt: adapters that train, but badly. The lesson's cell has three faults that people make, and none
stops with an error: the hook adds the output once more, one adapter stands at all places, and it stands behind the
residual sum and the LayerNorm. A measurement shows each of them. On `reviews` (m = 16, LayerNorms frozen, 75 steps,
seed 0) 94% without a fault, 62, 80 and 88% with each alone in this order, 54% with all three.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, linear_maps, sublayer_outputs
from peft_edu.lab.exercises.adapter_method import MyBottleneck
from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise, tensors
from peft_edu.lab.exercises.whole_method import tiny_model
from peft_edu.method import METHODS, Method


def through_hunted(module, inputs, output):
    return module.hunted(output)


@dataclass
class HuntedAdapter(Method):
    bottleneck: int = 16

    def insert(self, model):
        for block in blocks(model):
            for place in sublayer_outputs(model, block):
                self.add(place, "hunted", MyBottleneck(model.config.hidden_size, self.bottleneck))
                self.hook(place.register_forward_hook(through_hunted))


METHODS.pop("HuntedAdapter")  # as MyAdapter: `check` puts on the list what the lesson goes on with


@exercise(
    "adapter.hunt",
    reference=HuntedAdapter,
    beside=(MyBottleneck, through_hunted),
    hints=(
        "Measure before you read. Attach it, train nothing, and ask for `language_loss` (section 5), with the adapters "
        "and without: near zero they must change nothing.",
        "How many adapters are there? `count` says how much is trained, and section 2 how much one adapter has.",
        "Print in the hook what an adapter reads, for one token. Is that what attention alone gives?",
        "One fault lies in what is added to an adapter's output, one in how many there are, one in where they stand.",
    ),
)
def _hunt(cls) -> None:
    """class HuntedAdapter(Method), a @dataclass with bottleneck: the adapters above, without their faults"""
    if not issubclass(cls, Method):
        raise Misconception(
            "HuntedAdapter is no Method any more: keep class HuntedAdapter(Method), and mend what is in it"
        )
    found = [message for fault, message in FAULTS.items() if fault(cls)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)


def _attached(cls) -> tuple[PreTrainedModel, list[nn.Module]]:
    """A model with the method, and what was added to it."""
    model = tiny_model("bert")
    method = cls(bottleneck=3)
    method.attach(model)
    added = list(dict.fromkeys(part for child in method.added for part in child.modules() if _has_matrices(part)))
    if not added:
        raise NotWritten("insert adds nothing. Bring the cell back as it was, and mend one fault at a time")
    return model, added


def _has_matrices(part: nn.Module) -> bool:
    return sum(each.ndim == 2 for each in part.parameters()) == 2


def _hooked(model: PreTrainedModel) -> list[nn.Module]:
    return [module for module in model.modules() if module._forward_hooks]


@torch.no_grad()
def _seen(model: PreTrainedModel, x: Tensor) -> list[Tensor]:
    """For each module that has a hook, what the rest of the model sees where the module gives x."""
    found = []
    for place in _hooked(model):
        output = x.clone()
        for hook in place._forward_hooks.values():
            given = hook(place, (x,), output)
            output = output if given is None else given
        found.append(output)
    return found


@contextmanager
def _filled(adapter: nn.Module, draw) -> Iterator[None]:
    """Other numbers in all parameters of this adapter, for as long as this lasts."""
    kept = [parameter.clone() for parameter in adapter.parameters()]
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(draw(parameter))
    yield
    with torch.no_grad():
        for parameter, before in zip(adapter.parameters(), kept, strict=True):
            parameter.copy_(before)


def _not_around(cls) -> bool:
    """With every map at zero, something else than x comes out."""
    model, added = _attached(cls)
    (x,) = tensors((2, 4, 8))
    for adapter in added:
        for parameter in adapter.parameters():
            nn.init.zeros_(parameter)
    return any(not torch.allclose(seen, x) for seen in _seen(model, x))


def _not_its_own(cls) -> bool:
    """A place without an adapter, or two that follow the numbers of one."""
    model, added = _attached(cls)
    (x,) = tensors((2, 4, 8))
    before, follow = _seen(model, x), []
    for adapter in added:
        with _filled(adapter, torch.randn_like):
            after = _seen(model, x)
        follow.append(
            {i for i, (one, other) in enumerate(zip(before, after, strict=True)) if not torch.equal(one, other)}
        )
    alone = [places for places in follow if len(places) == 1]
    return len(set().union(*alone)) < sum(len(sublayer_outputs(model, block)) for block in blocks(model))


def _elsewhere(cls) -> bool:
    """They stand behind something else than a sub-layer's last map, or the dropout behind that."""
    model, _ = _attached(cls)
    right = {place for block in blocks(model) for place in sublayer_outputs(model, block)}
    return not set(_hooked(model)) <= right | {each.module for each in linear_maps(model, ("output", "down"))}


FAULTS = {
    _not_around: "Attach it, set every parameter that was added to zero, and ask the model: it does not answer as "
    "before. With nothing in the bottleneck x itself must come out, once",
    _not_its_own: "Count what is trained, and compare it with eight adapters of 2 m d + m + d. Which place has one of "
    "its own?",
    _elsewhere: "Print what an adapter reads, in the hook: the residual stream is in it, sum and LayerNorm are done. "
    "Which modules give what a sub-layer alone says?",
}
