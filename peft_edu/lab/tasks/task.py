"""Tasks by name: bundled ones and files of yours. A task gives batches to train on and measures a model.

`classify`: a text (or two) and one of several labels. `tag`: words, and a tag for each. `fill`: an answer in the gap of
a template whose fields are the row's. `generate`: a source text and a target text to write. `chat`: a conversation, of
which the answers are learned. `prefer`: a prompt and two answers, of which one was chosen. `unlabelled`: texts alone,
to write rules for (`peft_edu.weak`).
"""

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import fill, shorten

import torch

from peft_edu.anatomy import evaluating
from peft_edu.checks import list_of_texts, whole_number
from peft_edu.lab.paths import bundled, data_path
from peft_edu.lab.tasks.answer import choose, write
from peft_edu.lab.tasks.chat import conversation
from peft_edu.lab.tasks.columns import NEEDS
from peft_edu.lab.tasks.encode import Batches, Format, is_seq2seq, padded
from peft_edu.lab.tasks.files import Read, read_about, read_dataset, read_splits
from peft_edu.lab.tasks.hub_dataset import is_dataset
from peft_edu.lab.tasks.metrics import is_record, mean, score_tags, score_texts
from peft_edu.method import Method, attached
from peft_edu.preferences import log_probability, log_ratio, reward

STEERING = re.compile("[\0-\t\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # what a terminal obeys


def task(name: object, columns: Mapping[str, str] | None = None) -> "Task":
    """A bundled task by name; or your own from a .jsonl, .csv or .tsv file, from a folder with one file a split, or
    from a 🤗 `Dataset` or `DatasetDict`. Columns of other names are guessed and shown; `columns` says which is which.

    >>> task("reviews").labels
    ['negative', 'positive']
    """
    said = dict(columns or {})
    if is_dataset(name):
        return _task(read_dataset(name, said), {"name": getattr(name, "builder_name", None) or "data set"})
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"name is {name!r}, but must be a task's name, the path of a file or folder, or a Dataset")
    names = bundled("tasks", "task.json")
    place = data_path("tasks", name) if name in names else Path(os.path.expanduser(name))
    if not os.path.exists(place):
        known = f"Bundled: {', '.join(names) or 'none yet'}"
        raise ValueError(f"no task {str(name)!r}. {known}. No file or folder is called so, seen from {Path.cwd()}")
    told = {"name": place.stem} | read_about(place / "task.json")
    return _task(read_splits(place, told.pop("labels", []), said), told)


def _task(read: Read, told: dict) -> "Task":
    return Task(kind=read.kind, splits=read.splits, labels=read.labels, columns=read.columns, **told)


@dataclass(repr=False)
class Task(Format):
    splits: dict[str, list[dict]]
    labels: list[str] = field(default_factory=list)
    description: str = ""
    baselines: dict[str, float] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)  # what is called otherwise in the file: our name, its name
    templates: dict[str, list[str]] = field(default_factory=dict)  # others that were written by hand, by relation

    @property
    def metric(self) -> str:
        """The key of `evaluate` that this task is judged by; none without labels."""
        first = self._first_rows()[0]
        if self.kind in ("generate", "chat"):
            records = all(is_record(row["target"]) for rows in self.splits.values() for row in rows)
            return "f1" if records else "slots" if "slots" in first else "exact"
        return {"tag": "f1", "unlabelled": ""}.get(self.kind, "accuracy")

    @property
    def candidates(self) -> list[str]:
        """The answers that a gap may have: all that some row has."""
        self._needs("fill", "a gap has candidates")
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
            asks = f"{type(method).__name__} asks with the template {template!r}, but {self.name} is of the kind"
            raise ValueError(f"{asks} {self.kind} and has no gap to fill: as_fill(words) makes one of labels")
        return replace(self, template=template)

    def where(self, **fields: str) -> "Task":
        """The rows that have these values: `facts.where(relation="birthplace")`."""
        splits = {split: [row for row in rows if fields.items() <= row.items()] for split, rows in self.splits.items()}
        if not any(splits.values()):
            raise ValueError(f"{self.name} has no row with {fields}")
        return replace(self, splits=splits)

    def resplit(self, seed: int, by: str) -> "Task":
        """The same rows in splits of the same sizes, drawn anew; rows that share the field `by` stay together."""
        whole_number("seed", seed, at_least=0)
        groups: dict[str, list[dict]] = {}
        for row in (row for rows in self.splits.values() for row in rows):
            groups.setdefault(str(row.get(by)), []).append(row)
        sizes = {split: len({str(row.get(by)) for row in rows}) for split, rows in self.splits.items()}
        if sum(sizes.values()) > len(groups):
            raise ValueError(f"{self.name}: rows of two splits have the same {by!r} or none: they cannot stay together")
        drawn = iter(random.Random(seed).sample(list(groups.values()), len(groups)))
        splits = {split: [row for _ in range(size) for row in next(drawn)] for split, size in sizes.items()}
        return replace(self, splits=splits)

    def rows(self, split: str, limit: int | None = None) -> list[dict]:
        """The rows of a split, or the first of them."""
        if limit is not None:
            whole_number("limit", limit)
        if not self.splits.get(split):
            known = ", ".join(split for split, rows in self.splits.items() if rows)
            raise ValueError(f"{self.name} has no split {split!r}; it has {known} (without rows it is none)")
        return self.splits[split][:limit]

    def as_text(self) -> "Task":
        """The same rows as text to text, as T5 has them (Raffel et al. 2020): the model writes the label's name.

        What is no label's name is a wrong answer. `exact`, the share of right texts, is then the accuracy.
        """
        self._needs("classify", "only a label's name can be written as a text")
        return self._rewritten("generate", lambda row: {"source": row["text"], "target": self.labels[row["label"]]})

    def as_chat(self, question: Callable[[dict], str], answer: Callable[[dict], str]) -> "Task":
        """The same rows as conversations of one turn, for a model that was tuned on such.

        >>> data = task("summaries").as_chat(lambda row: row["source"], lambda row: row["slots"]["name"])
        >>> data.rows("test")[0]["messages"][1]
        {'role': 'assistant', 'content': 'Alex'}
        """

        if not callable(question) or not callable(answer):
            raise TypeError(f"question is {question!r:.60} and answer {answer!r:.60}: both are functions of a row")

        def asked(row: dict) -> dict:
            return conversation({"prompt": question(row), "completion": answer(row)}, self.name)

        return self._rewritten("chat", asked)

    def as_fill(self, words: Sequence[str]) -> "Task":
        """The same rows, asking for a word in a gap that stands for the label: `words`, one a label, in their order."""
        texts = [word for word in words if isinstance(word, str)] if isinstance(words, (list, tuple)) else []
        if self.kind != "classify" or not len(set(texts)) == len(texts) == len(self.labels):
            of = f"{self.name} is of the kind {self.kind}, with labels {self.labels}"
            raise ValueError(f"{of}; the words are {words!r}, but must be different texts, one for each label")
        return self._rewritten("fill", lambda row: row | {"answer": words[row["label"]]})

    def as_generate(self) -> "Task":
        """Of preferences, the chosen answers alone: to be written, as supervised fine-tuning has them."""
        self._needs("prefer", "only preferences have answers that were chosen")
        return replace(self._rewritten("generate", lambda row: row), separator="")

    def with_train(self, texts: Sequence[str], labels: Sequence[int] | Sequence[Sequence[float]]) -> "Task":
        """The same task with other rows to train on: texts, and for each a class or a probability of every class, as
        rules and models give them. Validation and test stay what they were. Probabilities are learned by
        `fit(..., objective=soft_cross_entropy)`.

        >>> data = task("reviews").with_train(["The soup was good."], [[0.2, 0.8]])
        >>> data.rows("train")
        [{'text': 'The soup was good.', 'label': [0.2, 0.8]}]
        """
        self._needs("classify", "rules vote for classes")
        list_of_texts("texts", texts)
        given = [each.tolist() if hasattr(each, "tolist") else each for each in labels]  # torch's, NumPy's, pandas'
        if not len(texts) == len(given) > 0:
            raise ValueError(
                f"{len(texts)} texts and {len(given)} labels: each text has its own, and there must be some"
            )
        if wrong := [label for label in given if not self._is_label(label)]:
            known = f"a class from 0 to {len(self.labels) - 1}, or {len(self.labels)} probabilities that sum to 1"
            raise ValueError(f"the label {wrong[0]!r:.60} is none of {self.name}: it must be {known}")
        if len({isinstance(label, int) for label in given}) > 1:
            raise ValueError("some labels are classes and others probabilities, but a batch learns from one kind alone")
        rows = [{"text": text, "label": label} for text, label in zip(texts, given, strict=True)]
        return replace(self, splits=self.splits | {"train": rows})

    def _is_label(self, label) -> bool:
        if isinstance(label, (list, tuple)):
            shares = len(label) == len(self.labels) and all(isinstance(each, (int, float)) for each in label)
            return shares and min(label) >= 0 and abs(sum(label) - 1) < 1e-6
        return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(self.labels)

    def _rewritten(self, kind: str, rewrite: Callable[[dict], dict]) -> "Task":
        splits = {split: [rewrite(row) for row in rows] for split, rows in self.splits.items()}
        return replace(self, kind=kind, splits=splits, labels=[])

    def _needs(self, kind: str, reason: str) -> None:
        if self.kind != kind:
            raise ValueError(f"{self.name} is of the kind {self.kind}, but must be of the kind {kind}: {reason}")

    def batches(
        self, tokenizer, split: str, size: int = 32, seed: int = 0, limit: int | None = None, steps: int | None = None
    ) -> Batches:
        """Shuffled batches to train on, the same for the same seed, however often they are gone through.

        `limit` keeps the first rows only. Without `steps` it is one pass over the rows; with it, as many full batches
        as steps, pass after pass, each newly shuffled. A text to classify or tag, and a decoder's target, is cut where
        the model ends.
        """
        seq2seq = is_seq2seq(self, tokenizer)
        examples = [self.example(row, tokenizer, seq2seq) for row in self.rows(split, limit)]
        return Batches(examples, tokenizer.pad_token_id, size, seed, steps)

    @torch.no_grad()
    def evaluate(self, model, tokenizer, split: str = "test", limit: int | None = None) -> dict:
        """Shares between 0 and 1. classify, fill: `accuracy`. prefer: `accuracy`, the share of pairs whose chosen
        answer the model ranks first (see `margins`). tag: `f1`, `precision` and `recall` of entities, and the F1 of
        each kind. generate and chat: `exact` matches; of JSON records the share that is `valid` and the `f1` of
        their fields; `slots`, the share of slot values that stand in the text, over all
        and (`by slot`) one by one."""
        rows = self.rows(split, limit)
        if self.kind == "prefer":
            margins = self.margins(model, tokenizer, rows)
            return {"accuracy": ((margins > 0).double() + (margins == 0) / 2).mean().item()}  # a tie is half a hit
        if self.kind == "unlabelled" or any(isinstance(row.get("label"), (list, tuple)) for row in rows):
            raise ValueError(f"the split {split!r} of {self.name} has no classes to measure by: take one that has")
        answers = self.answers(model, tokenizer, rows)
        if self.kind in ("generate", "chat"):
            return score_texts(answers, rows)
        if self.kind == "tag":
            return score_tags(answers, [[self.labels[tag] for tag in row["tags"]] for row in rows])
        right = [row["answer"] if self.kind == "fill" else self.labels[row["label"]] for row in rows]
        return {"accuracy": mean([given == wanted for given, wanted in zip(answers, right, strict=True)])}

    @torch.no_grad()
    def answers(self, model, tokenizer, rows: Sequence[dict]) -> list:
        """What the model answers for each row: a label's name, the tags of its words, a candidate, or a text."""
        if self.kind in ("generate", "chat"):
            return self.generate(model, tokenizer, rows)
        seq2seq = self._check(model, tokenizer, rows, NEEDS[self.kind])
        names = self.candidates if self.kind == "fill" else self.labels
        with evaluating(model):
            return choose(self, model, tokenizer, rows, names, seq2seq)

    @torch.no_grad()
    def margins(self, model, tokenizer, rows: Sequence[dict]) -> torch.Tensor:
        """By how much the model ranks the chosen answer of each row before the rejected one: by the rewards of a reward
        model; else by log_ratio, or by log p(y|x) alone while no method is attached. In nats, (n,)."""
        self._needs("prefer", "only two answers can be ranked")
        seq2seq, margins = self._check(model, tokenizer, rows, ("chosen", "rejected")), []
        judges = model.get_output_embeddings() is None
        score = reward if judges else log_ratio if attached(model) else log_probability
        for start in range(0, len(rows), 50):
            examples = [self.example(row, tokenizer, seq2seq) for row in rows[start : start + 50]]
            batch = padded(examples, tokenizer.pad_token_id)
            with evaluating(model):
                scores = score(model, {name: each.to(model.device) for name, each in batch.items()})
            margins.append(scores[:, 0] - scores[:, 1])
        return torch.cat(margins)

    @torch.no_grad()
    def generate(self, model, tokenizer, rows: Sequence[dict], size: int = 50) -> list[str]:
        """What the model writes for each row: greedy, in batches padded on the left."""
        whole_number("size", size)
        seq2seq = self._check(model, tokenizer, rows, ("messages",) if self.kind == "chat" else ("source",))
        longest = max(len(tokenizer(row["target"])["input_ids"]) for row in self._first_rows())
        most = (2 if self.kind == "chat" else 1) * longest + 2  # who was tuned to chat says the same in more words
        with evaluating(model):
            return write(self, model, tokenizer, rows, most, size, seq2seq)

    def _check(self, model, tokenizer, rows, needed: Sequence[str]) -> bool:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}, but must be a network such as backbone(...) gives")
        fit = [isinstance(row, dict) and row.keys() >= set(needed) for row in rows or ()]
        if not isinstance(rows, (list, tuple)) or not all(fit):
            raise TypeError(
                f"rows is {rows!r:.60}, but must be a list of dicts with {', '.join(needed)}: see data.rows"
            )
        return is_seq2seq(self, tokenizer, model)

    def _first_rows(self) -> list[dict]:
        """Of the first split that has some: as a rule those to train on."""
        return next(filter(None, self.splits.values()), [{}])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in self.splits.items())
        about = fill(f"{self.name}: {self.description}", 100) if self.description else self.name
        lines = [about, f"{self.kind}: {sizes} rows"]
        if self.columns:
            lines.append("columns: " + ", ".join(f"{ours} is {theirs!r}" for ours, theirs in self.columns.items()))
        if self.labels:
            lines.append(f"labels: {', '.join(self.labels):.1000}")
        known = "".join(f"; {name} {value:.3f}" for name, value in self.baselines.items())
        lines += [f"metric: {self.metric or 'none, without labels'}{known}", "for example"]
        lines += [f"  {self._shown(row)}" for row in self._first_rows()[:3]]
        return STEERING.sub("\N{REPLACEMENT CHARACTER}", "\n".join(lines))

    def _shown(self, row) -> str:
        if self.kind == "tag":
            return tagged(row["words"], [self.labels[tag] for tag in row["tags"]])
        if self.kind == "fill":
            fields = ", ".join(str(value) for key, value in row.items() if key not in ("answer", "label"))
            return f"{fields}  ->  {row['answer']}"
        if self.kind == "prefer":
            prompt, *answers = (shorten(row[name], 60) for name in ("prompt", "chosen", "rejected"))
            return f"{prompt}  ->  {'  rather than  '.join(answers)}"
        if self.kind == "unlabelled":
            return shorten(row["text"], 90)
        if self.kind in ("generate", "chat"):
            return f"{shorten(row['source'], 90)}  ->  {shorten(row['target'], 90)}"
        text = " / ".join(filter(None, [row["text"], row.get("second")]))
        return f"{shorten(text, 90)}  ->  {self.labels[row['label']]}"


def tagged(words: Sequence[str], tags: Sequence[str]) -> str:
    """A sentence with its tags: 'The soup[PRAISED] was good .'"""
    return " ".join(word if tag == "O" else f"{word}[{tag}]" for word, tag in zip(words, tags, strict=True))
