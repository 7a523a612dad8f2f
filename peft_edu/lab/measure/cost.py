"""What a step costs: time and operations of a forward pass, operations of a backward pass, and what is kept for it.

Operations are multiplications and additions in matrix products. They are counted with attention written out: of the
CPU's own attention, which does all in one, FlopCounterMode sees nothing.

What training keeps in memory for the parameters is computed from their numbers:

    weights       every parameter, frozen or trained
    gradients     one number for each trained parameter
    moments       two for each trained parameter: AdamW's running mean of the gradient and of its square

Activations come on top. They depend on the batch, and on how deep the lowest trained weight lies: `backward_cost`
measures them, and `memory_of_training` foretells them.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.anatomy import evaluating
from peft_edu.checks import number, whole_number
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.tasks.task import Task


@dataclass(frozen=True)
class BackwardCost:
    operations: int
    kept: int  # bytes of activations that forward keeps for backward


def on_device(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch where the model is. An error where one of the two is something else."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is a {type(model).__name__}, but must be one that `backbone` gives")
    if not isinstance(batch, Mapping) or not all(isinstance(each, Tensor) for each in batch.values()):
        raise TypeError(
            f"the batch is a {type(batch).__name__}, but must be one of task(...).batches(...): names and tensors"
        )
    return {name: each.to(model.device) for name, each in batch.items()}


def backward_cost(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> BackwardCost:
    """Count one backward pass. The same on every machine, unlike seconds."""
    batch = on_device(model, batch)
    if "labels" not in batch or not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("there is no backward pass: the batch needs labels, and the model something to train")
    activations: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            activations[storage.data_ptr()] = storage.nbytes()  # views of one storage are kept once
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), sdpa_kernel(SDPBackend.MATH):
        loss = model(**batch).loss
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # for checkpoints, which recompute
        loss.backward()
    model.zero_grad(set_to_none=True)
    return BackwardCost(counter.get_total_flops(), sum(activations.values()))


def cost_of_training(data: Task, tokenizer: PreTrainedTokenizerBase, parts: Iterable[str]) -> BackwardCost:
    """Count one backward pass of tiny-bert on a batch of the task, where the task head is trained, and each parameter
    that has one of `parts` in its name."""
    model, _ = backbone("tiny-bert", **data.head)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in ("classifier", *parts)))
    return backward_cost(model, next(iter(data.batches(tokenizer, "train"))))


def forward_operations(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> int:
    """Count one forward pass."""
    batch = on_device(model, batch)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(**batch)
    return counter.get_total_flops()


@torch.no_grad()
def median_times(
    models: Mapping[str, PreTrainedModel], batch: Mapping[str, Tensor], rounds: int = 60
) -> dict[str, float]:
    """Median seconds of a forward pass. The models take turns, so that a busy moment meets all of them."""
    whole_number("rounds", rounds)
    if not isinstance(models, Mapping):
        raise TypeError(f"models is a {type(models).__name__}, but must be names and models: {{'base': model}}")
    batches = {name: on_device(model, batch) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            with evaluating(model):
                start = time.perf_counter()
                model(**batches[name])
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times[len(times) // 5 :]) for name, times in seconds.items()}  # without the first, cold rounds


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    weights: int
    gradients: int
    moments: int
    activations: int = 0  # what a forward pass keeps for the backward pass
    copies: int = 0  # of what is trained of the model: as it was, for `detach`; beside bfloat16 in float32, for AdamW
    peak: int = 0  # the fullest moment of a step, where it is known: gradients come as activations go

    @property
    def optimizer(self) -> int:
        """What is there for the trained parameters alone."""
        return self.gradients + self.moments

    @property
    def total(self) -> int:
        return self.peak or self.weights + self.optimizer + self.activations + self.copies

    def __repr__(self) -> str:
        sizes = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "peak"}
        always = ("weights", "gradients", "moments")
        parts = ", ".join(f"{readable(size)} {name}" for name, size in sizes.items() if size or name in always)
        return parts + (f": {readable(self.peak)} at once" if self.peak else "")


def training_memory(total: int, trainable: int, bytes_each: int = 4) -> Memory:
    """For AdamW, with all numbers in one format: 4 bytes for float32."""
    for name, value, least in (("total", total, 1), ("trainable", trainable, 0), ("bytes_each", bytes_each, 1)):
        whole_number(name, value, least)
    number("trainable", trainable, f"at most total, {total}", lambda trainable: trainable <= total)
    return Memory(total * bytes_each, trainable * bytes_each, 2 * trainable * bytes_each)


def readable(size: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit if size != 1 else unit.removesuffix('s')}"
        size /= 1000
    return f"{size:.3g} TB"
