"""Data of one's own, for tasks in which something is trained."""

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import gelu

SIDE, ROWS = 24, 400


def changed_map(n: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor, float]:
    """x (400, 24), y (400, 24), W (24, 24) frozen, and the loss to get below: a map that another task has changed."""
    generator = torch.Generator().manual_seed(n.data_seed)
    W, x, left, right = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((SIDE, SIDE), (ROWS, SIDE), (SIDE, SIDE), (SIDE, SIDE))
    )
    U, V = torch.linalg.qr(left)[0], torch.linalg.qr(right)[0]
    strengths = torch.tensor([2.0 * (i < n.true_rank) + 0.02 for i in range(SIDE)], dtype=torch.float64)
    y = x @ (W + U * strengths @ V.T).T
    losses = least_losses(x, y, W)
    return x, y, W, float((losses[n.true_rank - 2] * losses[n.true_rank - 1]) ** 0.5)


def least_losses(x: Tensor, y: Tensor, W: Tensor) -> Tensor:
    """The least mean square loss at rank 1, 2, ...: what the best change of W of that rank leaves.

    The fit of y - W x on x takes nothing away here, so it is that of a matrix alone.
    """
    return _tails(y - x @ W.T)


def changed_output(n: SimpleNamespace) -> tuple[Tensor, Tensor, float]:
    """h (400, 24), what a frozen sub-layer gives, y (400, 24), what a task needs there, and the loss to get below.

    The goal lies under what any smaller bottleneck can reach, so that reaching it does not hang on a lucky start.
    """
    generator = torch.Generator().manual_seed(n.data_seed)
    h, noise, left, right = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, SIDE), (ROWS, SIDE), (SIDE, SIDE), (SIDE, SIDE))
    )
    V, U = (torch.linalg.qr(each)[0][:, : n.true_bottleneck] for each in (left, right))
    y = h + 3 * gelu(h @ V) @ U.T + 0.05 * noise
    return h, y, 0.7 * float(least_misses(h, y)[n.true_bottleneck - 2])


def least_misses(h: Tensor, y: Tensor) -> Tensor:
    """What no adapter behind h with bottleneck 1, 2, ... can get below, whatever stands between its two maps.

    What it adds is m columns of numbers, sent up, and a constant: about its mean a matrix of rank m at most.
    """
    rest = y - h
    return _tails(rest - rest.mean(0))


def _tails(rest: Tensor) -> Tensor:
    """The mean square that the best matrix of rank 1, 2, ... leaves of this one (Eckart and Young 1936)."""
    strengths = torch.linalg.svdvals(rest).square()
    return (strengths.sum() - strengths.cumsum(0)) / rest.numel()


HEAD, QUERIES, TEXT = 16, 200, 6  # one head's width, and how many queries look at a text of so many tokens


def hidden_prefix(n: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """q (200, 16), k and v (6, 16), y (200, 16), and the loss to get below: what one head gives with a prefix of
    n.true_length that nobody shows, without a mask.

    In the second half of its numbers the text's values are zero, so what stands there is the prefix's.
    """
    generator = torch.Generator().manual_seed(n.data_seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    half = HEAD // 2
    q, k, v = drawn(QUERIES, HEAD), drawn(TEXT, HEAD) / 2, drawn(TEXT, HEAD)
    v[:, half:] = 0
    keys = 8 * torch.linalg.qr(drawn(HEAD, HEAD))[0][: n.true_length]
    values = torch.cat([drawn(n.true_length, half), 3 * torch.linalg.qr(drawn(half, half))[0][: n.true_length]], 1)
    shares = torch.softmax(q @ torch.cat([keys, k]).T / HEAD**0.5, -1)
    y = shares @ torch.cat([values, v])
    return q, k, v, y, 0.5 * float(least_losses_by_length(y)[n.true_length - 2])


def least_losses_by_length(y: Tensor) -> Tensor:
    """What no prefix of length 1, 2, ... gets below, whatever its keys are.

    Where the text's values are zero, p virtual tokens mix p values: a matrix of rank p at most.
    """
    return _tails(y[:, HEAD // 2 :]) / 2  # the mean over all of y, of which this is half


TEXTS, KEYS, WIDE = 8, 12, 24  # how many texts read a prompt, and how wide are keys, answers and virtual tokens


def frozen_reader(n: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """queries (8, 12), W_K and W_V (12, 24) of a frozen layer that reads a prompt, the answers y (8, 12) that its texts
    need, and the loss to get below. The answers are those of a prompt of n.shortest tokens, and a little noise.
    """
    generator = torch.Generator().manual_seed(n.data_seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    queries = torch.linalg.qr(drawn(KEYS, KEYS))[0][:TEXTS] * KEYS**0.5
    W_K, W_V = drawn(KEYS, WIDE) / WIDE**0.5, drawn(KEYS, WIDE) / WIDE**0.5
    own = torch.eye(n.shortest, dtype=torch.float64)[torch.arange(TEXTS) % n.shortest]
    shares = torch.softmax(4 * own + 0.3 * drawn(TEXTS, n.shortest), -1)
    y = shares @ (3 * torch.linalg.qr(drawn(KEYS, n.shortest))[0].T) + 0.01 * drawn(TEXTS, KEYS)
    return queries, W_K, W_V, y, 0.3 * float(least_read(y)[n.shortest - 2])


def least_read(y: Tensor) -> Tensor:
    """What no prompt of 1, 2, ... virtual tokens gets below, whatever the frozen layer is.

    Attention gives weighted means of as many values: all lie on a point, a line, a plane, ...
    """
    centred = y - y.mean(0)
    return torch.cat([centred.square().mean()[None], _tails(centred)])
