"""A real model, or the bundled one that stands in for it until `make real`: so a lesson runs for everybody."""

import sys

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.lab.models import real
from peft_edu.lab.models.backbones import backbone

STAND_INS = {"smollm2-135m-instruct": "tiny-gpt2", "minilm-l6": "tiny-bert"}
TEMPLATE = (  # of a model that was never tuned on conversations: a line a turn, and the end behind each answer
    "{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def real_backbone(name: str, **settings: object) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`backbone(name, ...)`; where the model is not installed, one line says how to get it, and a bundled model of the
    same kind comes in its place. It is a thousandth of the size: what it answers is no English."""
    try:
        real.real_model(name)
    except FileNotFoundError as missing:
        instead = STAND_INS[name]
        print(f"{missing}. Until then this lesson goes on with {instead}, which shows the way alone.", file=sys.stderr)
    else:
        return backbone(name, **settings)
    model, tokenizer = backbone(instead, **{"dtype": torch.float32} | settings)
    tokenizer.chat_template = tokenizer.chat_template or TEMPLATE
    return model, tokenizer
