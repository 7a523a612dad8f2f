"""Lesson 11, the hunt: a label model with three faults that people make. None stops with an error: a rule that abstains
votes for the last class, a rate is a share of all texts and not of those of a class, and EM never goes round.
"""

import torch
from torch import Tensor

from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise
from peft_edu.lab.exercises.weak import beliefs, majority, rates


def hunted(votes, steps=100):
    believed = majority(votes)
    for _ in range(steps):
        each = rates(votes, believed)
        believed = beliefs(votes, each)
    return believed, each


@exercise(
    "weak.hunt",
    reference=hunted,
    beside=(majority, rates, beliefs),
    hints=(
        "A text on which no rule votes: print `said` of a row of ABSTAIN. What must stand there?",
        "A rate is a share of the texts of one class. Of which texts is it one here?",
        "steps=1 and steps=100 end alike. Which line of the loop reads what the line at its end writes?",
        "One fault lies in what counts as a vote, one in a denominator, one in what a round takes over.",
    ),
)
def _hunt(f) -> None:
    """hunted(votes, steps=100) -> (believed (n, 2), rates (m, 2, 2)), the label model without its three faults"""
    _expect_pair(f)
    found = [message for fault, message in FAULTS.items() if fault(f)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)
    votes = drawn((0.9, 0.7, 0.6, 0.8), coverage=0.7)
    pairs = list(zip(f(votes), hunted(votes), ("believed", "rates"), strict=True))
    for one, other, name in reversed(pairs):  # what is believed follows from the rates
        if one.shape != other.shape or not torch.allclose(one.double(), other, atol=1e-5):
            of = ". Of which texts is a rate a share: those of class k, or those of class v?" * (name == "rates")
            raise Misconception(f"{name} is not what the label model of section 3 makes of the same votes{of}")


def drawn(accuracy: tuple[float, ...], coverage: float = 1.0, texts: int = 400, praised: float = 0.5) -> Tensor:
    """Votes of rules that err apart from each other (n, m)."""
    draw = torch.Generator().manual_seed(0)
    truth = (torch.rand(texts, 1, generator=draw) < praised).long()
    right = torch.rand(texts, len(accuracy), generator=draw) < torch.tensor(accuracy)
    silent = torch.rand(texts, len(accuracy), generator=draw) > coverage
    return torch.where(right, truth, 1 - truth).masked_fill(silent, -1)


def _expect_pair(f) -> None:
    result = f(drawn((0.9, 0.7, 0.6)))
    fine = isinstance(result, (tuple, list)) and len(result) == 2 and all(isinstance(each, Tensor) for each in result)
    if not fine or result[0].shape != (400, 2) or result[1].shape != (3, 2, 2):
        raise NotWritten("believed (n, 2) and rates (m, 2, 2) are asked for. Bring the cell back as it was")


def _silence_votes(f) -> bool:
    """A text that nobody votes on must be as likely of one class as of the other. The rules are good, and alike in both
    classes, so that another fault leaves the two sides apart."""
    votes = torch.cat([drawn((0.9, 0.9, 0.9, 0.9)), torch.full((1, 4), -1)])
    return bool((f(votes)[0][-1] - 0.5).abs().max() > 1e-6)


def _all_texts(f) -> bool:
    """Of one text in ten that is praised, rules that are always right say so always: the rate is near 1."""
    return bool(f(drawn((1.0, 1.0, 1.0), praised=0.1))[1][0, 1, 1] < 0.8)


def _never_goes_round(f) -> bool:
    votes = drawn((0.95, 0.6, 0.6, 0.6, 0.6))
    return torch.allclose(f(votes, 1)[1], f(votes, 50)[1], atol=1e-3)


FAULTS = {
    _silence_votes: "Ask it about a text on which no rule votes. Nobody has said anything, so what must it believe?",
    _all_texts: "Where praise is rare, a rule that always finds it has a low rate. Of which texts is a rate a share?",
    _never_goes_round: "After 1 step and after 100 it says the same. What does a round take over from the one before?",
}
