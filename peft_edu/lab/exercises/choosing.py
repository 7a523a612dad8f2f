"""Lesson 08 as functions: what is worth choosing among, what training keeps in memory, which learning rates serve, what
a budget buys, and the rule that chooses."""

from peft_edu.lab.exercises.check import NOTHING, Misconception, exercise, expect_number

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
        "`any(...)` over all points tells whether one is beaten; keep the names for which it is false.",
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
        frozenset(): "nobody is left: is each point compared with itself, too? It does not beat itself",
        frozenset({"B", "C", "D"}): "C is as large as B and scores less: B beats it, though it is not smaller",
    }
    if found != {"B", "D"}:
        names = ", ".join(sorted(map(str, found))) or "no name"
        why = wrong.get(found, f"expected B and D, got {names}")
        raise Misconception(f"{why}. (The check's own points, with size and score, are {POINTS})")
    if set(f({"x": (1, 2.0), "y": (1, 2.0)})) != {"x", "y"}:
        raise Misconception("two that are the same in both do not beat each other: both stay")


def largest_rank(width, blocks, budget):
    return budget // (2 * blocks * 2 * width)


@exercise(
    "choosing.rank",
    reference=largest_rank,
    hints=(
        "A map from `width` to `width` with rank r gets r (width + width) parameters.",
        "Two maps a block, query and value, and so many blocks.",
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
    expect_number(result, 8, wrong, f"for width 96, 6 blocks and a budget of 20,000 it is 8, yours gives {result}")
    if not isinstance(result, int):
        raise Misconception(f"the number is right, but {result!r} is no whole number to Python: divide with // alone")


def training_bytes(total, trainable):
    weights, gradients, moments = total, trainable, 2 * trainable
    return 4 * (weights + gradients + moments)


@exercise(
    "choosing.memory",
    reference=training_bytes,
    hints=(
        "Which of the four things are there for every parameter, and which only for the trained ones?",
        "Every parameter is a weight. A trained one also has a gradient and two moments.",
        "Four bytes for each of these numbers.",
    ),
)
def _memory(f) -> None:
    """f(total, trainable) -> the bytes that training with AdamW keeps for the parameters in float32, 4 bytes a number:
    all weights, and for each trained parameter a gradient and two moments"""
    wrong = {
        16_000: "every parameter gets a gradient and moments: a frozen one has neither",
        4_080: "one number is missing for each trained parameter: its weight, its gradient, or one of its two moments",
        4_040: "the moments are left out: AdamW keeps two for each trained parameter",
        120: "the weights are left out: frozen ones are in memory as well",
        1_030: "these are numbers: in float32 each takes 4 bytes",
        8_240: "these are 8 bytes a number: float32 takes 4",
        2_060: "these are 2 bytes a number: float32 takes 4",
    }
    result = f(1_000, 10)
    expect_number(result, 4_120, wrong, f"for 1,000 parameters, 10 of them trained, it is 4,120, yours gives {result}")
    otherwise = "right for 10 of 1,000 trained parameters, but not for 300 of 500"
    expect_number(f(500, 300), 5_600, {}, otherwise)


def serving(scored, points):
    best = max(scored.values())
    return [rate for rate, score in scored.items() if score >= best - points]


RATES = {0.001: 60.0, 0.003: 90.0, 0.01: 95.0, 0.03: 91.0, 0.1: 50.0}


@exercise(
    "choosing.serving",
    reference=serving,
    hints=(
        "Find the best score first.",
        "A learning rate serves if its score is at least the best one minus the points.",
        "`scored.items()` gives each learning rate with its score.",
    ),
)
def _serving(f) -> None:
    """f(scored, points) -> a list of the learning rates whose score comes within so many points of the best one:
    scored has for each learning rate its score"""
    result = f(dict(RATES), 5)
    if result is None:
        raise Misconception(NOTHING)
    if isinstance(result, int | float) or not isinstance(result, list | tuple | set | frozenset | dict):
        raise Misconception(f"expected a list of learning rates, got {result!r}: the lesson counts them with len")
    found = sorted(result)
    wrong = {
        (0.01, 0.03): "0.003 is left out: it is 5 points below the best, and that is within 5 points",
        (0.01,): "only the best is kept: those that come near it serve as well",
        (0.001, 0.1): "these are the ones that do not serve",
        (0.1,): "this is near to the worst: compare with the best score",
        (50.0, 60.0, 90.0, 91.0, 95.0): "these are scores: the learning rates are asked for",
        (90.0, 91.0, 95.0): "these are the scores of those that serve: the learning rates are asked for",
        tuple(sorted(RATES)): "nothing is left out: 0.1 is 45 points below the best",
    }
    right = [0.003, 0.01, 0.03]
    if found != right:
        raise Misconception(wrong.get(tuple(found), f"for {RATES} and 5 points expected {right}, got {found}"))
    if sorted(f({1.0: 50.0, 2.0: 97.5, 3.0: 92.8, 4.0: 92.6}, 4.75)) != [2.0, 3.0]:
        raise Misconception("right for 5 points, but not for 4.75: points are points, not per cent of the best")


def choose(candidates, budget):
    fits = {name: (kept, min(seeds)) for name, (kept, seeds) in candidates.items() if kept <= budget}
    best = max((worst for _, worst in fits.values()), default=0)
    near = [name for name, (_, worst) in fits.items() if worst >= best - 2]
    return min(near, key=lambda name: fits[name][0], default=None)


CANDIDATES = {  # bytes, and the validation score of each seed
    "full": (4_000, [99.0, 99.0, 99.5]),
    "top": (1_500, [97.5, 99.0, 98.0]),
    "A": (300, [97.0, 97.5, 98.0]),
    "B": (60, [99.9, 99.9, 94.0]),
    "D": (20, [90.0, 90.0, 97.0]),
    "E": (40, [99.5, 70.0, 71.0]),
}


@exercise(
    "choosing.choose",
    reference=choose,
    hints=(
        "Three steps: leave out what does not fit, then what is too far below the best, then take the smallest.",
        "The score of a candidate is `min(seeds)`. The best is the best of those that fit.",
        "`min(names, key=lambda name: ..., default=None)` gives the name with the fewest bytes, or None.",
    ),
)
def _choose(f) -> None:
    """f(candidates, budget) -> a name: candidates has for each name its bytes and the validation scores of its seeds.
    Of those that fit into the budget, leave out whose worst seed is more than 2 points below the best worst seed. Of
    the rest take the one with the fewest bytes. If nothing fits: None"""
    fresh = {name: (kept, list(seeds)) for name, (kept, seeds) in CANDIDATES.items()}
    asked = "expected the name of one candidate"
    for budget, right, wrong in (
        (5_000, "A", {
            "B": "B is chosen, whose mean is good and whose worst seed is 94: look at the worst seed of each",
            "E": "E is chosen for one lucky seed: look at the worst seed of each",
            "D": "the smallest is chosen, whatever it scores: first leave out what is too far below the best",
            "full": "the best is chosen, however large: A is within 2 points of it, and has far fewer bytes",
            "top": "A is exactly 2 points below the best, which is not more than 2: it stays",
        }),
        (299, "B", {
            "A": "the budget is not used: A has 300 bytes, and 299 are allowed",
            None: "with 299 bytes B, D and E fit, and the best of these is B: compare with the best of those that fit",
            "D": "with 299 bytes B, D and E fit; D is 4 points below B",
        }),
        (60, "B", {"D": "B has exactly 60 bytes, and 60 are allowed: it fits"}),
        (10, None, {}),
    ):  # fmt: skip
        try:
            result = f(fresh, budget)
        except (ValueError, IndexError) as error:
            if budget != 10:
                raise
            raise Misconception(f"with 10 bytes nothing fits, and it stops ({error}): give None") from error
        if isinstance(result, list | tuple | set | dict):
            raise Misconception(f"{asked}, got {result!r}")
        if result is None and budget == 5_000:
            raise Misconception(NOTHING)
        if result != right:
            why = wrong.get(result, f"with {budget:,} bytes {asked}, {right}, got {result}")
            raise Misconception(f"{why}. (The check's own candidates are {CANDIDATES})")
