"""Lesson 02 as functions: how large an adapter is, how far it moves x, folding, switching off, trained LayerNorms."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from peft_edu import Adapter, BitFit
from peft_edu.adapter import Bottleneck
from peft_edu.anatomy import norms
from peft_edu.lab.exercises.check import Misconception, exercise, expect_number, same, tensors, untouched
from peft_edu.lab.exercises.whole_method import tiny_model


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
        48: "these are the two matrices alone: each of the two maps has a bias, too",
        56: "the bias of W_down is left out",
        51: "the bias of W_up is left out",
        35: "only W_down and the biases are counted: W_up is as large as W_down",
        64: "both biases are counted as d long: a bias is as long as what its map gives",
        88: "a matrix of d by d is counted: an adapter has none",
        118: "these are two adapters, as many as a block gets: count one",
    }
    expect_number(f(8, 3), 59, wrong)
    expect_number(f(5, 5), 60, {}, "right for d = 8 and m = 3 alone: is a number in it that must be m or d?")


def moved_share(adapter, x):
    moved = adapter(x) - x
    return (moved.norm() / x.norm()).item()


@exercise(
    "adapter.moved",
    reference=moved_share,
    hints=(
        "What does the adapter add to x? What comes out, less x.",
        "`.norm()` is the length of a tensor: divide one length by the other.",
    ),
)
def _moved_share(f) -> None:
    """f(adapter, x) -> the length of what the adapter adds to x, as a share of the length of x"""
    (x, added) = tensors((4, 5), (4, 5))
    x = 3 * x
    result = untouched(lambda x: f(lambda x: x + added, x), (x,))
    if isinstance(result, Tensor) and result.numel() > 1:
        raise Misconception("it must give one number for all of x together: norm() without a dimension")
    if result is None:
        raise Misconception("it gives nothing back: is there a return?")
    right = (added.norm() / x.norm()).item()
    wrong = {
        "this is the length of what comes out: take x away first": ((x + added).norm() / x.norm()).item(),
        "this is a share of what comes out: divide by the length of x": (added.norm() / (x + added).norm()).item(),
        "this is the share of the squares: norm() is the length already": right**2,
        "this is the length alone: divide it by that of x": added.norm().item(),
        "the share is upside down: divide by the length of x": 1 / right,
        "this is the difference of two lengths: take the length of the difference": abs(
            ((x + added).norm() - x.norm()).item() / x.norm().item()
        ),
    }
    for message, value in wrong.items():
        if abs(float(result) - value) < 1e-9:
            raise Misconception(message)
    if abs(float(result) - right) > 1e-9:
        raise Misconception(
            f"expected {right:.4f}, got {float(result):.4f}: how long is what it adds, against the length of x?"
        )


def fold(W, b, W_down, b_down, W_up, b_up):
    weight = W + W_up @ W_down @ W
    bias = b + W_up @ (W_down @ b + b_down) + b_up
    return weight, bias


@exercise(
    "adapter.fold",
    reference=fold,
    hints=(
        "Call the map's output h = W x + b. Without GELU the adapter makes h + W_up (W_down h + b_down) + b_up of it.",
        "Put W x + b in the place of h, and collect what stands before x: that is the new weight.",
        "What is left has no x in it: that is the new bias.",
    ),
)
def _fold(f) -> None:
    """f(W, b, W_down, b_down, W_up, b_up) -> (weight, bias) of one map that does what the map W x + b does, with an
    adapter without GELU behind it: h + W_up (W_down h + b_down) + b_up"""
    parts = W, b, W_down, b_down, W_up, b_up = tensors((5, 4), (5,), (2, 5), (2,), (5, 2), (5,))
    pair = untouched(f, parts)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(each, Tensor) for each in pair):
        raise Misconception("expected two tensors, the weight and the bias of one map")
    weight, bias = pair
    wrong = {
        "the map's own W is missing: the way around the bottleneck keeps it": W_up @ W_down @ W,
        "W stays as it was: but the adapter reads h, and x is in h": W,
        "W is counted twice": 2 * W + W_up @ W_down @ W,
    }
    same(weight, W + W_up @ W_down @ W, wrong, "put W x + b in the place of h: this is not what stands before x")
    inner = W_down @ b + b_down
    wrong = {
        "b stays as it was: the adapter has two biases, too": b,
        "the adapter reads all of h, and b is in h: it goes down and up, too": b + W_up @ b_down + b_up,
        "b itself is missing: the way around the bottleneck keeps it": W_up @ inner + b_up,
        "b_down is missing: it is added before W_up": b + W_up @ W_down @ b + b_up,
        "b_up is missing": b + W_up @ inner,
    }
    same(
        bias,
        b + W_up @ inner + b_up,
        wrong,
        "put W x + b in the place of h: this is not what is left beside x",
    )


def switch_off(adapter):
    for parameter in adapter.up.parameters():
        nn.init.zeros_(parameter)


@exercise(
    "adapter.off",
    reference=switch_off,
    hints=(
        "x + up(...) is x where up gives zero. What does up consist of?",
        "`adapter.up.parameters()` are its weight and its bias. `nn.init.zeros_(parameter)` sets one to 0 in place.",
    ),
)
def _switch_off(f) -> None:
    """f(adapter): from then on adapter(x) is x. The adapter has the maps adapter.down and adapter.up"""
    (x,) = tensors((4, 5))
    adapter = Bottleneck(5, 2, 1.0, own_norm=False, like=x)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    kept = deepcopy(adapter)
    result = f(adapter)
    if "forward" in vars(adapter):
        raise Misconception("forward is replaced: leave it, and set to zero what the adapter adds")
    output = adapter(x)
    if torch.equal(output, kept(x)):
        hint = " It gives a new one back; change the one that came" if isinstance(result, nn.Module) else ""
        raise Misconception(f"the adapter does what it did before.{hint}")
    if torch.equal(output, x):
        return
    if torch.equal(adapter.up.bias, kept.up.bias):
        raise Misconception("b_up is still added to every x: up has a bias as well")
    if not adapter.down.weight.any():
        raise Misconception("W_down is zero, but W_up gelu(b_down) + b_up is still added: set up to zero")
    raise Misconception(f"x is still changed, by up to {(output - x).abs().max():.2g}: up must give 0 for every x")


def trained_norms(model):
    return sum(p.numel() for norm in norms(model) for p in norm.parameters() if p.requires_grad)


@exercise(
    "adapter.norms",
    reference=trained_norms,
    hints=(
        "`norms(model)` gives the LayerNorms. Each has parameters, a scale and a shift.",
        "What is trained has `requires_grad`. `numel()` counts the parameters of a tensor.",
    ),
)
def _trained_norms(f) -> None:
    """f(model) -> how many parameters of its LayerNorms are trained; norms(model) gives the LayerNorms"""
    model = tiny_model("bert")  # seven LayerNorms of width 8
    cases = [
        (Adapter(2), 112, {14: "tensors are counted: a scale of width 8 is one tensor, and 8 parameters"}),
        (Adapter(2, norms=False), 0, {112: "all LayerNorms are counted: only what is trained, p.requires_grad"}),
        (BitFit(), 56, {112: "a LayerNorm can be trained in part: ask every parameter of it for requires_grad"}),
    ]
    for method, right, wrong in cases:
        method.attach(model)
        sizes = sum(p.numel() for p in model.parameters() if p.requires_grad)
        wrong |= {sizes: "all that is trained is counted: only what belongs to a LayerNorm"}
        otherwise = f"with {method} attached it is {right}: of norms(model) all parameters that are trained"
        expect_number(f(model), right, {n: text for n, text in wrong.items() if n != right}, otherwise)
        method.detach()
