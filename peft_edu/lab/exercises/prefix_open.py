"""Lesson 03, the open task: the shortest prefix that still tells the facts."""

from dataclasses import replace

from peft_edu import PrefixTuning
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune, recipe

LONGEST, AT_LEAST, STEPS = 5, 0.8, 300  # virtual tokens, facts told on validation, training steps


def short_prefix():
    return replace(
        recipe("tables", "prefix p=5"), method=PrefixTuning(3, hidden=0), words="In full:", lr=0.3, steps=300
    )


@exercise(
    "prefix.shortest",
    reference=short_prefix,
    hints=(
        "`replace(recipe(...), method=PrefixTuning(length, hidden=0), words=..., lr=..., steps=...)`",
        "A prefix of length 3 starts from the first three tokens of `words`. Which words would come right before a "
        "sentence that is to be written?",
        "A short prefix wants a high learning rate: section 16 shows those that did best.",
    ),
)
def _shortest(f) -> None:
    """short_prefix() -> a Recipe for tables with a PrefixTuning of at most 5 virtual tokens, without an MLP, that tells
    80% of the facts on validation"""
    chosen = f()
    if not isinstance(chosen, Recipe):
        raise Misconception(f"expected a Recipe, got {type(chosen).__name__}: return replace(recipe(...), method=...)")
    if not isinstance(chosen.method, PrefixTuning):
        raise Misconception(f"the method is {chosen.method}: this task is about PrefixTuning(...)")
    if chosen.steps > STEPS:
        raise Misconception(f"{chosen.steps} steps are more than the {STEPS} that are allowed here")
    if chosen.limit is not None or chosen.backbone or not chosen.pretrained:
        raise Misconception("the model and its training rows stay as they are: change method, words, lr and steps")
    if chosen.method.hidden:
        raise Misconception("hidden is not 0: an MLP makes this prefix, and here the free one is asked for")
    if (length := chosen.method.length) > LONGEST:
        raise Misconception(f"the prefix has {length} virtual tokens, and {LONGEST} are allowed")
    run = finetune("tables", chosen)
    reached = run.score("validation")
    tokens = f"{length} virtual token{'s' * (length > 1)}"
    print(f"{tokens}: {reached:.1%} of the facts on validation, {run.score():.1%} on test")
    if reached < AT_LEAST:
        raise Misconception(f"{reached:.1%} on validation, and {AT_LEAST:.0%} are asked for")
