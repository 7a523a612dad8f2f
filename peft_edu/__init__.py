"""Parameter-efficient fine-tuning, to read and to run: plain PyTorch over transformers' models.

The letters in the comments on shapes, the same in every file:

    b  batch        t  tokens of the text      p  virtual tokens (the length of a prefix or prompt)
    h  heads        w  width of a head         d  width of the model       r  rank
"""

import logging

# Where a processor has AVX512_BF16, bitsandbytes warns at its import of a kernel that only the hub has.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

from peft_edu.adapter import Adapter
from peft_edu.freezing import BitFit, FullFineTuning, HeadOnly, TopBlocks
from peft_edu.lora import LoRA
from peft_edu.method import attached, trainable
from peft_edu.p_tuning import PTuning, template_ids, template_text
from peft_edu.p_tuning_v2 import PTuningV2
from peft_edu.prefix_tuning import PrefixTuning
from peft_edu.prompt_tuning import PromptTuning
from peft_edu.storage.checkpoint import count, load, save
from peft_edu.storage.peft_format import from_peft, to_peft
from peft_edu.storage.several_loras import SeveralLoRAs
from peft_edu.train import evaluate, fit, seed

__all__ = [
    "Adapter",
    "BitFit",
    "FullFineTuning",
    "HeadOnly",
    "LoRA",
    "PTuning",
    "PTuningV2",
    "PrefixTuning",
    "PromptTuning",
    "SeveralLoRAs",
    "TopBlocks",
    "attached",
    "count",
    "evaluate",
    "fit",
    "from_peft",
    "load",
    "save",
    "seed",
    "template_ids",
    "template_text",
    "to_peft",
    "trainable",
]
