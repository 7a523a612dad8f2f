"""P-tuning v2: prefix tuning's keys and values for understanding, under a linear head instead of answer words.

    head_i = softmax(Q [P_K; K]^T / sqrt(w)) [P_V; V]     in the chosen layers; P_K, P_V (p, w) trained
    logits = W h + b                                      h of the first token, or of every token; W, b trained

Nothing acts otherwise than in `prefix_tuning`: what is new in the paper is what it is used for, by which head, and that
the prompts need neither the MLP nor all layers.

Liu et al. 2022, https://arxiv.org/abs/2110.07602, section 3.
"""

from dataclasses import dataclass

from peft_edu.prefix_tuning import PrefixTuning


@dataclass
class PTuningV2(PrefixTuning):
    """Deep prompts of `length` positions. The head is that of the model: AutoModelForSequenceClassification, or
    AutoModelForTokenClassification to tag. The fields are those of PrefixTuning, `layers` and `dropout` with them.

    >>> model, tokenizer = backbone("tiny-bert", head="tag", labels=["O", "PRAISED", "BLAMED"])
    >>> model = PTuningV2(length=8, layers=(2, 3)).attach(model)
    """

    length: int = 20
    hidden: int = 0
