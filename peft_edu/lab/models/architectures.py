"""The papers' own models, true to size and without weights: attach a method to one and count.

A tensor on the meta device has a shape and no memory, so GPT-3's 175 billion parameters are built in under a second.
The sizes lie in `data/architectures/`, each with its source.
"""

import json

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from peft_edu.checks import number, whole_number
from peft_edu.lab.models.backbones import LABELS
from peft_edu.lab.paths import data_path

BARE = {"add_pooling_layer": False}
ENCODERS = {"bert": BARE, "roberta": BARE, "deberta-v2": {}}  # the last has no pooler to leave out


def architectures() -> list[str]:
    """Names that `architecture` knows."""
    return sorted((path.stem for path in data_path("architectures").glob("*.json")), key=str.lower)


def architecture(name: str, labels: int | None = None) -> transformers.PreTrainedModel:
    """A paper's model on the meta device. Encoders come bare, as the papers count them; `labels=2` adds a classifier.

    GPT-2, Llama and Qwen come with the language-model head, which shares the embedding's matrix; T5 v1.1 has its own.

    >>> count(LoRA(rank=4).attach(architecture("gpt2-medium"))).trainable
    393216
    """
    if name not in architectures():
        raise ValueError(f"no architecture {name!r}; there are: {', '.join(architectures())}")
    if labels is not None:
        whole_number("labels", labels)
        number("labels", labels, f"at most {LABELS:,}", lambda labels: labels <= LABELS)
    sizes = json.loads(data_path("architectures", f"{name}.json").read_text(encoding="utf-8"))["config"]
    config = AutoConfig.for_model(**sizes)
    with torch.device("meta"):
        if labels is not None:
            config.num_labels = labels
            return transformers.AutoModelForSequenceClassification.from_config(config)
        if config.model_type in ENCODERS:
            return AutoModel.from_config(config, **ENCODERS[config.model_type])
        if config.is_encoder_decoder:
            return _untie_head(AutoModelForSeq2SeqLM.from_config(config))
        return AutoModelForCausalLM.from_config(config)


def _untie_head(model):
    """T5 v1.1 has an output matrix of its own; a T5Config without a checkpoint cannot say so (it ties all or none)."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    return model
