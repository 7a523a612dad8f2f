"""What it costs to keep weights as places of a few levels: an error, and so many bits a weight.

error = rms(W' - W) / rms(W)        W' is what the levels stand for
bits  = log2(levels) + 32 / block   each block has a scale of 32 bits
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from peft_edu.checks import number, whole_number
from peft_edu.quantization import BLOCK, from_levels, levels, round_to_levels

KINDS = ("nf4", "int4", "fp4", "nf3", "nf2")


def levels_of(kind: str) -> Tensor:
    """The levels of 4 bits as the package has them; "nf3" and "nf2" are made as "nf4" is, with 8 and 4 levels."""
    return normal_levels(int(kind[2])) if kind in ("nf3", "nf2") else levels(kind)


def normal_levels(bits: int) -> Tensor:
    """Quantiles of the normal distribution (2^bits,): half of them above 0, one fewer below, and 0 itself.

    Each half is cut into equal shares. The outermost quantile would be infinite, so it lies half a share further in.
    """
    whole_number("bits", bits, 2)
    number("bits", bits, "at most 8", lambda bits: bits <= 8)
    count = 2**bits
    outermost = 1 - (1 / (2 * (count - 1)) + 1 / (2 * count)) / 2
    above, below = (
        torch.special.ndtri(torch.linspace(outermost, 0.5, n, dtype=torch.float64)[:-1])
        for n in (count // 2 + 1, count // 2)
    )
    found = torch.cat([-below, torch.zeros(1), above.flip(0)])
    return (found / found.max()).float()


@dataclass(frozen=True, eq=False)
class Rounding:
    """Weights in blocks, rounded to levels."""

    relative: Tensor  # (n,): each weight divided by its block's scale
    levels: Tensor
    shares: Tensor  # (levels,): of the weights that are rounded to each
    error: float
    bits: float


@torch.no_grad()
def rounded(weight: Tensor, levels: Tensor, block: int = BLOCK) -> Rounding:
    """Measure what a tensor loses.

    >>> found = rounded(torch.ones(8, 64), levels_of("nf4"))
    >>> found.error, found.bits
    (0.0, 4.5)
    """
    whole_number("block", block)
    x = weight.detach().flatten().float()
    places, scales = round_to_levels(x, levels, block)
    error = (from_levels(places, scales, levels, block) - x).norm() / x.norm()
    relative = x / scales.clamp(min=1e-38).repeat_interleave(block)[: len(x)]
    shares = places.bincount(minlength=len(levels)) / len(x)
    return Rounding(relative, levels, shares, error.item(), math.ceil(math.log2(len(levels))) + 32 / block)
