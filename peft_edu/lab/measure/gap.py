"""What a model makes of a template's gap, for many people at once. Which answer that is, is left to whoever asks."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from peft_edu.anatomy import evaluating
from peft_edu.lab.tasks.encode import answer_id, padded
from peft_edu.lab.tasks.task import Task


@dataclass(frozen=True)
class Asked:
    logits: Tensor  # (b, t, v): at all places of the texts
    ids: Tensor  # (b, t)
    candidates: list[int]  # token ids
    right: list[int]  # a token id a text

    def per_cent(self, answers: Iterable[int]) -> float:
        """How many of these answers, token ids in the order of the texts, are right."""
        given = [int(each) for each in answers]
        return 100 * sum(one == other for one, other in zip(given, self.right, strict=True)) / len(self.right)


@torch.no_grad()
def ask_people(data: Task, model, tokenizer, split: str | None = None) -> Asked:
    """Ask a masked model with the template of a task; without a split, about every row."""
    rows = data.rows(split) if split else [row for rows in data.splits.values() for row in rows]
    batch = padded([data.example(row, tokenizer, seq2seq=False) for row in rows], tokenizer.pad_token_id)
    with evaluating(model):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    known = [[answer_id(tokenizer, name) for name in names] for names in (data.candidates, [r["answer"] for r in rows])]
    return Asked(logits, batch["input_ids"], *known)
