"""Lesson 02, the open task: the smallest adapters that still do reviews."""

from dataclasses import replace

from peft_edu import Adapter
from peft_edu.lab.exercises.check import exercise
from peft_edu.lab.exercises.smallest import Limits
from peft_edu.lab.study.run import recipe

LIMITS = Limits(most=1600, at_least=0.9, steps=150)


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
    norms = ", 2,304 of them in LayerNorms" if getattr(getattr(chosen, "method", None), "norms", False) else ""
    LIMITS.expect("reviews", chosen, "Adapter", told=norms)
