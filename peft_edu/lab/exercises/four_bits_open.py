"""Lesson 10, the open task: a model of one's own in 4 bits, and what it lost."""

from copy import deepcopy

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.measure.cost import readable
from peft_edu.lab.measure.forgetting import held_out, language_loss
from peft_edu.lab.models.backbones import backbone
from peft_edu.quantization import LEVELS, quantize

TEXTS, MOST = 10, 0.05  # at least so many texts; the share by which the loss may rise


def my_model():
    model, tokenizer = backbone("tiny-gpt2")
    return model, tokenizer, held_out("tiny-gpt2", 20)


def size(model: nn.Module) -> int:
    return sum(each.nbytes for each in (*model.parameters(), *model.buffers()))


@exercise(
    "four_bits.own",
    reference=my_model,
    hints=(
        '`backbone("a folder or a hub name")` opens a model of yours, with its tokenizer; a bundled one will do, too.',
        "The texts are such as the model was trained on, and that it has not seen: ten short ones are enough.",
        "`return model, tokenizer, texts`: the model as it is. The check packs copies of it.",
    ),
)
def _own(f) -> None:
    """my_model() -> (model, tokenizer, texts): a language model as it is, its tokenizer, and a list of at least 10
    texts; in NF4 its loss on them may rise by at most 5%"""
    given = f()
    if not isinstance(given, (tuple, list)) or len(given) != 3:
        raise Misconception(f"expected model, tokenizer, texts, got {type(given).__name__}: return all three")
    model, tokenizer, texts = given
    if not isinstance(model, PreTrainedModel) or not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise Misconception("the first two are a model and its tokenizer, as `backbone(...)` gives them")
    if not isinstance(texts, (list, tuple)) or len(texts) < TEXTS or not all(isinstance(text, str) for text in texts):
        raise Misconception(f"the third is a list of at least {TEXTS} texts")
    before = language_loss(model, tokenizer, texts)
    print(f"{'as it is':8} {readable(size(model)):>8}, loss {before:.3f}")
    losses = {}
    for kind in LEVELS:
        packed = quantize(deepcopy(model), kind)
        losses[kind] = language_loss(packed, tokenizer, texts)
        print(f"{kind:8} {readable(size(packed)):>8}, loss {losses[kind]:.3f}, {losses[kind] / before - 1:+.1%}")
    if losses["nf4"] > (1 + MOST) * before:
        raise Misconception(
            f"in NF4 its loss rises by {losses['nf4'] / before - 1:.1%}, and {MOST:.0%} are allowed. A model that was "
            "trained on other texts than these says little here: which texts are its own?"
        )
