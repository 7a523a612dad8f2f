"""Lesson 07, the open task: the smallest LoRA that still does reviews."""

from dataclasses import replace

from peft_edu import LoRA, count
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune, recipe

MOST, AT_LEAST, STEPS = 1200, 0.9, 300  # parameters beside the task head, validation accuracy, training steps


def small_lora():
    small = LoRA(rank=1, alpha=2, targets=("value",))
    return replace(recipe("reviews", "LoRA r=1"), method=small, lr=1e-2, steps=150)


@exercise(
    "lora.smallest",
    reference=small_lora,
    hints=(
        "r (in + out) a map: at 128 x 128 rank 1 takes 256 parameters. How many maps can you afford?",
        "Section 11 tells which maps are worth most when there is one kind only.",
        "`replace(recipe(...), method=LoRA(rank=..., alpha=..., targets=(...,)), lr=..., steps=...)`",
    ),
)
def _smallest(f) -> None:
    """small_lora() -> a Recipe for reviews with a LoRA of at most 1,200 parameters that reaches 90% on validation"""
    chosen = f()
    if not isinstance(chosen, Recipe):
        raise Misconception(f"expected a Recipe, got {type(chosen).__name__}: return replace(recipe(...), method=...)")
    if not isinstance(chosen.method, LoRA):
        raise Misconception(f"the method is {chosen.method}: this task is about LoRA(...)")
    if chosen.steps > STEPS:
        raise Misconception(f"{chosen.steps} steps are more than the {STEPS} that are allowed here")
    numbers = count(replace(chosen.method).attach(backbone("tiny-bert", head="classify")[0]))
    own = numbers.trainable - numbers.head
    if own > MOST:
        raise Misconception(f"{own:,} parameters are trained beside the task head, and {MOST:,} are allowed")
    run = finetune("reviews", chosen)
    reached = run.score("validation")
    print(f"{own:,} parameters beside the task head: {reached:.1%} on validation, {run.score():.1%} on test")
    if reached < AT_LEAST:
        raise Misconception(f"{reached:.1%} on validation, and {AT_LEAST:.0%} are asked for")
