"""How far training moved what it trains."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from peft_edu import trainable


def starts(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all that is trained, by name."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


@torch.no_grad()
def rms_move(model: nn.Module, before: Mapping[str, Tensor]) -> float:
    """How far a trained parameter has moved since `before`, which `starts` gave: the root mean square over all."""
    moves = [(parameter - before[name]).flatten() for name, parameter in trainable(model).items()]
    return torch.cat(moves).square().mean().sqrt().item()
