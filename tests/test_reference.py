"""LoRA beside the libraries that a reader already trusts, in float64: output, every gradient, three optimiser steps.

alpha / r is a power of two. Multiplying with it is exact, so that it does not matter whether the output is scaled, as
peft does, or B, as we do. A last digit would: the norms of T5, Llama and Qwen2 compute in float32 in any model.
"""

import loralib
import peft
import pytest
import torch
from families import batch, tiny
from torch import Tensor, nn

from peft_edu import LoRA, trainable
from peft_edu.lora import LowRankUpdate

RANK, ALPHA = 4, 16
PEFT_NAMES = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "deberta-v2": ["query_proj", "value_proj"],
    "t5": ["q", "v"],
    "t5-gated": ["q", "v"],
    "llama": ["q_proj", "v_proj"],
    "qwen2": ["q_proj", "v_proj"],
}


def base(family: str) -> nn.Module:
    return tiny(family, dtype=torch.float64)


def lora(family: str, targets=("query", "value")) -> tuple[nn.Module, list[tuple[str, LowRankUpdate]]]:
    """A model with LoRA away from its start, and the updates with the paths of their modules."""
    method = LoRA(rank=RANK, alpha=ALPHA, targets=targets)
    model = method.attach(base(family))
    for _, update in method.updates:
        nn.init.normal_(update.B, std=0.2)
    names = {module: name for name, module in model.named_modules()}
    return model, [(names[target.module], update) for target, update in method.updates]


def close(mine: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(mine, theirs, rtol=1e-10, atol=1e-12)


def assert_equal_training(model: nn.Module, other: nn.Module, pairs: list[tuple[Tensor, Tensor, slice]]) -> None:
    """`pairs`: a parameter of ours, the reference's parameter, and which of its rows are ours."""
    mine, theirs = trainable(model).values(), trainable(other).values()
    assert {id(parameter) for parameter, _, _ in pairs} == {id(parameter) for parameter in mine}
    assert sum(parameter.numel() for parameter in mine) == sum(parameter.numel() for parameter in theirs)
    with torch.no_grad():
        for parameter, reference, rows in pairs:
            reference[rows] = parameter
    optimisers = torch.optim.AdamW(mine, lr=0.01), torch.optim.AdamW(theirs, lr=0.01)
    for _ in range(3):
        outputs = model(**batch()), other(**batch())
        assert close(outputs[0].logits, outputs[1].logits)
        for output, optimiser in zip(outputs, optimisers, strict=True):
            optimiser.zero_grad()
            output.loss.backward()
        assert all(close(parameter.grad, reference.grad[rows]) for parameter, reference, rows in pairs)
        assert all(parameter.grad.any() for parameter in mine)
        for optimiser in optimisers:
            optimiser.step()
        assert all(close(parameter, reference[rows]) for parameter, reference, rows in pairs)


@pytest.mark.parametrize("family", PEFT_NAMES)
def test_lora_is_that_of_hf_peft(family):
    model, updates = lora(family)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=PEFT_NAMES[family])
    other = peft.get_peft_model(base(family), config).eval()
    pairs = []
    for name, update in updates:
        reference = other.base_model.model.get_submodule(name)
        pairs.append((update.A, reference.lora_A["default"].weight, slice(None)))
        pairs.append((update.B, reference.lora_B["default"].weight, slice(None)))
    assert_equal_training(model, other, pairs)


def test_lora_is_that_of_loralib():
    model, updates = lora("bert")
    other, pairs = base("bert"), []
    for name, update in updates:
        linear = other.get_submodule(name)
        reference = loralib.Linear(32, 32, r=RANK, lora_alpha=ALPHA, merge_weights=False).double()
        reference.load_state_dict(linear.state_dict(), strict=False)
        other.set_submodule(name, reference)
        pairs += [(update.A, reference.lora_A, slice(None)), (update.B, reference.lora_B, slice(None))]
    loralib.mark_only_lora_as_trainable(other)
    assert_equal_training(model, other, pairs)


def test_lora_on_a_fused_map_is_that_of_loralib():
    model, updates = lora("gpt2")
    other, pairs = base("gpt2"), []
    for i, (name, update) in enumerate(updates):
        part = i % 2  # query, value, query, value: two updates a module
        if part == 0:
            reference = loralib.MergedLinear(
                32,
                96,
                r=RANK,
                lora_alpha=ALPHA,
                enable_lora=[True, False, True],
                fan_in_fan_out=True,
                merge_weights=False,
            ).double()
            reference.load_state_dict(other.get_submodule(name).state_dict(), strict=False)
            other.set_submodule(name, reference)
        pairs.append((update.A, reference.lora_A, slice(part * RANK, (part + 1) * RANK)))
        pairs.append((update.B, reference.lora_B, slice(part * 32, (part + 1) * 32)))
    loralib.mark_only_lora_as_trainable(other)
    assert_equal_training(model, other, pairs)


def test_lora_on_a_fused_map_has_the_output_and_gradients_of_hf_peft():
    """peft shares one A among query, key and value. Its gradient is the sum of ours, and after a step ours differ."""
    model, updates = lora("gpt2", targets=("query", "key", "value"))
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["c_attn"], fan_in_fan_out=True)
    other = peft.get_peft_model(base("gpt2"), config).eval()
    modules = {}
    for name, update in updates:
        modules.setdefault(name, []).append(update)
    references = {name: other.base_model.model.get_submodule(name) for name in modules}
    with torch.no_grad():
        for name, three in modules.items():
            for update in three:
                update.A.copy_(references[name].lora_A["default"].weight)
            references[name].lora_B["default"].weight.copy_(torch.cat([update.B for update in three]))
    outputs = model(**batch()), other(**batch())
    assert close(outputs[0].logits, outputs[1].logits)
    for output in outputs:
        output.loss.backward()
    for name, three in modules.items():
        A, B = (getattr(references[name], letter)["default"].weight for letter in ("lora_A", "lora_B"))
        assert close(sum(update.A.grad for update in three), A.grad)
        assert close(torch.cat([update.B.grad for update in three]), B.grad)
