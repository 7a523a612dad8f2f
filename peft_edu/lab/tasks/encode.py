"""From the rows of a task to batches of padded tensors, for each kind of task and of model."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_edu.p_tuning import MASK, template_ids

if TYPE_CHECKING:
    from peft_edu.lab.tasks.task import Task

IGNORE = -100  # PyTorch's cross entropy leaves these positions out


class Batches:
    """Batches of padded tensors: (b, t) input_ids, attention_mask and labels ((b,) to classify)."""

    def __init__(self, examples: list[dict], pad: int, size: int, seed: int, steps: int | None):
        if size < 1:
            raise ValueError(f"size={size}: a batch holds one row or more")
        self.examples, self.pad, self.size, self.seed, self.steps = examples, pad, size, seed, steps

    def __len__(self) -> int:
        return self.steps or -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = self._passes()
        if self.steps is None:
            order = islice(order, len(self.examples))
        for _ in range(len(self)):
            yield padded([self.examples[i] for i in islice(order, self.size)], self.pad)

    def _passes(self) -> Iterator[int]:
        draw = random.Random(self.seed)
        while True:
            yield from draw.sample(range(len(self.examples)), len(self.examples))


def encoder(data: "Task", tokenizer) -> Callable[[dict], dict]:
    """The function from a row to its token ids and labels."""
    room = tokenizer.model_max_length

    def classify(row):
        return {
            "input_ids": tokenizer(row["text"], row.get("second"), truncation=True)["input_ids"],
            "labels": row["label"],
        }

    def tag(row):
        """The first token of each word has the word's tag."""
        encoded = tokenizer(row["words"], is_split_into_words=True, truncation=True)
        words = encoded.word_ids()
        starts = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
        tags = [row["tags"][word] if first else IGNORE for word, first in zip(words, starts, strict=True)]
        return {"input_ids": encoded["input_ids"], "labels": tags}

    def fill(row):
        ids, answer = template_ids(data.template, tokenizer, row), answer_id(tokenizer, row["answer"])
        if seq2seq(tokenizer):
            return {"input_ids": ids, "labels": [answer]}
        if tokenizer.mask_token is None:
            return {"input_ids": [*ids, answer], "labels": [IGNORE] * len(ids) + [answer]}
        return {"input_ids": ids, "labels": [answer if each == tokenizer.mask_token_id else IGNORE for each in ids]}

    def translate(row):
        return {"input_ids": prompt(data, tokenizer, row), "labels": _target(tokenizer, row["target"])}

    def continue_(row):
        source, target = prompt(data, tokenizer, row), _target(tokenizer, " " + row["target"])
        # The model learns to write the target, not to repeat the source.
        return {"input_ids": (source + target)[:room], "labels": ([IGNORE] * len(source) + target)[:room]}

    if data.kind == "fill" and MASK not in data.template:
        raise ValueError(
            f"{data.name} asks for a word in the place of {MASK}, which the template {data.template!r} has not: "
            "name one with replace(data, template=...)"
        )
    if data.kind == "generate":
        return translate if seq2seq(tokenizer) else continue_
    return {"classify": classify, "tag": tag, "fill": fill}[data.kind]


def answer_id(tokenizer, answer: str) -> int:
    """The token of a word that fills a gap."""
    ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"the answer {answer!r} is {len(ids)} tokens to this tokenizer, and a gap takes one")
    return ids[0]


def prompt(data: "Task", tokenizer, row: dict) -> list[int]:
    """What a model reads before it writes the row's target."""
    ids = tokenizer(row["source"] if seq2seq(tokenizer) else row["source"] + data.separator)["input_ids"]
    if not seq2seq(tokenizer) and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]  # the end of the text is yet to come
    if not seq2seq(tokenizer) and not data.start_token and ids[0] == tokenizer.bos_token_id:
        ids = ids[1:]
    if len(ids) >= tokenizer.model_max_length:
        raise ValueError(
            f"{data.name}: a source of {len(ids)} tokens; the model reads {tokenizer.model_max_length} "
            f"in all. Shorten it: {row['source'][:60]}..."
        )
    return ids


def seq2seq(tokenizer) -> bool:
    return getattr(tokenizer, "encoder_decoder", False)  # set by `backbone`


def _target(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]


def padded(examples: Sequence[dict], pad: int, left: bool = False) -> dict[str, Tensor]:
    filler = {"input_ids": pad, "labels": IGNORE}
    batch = {"attention_mask": _rectangle([[1] * len(e["input_ids"]) for e in examples], 0, left)}
    for key in examples[0]:
        values = [example[key] for example in examples]
        batch[key] = torch.tensor(values) if isinstance(values[0], int) else _rectangle(values, filler[key], left)
    return batch


def _rectangle(lists: Sequence[list[int]], filler: int, left: bool) -> Tensor:
    width = max(map(len, lists))
    fill = [[filler] * (width - len(values)) for values in lists]
    return torch.tensor([f + v if left else v + f for f, v in zip(fill, lists, strict=True)])


def by_length(items: Sequence[list], size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length: little padding, and the result does not depend on the order."""
    order = sorted(range(len(items)), key=lambda i: len(items[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
