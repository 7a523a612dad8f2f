import re

import pytest
import torch
from families import SIZES, batch, tiny
from torch import nn

from peft_edu import Adapter, count, trainable
from peft_edu.adapter import Bottleneck
from peft_edu.anatomy import norms


def logits(model, task="language"):
    with torch.no_grad():
        return model(**batch(task)).logits


def test_a_bottleneck_is_its_equation():
    adapter = Bottleneck(8, 3, 1.0, own_norm=False, like=torch.zeros(1, dtype=torch.float64))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    down, up = adapter.down, adapter.up
    by_hand = x + nn.functional.gelu(x @ down.weight.T + down.bias) @ up.weight.T + up.bias
    assert torch.allclose(adapter(x), by_hand, atol=1e-14)
    assert sum(p.numel() for p in adapter.parameters()) == 2 * 3 * 8 + 3 + 8


@pytest.mark.parametrize("std", [1e-3, 0.1])
def test_the_start_is_a_normal_cut_at_two_sigma(std):
    torch.manual_seed(0)
    adapter = Bottleneck(400, 300, std, own_norm=False, like=torch.zeros(1))
    for linear in (adapter.down, adapter.up):
        assert linear.weight.abs().max() <= 2 * std
        assert linear.weight.std().item() == pytest.approx(0.88 * std, rel=0.02)  # of a normal that is cut at two sigma
        assert not linear.bias.any()


@pytest.mark.parametrize("family", SIZES)
def test_a_small_start_is_near_the_base_model_and_a_large_one_is_not(family):
    base = logits(tiny(family))
    near, far = (logits(Adapter(8, init_std=std).attach(tiny(family))) for std in (1e-3, 1.0))
    assert torch.allclose(near, base, atol=1e-3) and not torch.allclose(far, base, atol=1e-2)


@pytest.mark.parametrize("family", SIZES)
def test_where_adapters_sit(family):
    """Two in a block; three in a decoder block of T5's, which has two of them here beside two encoder blocks."""
    houlsby, pfeiffer = Adapter(4), Adapter(4, placement="pfeiffer")
    houlsby.attach(tiny(family)), pfeiffer.attach(tiny(family))
    is_t5 = family.startswith("t5")
    assert len(houlsby.added) == (10 if is_t5 else 4)
    assert len(pfeiffer.added) == (4 if is_t5 else 2)


def test_pfeiffers_adapter_stands_behind_the_feed_forward_network():
    for family, place in {"bert": "output.dropout", "gpt2": "mlp.dropout", "llama": "mlp.down_proj"}.items():
        model = Adapter(4, placement="pfeiffer", norms=False).attach(tiny(family))
        names = {name.partition(".adapter.")[0] for name in trainable(model)}
        assert all(name.endswith(place) and "attention" not in name for name in names) and len(names) == 2


def test_the_adapter_acts_before_the_residual_sum():
    """With W_up = 0 and a bias c it adds c to what the sub-layer gives, and so to the stream."""
    model = tiny("gpt2")
    method = Adapter(2, placement="pfeiffer", blocks=(1,))
    method.attach(model)
    seen = []
    model.transformer.h[1].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    (adapter,) = method.added
    nn.init.zeros_(adapter.up.weight)
    for value in (0.0, 3.0):
        nn.init.constant_(adapter.up.bias, value)
        logits(model)
    assert torch.allclose(seen[1] - seen[0], torch.full_like(seen[0], 3.0), atol=1e-5)


@pytest.mark.parametrize("family", SIZES)
def test_layer_norms_are_trained_or_not(family):
    model = tiny(family)
    with_norms, without = count(Adapter(4).attach(tiny(family))), count(Adapter(4, norms=False).attach(model))
    assert with_norms.trainable - without.trainable == sum(
        p.numel() for norm in norms(model) for p in norm.parameters()
    )
    assert not any("norm" in name.lower() or "ln_" in name for name in trainable(model))


def test_blocks_can_be_left_out():
    method = Adapter(4, blocks=[1])
    model = method.attach(tiny("bert"))
    assert method.blocks == (1,)
    assert {name.split(".adapter.")[0] for name in trainable(model) if "adapter" in name} == {
        "bert.encoder.layer.1.attention.output.dropout",
        "bert.encoder.layer.1.output.dropout",
    }
    assert Adapter(4, blocks=()).attach(tiny("bert")) is not None  # the LayerNorms alone


@pytest.mark.parametrize("bottleneck", [0, -1, 2.5, "64", True])
def test_the_bottleneck_is_a_whole_number(bottleneck):
    with pytest.raises(ValueError, match=f"bottleneck is {bottleneck!r}, but must be a whole number from 1 on"):
        Adapter(bottleneck)


def test_an_unknown_placement():
    with pytest.raises(ValueError, match="placement is 'parallel', but must be one of 'houlsby', 'pfeiffer'"):
        Adapter(placement="parallel")


@pytest.mark.parametrize("std", [-0.1, float("nan"), "small"])
def test_the_start_has_a_spread(std):
    with pytest.raises(ValueError, match=f"init_std is {std!r}, but must be .*at least 0"):
        Adapter(init_std=std)


@pytest.mark.parametrize("blocks", [3, "01", ("a",), (0.0,), (True,), {0}])
def test_blocks_are_whole_numbers(blocks):
    with pytest.raises(ValueError, match=f"blocks is {re.escape(repr(blocks))}, but must be whole numbers, as in"):
        Adapter(4, blocks=blocks)


def test_no_block_is_named_twice():
    with pytest.raises(ValueError, match="blocks names 0 twice"):
        Adapter(4, blocks=(0, 0))


@pytest.mark.parametrize("field", ["norms", "own_norm"])
@pytest.mark.parametrize("value", ["no", "false", None, 3, 1])
def test_a_question_is_answered_by_true_or_false(field, value):
    """The text "no" would count as yes."""
    with pytest.raises(ValueError, match=f"{field} is {value!r}, but must be True or False"):
        Adapter(4, **{field: value})


@pytest.mark.parametrize("bottleneck", [10**9, 10**12])
def test_a_bottleneck_beyond_the_model_is_refused_before_it_takes_memory(bottleneck):
    model = tiny("bert")
    with pytest.raises(
        ValueError, match=f"bottleneck {bottleneck} would add .* to BertForMaskedLM, which has .* itself"
    ):
        Adapter(bottleneck).attach(model)
    assert not any(hasattr(module, "adapter") for module in model.modules())


@pytest.mark.parametrize("blocks", [(2,), (0, -1)])
def test_blocks_that_are_not_there(blocks):
    with pytest.raises(ValueError, match=f"blocks names {blocks[-1]}, but BertForMaskedLM has the blocks 0 to 1"):
        Adapter(4, blocks=blocks).attach(tiny("bert"))
