"""LoRA: learn the change of a weight matrix as the product of two thin ones.

    h = W x + (alpha / r) B A x          W (out, in) frozen;  A (r, in) and B (out, r) trained

Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, linear_maps
from peft_edu.checks import number, whole_number
from peft_edu.method import Method


class LowRankUpdate(nn.Module):
    """(alpha / r) B A x, to be added to the outputs W x of one linear map."""

    def __init__(self, target: LinearMap, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        weight, self.rows = target.weight, target.rows
        self.A = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))  # B = 0: training starts at the base model
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as loralib and HF peft do; the paper says Gaussian
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x) @ self.A.T @ (self.scale * self.B.T)  # (..., in) -> (..., r) -> (..., out)

    @property
    def weight(self) -> Tensor:
        """The learned change of W, (out, in)."""
        return self.scale * self.B @ self.A


def add_updates(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """The forward hook of a module that holds one W, or several as its rows: each W x gets its (alpha / r) B A x."""
    shape, width, changes, row = output.shape[:-1], output.shape[-1], [], 0
    for update in (child for child in module.children() if isinstance(child, LowRankUpdate)):
        if update.rows.start > row:
            changes.append(output.new_zeros(*shape, update.rows.start - row))
        changes.append(update(*inputs))
        row = update.rows.stop
    if width > row:
        changes.append(output.new_zeros(*shape, width - row))
    return output + (torch.cat(changes, -1) if changes[1:] else changes[0])  # not in place: a hook may have kept W x


@dataclass
class LoRA(Method):
    """Low-rank updates beside every linear map that plays one of the roles in `targets`.

    The default is the paper's choice. A fused map counts as the several maps that it is: GPT-2's query and value each
    get an A and a B of their own, as in the authors' loralib; HF peft puts one pair over all of c_attn.

    >>> model, tokenizer = backbone("tiny-bert", head="classify")
    >>> count(LoRA(rank=4).attach(model))
    8,450 of 979,842 parameters are trained (0.8624%), 258 of them in the task head
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")

    _base_weights = None  # of the model that the updates are merged into; no annotation, so no field

    def __post_init__(self):
        whole_number("rank", self.rank)
        number("alpha", self.alpha, "above 0", lambda alpha: alpha > 0)
        number("dropout", self.dropout, "at least 0 and below 1", lambda share: 0 <= share < 1)
        if not isinstance(self.targets, (tuple, list)) or not self.targets:
            raise ValueError(f"targets is {self.targets!r}, but must be one or more roles, as in ('query', 'value')")
        self.targets = tuple(self.targets)

    def insert(self, model: PreTrainedModel) -> None:
        targets = linear_maps(model, self.targets)
        for target in targets:
            if self.rank > (side := min(target.weight.shape)):
                raise ValueError(
                    f"rank {self.rank} exceeds {side}, the smaller side of {target.name}'s {target.role} map"
                )
        self.updates = [(each, LowRankUpdate(each, self.rank, self.alpha, self.dropout)) for each in targets]
        self._base_weights = None
        self._put_beside()

    def _put_beside(self) -> None:
        for target, update in self.updates:
            self.add(target.module, f"lora_{target.role}", update)
        for module in dict.fromkeys(target.module for target, _ in self.updates):
            self.hook(module.register_forward_hook(add_updates))

    @torch.no_grad()
    def merge(self) -> PreTrainedModel:
        """W <- W + (alpha / r) B A, and detach: a plain transformers model, as fast as the base."""
        model = self._attached_to()
        if any(hasattr(target.module, "packed") for target, _ in self.updates):
            raise ValueError("the weights are packed in 4 bits, which would round the update away: load the LoRA into "
                             "the model as it was before, and merge there")  # fmt: skip
        base = [target.weight.clone() for target, _ in self.updates]
        merged = [target.weight + update.weight for target, update in self.updates]
        self._base_weights = model, base  # first: after an interrupt, unmerge goes back from here
        self._leave()
        self._write(merged)
        return model

    @torch.no_grad()
    def unmerge(self) -> PreTrainedModel:
        """The base weights back, bit for bit (subtracting B A would leave rounding), and the updates beside them."""
        if self._base_weights is None:
            raise RuntimeError(f"{self} is not merged")
        model, base = self._base_weights
        for (target, update), weight in zip(self.updates, base, strict=True):
            now = target.weight
            known = (weight + update.weight, weight)  # the latter after a merge that was interrupted
            if not any(torch.allclose(now, each.to(now), rtol=0, atol=0, equal_nan=True) for each in known):
                what = f"{target.name}'s {target.role} map has changed since {self} was merged"
                raise RuntimeError(f"{what}, which would be lost: what was merged later is unmerged first")
        with self._editing(model):
            self._put_beside()
            self._train_head(model)
            self._write(base)
        self._base_weights = None
        return model

    def _write(self, weights: list[Tensor]) -> None:
        for (target, _), weight in zip(self.updates, weights, strict=True):
            target.weight.copy_(weight)
