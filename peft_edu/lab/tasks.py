"""Tasks by name: bundled ones and files of yours. A task gives batches to train on and measures a model.

`classify`: a text and one of several labels. `generate`: a source text and a target text to write.
"""

import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from textwrap import fill, shorten

import torch
from torch import Tensor

from peft_edu.anatomy import evaluating
from peft_edu.lab.paths import bundled, data_path
from peft_edu.lab.task_files import read_splits

IGNORE = -100  # PyTorch's cross entropy leaves these positions out


def task(name: str | os.PathLike) -> "Task":
    """A bundled task by name, or your own from a .jsonl, .csv or .tsv file, or from a folder with one file a split."""
    names = bundled("tasks", "task.json")
    place = data_path("tasks", name) if name in names else Path(name).expanduser()
    if not place.exists():
        raise ValueError(
            f"no task {str(name)!r}. Bundled: {', '.join(names) or 'none yet'}. "
            f"There is no such file or folder either, seen from {Path.cwd()}"
        )
    kind, splits = read_splits(place)
    about = place / "task.json"
    known = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {"name": place.stem}
    labels = known.get("labels", [])
    if kind == "classify":
        numbers = {str(i): i for i in range(len(labels))}  # where task.json names the labels, rows hold the index
        if not labels:
            labels = _label_names(splits, place)
            numbers = {label: i for i, label in enumerate(labels)}
        splits = {split: _number_labels(rows, numbers, f"{place}, {split}") for split, rows in splits.items()}
    told = {key: known[key] for key in ("name", "description", "baselines", "separator") if key in known}
    return Task(kind=kind, splits=splits, labels=labels, **told)


@dataclass(repr=False)
class Task:
    name: str
    kind: str
    splits: dict[str, list[dict]]
    labels: list[str] = field(default_factory=list)
    description: str = ""
    baselines: dict[str, float] = field(default_factory=dict)
    separator: str = " :"  # stands between source and target for a model that only continues text
    start_token: bool = True  # whether such a model reads its start token first, if its tokenizer writes one

    @property
    def metric(self) -> str:
        """The key of `evaluate` that this task is judged by."""
        if self.kind == "classify":
            return "accuracy"
        return "slots" if "slots" in self.splits["train"][0] else "exact"

    def rows(self, split: str, limit: int | None = None) -> list[dict]:
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.splits[split][:limit]

    def as_text(self) -> "Task":
        """The same rows as text to text, as T5 has them (Raffel et al. 2020): the model writes the label's name.

        What is no label's name is a wrong answer. `exact`, the share of right texts, is then the accuracy.
        """
        if self.kind != "classify":
            raise ValueError(f"{self.name} is text to text already: its rows have a source and a target")
        splits = {
            split: [{"source": row["text"], "target": self.labels[row["label"]]} for row in rows]
            for split, rows in self.splits.items()
        }
        return replace(self, kind="generate", splits=splits, labels=[])

    def batches(
        self, tokenizer, split: str, size: int = 32, seed: int = 0, limit: int | None = None, steps: int | None = None
    ) -> "Batches":
        """Shuffled batches to train on, the same for the same seed, however often they are gone through.

        `limit` keeps the first rows only. Without `steps` it is one pass over the rows; with it, as many full batches
        as steps, pass after pass, each newly shuffled.
        """
        encode = _encoder(self, tokenizer)
        return Batches([encode(row) for row in self.rows(split, limit)], tokenizer.pad_token_id, size, seed, steps)

    @torch.no_grad()
    def evaluate(self, model, tokenizer, split: str = "test", limit: int | None = None) -> dict:
        """Shares between 0 and 1. classify: `accuracy`. generate: `exact` matches; `slots`, the share of slot values
        that stand in the text, over all and (`by slot`) one by one."""
        rows = self.rows(split, limit)
        with evaluating(model):
            if self.kind == "classify":
                return {"accuracy": _mean(_right_labels(self, model, tokenizer, rows))}
            return score_texts(self.generate(model, tokenizer, rows), rows)

    @torch.no_grad()
    def generate(self, model, tokenizer, rows: Sequence[dict], size: int = 50) -> list[str]:
        """What the model writes for each row: greedy, in batches padded on the left."""
        limit = max(len(tokenizer(row["target"])["input_ids"]) for row in self.splits["train"]) + 2
        prompts = [_prompt(self, tokenizer, row) for row in rows]
        texts = [""] * len(rows)
        for chosen in _by_length(prompts, size):
            batch = _pad([{"input_ids": prompts[i]} for i in chosen], tokenizer.pad_token_id, left=True)
            width = batch["input_ids"].shape[1]
            room = limit if _seq2seq(tokenizer) else min(limit, tokenizer.model_max_length - width)
            out = model.generate(
                **{key: value.to(model.device) for key, value in batch.items()},
                max_new_tokens=room,
                do_sample=False,
                # A row that has ended is filled with its end. With padding, transformers would miss the mask that it
                # drops by itself where no row is padded.
                pad_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            written = out if _seq2seq(tokenizer) else out[:, width:]
            for i, text in zip(chosen, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
                texts[i] = text.strip()
        return texts

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in self.splits.items())
        about = fill(f"{self.name}: {self.description}", 100) if self.description else self.name
        lines = [about, f"{self.kind}: {sizes} rows"]
        if self.labels:
            lines.append(f"labels: {', '.join(self.labels)}")
        known = "".join(f"; {name} {value:.3f}" for name, value in self.baselines.items())
        lines.append(f"metric: {self.metric}{known}")
        return "\n".join(lines + ["for example"] + [f"  {self._shown(row)}" for row in self.splits["train"][:3]])

    def _shown(self, row) -> str:
        if self.kind == "classify":
            return f"{shorten(row['text'], 90)}  ->  {self.labels[row['label']]}"
        return f"{shorten(row['source'], 90)}  ->  {shorten(row['target'], 90)}"


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
            yield _pad([self.examples[i] for i in islice(order, self.size)], self.pad)

    def _passes(self) -> Iterator[int]:
        draw = random.Random(self.seed)
        while True:
            yield from draw.sample(range(len(self.examples)), len(self.examples))


def score_texts(texts: Sequence[str], rows: Sequence[dict]) -> dict:
    """How the texts that a model wrote compare with the targets and, where rows have them, with their slots."""
    scores = {"exact": _mean([_words(text) == _words(row["target"]) for text, row in zip(texts, rows, strict=True)])}
    said: dict[str, list[bool]] = {}
    for text, row in zip(texts, rows, strict=True):
        for slot, value in row.get("slots", {}).items():
            said.setdefault(slot, []).append(says(text, value))
    if said:
        scores["slots"] = _mean([hit for hits in said.values() for hit in hits])
        scores["by slot"] = {slot: _mean(hits) for slot, hits in said.items()}
    return scores


def says(text: str, value: str) -> bool:
    """Does the value stand in the text as whole words, in any case?"""
    return re.search(rf"(?<!\w){re.escape(_words(value))}(?!\w)", _words(text), re.IGNORECASE) is not None


def _encoder(data: Task, tokenizer):
    """The function from a row to its token ids and labels."""
    room = tokenizer.model_max_length

    def classify(row):
        return {"input_ids": tokenizer(row["text"], truncation=True)["input_ids"], "labels": row["label"]}

    def translate(row):
        return {"input_ids": _prompt(data, tokenizer, row), "labels": _target(tokenizer, row["target"])}

    def continue_(row):
        prompt, target = _prompt(data, tokenizer, row), _target(tokenizer, " " + row["target"])
        # The model learns to write the target, not to repeat the source.
        return {"input_ids": (prompt + target)[:room], "labels": ([IGNORE] * len(prompt) + target)[:room]}

    if data.kind == "classify":
        return classify
    return translate if _seq2seq(tokenizer) else continue_


def _prompt(data: Task, tokenizer, row) -> list[int]:
    seq2seq = _seq2seq(tokenizer)
    ids = tokenizer(row["source"] if seq2seq else row["source"] + data.separator)["input_ids"]
    if not seq2seq and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]  # the end of the text is yet to come
    if not seq2seq and not data.start_token and ids[0] == tokenizer.bos_token_id:
        ids = ids[1:]
    if len(ids) >= tokenizer.model_max_length:
        raise ValueError(
            f"{data.name}: a source of {len(ids)} tokens; the model reads {tokenizer.model_max_length} "
            f"in all. Shorten it: {row['source'][:60]}..."
        )
    return ids


def _seq2seq(tokenizer) -> bool:
    return getattr(tokenizer, "encoder_decoder", False)  # set by `backbone`


def _target(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]


def _pad(examples: Sequence[dict], pad: int, left: bool = False) -> dict[str, Tensor]:
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


def _right_labels(data: Task, model, tokenizer, rows) -> list[bool]:
    encode = _encoder(data, tokenizer)
    examples = [encode(row) for row in rows]
    right = []
    for chosen in _by_length([example["input_ids"] for example in examples], 100):
        batch = _pad([examples[i] for i in chosen], tokenizer.pad_token_id)
        labels = batch.pop("labels")
        logits = model(**{key: value.to(model.device) for key, value in batch.items()}).logits
        if logits.dim() != 2:
            raise ValueError(
                f"{data.name} needs a model that gives one score a label; this one gives "
                f'{tuple(logits.shape)}. Build it with backbone(..., head="classify")'
            )
        right += (logits.argmax(-1).cpu() == labels).tolist()
    return right


def _by_length(items: Sequence[list], size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length: little padding, and the result does not depend on the order."""
    order = sorted(range(len(items)), key=lambda i: len(items[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _label_names(splits, place) -> list[str]:
    """The labels of the rows that a model may learn from: of one file all, of a folder those of its train file."""
    seen = splits.values() if place.is_file() else [splits["train"]]
    names = {str(row["label"]) for rows in seen for row in rows}
    return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def _number_labels(rows, numbers: dict[str, int], place: str) -> list[dict]:
    for row in rows:
        if str(row["label"]) not in numbers:
            raise ValueError(f"{place}: unknown label {row['label']!r}; known are {', '.join(numbers)}")
    return [{**row, "label": numbers[str(row["label"])]} for row in rows]


def _words(text: str) -> str:
    return " ".join(text.split())


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)
