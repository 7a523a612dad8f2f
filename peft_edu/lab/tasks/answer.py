"""What a model answers: the likeliest label, tags or candidate, or a text that it writes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from peft_edu.anatomy import evaluating
from peft_edu.checks import whole_number
from peft_edu.lab.tasks.chat import conversation
from peft_edu.lab.tasks.encode import IGNORE, Format, answer_id, by_length, padded, word_starts


def choose(data: Format, model, tokenizer, rows: Sequence[dict], names: Sequence[str], seq2seq: bool) -> list:
    """For each row the likeliest of the names: a label, a tag for each word, or what fills the gap."""
    fill = data.kind == "fill"
    examples = [data.example(row, tokenizer, seq2seq) for row in rows]
    ids = [answer_id(tokenizer, name) for name in names] if fill else range(len(names))
    chosen: list = [None] * len(rows)
    for place in by_length([example["input_ids"] for example in examples], 100):
        batch = _batch([examples[i] for i in place], model, tokenizer)
        asked = batch["labels"] != IGNORE
        if not seq2seq:  # which writes what the labels ask for
            del batch["labels"]
        logits = model(**batch).logits
        width = logits.shape[-1] if logits.dim() == asked.dim() + 1 else 0
        if not (width > max(ids) if fill else width == len(names)):
            what = {"classify": "the text", "tag": "each token", "fill": "the gap"}[data.kind]
            mend = "without a head" if fill else f'with head="{data.kind}", labels=data.labels'
            needed = f"{data.name} needs a model that gives {what} a score for each of its {len(names)} labels"
            raise ValueError(f"{needed}; this one gives {tuple(logits.shape)}. Build it by backbone(...) {mend}")
        if fill and not seq2seq and tokenizer.mask_token is None:
            logits, asked = logits[:, :-1], asked[:, 1:]  # a decoder says the next word
        best = (logits[asked][:, ids] if fill else logits).argmax(-1).tolist()  # (b,) or, to tag, (b, t)
        for i, each in zip(place, best, strict=True):
            chosen[i] = _word_tags(each, rows[i]["words"], tokenizer, names) if data.kind == "tag" else names[each]
    return chosen


def _word_tags(best: list[int], words: Sequence[str], tokenizer, names: Sequence[str]) -> list[str]:
    """A word has the tag of its first token. One that leaves no token, or that the model no longer reads, has none."""
    tags = ["O"] * len(words)
    for word, number in zip(word_starts(words, tokenizer)[1], best, strict=False):  # `best` may be padded
        if word is not None:
            tags[word] = names[number]
    return tags


def write(data: Format, model, tokenizer, rows: Sequence[dict], most: int, size: int, seq2seq: bool) -> list[str]:
    """The texts that the model writes, greedily and of `most` tokens at most, in batches padded on the left."""
    if not hasattr(model, "generate"):
        raise ValueError(f"{data.name} asks for texts, and {type(model).__name__} writes none: take a GPT-2 or a T5")
    prompts = [data.prompt(row, tokenizer, seq2seq) for row in rows]
    texts = [""] * len(rows)
    for chosen in by_length(prompts, size):
        batch = _batch([{"input_ids": prompts[i]} for i in chosen], model, tokenizer, side="left")
        width = batch["input_ids"].shape[1]
        out = model.generate(
            **batch,
            max_new_tokens=most if seq2seq else min(most, tokenizer.model_max_length - width),
            do_sample=False,
            # A row that has ended is filled with its end. With padding, transformers would miss the mask that it
            # drops by itself where no row is padded.
            pad_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        written = out if seq2seq else out[:, width:]
        for i, text in zip(chosen, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            texts[i] = text.strip()
    return texts


@torch.no_grad()
def reply(model, tokenizer, text: str, tokens: int = 60) -> str:
    """What a model that was tuned on conversations says to a text: greedily, of so many tokens at most."""
    whole_number("tokens", tokens)
    row = conversation({"prompt": text, "completion": "-"}, "the text")  # the answer is what is asked for
    with evaluating(model):
        return write(Format("the text", "chat"), model, tokenizer, [row], tokens, 1, seq2seq=False)[0]


def _batch(examples: Sequence[dict], model, tokenizer, side: str = "right") -> dict[str, Tensor]:
    batch = padded(examples, tokenizer.pad_token_id, side)
    known = getattr(getattr(model, "config", None), "vocab_size", math.inf)
    if (largest := batch["input_ids"].max()) >= known:
        raise ValueError(f"the text has the token {largest}, the model knows {known}: take both from one backbone(...)")
    return {key: value.to(model.device) for key, value in batch.items()}
