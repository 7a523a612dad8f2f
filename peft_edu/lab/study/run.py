"""Train by the recipe of a row."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu import fit
from peft_edu import seed as set_seed
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Problem, Recipe, Row
from peft_edu.lab.study.results import best
from peft_edu.lab.study.rows import PROBLEMS, ROWS
from peft_edu.lab.tasks.task import Task, task
from peft_edu.method import Method
from peft_edu.quantization import quantize


@dataclass
class Run:
    """A model that was trained by a recipe, and what came of it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    method: Method
    data: Task
    history: pd.DataFrame
    limit: int | None = None  # the rows that are measured, if not all

    def evaluate(self, split: str = "test") -> dict:
        return self.data.evaluate(self.model, self.tokenizer, split, self.limit)

    def score(self, split: str = "test") -> float:
        """The task's metric on a split, between 0 and 1."""
        return self.evaluate(split)[self.data.metric]


def problem_of(study: str, row: Row) -> Problem:
    if not row.problem and study not in PROBLEMS:
        raise ValueError(f"no study {study!r}; known are {', '.join(PROBLEMS)}: see peft_edu/lab/study/rows.py")
    return row.problem or PROBLEMS[study]


def recipe(study: str, row: str) -> Recipe:
    """How a row is trained, with the steps and the rate that did best on validation.

    >>> recipe("reviews", "full").steps
    75
    """
    rows = ROWS[study] if study in tuple(ROWS) else {}
    if row not in tuple(rows):
        known = ", ".join(rows or ROWS)
        raise ValueError(f"no recipe for {row!r} on {study!r}; known are {known}: see peft_edu/lab/study/rows.py")
    if row not in best(study):
        raise ValueError(f"{row!r} of {study!r} has no stored run yet: `make study` chooses its rate and steps")
    return Recipe(**vars(rows[row]), **best(study)[row])


def nearest(study: str, pattern: str, stored: Iterable[int], wanted: int) -> Recipe:
    """The recipe of a setting between the stored ones: that of the largest which is no larger than it."""
    return recipe(study, pattern.format(max(each for each in stored if each <= wanted)))


def data_of(problem: Problem, row: Row, seed: int) -> Task:
    """The task of a row, in the form that its method learns from. A method without a template of its own asks with the
    last of those that were written by hand, which says plainly what is asked."""
    data = replace(task(problem.task), start_token=row.start_token)
    if problem.answers and hasattr(row.method, "template"):
        data = data.as_fill(problem.answers)
    elif problem.as_text:
        data = data.as_text()
    elif problem.chat:
        data = data.as_chat(*problem.chat)
    if row.relation:
        data = data.where(relation=row.relation).resplit(seed, by="subject")
        data = replace(data, template=data.templates[row.relation][-1])
    return data.asked_by(row.method)


def finetune(study: str, chosen: Recipe, seed: int = 0, on_step: Callable | None = None) -> Run:
    """Train by a recipe. The seed draws the new head, what the method adds, and the order of the rows."""
    if not isinstance(chosen, Recipe):
        raise TypeError(f"chosen is {chosen!r}, but must be a Recipe: recipe({study!r}, row) makes one")
    problem = problem_of(study, chosen)
    data = data_of(problem, chosen, seed)
    name = chosen.backbone or problem.backbone
    model, tokenizer = backbone(name, pretrained=chosen.pretrained, seed=seed, **data.head)
    if chosen.packed:
        quantize(model, chosen.packed)
    set_seed(seed)
    words = {"init": chosen.words, "tokenizer": tokenizer} if chosen.words else {}
    method = replace(chosen.method, **words)  # a method is attached once, a recipe is used often
    method.attach(model)
    batches = data.batches(tokenizer, "train", problem.batch, seed, chosen.limit, chosen.steps)
    history = fit(model, batches, steps=chosen.steps, lr=chosen.lr, head_lr=chosen.head_lr, on_step=on_step)
    return Run(model, tokenizer, method, data, history, problem.measured)
