"""The way into attention: a function that transformers calls with queries, keys and values in hand.

transformers looks an attention function up by its name in the model's configuration. Under the name ATTENTION it finds
`attend`, which leaves the work to the module's `prefix`, if it has one.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from peft_edu.anatomy import evaluating

ATTENTION = "peft_edu_prefix"


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options) -> Tensor:
    """Queries (b, h, t, w) over keys and values (b, heads, s, w) -> (b, h, t, w). In Llama, queries share keys."""
    return scaled_dot_product_attention(query, key, value, mask, enable_gqa=query.shape[1] != key.shape[1], **options)


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float,
           dropout: float = 0.0, position_bias: Tensor | None = None, **_) -> tuple[Tensor, None]:  # fmt: skip
    """The attention function that transformers calls; a module without a prefix attends as ever."""
    if mask is not None and mask.dtype == torch.bool:  # somebody's own, of true and false: here masks are added
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    if position_bias is not None:  # T5's
        mask = position_bias if mask is None else position_bias + mask
    how = getattr(module, "prefix", attention)
    out = how(query, key, value, mask, scale=scaling, dropout_p=dropout)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, eager_mask)  # a mask to add; without this line transformers makes none


class Listener(nn.Module):
    """In the place of a prefix: remembers the keys and values of the first text, (2, heads, t, w)."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options) -> Tensor:
        self.heard = torch.stack([key[0], value[0]])
        return attention(query, key, value, mask, **options)


@torch.no_grad()
def activations(model: PreTrainedModel, modules: list[nn.Module], words: Tensor) -> list[Tensor]:
    """The keys and values (2, heads, t, w) that these attention modules see for a text of token ids (1, t)."""
    inputs = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    if model.config.is_encoder_decoder and any(module.is_decoder for module in modules):
        inputs["decoder_input_ids"] = words
    for module in modules:
        module.prefix = Listener()
    try:
        with evaluating(model):
            model.base_model(**inputs)
        return [module.prefix.heard for module in modules]
    finally:
        for module in modules:
            del module.prefix
