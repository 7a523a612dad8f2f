"""Lesson 02: the bottleneck, its start, and its size."""

import torch
from torch.nn.functional import gelu, relu

from peft_edu.lab.exercises.check import Misconception, exercise, expect_number, same, shape, tensors, untouched


def adapter_forward(x, W_down, b_down, W_up, b_up):
    inner = gelu(x @ W_down.T + b_down)
    return x + inner @ W_up.T + b_up


@exercise(
    "adapter.forward",
    reference=adapter_forward,
    hints=(
        "x holds rows, so W_down x is `x @ W_down.T`.",
        "GELU stands between the two maps, and nowhere else.",
        "What if both maps are zero? Then x must come out.",
    ),
)
def _adapter_forward(f) -> None:
    """f(x, W_down, b_down, W_up, b_up) -> (t, d): x (t, d), W_down (m, d), b_down (m), W_up (d, m), b_up (d)"""
    inputs = x, W_down, b_down, W_up, b_up = tensors((4, 5), (2, 5), (2,), (5, 2), (5,))
    inner = x @ W_down.T + b_down
    tanh = gelu(inner, approximate="tanh")
    wrong = {
        "x is missing: the way around the bottleneck is what makes the start harmless": gelu(inner) @ W_up.T + b_up,
        "the non-linearity is missing: two linear maps in a row are one of low rank": x + inner @ W_up.T + b_up,
        "this is ReLU: the adapter of this lesson has GELU between its maps": x + relu(inner) @ W_up.T + b_up,
        "this is GELU's tanh approximation (GPT-2's): the adapter of this lesson has GELU itself": x
        + tanh @ W_up.T
        + b_up,
        "GELU comes after W_up here: it belongs between the two maps": x + gelu(inner @ W_up.T + b_up),
        "b_up is missing": x + gelu(inner) @ W_up.T,
        "b_down is missing": x + gelu(x @ W_down.T) @ W_up.T + b_up,
        "x goes through GELU as well: it is added as it is": gelu(x) + gelu(inner) @ W_up.T + b_up,
    }
    same(untouched(f, inputs), x + gelu(inner) @ W_up.T + b_up, wrong)


def adapter_count(width, bottleneck):
    return 2 * width * bottleneck + bottleneck + width


@exercise(
    "adapter.count",
    reference=adapter_count,
    hints=(
        "Two matrices of the same size.",
        "Two biases of different lengths.",
        "A bias is as long as what its map gives.",
    ),
)
def _adapter_count(f) -> None:
    """f(width, bottleneck) -> the number of parameters of one adapter, its biases included"""
    wrong = {
        48: "the biases are left out: m of W_down and d of W_up",
        56: "b_down is left out, m numbers",
        51: "b_up is left out, d numbers",
        35: "only W_down and the biases are counted: W_up is as large as W_down",
        64: "both biases are taken to be d long: the one behind W_down has m numbers",
        88: "d squared is in it: an adapter never has a matrix of d by d",
        118: "this is two adapters, what Houlsby puts into a block: one is asked for",
    }
    expect_number(f(8, 3), 59, wrong)
    expect_number(f(5, 5), 60, {}, "right for d = 8 and m = 3, but not for d = m = 5: the formula is 2 m d + m + d")


def adapter_start(width, bottleneck):
    W_down = 1e-3 * torch.randn(bottleneck, width)
    W_up = 1e-3 * torch.randn(width, bottleneck)
    return W_down, W_up


@exercise(
    "adapter.start",
    reference=adapter_start,
    hints=(
        "Both zero? Look at the gradients: each has the other as a factor.",
        "Small random numbers, as in section 3.",
        "`torch.randn` has a deviation of 1: scale it.",
    ),
)
def _adapter_start(f) -> None:
    """f(width, bottleneck) -> (W_down, W_up), so that x + W_up gelu(W_down x) starts very near x, and can leave it"""
    pair = f(6, 3)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(W, torch.Tensor) for W in pair):
        raise Misconception("expected the two tensors W_down, W_up")
    W_down, W_up = pair
    shape(W_down, (3, 6), "W_down is (m, d): it takes x down to m numbers")
    shape(W_up, (6, 3), "W_up is (d, m): it brings the m numbers up again")
    if not W_down.any() and not W_up.any():
        raise Misconception("both are zero: then each one's gradient is a product with the other, zero for ever")
    units = torch.cat([W_down, W_up.T], 1)  # a row of W_down and the column of W_up behind it
    if len(torch.unique(units, dim=0)) < len(units):
        raise Misconception("two of the m numbers are made and used alike: they would get the same gradient for ever")
    (x,) = tensors((10, 6))
    moved = (gelu(x @ W_down.double().T) @ W_up.double().T).abs().max().item()
    if moved > 0.01:
        raise Misconception(
            f"x is changed by up to {moved:.2g}: start near the identity, with a deviation of about 1e-3"
        )
