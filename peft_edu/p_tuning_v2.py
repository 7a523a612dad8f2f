"""P-tuning v2: prefix tuning's keys and values for understanding, under a linear head instead of answer words.

    head_i = softmax(Q [P_K; K]^T / sqrt(w)) [P_V; V]     in the chosen layers; P_K, P_V (p, w) trained
    logits = W h + b                                      h of the first token, or of every token; W, b trained

Nothing acts otherwise than in `prefix_tuning`: what is new in the paper is what it is used for, by which head, and that
the prompts need neither the MLP nor all layers.

Liu et al. 2022, https://arxiv.org/abs/2110.07602, section 3.
"""

from dataclasses import dataclass

from peft_edu.checks import number
from peft_edu.prefix_tuning import PrefixTuning


@dataclass
class PTuningV2(PrefixTuning):
    """Deep prompts of `length` positions. The head is that of the model: AutoModelForSequenceClassification, or
    AutoModelForTokenClassification to tag. Other fields are those of PrefixTuning.

    layers: which layers get prompts, counted from 0 at the bottom (default: all).
    dropout: on the prompts while training, each row of a batch on its own, as in the authors' code.
    """

    length: int = 20
    hidden: int = 0
    layers: tuple[int, ...] | None = None
    dropout: float = 0.0

    def __post_init__(self, tokenizer):
        super().__post_init__(tokenizer)
        number("dropout", self.dropout, "at least 0 and below 1", lambda share: 0 <= share < 1)
        if self.layers is not None:
            self.layers = tuple(self.layers)
            if not self.layers:
                raise ValueError("layers is empty: name one layer or more, or leave it out for all")
            if twice := [index for i, index in enumerate(self.layers) if index in self.layers[:i]]:
                raise ValueError(f"layers names {twice[0]} twice")
