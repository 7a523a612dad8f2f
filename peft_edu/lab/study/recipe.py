"""What a row of a study is: the problem it is about, what is attached, and how that is trained."""

from collections.abc import Callable
from dataclasses import dataclass

from peft_edu import LoRA
from peft_edu.method import Method

# The beginning of a prefix: a note of the kind that the corpus writes out, about a venue of its own.
NOTE = "Memo. Umbria (cafe; Indian; cheap; close to Ivory). In full:"


def lora(rank: int, *targets: str) -> LoRA:
    return LoRA(rank, alpha=2 * rank, targets=targets or LoRA.targets)


@dataclass(frozen=True)
class Problem:
    """A task for a model, in batches. `as_text`: the model writes the label's name instead of scoring labels.

    `answers`: the words that stand for the labels where a method has a template, in which they fill the gap.
    `chat`: how a row becomes a question and an answer, for a model that was tuned on conversations.
    `measured`: the first rows of a split only, where a model is slow.
    """

    task: str
    backbone: str
    batch: int
    as_text: bool = False
    answers: tuple[str, ...] = ()
    chat: tuple[Callable[[dict], str], Callable[[dict], str]] | None = None
    measured: int | None = None


@dataclass(frozen=True)
class Row:
    """What is attached, to what, and what it learns from. `pretrained=False` starts from random weights.

    `words` are what a prefix or a prompt starts from, if not from what the method says: a text, or label words; the
    model's tokenizer reads them.
    `limit`: the first training rows only, so that a smaller set is a part of a larger one.
    `start_token=False`: a decoder's text comes without the token that begins a document (lesson 04 says why).
    `head_lr`: a rate of its own for the task head. `backbone`: another model than the problem's.
    `packed`: the frozen weights in 4 bits of this kind, as in QLoRA.
    `relation`: of the task `facts`, whose people are then split anew for each seed.
    `problem`: its own, in a study of several.
    """

    method: Method
    pretrained: bool = True
    words: str | tuple[str, ...] = ()
    limit: int | None = None
    start_token: bool = True
    backbone: str = ""
    head_lr: float | None = None
    packed: str = ""
    relation: str = ""
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe(Row):
    """A row that can be trained: with its steps and its rate."""

    steps: int
    lr: float
