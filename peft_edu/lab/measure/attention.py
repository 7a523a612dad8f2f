"""Where attention goes: the share of the softmax that falls on a prefix, layer by layer."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from peft_edu.anatomy import evaluating
from peft_edu.lab.measure.cost import on_device


class Watch(nn.Module):
    """In the place of a prefix: gives what the prefix gives, and remembers the share (b, h, t) that falls on it."""

    def __init__(self, prefix: nn.Module):
        super().__init__()
        self.prefix = prefix

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options) -> Tensor:
        prefix_key = self.prefix.keys_values[0].expand(len(query), -1, -1, -1)
        length, groups = prefix_key.shape[2], query.shape[1] // key.shape[1]
        keys = torch.cat([prefix_key, key], 2).repeat_interleave(groups, 1)  # in Llama, queries share keys
        scores = options.get("scale", query.shape[-1] ** -0.5) * query @ keys.transpose(2, 3)
        if mask is not None:
            scores = scores + pad(mask, (length, 0))
        self.share = scores.softmax(-1)[..., :length].sum(-1)
        return self.prefix(query, key, value, mask, **options)


@torch.no_grad()
def prefix_mass(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[float]:
    """For each attention module with a prefix: the share of its attention that the text's tokens pay to the prefix.

    The mean over heads and over the tokens that are no padding, between 0 and 1; from the first layer to the last.
    """
    batch = on_device(model, batch)
    if model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} has three kinds of attention; prefix_mass is for models with one")
    places = [module for module in model.modules() if hasattr(getattr(module, "prefix", None), "keys_values")]
    if not places:
        raise ValueError(f"{type(model).__name__} has no prefix to watch: attach PrefixTuning first")
    watches = [Watch(module.prefix) for module in places]
    real = batch.get("attention_mask", torch.zeros(1)).bool()
    if not real.any():
        raise ValueError(
            "the batch needs an attention_mask that is 1 for the text's tokens: without one there is no text"
        )
    try:
        for module, watch in zip(places, watches, strict=True):
            module.prefix = watch
        with evaluating(model):
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return [watch.share.transpose(1, 2)[real].mean().item() for watch in watches]
    finally:
        for module, watch in zip(places, watches, strict=True):
            module.prefix = watch.prefix


class PrefixShares:
    """`prefix_mass` by length, as a PrefixCard asks for it: before training, and after it where a model was kept.

    make: gives the untrained model with a prefix of this length. Kept shares are rounded to ten per cent: the later
        digits of what many steps led to differ from machine to machine.
    """

    def __init__(self, make: Callable[[int], PreTrainedModel], batch: Mapping[str, Tensor]):
        self.make, self.batch = make, batch
        self.before: dict[int, list[float]] = {}
        self.after: dict[int, list[float]] = {}

    def __call__(self, length: int) -> dict[str, list[float]]:
        if length not in self.before:
            self.before[length] = prefix_mass(self.make(length), self.batch)
        after = {"after": self.after[length]} if length in self.after else {}
        return {"before training": self.before[length]} | after

    def keep(self, length: int, model: PreTrainedModel) -> None:
        """The shares of a model that was trained with a prefix of this length."""
        self.after[length] = [round(share, 1) for share in prefix_mass(model, self.batch)]
