"""Open tasks of one kind: the smallest size (a rank, a length, a bottleneck) that gets below a goal, shown by two
losses that the student measured. What no training can get below is known for each size."""

from collections.abc import Sequence

from peft_edu.classroom.task import expect, item, plain_number
from peft_edu.lab.exercises.check import Misconception

ROUNDED = 6e-5  # a loss may be given as the goal is printed, to four decimals


def expect_smallest(answer: object, size: str, right: int) -> None:
    given = plain_number(item(answer, size), size)
    low = f"with this {size} the loss cannot get below the goal: measure it, with steps enough"
    high = "a smaller one reaches the goal, too. Did you give it steps enough, or another start?"
    expect(given, right, {}, low if given < right else high)


def expect_measured(answer: object, size: str, least: Sequence[float], goal: float, slack: float) -> None:
    """`least`: what a loss cannot be below, for size 1, 2, ...; a trained one is within `slack` times that."""
    given, least = item(answer, "losses"), dict(enumerate(least, start=1))
    if not isinstance(given, dict) or not given or not set(given) <= least.keys():
        raise Misconception(f"`losses` is a dict: for each {size}, 1 to {len(least)}, the loss at the end, {{4: 0.01}}")
    losses = {each: plain_number(loss, f"the loss at {size} {each}") for each, loss in given.items()}
    if odd := [each for each, loss in losses.items() if loss != loss]:
        raise Misconception(f"the loss at {size} {odd[0]} is no number: take a smaller learning rate")
    if low := [each for each, loss in losses.items() if loss < 0.98 * least[each] - ROUNDED]:
        raise Misconception(f"at {size} {low[0]} no loss is so small: is it the mean over all numbers of y?")
    reached = min((each for each, loss in losses.items() if loss < goal), default=0)
    if not reached and len(losses) > 1 and max(losses.values()) < 1.01 * min(losses.values()):
        raise Misconception("all have the same loss: what starts alike stays alike")
    if not reached:
        raise Misconception("none of your losses gets below the goal: larger, or more steps?")
    if reached - 1 not in losses:
        raise Misconception(
            f"two measurements decide: the smallest {size} that reaches the goal, and the one below it, which does not"
        )
    if losses[reached - 1] > slack * least[reached - 1]:
        raise Misconception(f"{size} {reached - 1} was not trained to its end: more steps, or another start, do better")
