"""How much memory training takes, before anything is loaded: a step is taken without numbers.

A tensor on the meta device has a shape, a type and no memory. Model, method, batch and AdamW are built of such tensors,
and one training step runs on them as on a processor. What lives at each moment is added up:

    weights + copies + moments  (all the time)  +  gradients so far  +  activations that are still kept  +  what one
    operation needs for itself

The fullest moment is the answer: what torch's allocator then hands out, within 2% in all that was measured. Left out
is what is no tensor, half a gigabyte for Python and its libraries; and holes in the memory underneath. With Linux's
glibc, 1.44 GB of a LoRA on SmolLM2 became 1.7 to 1.9 GB for the system, and 1.30 GB on MiniLM 1.74 GB;
MALLOC_MMAP_THRESHOLD_=65536 in the environment leaves no holes (1.34 GB). Opening takes the weights and their file.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import PreTrainedConfig, PreTrainedModel

from peft_edu.anatomy import max_tokens
from peft_edu.checks import whole_number, yes_or_no
from peft_edu.lab.measure.cost import Memory
from peft_edu.lab.models.backbones import skeleton
from peft_edu.method import Method, trainable
from peft_edu.quantization import quantize
from peft_edu.train.precision import Twins

Batch = Mapping[str, Tensor]
aten = torch.ops.aten


class Alive(TorchDispatchMode):
    """Inside the `with`: bytes of all tensors that are alive, and the most there were at once. Views count once.

    `padded` answers what is asked of numbers that are not there: of masks, whether they hide something.
    """

    def __init__(self, padded: bool = True):
        super().__init__()
        self.padded, self.bytes, self.most, self._sizes = padded, 0, 0, {}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._sizes:
            self._sizes[key] = size
            self.bytes += size
            self.most = max(self.most, self.bytes)
            finalize(storage, self._drop, key).atexit = False

    def _drop(self, key: int) -> None:
        self.bytes -= self._sizes.pop(key)

    def __torch_dispatch__(self, operation, types, inputs=(), named=None):
        if operation is aten._local_scalar_dense.default and inputs[0].is_meta:
            return not self.padded
        output = operation(*inputs, **(named or {}))
        for each in tree_iter(output):
            if isinstance(each, Tensor):
                self.add(each)
        return output


class LikeAProcessor(TorchFunctionMode):
    """Attention as a processor does it: in one, without its scores, unless dropout or a trained bias acts on them.

    On the meta device torch writes attention out, with scores (b, h, t, t) that a processor never keeps.
    """

    def __torch_function__(self, function, types, inputs=(), named=None):
        in_one = function is scaled_dot_product_attention
        return (_attention if in_one else function)(*inputs, **(named or {}))


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
               is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False) -> Tensor:  # fmt: skip
    if dropout_p or (attn_mask is not None and attn_mask.requires_grad):
        how = {"scale": scale, "enable_gqa": enable_gqa}
        return scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **how)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    how = {"attn_mask": attn_mask, "scale": scale}
    return aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal, **how)[0]


def memory_of_training(
    model: str | os.PathLike | PreTrainedConfig,
    method: Method | None = None,
    batch: tuple[int, int] | Batch = (4, 128),
    *,
    head: str | None = None,
    labels: int | list[str] | None = None,
    dtype: torch.dtype | None = None,
    four_bits: bool = False,
) -> Memory:
    """What `fit` takes on a processor, in bytes. Of a model on the hub only its configuration is read.

    model, head, labels, dtype: as `backbone` takes them; or a configuration.
    method: what is attached; None trains every weight.
    batch: rows and tokens, as if some rows were padded; or a batch, of which only the shapes matter.
    four_bits: the blocks' linear maps are packed first, as `quantize` does it.

    >>> memory_of_training("tiny-gpt2", LoRA(rank=4), batch=(8, 64))
    9.21 MB weights, 65.5 kB gradients, 131 kB moments, 33.8 MB activations: 59.3 MB at once
    """
    yes_or_no("four_bits", four_bits)
    if not isinstance(method, Method | None):
        raise TypeError(f"the method is {method!r}, but must be one such as LoRA(rank=8), or None to train everything")
    built = skeleton(model, head, labels, dtype)
    shapes, padded = _on_meta(built, batch, head)
    with torch.random.fork_rng(devices=[]):  # who draws afterwards draws what they would have drawn
        if four_bits:
            quantize(built)
        if method:
            method = replace(method)  # the caller's own stays free for the real model
            method.attach(built)
        try:
            return _step(built.train(), shapes, padded, list(method._weights.values()) if method else [])
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            what = f"{type(built).__name__} with {method or 'all weights trained'} cannot take a step on this batch"
            raise ValueError(f"{what}, so its memory is not known: {error!s:.300}") from error


def _step(model: PreTrainedModel, batch: Batch, padded: bool, copies: list[Tensor]) -> Memory:
    """One step as `fit` takes it, the second: by then AdamW's moments are there."""
    twins = Twins(trainable(model))  # in bfloat16, what AdamW moves lies beside the model in float32
    learned = list(twins.values())
    optimizer = torch.optim.AdamW(learned)
    for parameter in learned:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    moments = [each for state in optimizer.state.values() for each in state.values() if each.is_meta]
    weights = [*model.parameters(), *model.buffers()]
    copies = [*copies, *(twin for parameter, twin in twins.items() if twin is not parameter)]
    with Alive(padded) as alive, LikeAProcessor():
        for each in (*weights, *copies, *moments, *batch.values()):
            alive.add(each)
        before = alive.bytes
        loss = model(**batch).loss
        activations = alive.bytes - before
        loss.backward()
        twins.add_gradients()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        twins.round()
    parts = (weights, learned, moments)
    return Memory(*map(_bytes, parts), activations=activations, copies=_bytes(copies), peak=alive.most)


def _bytes(tensors: list[Tensor]) -> int:
    return sum({each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in tensors}.values())


def _on_meta(model: PreTrainedModel, batch: tuple[int, int] | Batch, head: str | None) -> tuple[Batch, bool]:
    """The batch without its numbers, and whether some of its rows are padded."""
    if isinstance(batch, Mapping):
        batch = {name: each for name, each in batch.items() if isinstance(each, Tensor)}
        if "labels" not in batch:
            raise ValueError(f"the batch holds {', '.join(batch) or 'nothing'}, but training needs labels as well")
        padded = "attention_mask" not in batch or not bool(batch["attention_mask"].all())
        return {name: torch.empty_like(each, device="meta") for name, each in batch.items()}, padded
    if not isinstance(batch, tuple) or len(batch) != 2:
        raise ValueError(f"batch is {batch!r}, but must be rows and tokens, as in (4, 128), or a batch of a task")
    for name, value in zip(("rows", "tokens"), batch, strict=True):
        whole_number(name, value)
    if batch[1] > (most := max_tokens(model)):
        raise ValueError(f"{batch[1]} tokens, but {type(model).__name__} has {most} positions")
    ids = torch.zeros(batch, dtype=torch.long, device="meta")
    return {"input_ids": ids, "attention_mask": ids, "labels": ids[:, 0] if head == "classify" else ids}, True
