"""Lesson 08: what is worth choosing among, and what a budget buys."""

from peft_edu.lab.exercises.check import Misconception, exercise, expect_number

POINTS = {"full": (1000, 95.0), "top": (400, 93.0), "A": (40, 95.0), "B": (20, 96.0), "C": (20, 90.0), "D": (5, 80.0)}


def pareto(points):
    def beats(one, other):
        (size, score), (other_size, other_score) = one, other
        return size <= other_size and score >= other_score and one != other

    return {name for name, point in points.items() if not any(beats(each, point) for each in points.values())}


@exercise(
    "choosing.pareto",
    reference=pareto,
    hints=(
        "Go through all pairs: who is beaten by anyone?",
        "One beats another if it is no larger, scores no less, and is not the same in both.",
        "Section 4 has it for two dictionaries; there no two methods are the same in both.",
    ),
)
def _pareto(f) -> None:
    """f(points) -> the set of names that no other beats: points has for each name its size and its score.

    One beats another if it is no larger, scores no less, and is better in one of the two.
    """
    result = f(dict(POINTS))
    if not isinstance(result, (set, frozenset, list, tuple)):
        raise Misconception(f"expected a set of names, got {type(result).__name__}")
    found = frozenset(result)
    wrong = {
        frozenset({"B"}): "only the best score is kept: D is smaller than all others, and nothing beats it",
        frozenset({"D"}): "only the smallest is kept: B scores more, and nothing beats it",
        frozenset(POINTS): "nothing is left out: A is larger than B and scores less",
        frozenset({"full", "top", "A", "C"}): "these are the ones that are beaten: the others are asked for",
        frozenset({"B", "C", "D"}): "C is as large as B and scores less: B beats it, though it is not smaller",
    }
    if found != {"B", "D"}:
        raise Misconception(wrong.get(found, f"expected B and D, got {', '.join(sorted(map(str, found)))}"))
    if set(f({"x": (1, 2.0), "y": (1, 2.0)})) != {"x", "y"}:
        raise Misconception("two that are the same in both do not beat each other: both stay")


def largest_rank(width, blocks, budget):
    return budget // (2 * blocks * 2 * width)


@exercise(
    "choosing.rank",
    reference=largest_rank,
    hints=(
        "A map from `width` to `width` with rank r gets r (width + width) parameters.",
        "Two maps a block, and so many blocks.",
        "Part of a rank cannot be bought: divide with `//`.",
    ),
)
def _rank(f) -> None:
    """f(width, blocks, budget) -> the largest rank of LoRA beside query and value (width x width) within the budget"""
    wrong = {
        9: "that is over the budget: round down",
        17: "half is counted: a block has two maps, and beside each stand A and B",
        34: "a quarter is counted: a block has two maps, and beside each stand A and B",
        52: "the blocks are left out: each has its own A and B",
    }
    result = f(96, 6, 20_000)
    if isinstance(result, float) and not result.is_integer():
        raise Misconception(f"{result:.2f} is no rank: round down to a whole number")
    expect_number(result, 8, wrong)
