"""Lesson 06, the open task: the fewest prompts that still do reviews."""

from dataclasses import replace

from peft_edu import PTuningV2, count
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune, recipe

MOST, AT_LEAST, STEPS = 1600, 0.9, 300  # parameters beside the task head, validation accuracy, training steps


def few_prompts():
    few = PTuningV2(2, layers=(1, 2, 3))
    return replace(recipe("deep", "reviews deep p=4"), method=few, lr=0.1, steps=150)


@exercise(
    "p_tuning_v2.fewest",
    reference=few_prompts,
    hints=(
        "A position in one layer takes 2 x 128 = 256 parameters. How many of them can you afford?",
        "Section 6 tells which layers are worth most. A learning rate of 0.03 or 0.1 was chosen there.",
        "`replace(recipe(...), method=PTuningV2(..., layers=(..., ...)), lr=..., steps=...)`",
    ),
)
def _fewest(f) -> None:
    """few_prompts() -> a Recipe for reviews with deep prompts of at most 1,600 parameters, 90% on validation"""
    chosen = f()
    if not isinstance(chosen, Recipe):
        raise Misconception(f"expected a Recipe, got {type(chosen).__name__}: return replace(recipe(...), method=...)")
    if not isinstance(chosen.method, PTuningV2) and type(chosen.method).__name__ != "MyPTuningV2":
        raise Misconception(f"the method is {chosen.method}: this task is about PTuningV2(...)")
    if chosen.steps > STEPS:
        raise Misconception(f"{chosen.steps} steps are more than the {STEPS} that are allowed here")
    numbers = count(replace(chosen.method).attach(backbone("tiny-bert", head="classify")[0]))
    own = numbers.trainable - numbers.head
    if own > MOST:
        raise Misconception(f"{own:,} parameters are trained beside the task head, and {MOST:,} are allowed")
    run = finetune("deep", chosen)
    reached = run.score("validation")
    print(f"{own:,} parameters beside the task head: {reached:.1%} on validation, {run.score():.1%} on test")
    if reached < AT_LEAST:
        raise Misconception(f"{reached:.1%} on validation, and {AT_LEAST:.0%} are asked for")
