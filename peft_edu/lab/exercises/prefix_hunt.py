"""Lesson 03, the hunt: a prefix that trains, but badly. The lesson's cell has three faults that people make, and none
stops with an error: the values have the prefix behind the text and the keys in front, the mask gets its zeros at the
wrong end, and one prefix, made before the loop, serves all layers. A measurement shows each of them.

Facts told, validation of `tables`, per cent, length 20 from the note, 150 steps, seeds 0 and 1: without a fault 98.0
and 98.5; values behind 0.0 and 0.0, mask 9.2 and 9.9, one prefix for all 69.1 and 26.1; all three 21.6 and 26.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peft_edu.anatomy import attentions
from peft_edu.attention import ATTENTION, activations
from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise, tensors
from peft_edu.lab.exercises.prefix_method import MyPrefix
from peft_edu.lab.exercises.whole_method import tiny_model
from peft_edu.method import METHODS, Method


@dataclass
class HuntedPrefixTuning(Method):
    words: tuple[int, ...] = (1, 2, 3)

    starts_at_base = False

    def insert(self, model):
        modules = attentions(model)[0]
        self.configure(model.config, "_attn_implementation", ATTENTION)
        starts = activations(model, modules, torch.tensor([self.words]))
        for module, start in zip(modules, starts, strict=True):
            self.add(module, "prefix", MyPrefix(start))


METHODS.pop("HuntedPrefixTuning")  # as MyPrefixTuning: `check` puts on the list what the lesson goes on with


@exercise(
    "prefix.hunt",
    reference=HuntedPrefixTuning,
    beside=(MyPrefix,),
    hints=(
        "Measure before you read. `count(model)`: are there as many parameters as your formula says?",
        "Call one prefix by hand, with random queries, keys and values. Does `MyPrefix(start)` give the same?",
        "Change the last token of a text. Which logits change? In a decoder only those of the last place may.",
        "One fault lies in what is put in front of what, one in the mask, one in the loop of insert.",
    ),
)
def _hunt(cls) -> None:
    """class HuntedPrefixTuning(Method), a @dataclass with words: the prefix tuning above, without its faults"""
    if not issubclass(cls, Method):
        raise Misconception("HuntedPrefixTuning is no Method any more: keep the class, and mend what is in it")
    found = [message for fault, message in FAULTS.items() if fault(cls)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)


def _prefixes(cls) -> list[nn.Module]:
    """Those of an attached model, one for each layer, filled with other numbers as after some steps."""
    model = tiny_model("gpt2")
    cls(words=(4, 1, 7)).attach(model)
    found = [getattr(module, "prefix", None) for module in attentions(model)[0]]
    if not all(found):
        raise NotWritten("a layer has no prefix. Bring the cell back as it was, and mend one fault at a time")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in dict.fromkeys(parameter for each in found for parameter in each.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return found


def _held(prefix: nn.Module) -> Tensor:
    own = getattr(prefix, "keys_values", None)
    return own if isinstance(own, Tensor) else next(each for each in prefix.parameters() if each.ndim == 4)


@torch.no_grad()
def _mismatched(cls) -> bool:
    """Not what MyPrefix gives, under a mask that hides nothing and so has no wrong side."""
    prefix, inputs = _prefixes(cls)[0], tensors((1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4))
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    return not torch.allclose(prefix(*inputs, mask, scale=0.5), MyPrefix(_held(prefix))(*inputs, mask, scale=0.5))


@torch.no_grad()
def _sees_ahead(cls) -> bool:
    """The last key alone is changed: under a causal mask that no earlier query may feel, whatever the values are."""
    prefix, (q, k, v) = _prefixes(cls)[0], tensors((1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4))
    mask = torch.full((1, 1, 5, 5), -1e9, dtype=torch.float64).triu(1)
    other = torch.cat([k[:, :, :-1], k[:, :, -1:] + 1], 2)
    one, two = (prefix(q, keys, v, mask, scale=0.5) for keys in (k, other))
    return not torch.allclose(one[:, :, :-1], two[:, :, :-1])


def _shared(cls) -> bool:
    prefixes = _prefixes(cls)
    return len({id(parameter) for each in prefixes for parameter in each.parameters()}) < len(prefixes)


FAULTS = {
    _mismatched: "Call a prefix by hand, with a mask of zeros: it is not what MyPrefix gives. Each key needs its own "
    "value: what stands in front of what?",
    _sees_ahead: "Change the last token of a text: logits before it change as well, so tokens see what comes later. "
    "The mask is added to the scores: where do the zeros for the prefix belong?",
    _shared: "Count: count(model) is a quarter of 2 p L d. How many prefixes are made, and how many layers are there?",
}
