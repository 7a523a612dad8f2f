"""Where attention goes: the share of the softmax that falls on a prefix, layer by layer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from peft_edu.anatomy import evaluating
from peft_edu.lab.measure.cost import on_device
from peft_edu.prefix_tuning import Prefix


class Watch(nn.Module):
    """In the place of a prefix: gives what the prefix gives, and remembers the share (b, h, t) that falls on it."""

    def __init__(self, prefix: Prefix):
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
    places = [module for module in model.modules() if isinstance(getattr(module, "prefix", None), Prefix)]
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
