"""A tiny random model of every family, and batches for it.

Attention is eager: SDPA chooses its kernel by what is frozen, and the last digits with it.
"""

from zlib import crc32

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

VOCABULARY, PAD, END = 64, 0, 1
ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LLAMA = ENCODER | {"num_key_value_heads": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": PAD}
SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "bert": ENCODER,
    "roberta": ENCODER,
    "deberta-v2": ENCODER | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "t5": T5,
    "t5-gated": T5 | {"feed_forward_proj": "gated-gelu"},
    "llama": LLAMA,
    "qwen2": LLAMA,
}
LANGUAGE_MODELS = dict.fromkeys(("gpt2", "llama", "qwen2"), AutoModelForCausalLM)
LANGUAGE_MODELS |= dict.fromkeys(("t5", "t5-gated"), AutoModelForSeq2SeqLM)


def tiny(family: str, task: str = "language", dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    """The family's model for "language", "classify" or "tag", in eval()."""
    config = AutoConfig.for_model(
        family.removesuffix("-gated"), vocab_size=VOCABULARY, pad_token_id=PAD, bos_token_id=END, eos_token_id=END,
        num_labels=3, problem_type="single_label_classification", **SIZES[family],
    )  # fmt: skip
    tasks = {"classify": AutoModelForSequenceClassification, "tag": AutoModelForTokenClassification}
    auto = LANGUAGE_MODELS.get(family, AutoModelForMaskedLM) if task == "language" else tasks[task]
    torch.manual_seed(seed)
    return auto.from_config(config, attn_implementation="eager").to(dtype).eval()


def batch(task: str = "language", seed: int = 0) -> dict[str, Tensor]:
    """Three texts of seven tokens, the last one the end token, which T5 classifies by."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (3, 7), generator=draw)
    ids[:, -1] = END
    labels = {"language": ids, "classify": torch.tensor([0, 1, 2]), "tag": ids % 3}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels[task]}


@torch.no_grad()
def fill(model: PreTrainedModel) -> None:
    """Weights that follow from their names, the same in any version of transformers."""
    for name, parameter in model.named_parameters():
        draw = torch.Generator().manual_seed(crc32(name.encode()))
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))


@torch.no_grad()
def fill_adapter(number: int, down: nn.Linear, up: nn.Linear) -> None:
    """The weights of the adapter at this place, counted from the bottom."""
    draw = torch.Generator().manual_seed(number)
    for parameter in (*down.parameters(), *up.parameters()):
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
