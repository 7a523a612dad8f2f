"""Lesson 07: LoRA as functions: directions, the forward pass, its start, its size, merging, the best copy of a rank."""

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


def lora_forward(x, W, A, B, alpha):
    rank = len(A)
    return x @ W.T + alpha / rank * (x @ A.T @ B.T)


@exercise(
    "lora.forward",
    reference=lora_forward,
    hints=(
        "Two terms: what W gives, and what B A gives.",
        "x holds rows, so W x is `x @ W.T`.",
        "The rank is the number of rows of A.",
    ),
)
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


def lora_init(out_features, in_features, rank):
    A = torch.randn(rank, in_features) / in_features**0.5
    B = torch.zeros(out_features, rank)
    return A, B


@exercise(
    "lora.init",
    reference=lora_init,
    hints=(
        "B A must be zero at the start, but not both of them.",
        "Look at the gradients: that of A has B as a factor, and that of B has A.",
        "If all rows of A are alike, they learn alike, and the rank stays 1.",
    ),
)
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


def lora_count(in_features, out_features, rank):
    return rank * (in_features + out_features)


@exercise(
    "lora.count",
    reference=lora_count,
    hints=(
        "A has a row for each of the r directions. How long is a row?",
        "B has a column for each direction. How long is a column?",
        "Count A, count B, and add.",
    ),
)
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
    result = f(6, 10, 2)
    expect_number(
        result, 32, wrong, f"from 6 to 10 at rank 2 it is 32, yours gives {result}: A is (2, 6), B is (10, 2)"
    )
    otherwise = "right for 6 -> 10 at rank 2, but not for 7 -> 7 at rank 3: the formula is r (in + out)"
    expect_number(f(7, 7, 3), 42, {}, otherwise)


def lora_merge(W, A, B, alpha):
    rank = len(A)
    return W + alpha / rank * B @ A


@exercise(
    "lora.merge",
    reference=lora_merge,
    hints=(
        "The result has the shape of W.",
        "The scale is the same as in the forward pass.",
        "Make a new tensor: `W += ...` would change the caller's.",
    ),
)
def _lora_merge(f) -> None:
    """f(W, A, B, alpha) -> the merged weight (out, in): W (out, in), A (r, in), B (out, r)"""
    W, A, B = tensors((3, 5), (2, 5), (3, 2))
    wrong = {message: W + scale * B @ A for message, scale in WRONG_SCALES.items()} | {
        "this is the update alone: the merged weight is W plus it": ALPHA / 2 * B @ A,
        "the update is taken away: this is how to unmerge": W - ALPHA / 2 * B @ A,
        "W comes back as it was: add (alpha / r) B A": W,
    }
    same(_result(f, (W,), A, B), W + ALPHA / 2 * B @ A, wrong)


def directions(strengths, share):
    energy = strengths.square()
    held = energy.cumsum(0) / energy.sum()
    return int((held < share).sum()) + 1


@exercise(
    "lora.directions",
    reference=directions,
    hints=(
        "The energy of a direction is the square of its strength.",
        "`cumsum(0)` adds up from the largest on. Divide by the sum of all, and you have shares.",
        "Count those that do not hold enough yet, and add one.",
    ),
)
def _directions(f) -> None:
    """f(strengths, share) -> how many of the largest directions hold this share of the energy: strengths (n), the
    largest first; the energy of a direction is the square of its strength"""
    strengths = torch.tensor([6.0, 3.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    wrong = {
        4: "the strengths themselves are added: energy is their square",
        2: "these directions hold less than the share: one more is needed",
        5: "this starts with the weakest direction: the largest come first",
        0: "each direction is compared with the share alone: first add up the energies, from the largest on",
    }
    result = untouched(f, (strengths,), 0.9)
    expect_number(result, 3, wrong, f"for strengths {strengths.tolist()} and share 0.9 it is 3, yours gives {result}")
    expect_number(f(strengths, 0.5), 1, {3: "share is not used: it is 0.5 here, and was 0.9 before"})
    even = torch.ones(4, dtype=torch.float64)
    expect_number(f(even, 0.5), 2, {3: "two of four equal directions hold half exactly: that is enough"})


def best_copy(change, rank):
    U, S, Vh = torch.linalg.svd(change, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vh[:rank]


@exercise(
    "lora.best_copy",
    reference=best_copy,
    hints=(
        "`torch.linalg.svd(change, full_matrices=False)` gives U, S and Vh: directions, strengths, directions.",
        "Keep the first `rank` of each: columns of U, numbers of S, rows of Vh.",
        "Put together: `U * S @ Vh`, each of them cut.",
    ),
)
def _best_copy(f) -> None:
    """f(change, rank) -> the best copy of a matrix (out, in) among those of this rank: again one matrix (out, in)"""
    (change,) = tensors((5, 5))
    U, S, Vh = torch.linalg.svd(change, full_matrices=False)
    result = untouched(f, (change,), 2)
    if isinstance(result, (tuple, list)):
        raise Misconception(f"expected one matrix, got {len(result)}: multiply them, U * S @ Vh")
    block = torch.zeros_like(change)
    block[:2, :2] = change[:2, :2]
    wrong = {
        "nothing is cut: this is the matrix itself, with all its directions": change,
        "these are the weakest directions: S is sorted, the largest come first": U[:, -2:] * S[-2:] @ Vh[-2:],
        "S is left out: each direction has its strength": U[:, :2] @ Vh[:2],
        "Vh is transposed once more: its rows are the directions already": U[:, :2] * S[:2] @ Vh.T[:2],
        "Vh is cut by columns: its rows are the directions, Vh[:rank]": U[:, :2] * S[:2] @ Vh[:, :2].T,
        "one direction too few: [:rank] is as many as rank says": U[:, :1] * S[:1] @ Vh[:1],
        "one direction too many: [:rank] is as many as rank says": U[:, :3] * S[:3] @ Vh[:3],
        "S is squared: that is the energy": U[:, :2] * S[:2] ** 2 @ Vh[:2],
        "this is a corner of the matrix: take its strongest directions": block,
        "this is what is lost: the copy is the other part": U[:, 2:] * S[2:] @ Vh[2:],
    }
    same(result, U[:, :2] * S[:2] @ Vh[:2], wrong)
    (wide,) = tensors((3, 6))
    U, S, Vh = torch.linalg.svd(wide, full_matrices=False)
    same(f(wide, 1), U[:, :1] * S[:1] @ Vh[:1], {}, "right for a square matrix of rank 2, but not for 3 x 6 of rank 1")
