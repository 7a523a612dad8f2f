"""Fine-tuning some of the model's own weights, and freezing the rest.

    theta <- theta - lr * gradient     for the parameters with requires_grad, and for no others

Freezing is `requires_grad = False`, nothing else: a frozen block still runs, and in train() its dropout stays active.
What the methods add to the task head, which `attach` always trains: nothing, the top blocks, the biases, everything.

Top blocks: the strong baseline of Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, section 3.
BitFit: Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199.
"""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, head
from peft_edu.checks import whole_number
from peft_edu.method import Method


@dataclass
class FullFineTuning(Method):
    """Train every parameter."""

    def insert(self, model: PreTrainedModel) -> None:
        self.unfreeze(model)


@dataclass
class HeadOnly(Method):
    """Train the task head alone: a linear classifier on frozen features."""

    def insert(self, model: PreTrainedModel) -> None:
        """Nothing: the head is trained with every method."""


@dataclass
class TopBlocks(Method):
    """Train the last n blocks, and the head. In T5 the decoder's blocks lie above the encoder's.

    >>> model = TopBlocks(1).attach(backbone("tiny-bert", head="classify")[0])
    """

    n: int

    def __post_init__(self):
        whole_number("n", self.n, at_least=0)

    def insert(self, model: PreTrainedModel) -> None:
        available = blocks(model)
        if self.n > len(available):
            raise ValueError(f"n is {self.n}, but {type(model).__name__} has {len(available)} blocks")
        for block in available[len(available) - self.n :]:
            self.unfreeze(block)


@dataclass
class BitFit(Method):
    """Train every bias, those of the LayerNorms included, and the head."""

    def insert(self, model: PreTrainedModel) -> None:
        heads = {module for part in head(model) for module in part.modules()}
        biases = [getattr(module, "bias", None) for module in model.modules() if module not in heads]
        biases = [bias for bias in biases if isinstance(bias, nn.Parameter)]
        if not biases:
            raise ValueError(f"BitFit trains biases, but {type(model).__name__} has none outside its head")
        for bias in biases:
            self.unfreeze(bias)
