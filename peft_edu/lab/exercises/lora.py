"""Lesson 07: the forward pass of LoRA, its start, its size, and merging."""

import torch
from torch import Tensor

from peft_edu.lab.exercises.check import Misconception, exercise, number, same, shape, tensors, untouched


@exercise("lora.forward")
def _lora_forward(f) -> None:
    """f(x, W, A, B, alpha) -> h: x (t, in), W (out, in), A (r, in), B (out, r), h (t, out)"""
    x, W, A, B = tensors((4, 5), (3, 5), (2, 5), (3, 2))
    base, update = x @ W.T, x @ A.T @ B.T
    wrong = {
        "alpha / r is left out: the update B A x is scaled, so that alpha keeps its meaning when r changes": base
        + update,
        "the update is scaled by alpha, not by alpha / r": base + 5 * update,
        "alpha / r is rounded down by //: it is a division with a remainder": base + 2 * update,
        "the scale is upside down: it is alpha / r": base + 2 / 5 * update,
        "W x is missing: the frozen weight still does its work, LoRA adds to it": 2.5 * update,
        "A and B do nothing here: add (alpha / r) B A x": base,
        "W is scaled as well: alpha / r belongs to the update alone": 2.5 * (base + update),
    }
    inputs = x, W, A, B
    same(untouched(f, inputs, 5), base + 2.5 * update, wrong)
    (batch,) = tensors((2, 4, 5))
    otherwise = "it works for x (t, in), but not for a batch (b, t, in): transpose A and B, not x"
    try:
        result = f(batch, W, A, B, 5)
    except Exception as error:
        raise Misconception(otherwise) from error
    same(result, batch @ W.T + 2.5 * batch @ A.T @ B.T, {}, otherwise)


@exercise("lora.init")
def _lora_init(f) -> None:
    """f(out_features, in_features, rank) -> (A, B): A (rank, in_features), B (out_features, rank)"""
    pair = f(6, 5, 3)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise Misconception(f"expected the pair A, B, got {type(pair).__name__}")
    A, B = pair
    if not isinstance(A, Tensor) or not isinstance(B, Tensor):
        raise Misconception(f"expected two tensors, got {type(A).__name__} and {type(B).__name__}")
    if A.shape == (6, 3) and B.shape == (3, 5):
        raise Misconception("A and B are exchanged: A reads x first, so it is (rank, in)")
    shape(A, (3, 5), "A is (rank, in): it takes x down to r numbers")
    shape(B, (6, 3), "B is (out, rank): it brings the r numbers up again")
    if not A.any() and not B.any():
        raise Misconception(
            "A and B are both zero: then each one's gradient is a product with the other, zero for ever"
        )
    if not A.any():
        raise Misconception("this starts as the base model, too, but in LoRA it is B that is zero and A that is random")
    if B.any():
        raise Misconception("B is not zero: training would start away from the pretrained model, by a random B A")
    if torch.linalg.matrix_rank(A.double()) < 3:
        raise Misconception("the rows of A are alike: they would get the same gradient, and the rank would stay at 1")


@exercise("lora.count")
def _lora_count(f) -> None:
    """f(in_features, out_features, rank) -> the number of parameters that LoRA trains for one matrix"""
    wrong = {
        60: "this is the size of W, which stays frozen",
        120: "r times the size of W: but A and B are thin, (r, in) and (out, r)",
        24: "this counts A twice: B is as long as the output, (out, r)",
        40: "this counts B twice: A is as wide as the input, (r, in)",
        92: "the frozen W is counted as well: only A and B are trained",
        16: "the rank is left out: A has r rows and B has r columns",
        12: "only A is counted: B is trained as well",
        20: "only B is counted: A is trained as well",
    }
    number(f(6, 10, 2), 32, wrong)
    number(f(7, 7, 3), 42, {}, "right for 6 -> 10 at rank 2, but not for 7 -> 7 at rank 3: the formula is r (in + out)")


@exercise("lora.merge")
def _lora_merge(f) -> None:
    """f(W, A, B, alpha) -> the merged weight (out, in): W (out, in), A (r, in), B (out, r)"""
    W, A, B = tensors((3, 5), (2, 5), (3, 2))
    wrong = {
        "alpha / r is left out: then merged and unmerged outputs differ": W + B @ A,
        "the update is scaled by alpha, not by alpha / r": W + 5 * B @ A,
        "alpha / r is rounded down by //: it is a division with a remainder": W + 2 * B @ A,
        "this is the update alone: the merged weight is W plus it": 2.5 * B @ A,
        "the update is taken away: this is how to unmerge": W - 2.5 * B @ A,
        "W comes back as it was: add (alpha / r) B A": W,
    }
    same(untouched(f, (W, A, B), 5), W + 2.5 * B @ A, wrong)
