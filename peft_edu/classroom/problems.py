"""Data of one's own, for tasks in which something is trained."""

from types import SimpleNamespace

import torch
from torch import Tensor

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

    The fit of y - W x on x takes nothing away here, so it is that of a matrix alone (Eckart and Young 1936).
    """
    rest = torch.linalg.svdvals(y - x @ W.T).square()
    return (rest.sum() - rest.cumsum(0)) / y.numel()
