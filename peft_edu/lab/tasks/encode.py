"""From the rows of a task to batches of padded tensors, for each kind of task and of model."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain, count, islice

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from peft_edu.checks import whole_number
from peft_edu.lab.tasks import chat
from peft_edu.lab.tasks.chat import IGNORE
from peft_edu.p_tuning import MASK, template_ids


@dataclass(repr=False)
class Format:
    """How a row looks to a model: what it reads, and what it learns to answer."""

    name: str
    kind: str
    _: KW_ONLY
    separator: str = " :"  # stands between source and target for a model that only continues text
    start_token: bool = True  # whether such a model reads its start token first, if its tokenizer writes one
    template: str = ""  # where a row's fields and the gap stand, to fill; see peft_edu.template_ids

    def example(self, row: dict, tokenizer: PreTrainedTokenizerBase, seq2seq: bool = False) -> dict:
        """The token ids of a row, and its labels: what the model is to answer, and IGNORE where it is not asked."""
        if self.kind == "classify":
            kept = ("input_ids", "token_type_ids") if row.get("second") else ("input_ids",)  # which text a token is of
            read = tokenizer(row["text"], row.get("second") or None, truncation=True)
            return {key: read[key] for key in kept if key in read} | {"labels": row["label"]}
        if self.kind == "tag":
            ids, words = word_starts(row["words"], tokenizer)
            return {"input_ids": ids, "labels": [IGNORE if word is None else row["tags"][word] for word in words]}
        if self.kind == "chat":
            return chat.example(row, tokenizer, self.name)
        if self.kind == "prefer":
            pair = [self._answered(row, row[side], tokenizer, seq2seq) for side in ("chosen", "rejected")]
            return {key: [each[key] for each in pair] for key in pair[0]}
        if self.kind == "unlabelled":
            raise ValueError(
                f"{self.name} has no labels to learn from: with_train(texts, labels) gives a task its rows"
            )
        ids = self.prompt(row, tokenizer, seq2seq)
        if self.kind == "fill":
            answer = [answer_id(tokenizer, row["answer"])]
            if tokenizer.mask_token is not None and not seq2seq:
                gap = tokenizer.mask_token_id
                return {"input_ids": ids, "labels": [answer[0] if each == gap else IGNORE for each in ids]}
        else:
            text = row["target"] if seq2seq else " " + row["target"]
            answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if seq2seq:
            return {"input_ids": ids, "labels": answer}
        # The model learns to write the target, not to repeat the source. What is too long for it is cut.
        most = tokenizer.model_max_length
        return {"input_ids": (ids + answer)[:most], "labels": ([IGNORE] * len(ids) + answer)[:most]}

    def _answered(self, row: dict, answer: str, tokenizer: PreTrainedTokenizerBase, seq2seq: bool) -> dict:
        """The ids of a prompt with one of its answers, and as labels those of the answer."""
        if getattr(tokenizer, "chat_template", None):
            said = [*row["turns"], {"role": "assistant", "content": answer}]
            return chat.example({"messages": said, "target": answer}, tokenizer, self.name)
        between = "" if row["prompt"][-1].isspace() or seq2seq else " "
        ids, most = self.prompt(row, tokenizer, seq2seq), tokenizer.model_max_length
        said = [*tokenizer(between + answer, add_special_tokens=False)["input_ids"], end_of(tokenizer)]
        if seq2seq:
            return {"input_ids": ids, "labels": said[:most]}
        return {"input_ids": (ids + said)[:most], "labels": ([IGNORE] * len(ids) + said)[:most]}

    def prompt(self, row: dict, tokenizer: PreTrainedTokenizerBase, seq2seq: bool = False) -> list[int]:
        """What a model reads before it writes."""
        if self.kind == "prefer" and getattr(tokenizer, "chat_template", None):
            return chat.prompt({"messages": [*row["turns"], {"role": "assistant", "content": "-"}]}, tokenizer)
        if self.kind == "chat":
            return chat.prompt(row, tokenizer)
        if self.kind == "fill":
            if MASK not in self.template:
                missing = f"{MASK}, which the template {self.template!r} has not"
                raise ValueError(f"{self.name} asks for a word in the place of {missing}: replace(data, template=...)")
            ids = template_ids(self.template, tokenizer, row)
        else:
            separator = "" if seq2seq or self.kind == "prefer" else self.separator
            ids = tokenizer(row["source"] + separator)["input_ids"]
            if not seq2seq and ids[-1:] == [end_of(tokenizer)]:
                ids = ids[:-1]  # the end of the text is yet to come
            if not seq2seq and not self.start_token and ids[:1] == [tokenizer.bos_token_id]:
                ids = ids[1:]
        most = tokenizer.model_max_length
        follows = self.kind in ("generate", "prefer") or tokenizer.mask_token is None  # an answer
        if not 0 < len(ids) <= most - follows:
            what, text = ("source", row["source"]) if "source" in row else ("text", str(row))
            long = f"a {what} of {len(ids)} tokens; the model reads {most} in all"
            raise ValueError(f"{self.name}: {long}. Shorten it: {text[:60]}...")
        return ids


def end_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that ends a text: BERT's is called a separator."""
    return tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id


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


def is_seq2seq(data: Format, tokenizer: PreTrainedTokenizerBase, model: nn.Module | None = None) -> bool:
    """Whether an encoder-decoder is asked for words. A tokenizer without its model must have the mark of `backbone`."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(f"tokenizer is a {type(tokenizer).__name__}, but must be the one that backbone(...) gives")
    for token in ("pad_token", "eos_token")[: 1 + (data.kind in ("generate", "chat"))]:
        if getattr(tokenizer, token) is None:
            raise ValueError(f"{data.name} needs a tokenizer with {token}, and this one has none")
    if data.kind == "prefer" and end_of(tokenizer) is None:
        raise ValueError(f"{data.name} needs a tokenizer with eos_token or sep_token, and this one has neither")
    if data.kind in ("classify", "tag", "unlabelled"):
        return False
    if model is None and not hasattr(tokenizer, "encoder_decoder"):
        mend = "take it from backbone(...), or set tokenizer.encoder_decoder = model.config.is_encoder_decoder"
        raise ValueError(f"the tokenizer does not say whether its model is an encoder-decoder: {mend}")
    both = tokenizer.encoder_decoder if model is None else model.config.is_encoder_decoder
    if both and data.kind == "chat":
        raise ValueError(f"{data.name} is a conversation, which a decoder goes on with; this is an encoder-decoder")
    return both


class Batches:
    """Padded tensors (b, t): input_ids, attention_mask, labels ((b,) to classify), and token_type_ids of two texts. Of
    preferences they are (b, 2, t): the chosen answer, then the rejected one."""

    def __init__(self, examples: list[dict], pad: int, size: int, seed: int, steps: int | None):
        whole_number("size", size)
        whole_number("seed", seed, at_least=0)
        whole_number("steps", 1 if steps is None else steps)
        whole_number("the number of rows", len(examples))  # without any, no pass would end
        self.examples, self.pad, self.size, self.seed, self.steps = examples, pad, size, seed, steps

    def __len__(self) -> int:
        return self.steps or -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        draw, places = random.Random(self.seed), range(len(self.examples))
        passes = (draw.sample(places, len(places)) for _ in count())  # without end, each newly shuffled
        order = islice(chain.from_iterable(passes), None if self.steps else len(places))
        for _ in range(len(self)):
            yield padded([self.examples[i] for i in islice(order, self.size)], self.pad)


def padded(examples: Sequence[dict], pad: int, side: str = "right") -> dict[str, Tensor]:
    """The lists of all examples as rectangles (b, t); what is one number an example as (b,)."""
    filler = {"input_ids": pad, "labels": IGNORE}
    if examples and isinstance(examples[0]["input_ids"][0], list):
        sides = [{key: both[i] for key, both in each.items()} for each in examples for i in (0, 1)]
        return {key: rows.unflatten(0, (-1, 2)) for key, rows in padded(sides, pad, side).items()}
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
