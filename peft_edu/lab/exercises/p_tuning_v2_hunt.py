"""Lesson 06, the hunt: deep prompts that train, but badly. The lesson's cell has three faults that people make, and
none stops with an error: dropout is awake in eval(), the mask grows at the wrong end, and one layer alone has a prompt.
A measurement shows each of them. On `reviews` (8 positions, seeds 0 and 1) dropout costs 18 and 12 points, the mask 38
and 42, one layer 18 and 19, all three about 40, from 94 and 96. What was tried and costs nothing there is not planted:
values without a gradient (95.9 with seed 0), all positions begun alike (96.1).
That is after 150 steps. The lesson takes 60, where seed 0 has 77.1% without a fault and 50.7% with all three.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peft_edu.anatomy import attentions, key_value_shape
from peft_edu.attention import ATTENTION
from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise
from peft_edu.lab.exercises.lora_hunt import WithoutDropout
from peft_edu.lab.exercises.p_tuning_v2_method import DeepPrompt, expect_in_place, split_table, start_positions_at
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.method import METHODS, Method


@dataclass
class HuntedPTuningV2(Method):
    length: int = 8

    def insert(self, model):
        (modules,), (heads, width) = attentions(model), key_value_shape(model)
        table = torch.randn(self.length, len(modules) * 2 * heads * width)
        self.configure(model.config, "_attn_implementation", ATTENTION)
        self.hook(start_positions_at(self.length, model))
        for module, keys_values in zip(modules, split_table(table, len(modules), heads), strict=True):
            self.add(module, "prefix", DeepPrompt(keys_values))


METHODS.pop("HuntedPTuningV2")  # as MyPTuningV2: `check` puts on the list what the lesson goes on with


@exercise(
    "p_tuning_v2.hunt",
    reference=HuntedPTuningV2,
    beside=(DeepPrompt, split_table),
    hints=(
        "Measure before you read. Ask the trained model the same sentence twice, in eval(): are the logits the same?",
        "Ask it a short sentence alone, and the same one in a batch with a long one. Padding must change nothing.",
        "Count by hand what 8 positions in each layer are, and compare with `count(found.model)`.",
        "Two lie in forward: one in what is made random, one in the mask. One lies in insert.",
    ),
)
def _hunt(cls) -> None:
    """class HuntedPTuningV2(Method), a @dataclass with length: the deep prompts above, without their faults"""
    if not issubclass(cls, Method):
        raise Misconception("HuntedPTuningV2 is no Method any more: keep class HuntedPTuningV2(Method)")
    found = [message for fault, message in FAULTS.items() if fault(cls)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)
    expect_in_place(cls(length=3), "bert")


def _attached(cls) -> tuple[nn.Module, Method]:
    """With prompts as they could be after some steps, and the task head's numbers far from zero."""
    model, method = tiny_model("bert"), cls(length=3)
    method.attach(model)
    if not method.added:
        raise NotWritten("insert adds nothing. Bring the cell back as it was, and mend one fault at a time")
    return model.eval(), method


SHORT = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])  # the second text has two tokens, and two of padding


@torch.no_grad()
def _answers_change(cls) -> bool:
    model, _ = _attached(cls)
    return not torch.equal(_logits(model), _logits(model))


@torch.no_grad()
def _padding_counts(cls) -> bool:
    """The short text alone, and beside a longer one. Dropout is put to sleep for this."""
    model, _ = _attached(cls)
    with WithoutDropout():
        alone = model(input_ids=IDS[1:, :2], attention_mask=SHORT[1:, :2]).logits
        return not torch.allclose(_logits(model)[1:], alone, rtol=1e-6, atol=1e-9)


def _not_everywhere(cls) -> bool:
    """A layer has no prompt, or shares the numbers of another's."""
    model, method = _attached(cls)
    (modules,), (heads, width) = attentions(model), key_value_shape(model)
    return sum(p.numel() for p in _trained(method)) < len(modules) * 2 * heads * 3 * width


def _trained(method: Method) -> set[nn.Parameter]:
    return {parameter for child in method.added for parameter in child.parameters()}


def _logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, attention_mask=SHORT).logits


FAULTS = {
    _answers_change: "Ask the model the same sentence twice, in eval(): the answers differ. Something random is still "
    "awake when the model is to answer",
    _padding_counts: "Ask a short sentence alone, and again in a batch with a longer one: the answers differ. Which of "
    "the p + t columns of the mask belong to the prompt?",
    _not_everywhere: "Count: 8 positions in each of 4 layers of width 128 make 8,192 parameters beside the task head. "
    "How many are there? In which layers?",
}
