"""Lesson 07, the open task: the smallest LoRA that still does reviews."""

from dataclasses import replace

from peft_edu import LoRA
from peft_edu.lab.exercises.check import exercise
from peft_edu.lab.exercises.smallest import Limits
from peft_edu.lab.study.run import recipe

LIMITS = Limits(most=1200, at_least=0.9, steps=300)


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
    LIMITS.expect("reviews", f(), "LoRA")
