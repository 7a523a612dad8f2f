"""Train by the recipe of a row."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu import fit
from peft_edu import seed as set_seed
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Recipe, Setting
from peft_edu.lab.study.rows import RECIPES, SETTINGS
from peft_edu.lab.tasks.task import Task, task
from peft_edu.method import Method


@dataclass
class Run:
    """A model that was trained by a recipe, and what came of it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    method: Method
    data: Task
    history: pd.DataFrame

    def score(self, split: str = "test") -> float:
        """The task's metric on a split, between 0 and 1."""
        return self.data.evaluate(self.model, self.tokenizer, split)[self.data.metric]


def setting(study: str, row: Recipe) -> Setting:
    if row.setting:
        return row.setting
    if study not in SETTINGS:
        raise ValueError(f"no study {study!r}; known are {', '.join(SETTINGS)}: see peft_edu/lab/study/rows.py")
    return SETTINGS[study]


def recipe(study: str, row: str) -> Recipe:
    if study not in RECIPES or row not in RECIPES[study]:
        known = ", ".join(RECIPES.get(study, RECIPES))
        raise ValueError(f"no recipe for {row!r} on {study!r}; known are {known}: see peft_edu/lab/study/rows.py")
    return RECIPES[study][row]


def rows_of(shared: Setting, chosen: Recipe, seed: int) -> Task:
    """The task of a row, in the form that its method learns from. A method without a template of its own asks with the
    last of those that were written by hand, which says plainly what is asked."""
    data = replace(task(shared.task), start_token=chosen.start_token)
    by_hand = data.templates.get(chosen.relation, [data.template])[-1]
    template = getattr(chosen.method, "template", by_hand)
    if shared.as_text:
        data = data.as_text()
    elif template and shared.answers:
        data = data.as_fill(shared.answers)
    if chosen.relation:
        data = data.where(relation=chosen.relation).resplit(seed, by="subject")
    return replace(data, template=template)


def finetune(study: str, chosen: Recipe, seed: int = 0, on_step: Callable | None = None) -> Run:
    """Train by a recipe. The seed draws the new head, what the method adds, and the order of the rows."""
    shared = setting(study, chosen)
    data = rows_of(shared, chosen, seed)
    head = {"head": data.kind, "labels": data.labels} if data.labels else {}
    model, tokenizer = backbone(chosen.backbone or shared.backbone, pretrained=chosen.pretrained, seed=seed, **head)
    set_seed(seed)
    words = {"init": chosen.words, "tokenizer": tokenizer} if chosen.words else {}
    method = replace(chosen.method, **words)  # a method is attached once, a recipe is used often
    method.attach(model)
    batches = data.batches(tokenizer, "train", shared.batch, seed, chosen.limit, chosen.steps)
    history = fit(model, batches, steps=chosen.steps, lr=chosen.lr, head_lr=chosen.head_lr, on_step=on_step)
    return Run(model, tokenizer, method, data, history)
