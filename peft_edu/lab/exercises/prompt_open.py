"""Lesson 04, the open task: the shortest prompt that still does restaurants, on the smaller model.

Measured at a learning rate of 0.3 and 400 steps, seed 0, on validation: three virtual tokens from "How was it?" 96.7%,
from "They loved it" 76.0%; two from "How was it?" 77.0%.
"""

from dataclasses import replace

from peft_edu import PromptTuning, count
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune, recipe

RUNG = "w48-seed1"
MOST, AT_LEAST, STEPS = 3 * 48, 0.9, 400  # parameters: three virtual tokens; validation; training steps


def short_prompt():
    return replace(recipe("ladder", "w48-seed1 p=5"), method=PromptTuning(3), words="How was it?", lr=0.3, steps=400)


@exercise(
    "prompt.shortest",
    reference=short_prompt,
    hints=(
        "Section 10: which start was best on the small model?",
        '`words="..."` in replace(...) is what a prompt of the package starts from. What else could you ask?',
        "A short prompt has farther to go: all 400 steps, and a learning rate between 0.1 and 1.",
    ),
)
def _shortest(f) -> None:
    """short_prompt() -> a Recipe for w48-seed1 of the ladder, with at most three virtual tokens, that reaches 90% on
    validation"""
    chosen = f()
    if not isinstance(chosen, Recipe):
        raise Misconception(f"expected a Recipe, got {type(chosen).__name__}: return replace(recipe(...), method=...)")
    if chosen.backbone != f"ladder/{RUNG}":
        raise Misconception(f"this is about {RUNG}, the recipe for {chosen.backbone}: recipe('ladder', '{RUNG} p=5')")
    if chosen.steps > STEPS:
        raise Misconception(f"{chosen.steps} steps are more than the {STEPS} that are allowed here")
    untrained = finetune("ladder", replace(chosen, steps=1, lr=0.0))
    own = count(untrained.model).trainable
    if own > MOST:
        raise Misconception(f"{own} parameters are trained, and {MOST} are allowed: three virtual tokens of 48")
    run = finetune("ladder", chosen)
    reached = run.score("validation")
    print(f"{own} parameters: {reached:.1%} on validation, {run.score():.1%} on test")
    if reached < AT_LEAST:
        raise Misconception(f"{reached:.1%} on validation, and {AT_LEAST:.0%} are asked for")
