"""What lesson 10 measures and draws: the levels of fewer bits, error and bits, the card, the bars of memory."""

import math

import pytest
import torch

from peft_edu.lab import LevelsCard, levels_of, rounded, show_levels, show_memory
from peft_edu.lab.figures import rounding as figures
from peft_edu.lab.figures import style
from peft_edu.lab.measure.cost import Memory
from peft_edu.lab.measure.rounding import KINDS, normal_levels
from peft_edu.quantization import levels, pack


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_levels_of_fewer_bits_are_made_as_nf4_is():
    assert torch.allclose(normal_levels(4), levels("nf4"), atol=1e-6)
    for bits in (2, 3, 4):
        found = normal_levels(bits)
        assert len(found) == 2**bits and found.min() == -1 and found.max() == 1 and 0 in found
        assert torch.equal(found, found.sort().values)
    assert torch.equal(levels_of("nf3"), normal_levels(3)) and torch.equal(levels_of("int4"), levels("int4"))
    with pytest.raises(ValueError, match="bits is 9, but must be at most 8"):
        normal_levels(9)
    with pytest.raises(ValueError, match="kind is 'nf5', but must be one of"):
        levels_of("nf5")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [16, 64, 100])
def test_error_and_bits_are_those_of_the_package(kind, block):
    weight = normal(32, 100)
    found = rounded(weight, levels_of(kind), block)
    assert found.bits == math.ceil(math.log2(len(levels_of(kind)))) + 32 / block
    assert found.shares.sum().item() == pytest.approx(1) and found.relative.abs().max() <= 1
    if block == 64 and kind in ("nf4", "int4", "fp4"):
        packed = pack(weight, kind, double=False)
        assert found.error == pytest.approx(((packed.unpack() - weight).norm() / weight.norm()).item(), rel=1e-5)


def test_smaller_blocks_and_more_levels_lose_less():
    weight = normal(64, 1024)
    errors = [rounded(weight, levels_of("nf4"), block).error for block in (16, 64, 256, 1024)]
    assert errors == sorted(errors)
    few = [rounded(weight, levels_of(kind)).error for kind in ("nf4", "nf3", "nf2")]
    assert few == sorted(few)
    with pytest.raises(ValueError, match="block is 0, but must be a whole number from 1 on"):
        rounded(weight, levels_of("nf4"), 0)


def test_a_slice_of_the_picture_is_as_large_as_its_level_s_share():
    found = rounded(normal(256, 256), levels_of("nf4"))
    _, (axes,) = style.panels("slices")
    figures.cut(axes, found)
    areas = []
    for slice_ in axes.collections:
        (path,) = slice_.get_paths()
        x, y = path.vertices[:, 0], path.vertices[:, 1]
        areas.append(abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2)
    shares = torch.tensor(areas) / sum(areas)
    assert len(areas) == 16 and torch.allclose(shares, found.shares.double(), atol=0.01)


def test_the_card_tells_error_and_bits_of_what_is_chosen():
    card = LevelsCard({"value": normal(64, 64), "huge": normal(64, 64) + 100 * torch.eye(64)})
    assert str(card).startswith("nf4 in blocks of 64, of value: 4.50 bits a weight, an error of 9.")
    assert "Seven billion such weights take 3.9 GB" in card.result.value
    before = card.image.value
    card.controls["block"].value = 1024
    assert "4.03 bits" in str(card) and card.image.value != before
    for kind in KINDS:
        card.controls["levels"].value = kind
        assert str(card).startswith(f"{kind} in blocks of 1024")
    card.controls["weights"].value = "huge"
    assert "of huge" in str(card) and "Error" not in card.result.value
    no_dict, no_weights = "but must be a dict", "must be a tensor that is not all zero"
    for wrong, message in (({}, no_dict), ([1], no_dict), ({"a": 1}, no_weights), ({"a": torch.zeros(4)}, no_weights)):
        with pytest.raises((TypeError, ValueError), match=message):
            LevelsCard(wrong)


def test_the_pictures_say_their_finding(capsys):
    show_levels(normal(64, 64))
    needs = {"full": Memory(28, 28, 56, 4), "QLoRA": Memory(4, 0, 0, 4, peak=9)}
    show_memory({name: Memory(*(int(1e9 * part) for part in vars(each).values())) for name, each in needs.items()})
    said = capsys.readouterr().out
    assert "of nf4" in said and "of int4" in said
    assert "Within 16 GB: QLoRA" in said and "full: 28 GB weights" in said and "9 GB at once" in said
    title = figures.memory({"a": Memory(int(2e9), 0, 0, int(1e9))}, "title", 16)
    heights = [bar.get_y() + bar.get_height() for bar in title.axes[0].patches]
    assert max(heights) == pytest.approx(3)
