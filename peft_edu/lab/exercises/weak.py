"""Lesson 11: rules that read a sentence, and what is made of their votes."""

import re
from collections.abc import Callable

import torch

from peft_edu.lab.exercises.check import NOTHING, Misconception, exercise, same, tensors, untouched
from peft_edu.lab.study.weak import BLAME, PRAISE
from peft_edu.weak import ABSTAIN, one_hot


def clauses(text):
    text = text.lower().rstrip(".")
    if text.startswith(("although ", "though ")):
        other, main = text.split(" ", 1)[1].split(", ")
        return main, other
    for link in (", but ", ", yet "):
        if link in text:
            other, main = text.split(link)
            return main, other
    for link in (", even though ", ", even if "):
        if link in text:
            main, other = text.split(link)
            return main, other
    return text, ""


A, B = "the soup was good", "the tea seemed cold"
FORMS = {
    "The soup was good.": (A, ""),
    "The tea seemed cold, but the soup was good.": (A, B),
    "The tea seemed cold, yet the soup was good.": (A, B),
    "Although the tea seemed cold, the soup was good.": (A, B),
    "Though the tea seemed cold, the soup was good.": (A, B),
    "The soup was good, even though the tea seemed cold.": (A, B),
    "The soup was good, even if the tea seemed cold.": (A, B),
}


@exercise(
    "weak.clauses",
    reference=clauses,
    hints=(
        '`text.split(", but ")` cuts a text in two. Which half decides?',
        "Three kinds: the other clause first, after Although or Though; the other clause first, before but or yet; "
        "the main clause first, before even though or even if.",
        'A text without any of them is all main clause: give `text, ""`.',
    ),
)
def _clauses(f) -> None:
    """clauses(text) -> (main clause, other clause): two texts in small letters, without the full stop; the other is ""
    where there is none"""
    for text, right in FORMS.items():
        found = f(text)
        if found is None:
            raise Misconception(f"of {text!r} {NOTHING}")
        if not isinstance(found, (tuple, list)) or len(found) != 2 or not all(isinstance(part, str) for part in found):
            raise Misconception(f"expected a pair of texts, (main, other), and {text!r} gives {found!r:.80}")
        plain = tuple(part.strip() for part in found)
        if plain == right:
            continue
        if plain == right[::-1] and right[1]:
            raise Misconception(f"main and other are exchanged in {text!r}: the main clause is {right[0]!r}")
        if tuple(part.lower().rstrip(".") for part in plain) == right:
            raise Misconception(f"{text!r} gives {found!r}: small letters, and no full stop, so that words are found")
        if plain == ("", right[0]):
            raise Misconception(f"{text!r} has one clause alone, and it is the main one")
        raise Misconception(f"{text!r} gives {found!r}, but must give {right!r}")


def judged(clause, negations):
    words = set(re.findall("[a-z]+", clause))
    praises, blames = bool(words & PRAISE), bool(words & BLAME)
    if praises == blames:
        return ABSTAIN
    negated = any(negation in clause for negation in negations)
    return int(praises != negated)


@exercise(
    "weak.judged",
    reference=judged,
    hints=(
        '`set(re.findall("[a-z]+", clause))` are the words, and `words & PRAISE` those of praise among them.',
        "Neither kind of word, or both: abstain.",
        "`any(negation in clause for negation in negations)` tells whether the word is to be turned round.",
    ),
)
def _judged(f) -> None:
    """judged(clause, negations) -> 1 (praise), 0 (blame) or ABSTAIN, the other way round behind one of the negations"""
    told = ["failed to be", "far from"]
    for clause, negations, right, why in (
        ("the soup was good", told, 1, "a word of PRAISE and no negation"),
        ("the tea seemed cold", told, 0, "a word of BLAME and no negation"),
        ("the tea was green", told, ABSTAIN, "it holds no word of either list, so the rule must not guess"),
        ("", told, ABSTAIN, "there is nothing to judge"),
        ("the soup was goodish", told, ABSTAIN, "'good' is only a part of a word there: compare whole words"),
        ("the good soup was cold", told, ABSTAIN, "it praises and blames"),
        ("the soup failed to be good", told, 0, "a negation turns praise into blame"),
        ("the tea was far from cold", told, 1, "a negation turns blame into praise"),
        ("the soup failed to be good", [], 1, "this negation is not among those it was given"),
        ("the soup failed to be green", told, ABSTAIN, "a negation alone says nothing"),
    ):
        found = f(clause, negations)
        if found is None:
            raise Misconception(f"for {clause!r} {NOTHING}")
        if found != right or isinstance(found, bool):
            said = "ABSTAIN (-1)" if right == ABSTAIN else right
            raise Misconception(f"{clause!r} with the negations {negations} gives {found!r}, not {said}: {why}")


def opposite(text, negations):
    said = judged(clauses(text)[1], negations)
    return said if said == ABSTAIN else 1 - said


@exercise(
    "weak.opposite",
    reference=opposite,
    hints=(
        "`judged(other, negations)` says what the other clause says. The main clause says the opposite.",
        "1 - said turns 1 into 0 and 0 into 1. What does it make of ABSTAIN, which is -1?",
    ),
)
def _opposite(f) -> None:
    """opposite(text, negations) -> what the main clause says if it says the opposite of the other one; else ABSTAIN"""
    for text, right in (
        ("Although the tea was cold, the soup was green.", 1),
        ("The tea was good, but the soup was green.", 0),
        ("The soup was green, even if the tea failed to be good.", 1),
        ("The soup was good.", ABSTAIN),
        ("The tea was green, yet the soup was good.", ABSTAIN),
    ):
        found = f(text, ["failed to be"])
        if found is None:
            raise Misconception(f"for {text!r} {NOTHING}")
        if found == 2:
            raise Misconception(
                f"of {text!r} it says 2: 1 - ABSTAIN is 2, and no class. Where nothing is said, abstain"
            )
        if found == right and not isinstance(found, bool):
            continue
        if right != ABSTAIN and found == 1 - right:
            raise Misconception(
                f"{text!r} gives {found!r}: that is what the other clause says, so the main one does not"
            )
        said = "ABSTAIN (-1): the other clause says nothing" if right == ABSTAIN else f"{right}, from the other clause"
        raise Misconception(f"{text!r} gives {found!r}, but must give {said}")


def majority(votes, classes=2):
    counts = torch.stack([(votes == each).sum(1) for each in range(classes)], 1).double()
    total = counts.sum(1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1), 1 / classes)


VOTES = torch.tensor([[0, 0, -1], [1, -1, -1], [0, 1, 1], [-1, -1, -1], [1, 0, -1], [1, 1, 1]])


@exercise(
    "weak.majority",
    reference=majority,
    hints=(
        "`(votes == 1).sum(1)` counts the votes for class 1 of each text.",
        "Divide by the number of votes, not by the number of rules: who abstains has not voted.",
        "Where nobody votes, 0 / 0 is nan. `torch.where(total > 0, shares, 1 / classes)` puts something else there.",
    ),
)
def _majority(f) -> None:
    """majority(votes) -> (n, 2): each class's share of the votes of a text, all alike where nobody votes; votes (n, m),
    ABSTAIN is -1"""
    right = majority(VOTES)
    counts = torch.stack([(each == VOTES).sum(1) for each in (0, 1)], 1).double()
    counted_in = torch.stack([(VOTES != 1).sum(1), (VOTES == 1).sum(1)], 1) / 3
    found = untouched(f, (VOTES,))
    wrong = {
        "these are the votes of each class, not its share of them": counts,
        "it divides by all rules: who abstains has not voted": counts / 3,
        "where nobody votes it says 0 and 0: nobody knows, so both classes are alike there": counts
        / counts.sum(1, keepdim=True).clamp(min=1),
        "the classes are exchanged: the first column is class 0": right.flip(1),
        "abstaining counts as a vote for class 0": counted_in.double(),
        "only the winner is told: the shares say how clear it was": (right == right.max(1, keepdim=True).values) / 1.0,
    }
    if isinstance(found, torch.Tensor) and found.isnan().any():
        raise Misconception("where nobody votes it says nan, 0 / 0: both classes are alike there")
    same(found, right, wrong)


def accuracies(votes, believed):
    said = one_hot(votes, 2)
    right = (said * believed[:, None]).sum((0, 2))
    return (right + 1) / (said.sum((0, 2)) + 2)


@exercise(
    "weak.accuracies",
    reference=accuracies,
    hints=(
        "`one_hot(votes, 2)` is (n, m, 2): 1 at the class that rule j votes for, 0 everywhere where it abstains.",
        "`said * believed[:, None]` leaves of each vote how far it is believed. Sum over texts and classes: (m,).",
        "Divide by the number of votes of the rule. Before that add 1 above and 2 below.",
    ),
)
def _accuracies(f) -> None:
    """accuracies(votes, believed) -> (m,): (believed votes + 1) / (votes + 2) of each rule; votes (n, m), believed
    (n, 2)"""
    believed = tensors((6, 2))[0].softmax(1)
    said = one_hot(VOTES, 2)
    right, voted = (said * believed[:, None]).sum((0, 2)), said.sum((0, 2))
    hard = (said * (believed > 0.5)[:, None]).sum((0, 2))
    wrong = {
        "1 above and 2 below are missing: a rule that votes twice must not be sure of itself": right / voted,
        "it divides by all texts: what a rule does where it abstains says nothing of it": (right + 1)
        / (len(VOTES) + 2),
        "1 is added above, but 2 must be added below: a right vote and a wrong one": (right + 1) / (voted + 1),
        "this is how often a rule is wrong": 1 - (right + 1) / (voted + 2),
        "a vote counts as far as it is believed, not as right or wrong": (hard + 1) / (voted + 2),
        "these are the believed votes alone: divide by the votes": right,
        "abstaining counts as a vote for the last class: votes == ABSTAIN must count nothing": (
            (torch.where(VOTES == 0, believed[:, :1], believed[:, 1:])).sum(0) + 1
        )
        / (len(VOTES) + 2),
    }
    same(untouched(f, (VOTES, believed)), (right + 1) / (voted + 2), wrong)


def beliefs(votes, accuracy):
    weights = (accuracy / (1 - accuracy)).log()
    scores = (one_hot(votes, 2) * weights[:, None]).sum(1)
    return scores.softmax(1)


@exercise(
    "weak.beliefs",
    reference=beliefs,
    hints=(
        "A vote of rule j counts log(accuracy_j / (1 - accuracy_j)) for the class that it votes for.",
        "`(one_hot(votes, 2) * weights[:, None]).sum(1)` adds them up: (n, 2).",
        "`.softmax(1)` makes probabilities of two scores.",
    ),
)
def _beliefs(f) -> None:
    """beliefs(votes, accuracy) -> (n, 2): softmax over the classes of the sum of the weights log(a / (1 - a)) of the
    rules that vote for each; votes (n, m), accuracy (m,)"""
    accuracy = torch.tensor([0.9, 0.6, 0.3], dtype=torch.double)
    said, odds = one_hot(VOTES, 2), accuracy / (1 - accuracy)

    def made(weights: torch.Tensor, then: Callable = lambda scores: scores.softmax(1)) -> torch.Tensor:
        return then((said * weights[:, None]).sum(1))

    signed = torch.stack([(VOTES != 1).double() @ odds.log(), (VOTES == 1).double() @ odds.log()], 1)
    wrong = {
        "the weight is log(a / (1 - a)), and not log(a): that is below 0 and counts against every vote": made(
            accuracy.log()
        ),
        "the weight is log(a / (1 - a)), not the accuracy itself: a rule that guesses must count nothing": made(
            accuracy
        ),
        "the log is left out: the odds multiply, their logarithms add up": made(odds),
        "these are the scores: softmax makes probabilities of them": made(odds.log(), lambda scores: scores),
        "softmax goes over the texts: over the two classes it is softmax(1)": made(
            odds.log(), lambda scores: scores.softmax(0)
        ),
        "the odds are upside down: a / (1 - a)": made(-odds.log()),
        "abstaining counts as a vote for class 0": signed.softmax(1),
    }
    same(untouched(f, (VOTES, accuracy)), made(odds.log()), wrong)


def soft_loss(logits, labels):
    return -(labels * logits.log_softmax(1)).sum(1).mean()


@exercise(
    "weak.soft",
    reference=soft_loss,
    hints=(
        "`logits.log_softmax(1)` are the logarithms of what the model says.",
        "Weigh each with its label, sum over the classes, take the mean over the rows, and turn the sign.",
    ),
)
def _soft(f) -> None:
    """soft_loss(logits, labels) -> the mean over rows of -sum_k labels_k log softmax(logits)_k; both (b, k)"""
    logits, labels = tensors((5, 3), (5, 3))
    labels = labels.softmax(1)
    each = -(labels * logits.log_softmax(1)).sum(1)
    hard = torch.nn.functional.cross_entropy(logits, labels.argmax(1))
    wrong = {
        "the sign is lost: log q is below 0, the loss above": -each.mean(),
        "it is the sum over the rows: fit wants their mean": each.sum(),
        "it is the mean over classes, too: sum over them": each.mean() / 3,
        "this takes the likeliest class of each label: what it says of the others is lost": hard,
        "logits are no log-probabilities yet: log_softmax": -(labels * logits).sum(1).mean(),
        "labels and logits are exchanged": -(logits.softmax(1) * labels.log()).sum(1).mean(),
    }
    same(untouched(f, (logits, labels)), each.mean(), wrong)
