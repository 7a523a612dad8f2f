"""Lesson 06, the open task: the fewest prompts that still do reviews."""

from dataclasses import replace

from peft_edu import PTuningV2
from peft_edu.lab.exercises.check import exercise
from peft_edu.lab.exercises.smallest import Limits
from peft_edu.lab.study.run import recipe

LIMITS = Limits(most=1600, at_least=0.9, steps=300)


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
    LIMITS.expect("deep", f(), "PTuningV2", "MyPTuningV2")
