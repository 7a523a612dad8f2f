"""Lesson 06, the hunt: deep prompts that train, but badly. The lesson's cell has three faults that people make, and
none stops with an error: the values get no gradient, dropout is awake in eval(), and the mask grows at the wrong end.
MEASURED
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
        "After `loss.backward()` look at the gradient of each prompt: `keys_values.grad[0]` belongs to the keys, "
        "`[1]` to the values.",
        "All three lie in forward: one in what is made random, one in what is trained, one in the mask.",
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


def _half_learns(cls) -> bool:
    """Half of the prompt's numbers get no gradient, or are no parameters at all."""
    model, method = _attached(cls)
    heads, width = key_value_shape(model)
    whole = len(method.added) * 2 * heads * 3 * width
    with WithoutDropout():
        _logits(model).square().sum().backward()
    grads = [parameter.grad for child in method.added for parameter in child.parameters() if parameter.grad is not None]
    return sum(int(grad.count_nonzero()) for grad in grads) <= 0.75 * whole


def _logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, attention_mask=SHORT).logits


FAULTS = {
    _answers_change: "Ask the model the same sentence twice, in eval(): the answers differ. Something random is still "
    "awake when the model is to answer",
    _padding_counts: "Ask a short sentence alone, and again in a batch with a longer one: the answers differ. Which of "
    "the p + t columns of the mask belong to the prompt?",
    _half_learns: "Train some steps and compare each prompt with its start: half of its numbers have not moved. What "
    "do they need to learn?",
}
