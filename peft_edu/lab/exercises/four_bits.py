"""Lesson 10: four bits as functions: what a weight takes, rounding to levels and back, two codes in a byte, what is
left of an update.
"""

import re

import torch
from torch import Tensor

from peft_edu.lab.exercises.check import Misconception, exercise, expect_number, same, shape, tensors, untouched
from peft_edu.quantization import levels

FIVE = torch.tensor([-1, -0.5, 0, 0.5, 1], dtype=torch.float64)


def bits_a_weight(block, scale_bits):
    return 4 + scale_bits / block


@exercise(
    "four_bits.bits",
    reference=bits_a_weight,
    hints=(
        "Each weight has a code of 4 bits.",
        "Each block has one scale. How many weights share it?",
        "So a weight takes its code, and its share of the scale.",
    ),
)
def _bits(f) -> None:
    """f(block, scale_bits) -> the bits that one weight takes, its share of the scale included: 4 bits for the code,
    and one scale of scale_bits bits for a block of so many weights"""
    wrong = {
        36: "every weight has a scale of its own here: one scale serves the whole block",
        0.5: "the code is left out: each weight has its 4 bits",
        0.5625: "the 4 bits are divided as well, but they are each weight's own: only the scale is shared",
        2052: "each weight pays for 64 scales here, and 64 weights have one together",
        68: "block and scale_bits are exchanged, and not divided",
        6: "block and scale_bits are exchanged: the more weights share a scale, the fewer bits each pays for it",
        288: "this is what the whole block takes: divide by the number of its weights",
        4: "the scale is left out: somebody has to store it",
    }
    result = f(64, 32)
    expect_number(result, 4.5, wrong, f"for a block of 64 and a scale of 32 bits it is 4.5, yours gives {result}")
    expect_number(f(16, 8), 4.5, {4: "right for 64 and 32, but // or int() rounds down here"})
    expect_number(f(256, 32), 4.125, {4: "// rounds down: divide with /"})


def round_to_levels(blocks, levels):
    scale = blocks.abs().amax(-1, keepdim=True)
    relative = blocks / scale.clamp(min=1e-38)
    codes = torch.bucketize(relative, ((levels[1:] + levels[:-1]) / 2).to(relative))
    return codes, scale


@exercise(
    "four_bits.round",
    reference=round_to_levels,
    hints=(
        "The scale of a block is its largest absolute value: `blocks.abs().amax(-1, keepdim=True)` is (m, 1).",
        "Divide by it, and all numbers lie between -1 and 1, as the levels do. A block of zeros needs care.",
        "The distance of each number to each level: `(relative[..., None] - levels).abs()`, (m, n, levels).",
        "The place of the smallest distance is the code: `.argmin(-1)`.",
    ),
)
def _round(f) -> None:
    """f(blocks, levels) -> (codes, scale): blocks (m, n), a row is a block; scale (m, 1), the largest absolute value of
    each block; codes (m, n), whole numbers: the place of the level that is nearest to weight / scale"""
    (blocks,) = tensors((3, 40))
    blocks[1] *= 10  # a block of another size
    codes, scale = _codes_and_scale(f, blocks, FIVE)
    largest, few = blocks.abs().amax(-1, keepdim=True), "numbers beyond it would have no level near them"
    wrong = {
        "a block's largest number may be negative: take the absolute values first": blocks.amax(-1, keepdim=True),
        "all blocks have one scale here: each block, a row, has its own": largest.max().expand(3, 1),
        f"the scale is the mean of the absolute values: {few}": blocks.abs().mean(-1, keepdim=True),
        f"the scale is the standard deviation: {few}": blocks.std(-1, keepdim=True),
        "the scale is upside down: store what the levels are multiplied by": 1 / largest,
    }
    same(scale, largest, wrong, "scale is not the largest absolute value of each row")
    relative = blocks / largest
    nearest, plain = _nearest(relative, FIVE), "the weights are compared with the levels as they are"
    wrong = {
        f"{plain}: first divide by the scale": _nearest(blocks, FIVE),
        "each weight goes to the next level above it: take the nearest": torch.bucketize(relative, FIVE),
        "each weight goes to the next level below it: take the nearest": (relative[..., None] >= FIVE).sum(-1) - 1,
        "this is the level that is farthest away": (relative[..., None] - FIVE).abs().argmax(-1),
        "the sign is lost: compare the weights, not their absolute values": _nearest(relative.abs(), FIVE),
        "these are the levels themselves: a code is the place of a level, counted from 0": FIVE[nearest],
    }
    _same_codes(codes, nearest, wrong, "a code is not the place of the nearest level")
    uneven = levels("nf4").double()
    wrong = {
        "right for levels at equal distances alone: compare with those that are given": (7.5 * relative + 7.5).round()
    }
    _same_codes(f(blocks, uneven)[0], _nearest(relative, uneven), wrong, "right for five levels, but not for sixteen")
    if codes.is_floating_point():
        raise Misconception(f"the codes are right, but they are {codes.dtype}: places are counted in whole numbers")
    try:
        _same_codes(f(blocks, FIVE.float())[0], nearest, {})
    except Exception as error:
        raise Misconception(
            "right for blocks and levels of one precision, but weights of float64 meet levels of float32 later: "
            "levels.to(blocks) brings them together"
        ) from error
    zeros = torch.zeros(2, 8, dtype=torch.float64)
    codes, scale = f(zeros, FIVE)
    if not bool((FIVE[codes.long().clamp(0, 4)] * scale == 0).all()):
        raise Misconception(
            "a block of zeros comes back as something else: 0 / 0 is no number. Keep what you divide by from being 0, "
            "as with .clamp(min=1e-38)"
        )


def _nearest(relative: Tensor, levels: Tensor) -> Tensor:
    return (relative[..., None] - levels).abs().argmin(-1)


def _same_codes(codes: Tensor, right: Tensor, wrong: dict[str, Tensor], otherwise: str = "") -> None:
    wrong = {message: value.double() for message, value in wrong.items()}
    same(codes.double(), right.double(), wrong, otherwise)


ROWS = "scale is (m,), and (m, 1) is asked for: keepdim=True keeps the axis, so that it divides rows"
A_PAIR = "max along an axis gives a pair, the largest values and their places: which of the two is asked for?"
STOPS = {  # what torch says of blocks (3, 40), levels (5,) and what was made of them
    r"return_types\.max": A_PAIR,
    r"\(40\) must match .* \(3\)|\(3\) must match .* \(40\)": ROWS,
    r"\(40\) must match .* \(5\)|\(5\) must match .* \(40\)": "blocks (m, n) and levels (k,) do not fit side by side: "
    "to compare each weight with each level takes one axis more, (m, n, k)",
}


def _codes_and_scale(f, blocks: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    try:
        pair = untouched(f, (blocks, levels))
    except (AttributeError, RuntimeError, TypeError) as error:
        meant = [sentence for says, sentence in STOPS.items() if re.search(says, str(error))]
        raise (Misconception(meant[0]) if meant else error) from error
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise Misconception(f"expected the pair codes, scale, got {type(pair).__name__}")
    codes, scale = pair
    if isinstance(scale, torch.return_types.max):
        raise Misconception(A_PAIR)
    if not isinstance(codes, Tensor) or not isinstance(scale, Tensor):
        raise Misconception(f"expected two tensors, got {type(codes).__name__} and {type(scale).__name__}")
    if scale.shape == blocks.shape and codes.shape != blocks.shape:
        raise Misconception("codes and scale are exchanged: first codes, then scale")
    if scale.shape == blocks.shape[:1]:
        raise Misconception(ROWS)
    shape(codes, blocks.shape, "there is one code for each weight")
    if scale.ndim:  # one scale for all is named below
        shape(scale, (len(blocks), 1), "there is one scale for each block, and a block is a row")
    return codes, scale.expand(len(blocks), 1)


def from_levels(codes, scale, levels):
    return levels[codes.long()] * scale


@exercise(
    "four_bits.restore",
    reference=from_levels,
    hints=(
        "A code is the place of a level: `levels[codes]` looks all of them up at once.",
        "Codes may come as uint8, which torch does not take for a place: `codes.long()`.",
        "The levels lie between -1 and 1: the scale brings them back to the size of the weights.",
    ),
)
def _restore(f) -> None:
    """f(codes, scale, levels) -> the weights (m, n) that codes (m, n), scale (m, 1) and levels (k,) stand for"""
    codes = torch.tensor([[0, 3, 4, 1], [2, 2, 4, 0]])
    scale = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    uneven = torch.tensor([-1, -0.4, 0, 0.3, 1], dtype=torch.float64)
    wrong = {
        "the scale is left out: the levels lie between -1 and 1": uneven[codes],
        "the scale divides: that is the way there, and this is the way back": uneven[codes] / scale,
        "these are the codes times the scale: look up the level that stands at each place": codes * scale,
        "the scale is added: a level is multiplied by it": uneven[codes] + scale,
    }
    same(untouched(f, (codes, scale, uneven)), uneven[codes] * scale, wrong)
    try:
        same(f(codes.to(torch.uint8), scale, uneven), uneven[codes] * scale, {})
    except Exception as error:
        raise Misconception(
            "right for codes of int64, but not for uint8, the small whole numbers in which codes are stored: "
            "torch does not look up places with them, so codes.long() comes first"
        ) from error


def two_in_a_byte(codes):
    return (codes[..., 0::2] * 16 + codes[..., 1::2]).to(torch.uint8)


@exercise(
    "four_bits.bytes",
    reference=two_in_a_byte,
    hints=(
        "Every second code: `codes[..., 0::2]` are the first of each pair, `codes[..., 1::2]` the second.",
        "A byte counts from 0 to 255, which is 16 * 16 numbers: how do you write 3 and 5 into one, as into two digits?",
        "`.to(torch.uint8)` makes bytes of whole numbers.",
    ),
)
def _bytes(f) -> None:
    """f(codes) -> bytes (..., n / 2) of dtype torch.uint8: codes (..., n), whole numbers from 0 to 15; the first of
    each pair counts sixteens, the second ones"""
    codes = torch.tensor([[3, 5, 15, 0], [0, 1, 15, 15]])
    first, second = codes[:, 0::2], codes[:, 1::2]
    result = untouched(f, (codes,))
    if isinstance(result, Tensor) and result.shape == (1, 4):
        raise Misconception("whole rows are paired: a pair are two codes side by side in a row, along the last axis")
    if isinstance(result, Tensor) and result.dtype == torch.int8:
        raise Misconception(
            "torch.int8 counts from -128 to 127, and 15 and 0 make 240: is there a byte without a sign?"
        )
    wrong = {
        "first and second are exchanged: the first of a pair counts sixteens": second * 16 + first,
        "the codes are added: 3 and 5 would be what 5 and 3 are. Let the first count sixteens": first + second,
        "the first counts tens: a half of a byte counts to 15, so the next one counts sixteens": first * 10 + second,
        "a row's halves are paired: a pair are two codes side by side": codes[:, :2] * 16 + codes[:, 2:],
        "+ binds before <<: put (first << 4) in brackets, or write first * 16": first << (4 + second),
        "the first counts 15: codes go from 0 to 15, which are sixteen": first * 15 + second,
    }
    same(result, (first * 16 + second).double(), {message: value.double() for message, value in wrong.items()})
    if result.dtype != torch.uint8:
        raise Misconception(f"the numbers are right, but each takes {result.element_size()} bytes: .to(torch.uint8)")
    same(f(codes.to(torch.uint8)), (first * 16 + second).double(), {}, "right for int64, but not for codes of uint8")


def survives(update, kept):
    return (kept * update).sum() / (update * update).sum()


@exercise(
    "four_bits.survives",
    reference=survives,
    hints=(
        "If kept is the update, the answer is 1. If kept is half of it, the answer is a half.",
        "kept also holds noise, which points anywhere. Ask how far kept goes in the direction of the update.",
        "That is (kept · update) / (update · update), where a · b is the sum of the products, number by number.",
    ),
)
def _survives(f) -> None:
    """f(update, kept) -> a number: how far kept goes in the direction of update, as a share of it,
    (kept · update) / (update · update), with a · b the sum of all products; both are (out, in)"""
    update, noise = tensors((2, 4, 5))[0]
    noise -= (noise * update).sum() / update.square().sum() * update
    kept = 0.4 * update + noise
    result = untouched(f, (update, kept))
    both, own, other = (kept * update).sum(), update.square().sum(), kept.square().sum()
    wrong = {
        "the lengths are compared: noise is long, too. Ask for the part along the update": (other / own).sqrt(),
        "this is the cosine, which does not see how long kept is: divide by update · update": both
        / (own * other).sqrt(),
        "this is the mean of kept / update: where update is nearly 0, noise becomes everything": (kept / update).mean(),
        "this is the sum of the products alone: divide by update · update": both,
        "this is the mean of the products alone: compare it with what it would be if kept were the update": both
        / update.numel(),
        "this says how long the difference is, and noise makes it long: ask for the part along the update": 1
        - (update - kept).norm() / update.norm(),
        "it is divided by kept · kept: the share is one of the update": both / other,
        "the energies are compared: noise has energy, too": other / own,
        "the sums are compared: positive and negative numbers take each other away": kept.sum() / update.sum(),
        "this is what is lost: the share that is kept is asked for": 1 - both / own,
    }
    if isinstance(result, Tensor) and result.numel() > 1:
        raise Misconception(f"expected one number, got {tuple(result.shape)}: add up all products before you divide")
    result = torch.tensor(result) if isinstance(result, float) else result
    same(result, torch.tensor(0.4, dtype=torch.float64), wrong, "0.4 of the update is in kept, and noise beside it")
