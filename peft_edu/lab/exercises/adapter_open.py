"""Lesson 02, the open task: the smallest adapters that still do reviews."""

from dataclasses import replace

from peft_edu import Adapter, count
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune, recipe

MOST, AT_LEAST, STEPS = 1600, 0.9, 150  # parameters beside the task head, validation accuracy, training steps


def small_adapter():
    small = Adapter(1, placement="pfeiffer", norms=False)
    return replace(recipe("reviews", "adapter m=1"), method=small, lr=1e-2)


@exercise(
    "adapter.smallest",
    reference=small_adapter,
    hints=(
        "Nine LayerNorms are 2,304 parameters, more than you may train: `norms=False` freezes them.",
        "2 m d + m + d: at d = 128 and m = 1 an adapter takes 385 parameters. How many can you afford, and where?",
        '`replace(recipe(...), method=Adapter(1, placement="pfeiffer", norms=False, blocks=(...)), lr=..., steps=...)`',
    ),
)
def _smallest(f) -> None:
    """small_adapter() -> a Recipe for reviews with an Adapter of at most 1,600 parameters beside the task head that
    reaches 90% on validation"""
    chosen = f()
    if not isinstance(chosen, Recipe):
        raise Misconception(f"expected a Recipe, got {type(chosen).__name__}: return replace(recipe(...), method=...)")
    if not isinstance(chosen.method, Adapter):
        raise Misconception(f"the method is {chosen.method}: this task is about Adapter(...)")
    if chosen.steps > STEPS:
        raise Misconception(f"{chosen.steps} steps are more than the {STEPS} that are allowed here")
    numbers = count(replace(chosen.method).attach(backbone("tiny-bert", head="classify")[0]))
    own = numbers.trainable - numbers.head
    if own > MOST:
        norms = ", 2,304 of them in LayerNorms" if chosen.method.norms else ""
        raise Misconception(f"{own:,} parameters are trained beside the task head{norms}, and {MOST:,} are allowed")
    run = finetune("reviews", chosen)
    reached = run.score("validation")
    print(f"{own:,} parameters beside the task head: {reached:.1%} on validation, {run.score():.1%} on test")
    if reached < AT_LEAST:
        raise Misconception(f"{reached:.1%} on validation, and {AT_LEAST:.0%} are asked for")
