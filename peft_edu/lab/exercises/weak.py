"""Lesson 11: rules that read a sentence, and what is made of their votes."""

import re
from numbers import Integral

import torch

from peft_edu.lab.exercises.check import NOTHING, Misconception, exercise, same, same_gradient, tensors, untouched
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
    """judged(clause, negations) -> 1 (praise), 0 (blame) or ABSTAIN, the other way round behind one of the negations;
    ABSTAIN where no word is known, or words of both kinds"""
    told = ["failed to be", "far from"]
    for clause, negations, right, why in (
        ("the soup was good", told, 1, "a word of PRAISE and no negation"),
        ("the tea seemed cold", told, 0, "a word of BLAME and no negation"),
        ("the tea was green", told, ABSTAIN, "it holds no word of either list, so the rule must not guess"),
        ("", told, ABSTAIN, "there is nothing to judge"),
        ("the soup was goodish", told, ABSTAIN, "'good' is only a part of a word there: compare whole words"),
        ("the soup failed to be good", told, 0, "a negation turns praise into blame"),
        ("the tea was far from cold", told, 1, "a negation turns blame into praise"),
        ("the soup failed to be good", (), 1, "this negation is not among those it was given"),
        ("the soup refused to be good", told[:1], 1, "'failed to be' is one phrase, and 'to be' alone is none"),
        ("the tea was far too cold", told, 0, "'far from' is one phrase, and 'far' alone is none"),
        (
            "the tea came from far away and was cold",
            told,
            0,
            "'from far' is not 'far from': find the phrase as it stands",
        ),
        ("the soup failed to be green", told, ABSTAIN, "a negation alone says nothing"),
        ("the good soup was cold", told, ABSTAIN, "it praises and blames"),
        ("the good soup was far from cold", told, ABSTAIN, "it holds words of both kinds"),
    ):
        found = f(clause, negations)
        _expect_vote(found, clause)
        if found != right:
            said = "ABSTAIN (-1)" if right == ABSTAIN else right
            raise Misconception(f"{clause!r} with the negations {list(negations)} gives {found!r}, not {said}: {why}")


def _expect_vote(found, text: str) -> None:
    if found is None:
        raise Misconception(f"for {text!r} {NOTHING}")
    if isinstance(found, bool) or not isinstance(found, Integral):
        raise Misconception(f"{text!r} gives {found!r}, a {type(found).__name__}: a vote is a whole number, 1, 0 or -1")
    if found == 2:
        raise Misconception(f"of {text!r} it says 2: 1 - ABSTAIN is 2, and no class. Where nothing is said, abstain")


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
        _expect_vote(found, text)
        if found == right:
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
THREE = torch.tensor([[2, 2, 0], [1, -1, 2], [-1, -1, -1]])  # votes for three classes


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
    """majority(votes, classes=2) -> (n, classes): each class's share of the votes of a text, all alike where nobody
    votes; votes (n, m), ABSTAIN is -1"""
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
        "only the winner is told: the shares say how clear it is": (
            right == right.max(1, keepdim=True).values
        ).double(),
    }
    if isinstance(found, torch.Tensor) and found.isnan().any():
        raise Misconception("where nobody votes it says nan, 0 / 0: both classes are alike there")
    same(found, right, wrong)
    found, right = untouched(f, (THREE,), 3), majority(THREE, 3)
    if found.shape != right.shape or not torch.allclose(found.double(), right):
        raise Misconception("of two classes it is right, of three it is not: write `classes` where 2 stands for them")


def rates(votes, believed):
    said = one_hot(votes, 2)
    counts = torch.einsum("nk,nmv->mkv", believed, said)
    return (counts + 1) / (believed.sum(0)[:, None] + 2)


@exercise(
    "weak.rates",
    reference=rates,
    hints=(
        "`one_hot(votes, 2)` is (n, m, v): 1 at the class v that rule j votes for, 0 everywhere where it abstains.",
        '`torch.einsum("nk,nmv->mkv", believed, said)` counts, for each rule, how many texts of class k it calls v. A '
        "text that is believed to be of class k by 0.7 counts 0.7.",
        "Divide by how many texts of class k there are, `believed.sum(0)[:, None]`. Before that add 1 above, 2 below.",
    ),
)
def _rates(f) -> None:
    """rates(votes, believed) -> (m, 2, 2): of rule j, at [j, k, v], (texts of class k that it calls v, + 1) / (texts of
    class k, + 2); votes (n, m), believed (n, 2)"""
    believed = tensors((6, 2))[0].softmax(1)
    said = one_hot(VOTES, 2)
    counts = torch.einsum("nk,nmv->mkv", believed, said)
    each_class, voted = believed.sum(0)[:, None], counts.sum(2, keepdim=True)
    right = (counts + 1) / (each_class + 2)
    certain = (believed > 0.5).double()
    hard, each_certain = torch.einsum("nk,nmv->mkv", certain, said), certain.sum(0)[:, None]
    wrong = {
        "1 above and 2 below are missing: no rate may be 0, or one vote would settle everything": counts / each_class,
        "2 below is missing: who says this and that of a class is given one text for each answer": (counts + 1)
        / each_class,
        "1 above is missing: no rate may be 0, or one vote would settle everything": counts / (each_class + 2),
        "it divides by all texts: a rate is a share of the texts of one class": (counts + 1) / (len(VOTES) + 2),
        "it divides by the votes of the rule in that class: a rule that votes for one class alone would then say the "
        "same of all": (counts + 1) / (voted + 2),
        "it divides by the texts of class v, not of class k: the class that is believed is the second axis": (
            counts + 1
        )
        / (believed.sum(0) + 2),
        "k and v are exchanged: the class that is believed comes first, what the rule says last": right.transpose(1, 2),
        "these are counts: divide by the number of texts of each class": counts,
        "a text counts as far as it is believed, not as one class alone": (hard + 1) / (each_certain + 2),
        "a text counts as far as it is believed, above as well as below": (hard + 1) / (each_class + 2),
        "a text counts as far as it is believed, not as one class alone; and 1 above and 2 below are missing": hard
        / each_certain,
        "it divides by the texts of class v, not of class k; and 1 above and 2 below are missing": counts
        / believed.sum(0),
        "it divides by the votes of the rule in that class, not by the texts of the class; and 1 above and 2 below are "
        "missing": counts / voted,
        "abstaining counts as a vote for the last class: it must count nothing": (
            torch.einsum("nk,nmv->mkv", believed, torch.stack([VOTES == 0, VOTES != 0], 2).double()) + 1
        )
        / (each_class + 2),
    }
    same(untouched(f, (VOTES, believed)), right, wrong)


def beliefs(votes, rates):
    scores = torch.einsum("nmv,mkv->nk", one_hot(votes, 2), rates.log())
    return scores.softmax(1)


RATES = torch.tensor([[[0.6, 0.1], [0.2, 0.9]], [[0.5, 0.3], [0.4, 0.6]], [[0.3, 0.2], [0.1, 0.4]]], dtype=torch.double)


@exercise(
    "weak.beliefs",
    reference=beliefs,
    hints=(
        "The rates of the votes multiply: their logarithms add up.",
        '`torch.einsum("nmv,mkv->nk", one_hot(votes, 2), rates.log())` takes of each vote its rate in class k, and '
        "adds up over the rules.",
        "`.softmax(1)` makes probabilities of two scores.",
    ),
)
def _beliefs(f) -> None:
    """beliefs(votes, rates) -> (n, 2): for class k the product of rates[j, k, vote] over the rules that vote, divided
    by the sum of both classes; votes (n, m), rates (m, 2, 2)"""
    said = one_hot(VOTES, 2)
    scores = torch.einsum("nmv,mkv->nk", said, RATES.log())
    silent = torch.einsum("nm,mk->nk", (VOTES < 0).double(), (1 - RATES.sum(2)).log())
    wrong = {
        "the rates add up here: they multiply, so that their logarithms add up": torch.einsum(
            "nmv,mkv->nk", said, RATES
        )
        / torch.einsum("nmv,mkv->n", said, RATES)[:, None].clamp(min=1e-12),
        "the log is left out: softmax wants logarithms": torch.einsum("nmv,mkv->nk", said, RATES).softmax(1),
        "these are the scores: softmax makes probabilities of them": scores,
        "these are products: divide by the sum of both classes": scores.exp(),
        "softmax goes over the texts: over the two classes it is softmax(1)": scores.softmax(0),
        "the rates are read the other way round: [j, k, v] is what rule j says (v) of a text of class k": torch.einsum(
            "nmv,mvk->nk", said, RATES.log()
        ).softmax(1),
        "abstaining is counted as an answer: it says nothing here": (scores + silent).softmax(1),
        "abstaining counts as a vote for the last class: as an index, -1 takes the last": torch.einsum(
            "nmv,mkv->nk", torch.stack([VOTES == 0, VOTES != 0], 2).double(), RATES.log()
        ).softmax(1),
    }
    found = untouched(f, (VOTES, RATES))
    if isinstance(found, torch.Tensor) and found.isnan().any():
        raise Misconception("where nobody votes it says nan: both classes are alike there")
    same(found, scores.softmax(1), wrong)


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
    """soft_loss(logits, labels) -> a tensor, the mean over rows of -sum_k labels_k log softmax(logits)_k; both are
    (b, k)"""
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
        "softmax goes over the rows of the batch: over the classes it is log_softmax(1)": -(
            labels * logits.log_softmax(0)
        )
        .sum(1)
        .mean(),
        "the logarithm is missing: log_softmax": -(labels * logits.softmax(1)).sum(1).mean(),
    }
    found = untouched(f, (logits, labels))
    if isinstance(found, torch.Tensor) and found.isnan().any():
        raise Misconception("it says nan: a logit may be below 0, where there is no log. log_softmax takes logits")
    same(found, each.mean(), wrong)
    logits.requires_grad_()
    missing = "no gradient comes through, so nothing learns by it: no item(), no detach(), no new tensor"
    same_gradient(f(logits, labels), soft_loss(logits, labels), [logits], missing)
