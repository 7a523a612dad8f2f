"""Lesson 02, the hunt: adapters that train, but badly. The lesson's cell has three faults that people make, and none
stops with an error: the maps start with a deviation of 1, the hook adds the output once more, and one adapter stands at
all places. A measurement shows each of them. Accuracy on `reviews`, m = 16, LayerNorms frozen, 75 steps, seeds 0 and 1:
94 and 96% without a fault; each alone, in this order, 53 and 50, 62 and 73, 80 and 73%; all three 52 and 50%.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, sublayer_outputs
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
        "Set every parameter of an adapter to zero. What comes out of the hook for an x?",
        "One fault lies in how the maps start, one in what is added to an adapter's output, one in how many there are.",
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


def _far_start(cls) -> bool:
    """The maps change x a lot before anything is trained: compared with what comes out where they are zero."""
    model, added = _attached(cls)
    (x,) = tensors((2, 4, 8))
    started = _seen(model, x)
    for adapter in added:
        for parameter in adapter.parameters():
            nn.init.zeros_(parameter)
    around = _seen(model, x)
    return any((one - other).norm() > x.norm() for one, other in zip(started, around, strict=True))


FAULTS = {
    _not_around: "Attach it, set every parameter that was added to zero, and ask the model: it does not answer as "
    "before. With nothing in the bottleneck x itself must come out, once",
    _not_its_own: "Count what is trained, and compare it with eight adapters of 2 m d + m + d. Which place has one of "
    "its own?",
    _far_start: "Attach it, train nothing, and ask for the loss on old texts (section 5): it is far higher than "
    "without. Which deviation do the maps start with?",
}
