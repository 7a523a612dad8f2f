"""Lesson 07: the forward pass of LoRA, its start, its size, and merging."""

import torch
from torch import Tensor

from peft_edu.lab.exercises.check import Misconception, exercise, expect_number, same, shape, tensors, untouched

ALPHA = 7
WRONG_SCALES = {  # for A (2, 5) and B (3, 2)
    "alpha / r is left out: the update is scaled, so that alpha keeps its meaning when r changes": 1,
    "the update is scaled by alpha, not by alpha / r": ALPHA,
    "alpha / r is rounded down by //: it is a division with a remainder": ALPHA // 2,
    "the scale is upside down: it is alpha / r": 2 / ALPHA,
    "this is alpha / sqrt(r), the scale of rsLoRA: LoRA's is alpha / r": ALPHA / 2**0.5,
    "alpha is divided by len(B), the width of the output: r is len(A), the number of A's rows": ALPHA / 3,
    "alpha is divided by the width of the input: r is len(A), the number of A's rows": ALPHA / 5,
}


def _result(f, x_and_W: tuple[Tensor, ...], A: Tensor, B: Tensor) -> Tensor:
    """What f gives; if the shapes do not fit, but would with A and B exchanged, that is said."""
    try:
        return untouched(f, (*x_and_W, A, B), ALPHA)
    except RuntimeError as error:
        try:
            f(*x_and_W, B, A, ALPHA)
        except Exception:
            raise error from None
        raise Misconception("A and B are exchanged: A (r, in) reads x first, B (out, r) brings it up again") from error


@exercise("lora.forward")
def _lora_forward(f) -> None:
    """f(x, W, A, B, alpha) -> h: x (t, in), W (out, in), A (r, in), B (out, r), h (t, out)"""
    x, W, A, B = tensors((4, 5), (3, 5), (2, 5), (3, 2))
    base, update = x @ W.T, x @ A.T @ B.T
    wrong = {message: base + scale * update for message, scale in WRONG_SCALES.items()} | {
        "W x is missing: the frozen weight still does its work, LoRA adds to it": ALPHA / 2 * update,
        "A and B do nothing here: add (alpha / r) B A x": base,
        "W is scaled as well: alpha / r belongs to the update alone": ALPHA / 2 * (base + update),
    }
    same(_result(f, (x, W), A, B), base + ALPHA / 2 * update, wrong)
    (batch,) = tensors((2, 4, 5))
    otherwise = "it works for x (t, in), but not for a batch (b, t, in): transpose A and B, not x"
    try:
        result = f(batch, W, A, B, ALPHA)
    except Exception as error:
        raise Misconception(otherwise) from error
    same(result, batch @ W.T + ALPHA / 2 * batch @ A.T @ B.T, {}, otherwise)


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
        raise Misconception("A and B are both zero: each one's gradient is a product with the other, zero for ever")
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
    expect_number(f(6, 10, 2), 32, wrong)
    otherwise = "right for 6 -> 10 at rank 2, but not for 7 -> 7 at rank 3: the formula is r (in + out)"
    expect_number(f(7, 7, 3), 42, {}, otherwise)


@exercise("lora.merge")
def _lora_merge(f) -> None:
    """f(W, A, B, alpha) -> the merged weight (out, in): W (out, in), A (r, in), B (out, r)"""
    W, A, B = tensors((3, 5), (2, 5), (3, 2))
    wrong = {message: W + scale * B @ A for message, scale in WRONG_SCALES.items()} | {
        "this is the update alone: the merged weight is W plus it": ALPHA / 2 * B @ A,
        "the update is taken away: this is how to unmerge": W - ALPHA / 2 * B @ A,
        "W comes back as it was: add (alpha / r) B A": W,
    }
    same(_result(f, (W,), A, B), W + ALPHA / 2 * B @ A, wrong)
