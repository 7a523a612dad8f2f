"""From the rows of a task to batches of padded tensors, for each kind of task and of model."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from peft_edu.checks import whole_number
from peft_edu.p_tuning import MASK, template_ids

IGNORE = -100  # PyTorch's cross entropy leaves these positions out


@dataclass(repr=False)
class Format:
    """How a row looks to a model: what it reads, and what it learns to answer."""

    name: str
    kind: str
    _: KW_ONLY
    separator: str = " :"  # stands between source and target for a model that only continues text
    start_token: bool = True  # whether such a model reads its start token first, if its tokenizer writes one
    template: str = ""  # where a row's fields and the gap stand, to fill; see peft_edu.template_ids

    def example(self, row: dict, tokenizer: PreTrainedTokenizerBase, seq2seq: bool) -> dict:
        """The token ids of a row, and its labels: what the model is to answer, and IGNORE where it is not asked."""
        kinds = {"classify": self._classify, "tag": self._tag, "fill": self._fill, "generate": self._generate}
        example = kinds[self.kind](row, tokenizer, seq2seq)
        self._check_length(example["input_ids"], tokenizer.model_max_length, row)
        return example

    def prompt(self, row: dict, tokenizer: PreTrainedTokenizerBase, seq2seq: bool) -> list[int]:
        """What a model reads before it writes the row's target."""
        ids = tokenizer(row["source"] if seq2seq else row["source"] + self.separator)["input_ids"]
        if not seq2seq and ids[-1:] == [tokenizer.eos_token_id]:
            ids = ids[:-1]  # the end of the text is yet to come
        if not seq2seq and not self.start_token and ids[:1] == [tokenizer.bos_token_id]:
            ids = ids[1:]
        self._check_length(ids, tokenizer.model_max_length, row, answer=1)
        return ids

    def _classify(self, row, tokenizer, seq2seq):
        second = row.get("second") or None
        read = tokenizer(row["text"], second, truncation=True)
        types = {"token_type_ids": read["token_type_ids"]} if second and "token_type_ids" in read else {}
        return {"input_ids": read["input_ids"], **types, "labels": row["label"]}

    def _tag(self, row, tokenizer, seq2seq):
        ids, words = word_starts(row["words"], tokenizer)
        return {"input_ids": ids, "labels": [IGNORE if word is None else row["tags"][word] for word in words]}

    def _generate(self, row, tokenizer, seq2seq):
        source = self.prompt(row, tokenizer, seq2seq)
        target = tokenizer(row["target"] if seq2seq else " " + row["target"], add_special_tokens=False)["input_ids"]
        target = [*target, tokenizer.eos_token_id]
        if seq2seq:
            return {"input_ids": source, "labels": target}
        # The model learns to write the target, not to repeat the source. What is too long for it is cut.
        most = tokenizer.model_max_length
        return {"input_ids": (source + target)[:most], "labels": ([IGNORE] * len(source) + target)[:most]}

    def _fill(self, row, tokenizer, seq2seq):
        if MASK not in self.template:
            raise ValueError(
                f"{self.name} asks for a word in the place of {MASK}, which the template {self.template!r} has not: "
                "name one with replace(data, template=...)"
            )
        ids, answer = template_ids(self.template, tokenizer, row), answer_id(tokenizer, row["answer"])
        if seq2seq:
            return {"input_ids": ids, "labels": [answer]}
        if tokenizer.mask_token is None:
            return {"input_ids": [*ids, answer], "labels": [IGNORE] * len(ids) + [answer]}
        if ids.count(tokenizer.mask_token_id) > 1:
            raise ValueError(f"{self.name}: a row that itself holds {tokenizer.mask_token} has two gaps: {row}")
        return {"input_ids": ids, "labels": [answer if each == tokenizer.mask_token_id else IGNORE for each in ids]}

    def _check_length(self, ids: list[int], most: int, row: dict, answer: int = 0) -> None:
        if not 0 < len(ids) <= most - answer:
            what, text = ("source", row["source"]) if "source" in row else ("text", str(row))
            raise ValueError(
                f"{self.name}: a {what} of {len(ids)} tokens; the model reads {most} in all. Shorten it: {text[:60]}..."
            )


def word_starts(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int | None]]:
    """The token ids, and for each which word begins there: its first token is asked for the word's tag."""
    read = tokenizer(list(words), is_split_into_words=True, truncation=True)
    of = read.word_ids()
    return read["input_ids"], [None if word == before else word for word, before in zip(of, [None, *of], strict=False)]


def answer_id(tokenizer: PreTrainedTokenizerBase, answer: str) -> int:
    """The token of a word that fills a gap."""
    ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"the answer {answer!r} is {len(ids)} tokens to this tokenizer, and a gap takes one")
    return ids[0]


def reads_then_writes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Is it an encoder-decoder's? A tokenizer alone does not say: `backbone` marks it."""
    if not hasattr(tokenizer, "encoder_decoder"):
        raise ValueError(
            "the tokenizer does not say what its model is, an encoder-decoder or not: take it from backbone(...), or set "
            "tokenizer.encoder_decoder = model.config.is_encoder_decoder"
        )
    return tokenizer.encoder_decoder


class Batches:
    """Batches of padded tensors: (b, t) input_ids, attention_mask and labels ((b,) to classify)."""

    def __init__(self, examples: list[dict], pad: int, size: int, seed: int, steps: int | None):
        whole_number("size", size)
        whole_number("seed", seed, at_least=0)
        if steps is not None:
            whole_number("steps", steps)
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
        while self.examples:  # without any, no pass would end
            yield from draw.sample(range(len(self.examples)), len(self.examples))


def padded(examples: Sequence[dict], pad: int, side: str = "right") -> dict[str, Tensor]:
    """The lists of all examples as rectangles (b, t); what is one number an example as (b,)."""
    filler = {"input_ids": pad, "labels": IGNORE}
    examples = [{"attention_mask": [1] * len(each["input_ids"])} | each for each in examples]
    batch = {}
    for key in dict.fromkeys(key for each in examples for key in each):
        values = [torch.tensor(each.get(key, [0])) for each in examples]  # no token_type_ids: all of one text
        one = values[0].dim() == 0
        batch[key] = torch.stack(values) if one else pad_sequence(values, True, filler.get(key, 0), side)
    return batch


def by_length(items: Sequence[list], size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length: little padding, and the result does not depend on the order."""
    order = sorted(range(len(items)), key=lambda i: len(items[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
