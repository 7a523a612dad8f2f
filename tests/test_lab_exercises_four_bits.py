"""What a learner builds in lesson 10: any right solution passes, whatever its style, and a misconception is named."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from peft_edu import LoRA, count
from peft_edu.anatomy import linear_maps, names
from peft_edu.lab import backbone
from peft_edu.lab.exercises.check import EXERCISES, checked
from peft_edu.lab.exercises.four_bits import from_levels, round_to_levels, survives, two_in_a_byte
from peft_edu.lab.exercises.four_bits_method import NF4, FourBit, pack_model
from peft_edu.quantization import pack, quantize


def by_distance(blocks, levels):
    scale = blocks.abs().max(-1, keepdim=True).values
    relative = torch.where(scale > 0, blocks / scale, 0)
    return (relative.unsqueeze(-1) - levels).abs().argmin(-1), scale


def rounded(blocks, levels, scale=None, code=None):
    """With another scale, or another code for w / s."""
    scale = blocks.abs().amax(-1, keepdim=True) if scale is None else scale
    relative = blocks / scale.clamp(min=1e-38)
    return (by_distance(relative, levels)[0] if code is None else code(relative, levels)), scale


@pytest.mark.parametrize(
    "name, right",
    [
        ("four_bits.bits", lambda block, scale_bits: (4 * block + scale_bits) / block),
        ("four_bits.round", by_distance),
        ("four_bits.restore", lambda codes, scale, levels: scale * torch.take(levels, codes.long())),
        ("four_bits.bytes", lambda codes: (codes[..., ::2].int() << 4 | codes[..., 1::2].int()).to(torch.uint8)),
        ("four_bits.bytes", lambda codes: (codes.unflatten(-1, (-1, 2)).int() * torch.tensor([16, 1])).sum(-1).byte()),
        ("four_bits.survives", lambda update, kept: torch.vdot(update.flatten(), kept.flatten()) / update.norm() ** 2),
        ("four_bits.survives", lambda update, kept: ((kept * update).sum() / update.square().sum()).item()),
    ],
)
def test_other_ways_pass(name, right):
    feedback = checked(name, right)
    assert feedback, feedback


FLOORED = lambda relative, levels: (relative[..., None] >= levels).sum(-1) - 1  # noqa: E731


@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("four_bits.bits", lambda block, scale_bits: 4 + scale_bits, "every weight has a scale of its own"),
        ("four_bits.bits", lambda block, scale_bits: 4 + block / scale_bits, "exchanged"),
        ("four_bits.bits", lambda block, scale_bits: 4 + scale_bits // block, "the scale is left out"),
        ("four_bits.bits", lambda block, scale_bits: 4 * block + scale_bits, "what the whole block takes"),
        ("four_bits.bits", lambda block, scale_bits: (4 + scale_bits) / block, "the 4 bits are divided as well"),
        ("four_bits.bits", lambda block, scale_bits: 4 + scale_bits * block, "each weight pays for 64 scales"),
        ("four_bits.bits", lambda block, scale_bits: 4.5, "right for 64 and 32|expected 4.125"),
        (
            "four_bits.round",
            lambda b, levels: rounded(b, levels, b.amax(-1, keepdim=True)),
            "take the absolute values first",
        ),
        ("four_bits.round", lambda b, levels: rounded(b, levels, b.abs().max()), "all blocks have one scale here"),
        ("four_bits.round", lambda b, levels: rounded(b, levels, b.std(-1, keepdim=True)), "the standard deviation"),
        (
            "four_bits.round",
            lambda b, levels: by_distance(b, levels)[0].T,
            "expected the pair codes, scale, got Tensor",
        ),
        ("four_bits.round", lambda b, levels: (b.abs().amax(-1, keepdim=True), b * 0), "codes and scale are exchanged"),
        (
            "four_bits.round",
            lambda b, levels: (by_distance(b, levels)[0], b.abs().amax(-1)),
            "keepdim=True keeps the axis",
        ),
        ("four_bits.round", lambda b, levels: rounded(b, levels, code=FLOORED), "the next level below it"),
        ("four_bits.round", lambda b, levels: rounded(b, levels, code=torch.bucketize), "the next level above it"),
        (
            "four_bits.round",
            lambda b, levels: (levels[by_distance(b, levels)[0]], by_distance(b, levels)[1]),
            "these are the levels",
        ),
        (
            "four_bits.round",
            lambda b, levels: rounded(b, levels, code=lambda r, k: (r * (len(k) - 1) / 2 + (len(k) - 1) / 2).round()),
            "at equal distances alone",
        ),  # fmt: skip
        ("four_bits.round", lambda b, levels: by_distance(b, levels)[0], "expected the pair codes, scale"),
        ("four_bits.round", lambda b, levels: b / b.abs().max(-1, keepdim=True), "gives a pair, the largest values"),
        ("four_bits.round", lambda b, levels: (b, b.abs().max(-1, keepdim=True)), "gives a pair, the largest values"),
        ("four_bits.round", lambda b, levels: b / b.abs().amax(-1), "keepdim=True keeps the axis"),
        ("four_bits.round", lambda b, levels: (b - levels).abs().argmin(-1), "one axis more, \\(m, n, k\\)"),
        (
            "four_bits.round",
            lambda b, levels: (by_distance(b, levels)[0].double(), by_distance(b, levels)[1]),
            "they are torch.float64: places are counted in whole numbers",
        ),
        ("four_bits.round", lambda b, levels: b.no_such_thing, "stopped in .* has no attribute 'no_such_thing'"),
        ("four_bits.restore", lambda codes, scale, levels: levels[codes.long()], "the scale is left out"),
        ("four_bits.restore", lambda codes, scale, levels: codes * scale, "look up the level"),
        ("four_bits.restore", lambda codes, scale, levels: levels[codes.long()] / scale, "the scale divides"),
        ("four_bits.restore", lambda codes, scale, levels: print(end=""), "is there a return"),
        ("four_bits.bytes", lambda codes: (codes[..., 1::2] * 16 + codes[..., ::2]).to(torch.uint8), "exchanged"),
        ("four_bits.bytes", lambda codes: codes[..., ::2] * 16 + codes[..., 1::2], "each takes 8 bytes"),
        ("four_bits.bytes", lambda codes: (codes[..., ::2] * 10 + codes[..., 1::2]).to(torch.uint8), "counts tens"),
        ("four_bits.bytes", lambda codes: codes[..., ::2] << 4 + codes[..., 1::2], "binds before <<"),
        ("four_bits.bytes", lambda codes: (codes[::2] * 16 + codes[1::2]).to(torch.uint8), "whole rows are paired"),
        ("four_bits.bytes", lambda codes: (codes[..., ::2] * 16 + codes[..., 1::2]).to(torch.int8), "from -128 to 127"),
        ("four_bits.survives", lambda update, kept: (kept * update).mean(), "the mean of the products alone"),
        ("four_bits.survives", lambda update, kept: 0 * kept.sum() + 0.5, "beside it; it is 0.5000 instead of 0.4000"),
        (
            "four_bits.survives",
            lambda update, kept: 1 - (update - kept).norm() / update.norm(),
            "how long the difference is",
        ),
        ("four_bits.survives", lambda update, kept: kept.norm() / update.norm(), "the lengths are compared"),
        (
            "four_bits.survives",
            lambda update, kept: F.cosine_similarity(update.flatten(), kept.flatten(), 0),
            "the cosine",
        ),
        ("four_bits.survives", lambda update, kept: (kept / update).mean(), "noise becomes everything"),
        ("four_bits.survives", lambda update, kept: kept * update, "add up all products"),
    ],
)
def test_a_misconception_is_named(name, wrong, message):
    feedback = checked(name, wrong)
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_a_block_of_zeros_and_codes_as_bytes_are_asked_for():
    def no_care(blocks, levels):
        scale = blocks.abs().amax(-1, keepdim=True)
        return ((blocks / scale)[..., None] - levels).abs().argmin(-1), scale + (scale == 0)

    assert "a block of zeros comes back as something else" in repr(checked("four_bits.round", no_care))
    plain = checked("four_bits.restore", lambda codes, scale, levels: levels[codes] * scale)
    assert not plain and "codes.long() comes first" in repr(plain)


def four_bit(fault=""):
    """A learner's FourBit with one fault, or none."""

    class Mine(nn.Module):
        def __init__(self, weight, bias):
            super().__init__()
            codes, scale = round_to_levels(weight.detach().reshape(-1, 64), NF4)
            self.register_buffer("codes" if fault == "name" else "packed", two_in_a_byte(codes))
            self.register_buffer("scale", scale)
            self.shape, self.dtype, self.bias = weight.shape, weight.dtype, bias
            if fault == "kept":
                self.unpacked = weight.detach().clone()
            if fault == "parameter":
                self.W = nn.Parameter(weight.detach().clone())

        def unpacked_codes(self):
            packed = self.codes if fault == "name" else self.packed
            pair = [packed >> 4, packed & 15]
            if fault == "swapped":
                pair.reverse()
            return torch.cat(pair, -1) if fault == "halves" else torch.stack(pair, -1).flatten(-2)

        @property
        def weight(self):
            if fault == "empty":
                return None
            codes = self.unpacked_codes()
            if fault == "codes":
                return codes.reshape(self.shape)
            found = NF4[codes.long()] if fault == "no scale" else from_levels(codes, self.scale, NF4)
            if fault == "blocks":
                return found
            if fault == "typo":
                return found.reshape(self.shapes)
            if fault == "half":
                return from_levels(self.packed // 16, self.scale, NF4).reshape(self.shape)
            found = found.reshape(self.shape)
            return found.double() if fault == "dtype" else found.to(self.dtype)

        def forward(self, x):
            if fault == "not yet":
                return None
            if fault == "no bias":
                return x @ self.weight.T
            x = x.detach() if fault == "detach" else x
            return x @ self.weight.T + (0 if self.bias is None else self.bias)

    if fault == "function":
        Mine.weight = Mine.weight.fget
    return Mine


def test_any_right_module_passes():
    feedback = checked("four_bits.module", four_bit())
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("empty", "^Not written yet: weight gives nothing"),
        ("blocks", "a row is a block still"),
        ("half", "are both codes of each byte in it"),
        ("typo", "stopped in weight.*has no attribute 'shapes'"),
        ("not yet", "^Not written yet: weight is right, and forward gives nothing"),
        ("function", "@property above it"),
        ("codes", "these are still codes"),
        ("no scale", "the scale is left out"),
        ("swapped", "the codes of each byte are exchanged"),
        ("halves", "puts them side by side"),
        ("dtype", "is torch.float64, and torch.float32 was given"),
        ("no bias", "the bias is missing"),
        ("detach", "no gradient comes through"),
        ("kept", "unpack it where it is needed"),
        ("parameter", "only its codes and scales are to be kept"),
        ("name", "the buffer `packed` is gone"),
    ],
)
def test_a_misconception_of_the_module_is_named(fault, message):
    feedback = checked("four_bits.module", four_bit(fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def packer(fault=""):
    def pack_model(model):
        place, roles = names(model), ("query", "value") if fault == "few" else None
        for target in linear_maps(model, roles):
            bias = None if fault == "no bias" else target.module.bias
            weight = target.weight * 2 if fault == "another" else target.weight
            new = FourBit(weight, bias)
            if fault == "target":
                target.module = new
            elif fault != "nothing":
                model.set_submodule(place[target.module], new)
        if fault == "head":
            model.set_submodule("extra", FourBit(linear_maps(model)[0].weight, None))
        return None if fault == "no return" else model

    return pack_model


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: no FourBit is in the model yet"),
        ("few", "is only one of the maps packed"),
        ("no bias", "has lost its bias"),
        ("another", "holds another weight than before"),
        ("target", "cannot be changed: the new module goes into the model"),
        ("head", "extra is packed as well"),
        ("no return", "is there a return"),
        ("", "Right"),
    ],
)
def test_a_misconception_of_the_model_is_named(fault, message):
    assert message in repr(checked("four_bits.model", packer(fault)))


def test_what_the_lesson_trains_with_is_the_package_s_and_lora_fits_beside_it():
    (mine, tokenizer), (theirs, _) = backbone("tiny-bert", head="classify"), backbone("tiny-bert", head="classify")
    pack_model(mine), quantize(theirs, double=False)
    for a, b in zip(linear_maps(mine), linear_maps(theirs), strict=True):
        assert torch.allclose(a.weight, b.weight, rtol=1e-5, atol=1e-7)
    batch = tokenizer("The soup was good.", return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(mine(**batch).logits, theirs(**batch).logits, atol=1e-5)
    method = LoRA(rank=4)
    method.attach(mine)
    assert count(mine).trainable == count(LoRA(rank=4).attach(theirs)).trainable
    with pytest.raises(ValueError, match="packed in 4 bits"):
        method.merge()


def test_small_updates_are_rounded_away_and_large_ones_are_not():
    """The claim of the lesson, on normal weights."""
    draw = torch.Generator().manual_seed(0)
    weight = pack(torch.randn(256, 256, generator=draw), double=False).unpack()
    update = torch.randn(256, 256, generator=draw)
    left = {
        size: survives(size * update, pack(weight + size * update, double=False).unpack() - weight)
        for size in (0.01, 0.3)
    }
    assert left[0.01] < 0.05 and left[0.3] > 0.9


FAULTS = {
    "scale": "Who shares a scale with whom?",
    "up": "Which level is the nearest?",
    "bias": "what is left of h = W x \\+ bias",
}


def hunted(*faults):
    """The cell of the hunt, with these of its faults."""

    class Hunted(nn.Module):
        def __init__(self, weight, bias):
            super().__init__()
            blocks = weight.detach().reshape(-1, 64)
            self.scale = blocks.abs().max() if "scale" in faults else blocks.abs().amax(-1, keepdim=True)
            borders = NF4 if "up" in faults else (NF4[1:] + NF4[:-1]) / 2
            self.packed = torch.bucketize(blocks / self.scale, borders.to(blocks))
            self.shape, self.bias = weight.shape, bias

        @property
        def weight(self):
            return (NF4.to(self.scale)[self.packed] * self.scale).reshape(self.shape)

        def forward(self, x):
            return x @ self.weight.T + (0 if "bias" in faults or self.bias is None else self.bias)

    return Hunted


@pytest.mark.parametrize("faults", [(), ("scale",), ("up",), ("bias",), ("scale", "up"), ("up", "bias"), tuple(FAULTS)])
def test_the_hunt_counts_the_faults_that_are_left(faults):
    feedback = checked("four_bits.hunt", hunted(*faults))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback
    if len(faults) == 1:
        assert re.search(FAULTS[faults[0]], repr(feedback)), feedback


def test_the_open_task_packs_a_copy_and_reports(capsys):
    model, tokenizer = backbone("tiny-gpt2")
    texts = EXERCISES["four_bits.own"].reference()[2]
    assert checked("four_bits.own", lambda: (model, tokenizer, texts))
    said = capsys.readouterr().out
    assert all(name in said for name in ("as it is", "nf4", "int4", "fp4")) and "9.14 MB" in said
    assert count(model).total == 1_142_912  # as it was
    assert "at least 10 texts" in repr(checked("four_bits.own", lambda: (model, tokenizer, texts[:3])))
    assert "return all three" in repr(checked("four_bits.own", lambda: model))
    assert "gives them" in repr(checked("four_bits.own", lambda: ("tiny-gpt2", tokenizer, texts)))
