"""Lesson 12, the open task: a judge of one's own, and a model that writes for this judge."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from textwrap import fill

import torch

from peft_edu import LoRA, fit, seed
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.study.preferences import LR, STEPS, beginnings, shuffled, supervised
from peft_edu.lab.tasks.task import task
from peft_edu.preferences import DPO, log_ratio, paired, sample

AT_LEAST = 0.6
EXAMPLES = ("The soup was good.", "The soup was not good, and we left early. Never again.")


def my_judge(text):
    return text.count(".")


@exercise(
    "preferences.own",
    reference=my_judge,
    hints=(
        "Any rule that a program can check: short sentences, no negation, a word of yours, many different words.",
        "A judge who gives most texts the same number has nothing to choose: half of the pairs or more need a winner.",
        "The model learns only what it sometimes does by itself: what no sample has, no pair can prefer.",
    ),
)
def _own(f) -> None:
    """my_judge(text) -> a number, higher for a text that you like better; a model that DPO trains on its choices wins
    at least 60% against the supervised model, a tie counting half, by this judge"""
    for text in EXAMPLES:
        _number(f, text)
    rows = task("happy").rows("train")  # before anything is trained
    stored = [[_number(f, f"{row['prompt']} {row[side]}") for side in ("chosen", "rejected")] for row in rows]
    _expect_preferences(sum(chosen != rejected for chosen, rejected in stored), len(stored))
    start, tokenizer, texts, samples, before = _start()
    batch = paired(samples, [_number(f, text) for text in texts])
    count = len(batch["labels"])
    _expect_preferences(count, len(texts) // 2)
    model, test = deepcopy(start), beginnings(tokenizer, "test")
    seed(0)
    batches = shuffled(batch)
    LoRA(8, 16).attach(model)
    fit(model, batches, STEPS, LR, objective=DPO(0.3))
    after = _written(model, tokenizer, test)
    verdicts = [[_number(f, text) for text in written[0]] for written in (before, after)]
    won = sum((new > old) + (new == old) / 2 for old, new in zip(*verdicts, strict=True)) / len(verdicts[0])
    with torch.no_grad():
        apart = log_ratio(model, after[1]).mean().item()
    print(f"{count} pairs. Win rate by your judge {won:.0%}, KL {apart:.1f} nats a text.")
    for old, new in list(zip(before[0], after[0], strict=True))[:48:16]:
        for name, text in (("before", old), ("after", new)):
            print(fill(f"{name}: {text}", 96, initial_indent="  ", subsequent_indent="    "))
    if won < AT_LEAST:
        raise Misconception(
            f"by your judge the trained model wins {won:.0%}, and {AT_LEAST:.0%} are asked for. Does the model "
            "write what you like often enough to learn it? Look at the texts above"
        )


@cache
def _start() -> tuple:
    """What each try begins with: the supervised model, what it writes to learn from, and what it writes before."""
    model, tokenizer = supervised()
    texts, samples = sample(model, tokenizer, beginnings(tokenizer, "train"), each=32)
    return model, tokenizer, texts, samples, _written(model, tokenizer, beginnings(tokenizer, "test"))


def _expect_preferences(count: int, possible: int) -> None:
    if count < possible / 4:
        raise Misconception(
            f"your judge prefers one of two texts in {count} of {possible} pairs: in the others both get the same "
            "number, and nothing is learned from them. Let it tell more texts apart"
        )


def _number(f: Callable, text: str) -> float:
    given = f(text)
    if isinstance(given, torch.Tensor) and given.numel() == 1:
        given = given.item()
    if isinstance(given, str) or not isinstance(given, (int, float)) or given != given:
        raise Misconception(f"a judge gives a number, and of {text!r} yours gives {given!r:.60}")
    return float(given)


def _written(model, tokenizer, prompts):
    torch.manual_seed(1000)  # before and after draw by the same random numbers
    return sample(model, tokenizer, prompts, each=16)
