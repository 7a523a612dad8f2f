"""In which order a decoder reads a batch: padding, virtual tokens, words."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

PADDING, VIRTUAL = "·", "P"


@torch.no_grad()
def reading_order(model: nn.Module, tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, Tensor]) -> list[str]:
    """For each row what stands where, as the first block reads it. `model`: with a prompt of ours or of Hugging Face's
    peft; what is no word's embedding is a virtual token."""
    stack = getattr(model, "get_base_model", lambda: model)().base_model
    read: dict[str, Tensor] = {}
    handle = stack.register_forward_pre_hook(lambda _, inputs, named: read.update(named), with_kwargs=True)
    try:  # hooks run in the order in which they were registered: this one sees what the method's own have made
        model(**batch)
    finally:
        handle.remove()
    words = stack.get_input_embeddings().weight

    def name(vector: Tensor, attended: Tensor) -> str:
        if not attended:
            return PADDING
        ids = (words == vector).all(1).nonzero()
        return tokenizer.decode(ids[0]).strip() if len(ids) else VIRTUAL

    rows = zip(read["inputs_embeds"], read["attention_mask"], strict=True)
    return [" ".join(map(name, vectors, mask)) for vectors, mask in rows]
