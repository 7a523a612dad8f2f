"""Lesson 10, the hunt: weights in 4 bits that work, but badly. The lesson's cell has three faults that people make, and
none stops with an error: one scale serves the whole matrix, each weight goes to the next level above it, and the bias
stays behind. A measurement shows each of them.
"""

import torch
from torch import Tensor, nn

from peft_edu.lab.exercises.check import Misconception, exercise, tensors
from peft_edu.quantization import levels

NF4 = levels("nf4")


class Hunted(nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        blocks = weight.detach().reshape(-1, 64)
        self.scale = blocks.abs().amax(-1, keepdim=True)
        self.packed = torch.bucketize(blocks / self.scale, ((NF4[1:] + NF4[:-1]) / 2).to(blocks))
        self.shape, self.bias = weight.shape, bias

    @property
    def weight(self):
        return (NF4.to(self.scale)[self.packed] * self.scale).reshape(self.shape)

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


@exercise(
    "four_bits.hunt",
    reference=Hunted,
    hints=(
        "Measure before you read. `Hunted(W, None).weight - W` for a real W: what is its mean? And its rms?",
        "Make one weight of W huge, W[0, 0] = 100. How many different numbers are in the other rows afterwards?",
        "What does the module give for x = 0, and what did the layer give before?",
        "One fault lies in the scale, one in how the code is found, one in forward.",
    ),
)
def _hunt(cls) -> None:
    """class Hunted(nn.Module): Hunted(weight, bias), the linear map above in 4 bits, without its faults"""
    if not issubclass(cls, nn.Module):
        raise Misconception("Hunted is no nn.Module any more: keep class Hunted(nn.Module), and mend what is in it")
    found = [message for fault, message in FAULTS.items() if fault(cls)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)


def _error(weight: Tensor, before: Tensor) -> float:
    return ((weight - before).norm() / before.norm()).item()


def _one_scale(cls) -> bool:
    """What a huge weight does to the other rows."""
    (before,) = tensors((4, 64))
    before[0, 0] = 1e4
    return _error(cls(before, None).weight[1:], before[1:]) > 0.5


def _one_way(cls) -> bool:
    """In one block, so that the scale is right either way, and with a level at each of its ends."""
    before = torch.linspace(-1, 1, 64, dtype=torch.float64)[None]
    away = cls(before, None).weight - before
    return away.mean().abs().item() > 0.02


def _no_bias(cls) -> bool:
    weight, bias, x = tensors((2, 64), (2,), (1, 64))
    return not torch.allclose(cls(weight, bias)(0 * x), bias)


FAULTS = {
    _one_scale: "Make one weight huge, and look at the other rows: they become zeros. Who shares a scale with whom?",
    _one_way: "The mean of what rounding adds is not near 0: all weights move in the same direction. Which level is "
    "the nearest?",
    _no_bias: "Give it x = 0: W x is 0 then, and what is left of h = W x + bias?",
}
