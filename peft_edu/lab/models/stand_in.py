"""A real model, or the bundled one that stands in for it until `make real`: so a lesson runs for everybody."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.lab.models import real
from peft_edu.lab.models.backbones import backbone

STAND_INS = {"smollm2-135m-instruct": "tiny-gpt2", "minilm-l6": "tiny-bert"}  # a Llama's: only the tokenizer
TEMPLATE = (  # of a model that was never tuned on conversations: a line a turn, and the end behind each answer
    "{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def real_backbone(name: str, **settings: object) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`backbone(name, ...)`; where the model is not installed, one line says how to get it, and a small one of the same
    kind comes in its place: tiny-bert, or a Llama that was never trained. What that answers is no English."""
    try:
        real.real_model(name)
    except FileNotFoundError as missing:
        instead = STAND_INS[name]
        small = "an untrained Llama" if instead == "tiny-gpt2" else instead
        print(f"{missing}. Until then this lesson goes on with {small}, which shows the way alone.", file=sys.stderr)
    else:
        return backbone(name, **settings)
    model, tokenizer = backbone(instead, **{"dtype": torch.float32} | settings)
    if instead == "tiny-gpt2":  # whose maps are fused, and a learner's LoRA is written for separate ones
        model = _small_llama(tokenizer).to(model.dtype)
    tokenizer.chat_template = tokenizer.chat_template or TEMPLATE
    return model, tokenizer


def _small_llama(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """SmolLM2's shape in small: three query heads share each head of keys and values. The same weights each time."""
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3}
    ends = {f"{end}_token_id": tokenizer.eos_token_id for end in ("bos", "eos", "pad")}
    config = LlamaConfig(num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True, **sizes, **ends)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()
