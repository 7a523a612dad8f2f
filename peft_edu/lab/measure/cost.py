"""What a step costs: time and operations of a forward pass, operations of a backward pass, and what is kept for it.

Operations are multiplications and additions in matrix products. They are counted with attention written out: of the
CPU's own attention, which does all in one, FlopCounterMode sees nothing.

What training keeps in memory for the parameters is computed from their numbers:

    weights       every parameter, frozen or trained
    gradients     one number for each trained parameter
    moments       two for each trained parameter: AdamW's running mean of the gradient and of its square

Activations come on top. They depend on the batch, and on how deep the lowest trained weight lies: `backward_cost`
measures them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel


@dataclass(frozen=True)
class BackwardCost:
    operations: int
    kept: int  # bytes of activations that forward keeps for backward


def backward_cost(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> BackwardCost:
    """Count one backward pass. The same on every machine, unlike seconds."""
    activations: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            activations[storage.data_ptr()] = storage.nbytes()  # views of one storage are kept once
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), sdpa_kernel(SDPBackend.MATH):
        loss = model(**batch).loss
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    model.zero_grad(set_to_none=True)
    return BackwardCost(counter.get_total_flops(), sum(activations.values()))


def forward_operations(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> int:
    """Count one forward pass."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(**batch)
    return counter.get_total_flops()


@torch.no_grad()
def median_times(
    models: Mapping[str, PreTrainedModel], batch: Mapping[str, Tensor], rounds: int = 60
) -> dict[str, float]:
    """Median seconds of a forward pass. The models take turns, so that a busy moment meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            model(**batch)
            seconds[name].append(time.perf_counter() - start)
    return {name: median(times[len(times) // 5 :]) for name, times in seconds.items()}  # without the first, cold rounds


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    weights: int
    gradients: int
    moments: int

    @property
    def optimizer(self) -> int:
        """What is there for the trained parameters alone."""
        return self.gradients + self.moments

    def __repr__(self) -> str:
        parts = (f"{readable(getattr(self, name))} {name}" for name in ("weights", "gradients", "moments"))
        return ", ".join(parts)


def training_memory(total: int, trainable: int, bytes_each: int = 4) -> Memory:
    """For AdamW, with all numbers in one format: 4 bytes for float32."""
    return Memory(total * bytes_each, trainable * bytes_each, 2 * trainable * bytes_each)


def readable(size: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
