"""Tasks by name: bundled ones and files of yours. A task gives batches to train on and measures a model.

`classify`: a text (or two) and one of several labels. `tag`: words, and a tag for each. `fill`: an answer in the gap of
a template whose fields are the row's. `generate`: a source text and a target text to write.
"""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import fill, shorten

import torch

from peft_edu.anatomy import evaluating
from peft_edu.lab.paths import bundled, data_path
from peft_edu.lab.tasks.encode import IGNORE, Batches, answer_id, by_length, encoder, padded, prompt, seq2seq
from peft_edu.lab.tasks.files import read_splits
from peft_edu.lab.tasks.metrics import mean, score_tags, score_texts
from peft_edu.method import Method

METRICS = {"classify": "accuracy", "tag": "f1", "fill": "accuracy"}
TOLD = ("name", "description", "baselines", "separator", "template", "templates")  # what task.json may say


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
    if kind in ("classify", "tag"):
        column = {"classify": "label", "tag": "tags"}[kind]
        numbers = {str(i): i for i in range(len(labels))}  # where task.json names the labels, rows hold the index
        if not labels or kind == "tag":  # but a tag is its name
            labels = labels or _label_names(splits, place, column)
            numbers = {label: i for i, label in enumerate(labels)}
        splits = {split: _numbered(rows, column, numbers, f"{place}, {split}") for split, rows in splits.items()}
    told = {key: known[key] for key in TOLD if key in known}
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
    template: str = ""  # where a row's fields and the gap stand, to fill; see peft_edu.template_ids
    templates: dict[str, list[str]] = field(default_factory=dict)  # others that were written by hand, by relation

    @property
    def metric(self) -> str:
        """The key of `evaluate` that this task is judged by."""
        return METRICS.get(self.kind) or ("slots" if "slots" in self.splits["train"][0] else "exact")

    @property
    def candidates(self) -> list[str]:
        """The answers that a gap may have: all that some row has."""
        return sorted({row["answer"] for rows in self.splits.values() for row in rows})

    @property
    def head(self) -> dict:
        """What this task needs of a model: `backbone("tiny-bert", **data.head)`."""
        return {"head": self.kind, "labels": self.labels} if self.labels else {}

    def asked_by(self, method: Method) -> "Task":
        """This task with the method's own template, where it has one."""
        template = getattr(method, "template", None)
        if template is None:
            return self
        if self.kind != "fill":
            raise ValueError(
                f"{type(method).__name__} asks with the template {template!r}, but {self.name} is of the kind "
                f"{self.kind} and has no gap to fill; as_fill(words) makes one of labels: a word for each"
            )
        return replace(self, template=template)

    def where(self, **fields: str) -> "Task":
        """The rows that have these values: `facts.where(relation="birthplace")`."""
        splits = {split: [row for row in rows if fields.items() <= row.items()] for split, rows in self.splits.items()}
        if not any(splits.values()):
            raise ValueError(f"{self.name} has no row with {fields}")
        return replace(self, splits=splits)

    def resplit(self, seed: int, by: str) -> "Task":
        """The same rows in splits of the same sizes, drawn anew; rows that share the field `by` stay together."""
        groups: dict[str, list[dict]] = {}
        for rows in self.splits.values():
            for row in rows:
                groups.setdefault(row[by], []).append(row)
        drawn = iter(random.Random(seed).sample(list(groups.values()), len(groups)))
        splits: dict[str, list[dict]] = {}
        for split, rows in self.splits.items():
            splits[split] = [row for _ in {row[by]: 0 for row in rows} for row in next(drawn)]
        return replace(self, splits=splits)

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

    def as_fill(self, words: Sequence[str]) -> "Task":
        """The same rows, asking for a word in a gap that stands for the label: `words`, one a label, in their order."""
        if self.kind != "classify" or len(words) != len(self.labels):
            raise ValueError(f"{self.name} is of the kind {self.kind} with labels {self.labels}; the words are {words}")
        splits = {
            split: [{**row, "answer": words[row["label"]]} for row in rows] for split, rows in self.splits.items()
        }
        return replace(self, kind="fill", splits=splits, labels=[])

    def batches(
        self, tokenizer, split: str, size: int = 32, seed: int = 0, limit: int | None = None, steps: int | None = None
    ) -> "Batches":
        """Shuffled batches to train on, the same for the same seed, however often they are gone through.

        `limit` keeps the first rows only. Without `steps` it is one pass over the rows; with it, as many full batches
        as steps, pass after pass, each newly shuffled.
        """
        encode = encoder(self, tokenizer)
        return Batches([encode(row) for row in self.rows(split, limit)], tokenizer.pad_token_id, size, seed, steps)

    @torch.no_grad()
    def evaluate(self, model, tokenizer, split: str = "test", limit: int | None = None) -> dict:
        """Shares between 0 and 1. classify, fill: `accuracy`. tag: `f1`, `precision` and `recall` of entities, and the
        F1 of each kind. generate: `exact` matches; `slots`, the share of slot values that stand in the text, over all
        and (`by slot`) one by one."""
        rows = self.rows(split, limit)
        answers = self.answers(model, tokenizer, rows)
        if self.kind == "generate":
            return score_texts(answers, rows)
        if self.kind == "tag":
            return score_tags(answers, [[self.labels[tag] for tag in row["tags"]] for row in rows])
        right = [row["answer"] if self.kind == "fill" else self.labels[row["label"]] for row in rows]
        return {"accuracy": mean([given == wanted for given, wanted in zip(answers, right, strict=True)])}

    @torch.no_grad()
    def answers(self, model, tokenizer, rows: Sequence[dict]) -> list:
        """What the model answers for each row: a label's name, the tags of its words, a candidate, or a text."""
        with evaluating(model):
            if self.kind == "generate":
                return self.generate(model, tokenizer, rows)
            return _choose(self, model, tokenizer, rows)

    @torch.no_grad()
    def generate(self, model, tokenizer, rows: Sequence[dict], size: int = 50) -> list[str]:
        """What the model writes for each row: greedy, in batches padded on the left."""
        limit = max(len(tokenizer(row["target"])["input_ids"]) for row in self.splits["train"]) + 2
        prompts = [prompt(self, tokenizer, row) for row in rows]
        texts = [""] * len(rows)
        for chosen in by_length(prompts, size):
            batch = padded([{"input_ids": prompts[i]} for i in chosen], tokenizer.pad_token_id, left=True)
            width = batch["input_ids"].shape[1]
            room = limit if seq2seq(tokenizer) else min(limit, tokenizer.model_max_length - width)
            out = model.generate(
                **{key: value.to(model.device) for key, value in batch.items()},
                max_new_tokens=room,
                do_sample=False,
                # A row that has ended is filled with its end. With padding, transformers would miss the mask that it
                # drops by itself where no row is padded.
                pad_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            written = out if seq2seq(tokenizer) else out[:, width:]
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
            text = " / ".join(filter(None, [row["text"], row.get("second")]))
            return f"{shorten(text, 90)}  ->  {self.labels[row['label']]}"
        if self.kind == "tag":
            return tagged(row["words"], [self.labels[tag] for tag in row["tags"]])
        if self.kind == "fill":
            return f"{', '.join(value for key, value in row.items() if key != 'answer')}  ->  {row['answer']}"
        return f"{shorten(row['source'], 90)}  ->  {shorten(row['target'], 90)}"


def tagged(words: Sequence[str], tags: Sequence[str]) -> str:
    """A sentence with its tags: 'The soup[PRAISED] was good .'"""
    return " ".join(word if tag == "O" else f"{word}[{tag}]" for word, tag in zip(words, tags, strict=True))


def _choose(data: Task, model, tokenizer, rows) -> list:
    """For each row the likeliest label, or tags, or candidate."""
    encode = encoder(data, tokenizer)
    examples = [encode(row) for row in rows]
    names = data.candidates if data.kind == "fill" else data.labels
    ids = [answer_id(tokenizer, name) for name in names] if data.kind == "fill" else None
    chosen: list = [None] * len(rows)
    for place in by_length([example["input_ids"] for example in examples], 100):
        batch = padded([examples[i] for i in place], tokenizer.pad_token_id)
        batch = {key: value.to(model.device) for key, value in batch.items()}
        asked = batch["labels"] != IGNORE
        if not (data.kind == "fill" and seq2seq(tokenizer)):  # which writes what the labels ask for
            del batch["labels"]
        logits = model(**batch).logits
        if data.kind == "fill":
            if not seq2seq(tokenizer) and tokenizer.mask_token is None:
                logits, asked = logits[:, :-1], asked[:, 1:]  # a decoder says the next word
            logits = logits[asked][:, ids]
        elif logits.dim() != asked.dim() + 1 or logits.shape[-1] != len(names):
            what = {"classify": "the text", "tag": "each token"}[data.kind]
            raise ValueError(
                f"{data.name} needs a model that gives {what} a score for each of its {len(names)} labels; this one "
                f'gives {tuple(logits.shape)}. Build it with backbone(..., head="{data.kind}", labels=...)'
            )
        for i, best, real in zip(place, logits.argmax(-1).cpu(), asked.cpu(), strict=True):
            chosen[i] = [names[each] for each in best[real]] if data.kind == "tag" else names[best]
    return chosen


def _label_names(splits, place, column: str) -> list[str]:
    """The labels of the rows that a model may learn from: of one file all, of a folder those of its train file."""
    seen = splits.values() if place.is_file() else [splits["train"]]
    values = [row[column] for rows in seen for row in rows]
    names = {str(each) for value in values for each in (value if column == "tags" else [value])}
    return sorted(names, key=lambda name: (name != "O", not name.isdigit(), int(name) if name.isdigit() else 0, name))


def _numbered(rows, column: str, numbers: dict[str, int], place: str) -> list[dict]:
    def number(name) -> int:
        if str(name) not in numbers:
            raise ValueError(f"{place}: unknown {column.removesuffix('s')} {name!r}; known are {', '.join(numbers)}")
        return numbers[str(name)]

    return [
        {**row, column: list(map(number, row[column])) if column == "tags" else number(row[column])} for row in rows
    ]
