import copy

import pytest
import torch
from families import batch, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from peft_edu import BitFit, FullFineTuning, LoRA, PromptTuning, TopBlocks, count, fit, load, save, trainable
from peft_edu.anatomy import linear_maps
from peft_edu.quantization import LEVELS, FourBitLinear, levels, pack, quantize

oracle = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes has no wheel for this machine")
SHAPES = [(128, 512), (33, 65), (577, 1536), (1, 1), (3, 64)]
FAMILIES = ("gpt2", "bert", "t5", "llama")


def weights(shape, seed=0, std=0.02):
    return std * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def logits(model):
    with torch.no_grad():
        return model(**batch()).logits


def test_the_levels_are_those_of_bitsandbytes():
    assert torch.equal(levels("nf4"), oracle.get_4bit_type("nf4", device="cpu"))
    theirs = oracle.get_4bit_type("fp4", device="cpu").unique()
    assert torch.allclose(levels("fp4"), theirs, rtol=1e-6)
    assert len(levels("nf4")) == 16 and len(levels("int4")) == 15
    with pytest.raises(ValueError, match="kind is 'nf8', but must be one of 'nf4', 'fp4', 'int4'"):
        levels("nf8")


def test_levels_are_used_about_equally_often_by_normal_weights():
    """Apart from the two at the ends, which only what is near a block's largest weight reaches."""
    shares = {}
    for kind in ("nf4", "int4"):
        packed = pack(weights((512, 512)), kind)
        codes = torch.stack([packed.codes >> 4, packed.codes & 15], 1).flatten().long()
        shares[kind] = codes.bincount(minlength=16)[1:-2] / len(codes)
    assert shares["nf4"].max() / shares["nf4"].min() < 3 < shares["int4"].max() / shares["int4"].min()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_once_it_is_what_bitsandbytes_packs_bit_for_bit(shape, dtype):
    W = weights(shape).to(dtype)
    codes, state = oracle.quantize_4bit(W, blocksize=64, quant_type="nf4")
    ours = pack(W, double=False)
    assert torch.equal(ours.codes, codes.flatten()) and torch.equal(ours.scales, state.absmax)
    if not W.numel() % 64:  # else its unpacking is compiled first, for a quarter of a minute
        assert torch.equal(ours.unpack(), oracle.dequantize_4bit(codes, state))


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_twice_it_is_too_but_for_scales_on_a_border(shape):
    """Its CPU kernel is coarse by hundred thousandths of the range -1 to 1: there it may take the second nearest."""
    W = weights(shape)
    codes, state = oracle.quantize_4bit(W, blocksize=64, quant_type="nf4", compress_statistics=True)
    ours = pack(W)
    assert torch.equal(ours.codes, codes.flatten())
    assert torch.equal(ours.above, torch.cat([state.offset[None], state.state2.absmax]))
    unlike = (ours.scales != state.absmax) & (ours.above[1:].repeat_interleave(256)[: len(ours.scales)] > 0)
    other = unlike.nonzero().flatten()  # a block of equal scales is all at 0, whatever their codes
    assert len(other) <= max(1, 0.005 * len(ours.scales))
    exact = pack(W, double=False).scales - state.offset
    fine = oracle.create_dynamic_map()
    for i in other.tolist():
        relative = exact[i] / state.state2.absmax[i // 256]
        near, far = (abs(fine[int(place[i])] - relative) for place in (ours.scales, state.absmax))
        assert near <= far < near + 5e-5


def test_the_bits_are_those_of_the_paper():
    assert pack(weights((1024, 1024))).bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-4)  # 0.127 for scales
    assert pack(weights((1024, 1024)), double=False).bits == 4.5


def test_nf4_rounds_normal_weights_better_than_steps_do():
    W = weights((512, 512))
    error = {kind: (pack(W, kind, double=False).unpack() - W).square().mean().sqrt() for kind in LEVELS}
    assert error["nf4"] < error["int4"] < error["fp4"]
    assert error["int4"] / error["nf4"] == pytest.approx(1.17, abs=0.03)


# below 1e-30 a scale times a level runs out of float32's digits, and a block below 1e-38 becomes zeros
SIZES = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30)


@settings(max_examples=25, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=200), st.sampled_from(LEVELS))
def test_each_number_becomes_the_nearest_level_of_its_block(numbers, kind):
    x = torch.tensor(numbers)
    found = pack(x, kind, double=False).unpack()
    for at in range(0, len(x), 64):
        block, table = x[at : at + 64], levels(kind) * x[at : at + 64].abs().max()
        nearest = (block[:, None] - table).abs().amin(1)
        assert torch.allclose((found[at : at + 64] - block).abs(), nearest, rtol=1e-4, atol=1e-6 * block.abs().max())


def test_what_is_too_small_for_a_scale_becomes_zero():
    assert torch.equal(pack(torch.full((3,), 1e-45), double=False).unpack(), torch.zeros(3))


def test_zeros_stay_zeros():
    for double in (True, False):
        assert torch.equal(pack(torch.zeros(3, 70), double=double).unpack(), torch.zeros(3, 70))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_model_computes_with_the_rounded_weights(family):
    model, rounded = tiny(family), tiny(family)
    with torch.no_grad():
        for module in dict.fromkeys(each.module for each in linear_maps(rounded)):
            rows = [each for each in linear_maps(rounded) if each.module is module]
            unpacked = pack(torch.cat([each.weight for each in rows])).unpack()
            for each in rows:
                each.weight.copy_(unpacked[each.rows])
    assert quantize(model) is model
    assert torch.allclose(logits(model), logits(rounded), atol=1e-5)
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(linear_maps(model), linear_maps(rounded), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_trains_beside_packed_weights_as_it_does_elsewhere(family, tmp_path):
    model = LoRA(rank=4, targets=("query", "value", "up")).attach(quantize(tiny(family)))
    assert (
        count(model).trainable == count(LoRA(rank=4, targets=("query", "value", "up")).attach(tiny(family))).trainable
    )
    codes = [module.codes.clone() for module in model.modules() if isinstance(module, FourBitLinear)]
    history = fit(model, [batch()], steps=8, lr=1e-2)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    after = [module.codes for module in model.modules() if isinstance(module, FourBitLinear)]
    assert all(map(torch.equal, codes, after))
    save(model, tmp_path / "lora")
    assert torch.equal(logits(load(quantize(tiny(family)), tmp_path / "lora")), logits(model))


@pytest.mark.parametrize("method", [FullFineTuning(), TopBlocks(1)])
def test_what_is_packed_is_not_trained(method):
    model = quantize(tiny("bert", "classify"))
    with pytest.raises(ValueError, match="trains weights that are packed in 4 bits: LoRA and the like"):
        method.attach(model)


def test_other_methods_stand_beside_it():
    for method in (BitFit(), PromptTuning(3)):
        model = method.attach(quantize(tiny("bert")))
        assert trainable(model)
        method.detach()


def test_merging_into_4_bits_is_refused_before_anything_changes():
    method = LoRA(rank=2)
    model = method.attach(quantize(tiny("gpt2")))
    before = logits(model)
    with pytest.raises(ValueError, match="packed in 4 bits, which would round the update away"):
        method.merge()
    assert torch.equal(logits(model), before)


def test_it_is_packed_once_and_before_a_method():
    model = LoRA().attach(tiny("gpt2"))
    with pytest.raises(RuntimeError, match="is attached: pack the model first"):
        quantize(model)
    packed = quantize(tiny("gpt2"))
    with pytest.raises(RuntimeError, match="this GPT2LMHeadModel is packed already"):
        quantize(packed)


def test_it_is_copied_moved_and_cast_like_any_module():
    model = quantize(tiny("llama"))
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), logits(model))
    twin.to(torch.bfloat16)
    assert linear_maps(twin)[0].weight.dtype == torch.bfloat16
    one = next(module for module in twin.modules() if isinstance(module, FourBitLinear))
    assert one.scales.dtype == torch.uint8 and one.above.dtype == torch.float32
    assert torch.isfinite(logits(twin)).all()


def test_backward_is_that_of_the_rounded_weights_and_keeps_none_of_them_until_then():
    """Else training would need the memory of all unpacked weights after all."""
    x = weights((5, 512), std=1).requires_grad_()
    packed, kept = FourBitLinear(weights((256, 512)), torch.ones(256), "nf4", True), []
    packed.bias.requires_grad_()  # BitFit
    plain = nn.Linear(512, 256)
    plain.load_state_dict({"weight": packed.weight, "bias": packed.bias})
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.nbytes) or each, lambda each: each):
        found = packed(x).square().sum()
    expected = plain(x).square().sum()
    assert torch.allclose(found, expected) and sum(kept) < packed.weight.nbytes / 10
    mine, theirs = torch.autograd.grad(found, (x, packed.bias)), torch.autograd.grad(expected, (x, plain.bias))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)  # in float32 processors add in different orders


def test_it_takes_an_eighth_of_the_memory():
    def size(module):
        return sum(each.nbytes for each in (*module.parameters(), *module.buffers()))

    linear = nn.Linear(1024, 1024, bias=False)
    packed = FourBitLinear(linear.weight, None, "nf4", True)
    assert size(linear) / size(packed) == pytest.approx(32 / 4.127, abs=0.01)
