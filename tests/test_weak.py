"""Rules that vote: the votes, what is reported of them, the majority, the label model, a loss of probabilities."""

import math

import numpy as np
import pytest
import torch
from families import tiny

from peft_edu import LoRA, fit, seed
from peft_edu.weak import ABSTAIN, LabelModel, covered, majority, one_hot, report, soft_cross_entropy, vote

VOTES = torch.tensor([[0, 0, -1], [1, -1, -1], [0, 1, 1], [-1, -1, -1], [1, 0, -1]])


def good(text):
    return 1 if "good" in text else ABSTAIN


def bad(text):
    return 0 if "bad" in text else ABSTAIN


def drawn(accuracy, coverage=1.0, texts=4000, classes=2, number=0):
    """Votes of rules that err apart from each other, evenly among the other classes; the truth beside them."""
    draw = torch.Generator().manual_seed(number)
    truth = torch.randint(classes, (texts, 1), generator=draw)
    shape = (texts, len(accuracy))
    wrong = (truth + torch.randint(1, classes, shape, generator=draw)) % classes
    right = torch.rand(shape, generator=draw) < torch.tensor(accuracy)
    silent = torch.rand(shape, generator=draw) > coverage
    return torch.where(right, truth, wrong).masked_fill(silent, ABSTAIN), truth[:, 0]


def test_each_rule_reads_each_text():
    texts = ["good soup", "bad soup", "good and bad", "soup"]
    assert vote([good, bad], texts).tolist() == [[1, -1], [-1, 0], [1, 0], [-1, -1]]
    assert vote([], texts).shape == (4, 0) and vote([good], []).shape == (0, 1)
    assert vote([lambda text: 2], ["soup"], classes=3).tolist() == [[2]]


@pytest.mark.parametrize(
    ("rules", "texts", "error", "message"),
    [
        ([good], "good soup", TypeError, "texts is 'good soup', but must be a list of texts"),
        ([good], [3], TypeError, "must be a list of texts"),
        ([lambda text: None], ["soup"], ValueError, "said None of 'soup'.*does a branch of it lack its return"),
        (
            [lambda text: True],
            ["soup"],
            ValueError,
            "said True of 'soup', but must say a class from 0 to 1, or ABSTAIN",
        ),
        ([lambda text: 2], ["soup"], ValueError, "said 2"),
        ([lambda text: 0.5], ["soup"], ValueError, "said 0.5"),
        (good, ["soup"], TypeError, "rules is <function good.*, but must be a list of functions"),
        (["good"], ["soup"], TypeError, "must be a list of functions"),
    ],
)
def test_what_is_no_vote_is_refused(rules, texts, error, message):
    with pytest.raises(error, match=message):
        vote(rules, texts)


def test_a_class_may_come_from_numpy():
    assert vote([lambda text: np.int64(1)], ["soup"]).tolist() == [[1]]


@pytest.mark.parametrize("labels", [[0, 1], [0], [[0]] * 5, ["bad"] * 5, [0.0] * 5, [None] * 5])
def test_labels_that_are_not_those_of_the_texts(labels):
    with pytest.raises(ValueError, match="labels is .*, but must be 5 whole numbers, the class of each text"):
        report(VOTES, labels)


def test_rules_without_their_names():
    with pytest.raises(ValueError, match="2 names for the votes of 3 rules"):
        report(VOTES, names=["a", "b"])


def test_the_report_by_hand():
    """Of five texts rule a votes on four: on three with others, on two against one; the texts' classes are below."""
    table = report(VOTES, [0, 1, 1, 0, 1], ["a", "b", "c"])
    assert table.coverage.tolist() == [0.8, 0.6, 0.2]
    assert table.overlaps.tolist() == [0.6, 0.6, 0.2]
    assert table.conflicts.tolist() == [0.4, 0.4, 0.2]
    assert table.right.tolist() == pytest.approx([0.75, 2 / 3, 1.0])
    assert "right" not in report(VOTES) and covered(VOTES).tolist() == [True, True, True, False, True]


def test_a_rule_that_never_votes_is_neither_right_nor_wrong():
    assert math.isnan(report(torch.tensor([[-1, 0]]), [0]).right[0])


def test_the_majority_by_hand():
    shares = [[1, 0], [0, 1], [1 / 3, 2 / 3], [0.5, 0.5], [0.5, 0.5]]
    assert torch.allclose(majority(VOTES), torch.tensor(shares, dtype=torch.double))
    assert majority(torch.full((1, 2), ABSTAIN), classes=4).tolist() == [[0.25] * 4]
    assert one_hot(VOTES, 2)[2].tolist() == [[1, 0], [0, 1], [0, 1]] and not one_hot(VOTES, 2)[3].any()


@pytest.mark.parametrize("coverage", [1.0, 0.6])
@pytest.mark.parametrize("classes", [2, 4])
def test_accuracies_are_found_without_a_label(classes, coverage):
    """Of rules that err apart from each other: within three points of the share that is right."""
    accuracy = (0.9, 0.8, 0.7, 0.6, 0.5)
    votes, truth = drawn(accuracy, coverage, classes=classes)
    model = LabelModel(classes=classes)
    believed = model.fit(votes)
    measured = report(votes, truth).right.tolist()
    assert model.accuracy.tolist() == pytest.approx(measured, abs=0.03)
    heard = covered(votes)
    by_majority = (majority(votes, classes).argmax(1) == truth)[heard].double().mean()
    assert (believed.argmax(1) == truth)[heard].double().mean() > by_majority + 0.02


def test_beliefs_are_bayes_rule_by_hand():
    """One rule says 0 nine times as often of class 0; two say 1 half as often again of class 1: 9 to 2.25."""
    model, odds = LabelModel(), LabelModel(prior=[0.2, 0.8])
    model.rates = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.3, 0.2], [0.2, 0.3]], [[0.6, 0.4], [0.4, 0.6]]]).double()
    odds.rates = model.rates
    votes = torch.tensor([[0, 1, 1]])
    assert model.probabilities(votes)[0].tolist() == pytest.approx([0.8, 0.2])
    assert odds.probabilities(votes)[0].tolist() == pytest.approx([0.5, 0.5])
    assert odds.probabilities(torch.full((1, 3), ABSTAIN))[0].tolist() == pytest.approx([0.2, 0.8])
    assert model.accuracy.tolist() == pytest.approx([0.9, 0.6, 0.6])


def test_rates_are_the_shares_of_a_class_by_hand():
    """One round from the majority, which is sure of all four texts; each answer has one text more of each class."""
    model = LabelModel(steps=1)
    model.fit(torch.tensor([[0, 0, -1], [1, 1, -1], [1, 1, 1], [1, 1, -1]]))
    first = [[(1 + 1) / (1 + 2), 1 / (1 + 2)], [1 / (3 + 2), (3 + 1) / (3 + 2)]]
    assert torch.allclose(model.rates[0], torch.tensor(first).double())
    assert torch.allclose(model.rates[2], torch.tensor([[1 / 3, 1 / 3], [1 / 5, 2 / 5]]).double())


@pytest.mark.parametrize("coverage", [1.0, 0.4])
@pytest.mark.parametrize("only", [(0, 1, 1), (0, 0, 1, 1), (0, 1, 0, 1, 1)])
def test_rules_that_vote_for_one_class_alone_are_heard(only, coverage):
    """As keyword rules do. By the rates among its own votes such a rule says nothing, and by one accuracy for both
    classes those that agree believe each other: both were tried here first. snorkel's model is as good as the majority.
    """
    votes, truth = drawn((0.9,) * len(only), coverage)
    for j, each in enumerate(only):
        votes[votes[:, j] != each, j] = ABSTAIN
    heard = covered(votes)

    def right(believed):
        return (believed.argmax(1) == truth)[heard].double().mean().item()

    assert right(LabelModel().fit(votes)) > right(majority(votes)) - 0.08
    assert right(LabelModel().fit(votes)) > 0.88


def test_a_rule_that_guesses_gets_no_weight_and_its_copies_are_believed():
    votes, truth = drawn((0.8, 0.75, 0.7, 0.5), 0.7)
    alone, twice = LabelModel(), LabelModel()
    alone.fit(votes)
    assert abs(alone.accuracy[3] - 0.5) < 0.04
    believed = twice.fit(torch.cat([votes, votes[:, 3:]], 1))
    assert twice.accuracy[3] > 0.95 and (twice.accuracy[:3] < 0.6).all()
    assert (believed.argmax(1) == truth).double().mean() < 0.6


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"classes": 1}, "classes"),
        ({"steps": 0}, "steps"),
        ({"smoothing": 0}, "smoothing"),
        ({"prior": [0.5, 0.6]}, "prior is .* must be 2 shares above 0 that sum to 1"),
        ({"prior": [1.0, 0.0]}, "prior"),
        ({"prior": [1.0]}, "prior"),
        ({"prior": [math.nan, 1.0]}, "prior"),
        ({"prior": "half"}, "prior"),
    ],
)
def test_a_label_model_that_cannot_be_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        LabelModel(**asked)


@pytest.mark.parametrize(
    ("votes", "error", "message"),
    [
        ([[0, 1]], TypeError, "votes is list, but must be a tensor"),
        (torch.tensor([0, 1]), TypeError, r"votes is \(2,\)"),
        (torch.tensor([[0.5]]), TypeError, "whole numbers"),
        (torch.tensor([[2]]), ValueError, "votes go from 2 to 2"),
        (torch.tensor([[-2]]), ValueError, "votes go from -2 to -2"),
    ],
)
def test_votes_that_are_none_are_refused(votes, error, message):
    with pytest.raises(error, match=message):
        LabelModel().fit(votes)


def test_who_has_learned_of_other_rules_believes_nobody():
    model = LabelModel()
    with pytest.raises(ValueError, match=r"votes are of 3 rules, and fit\(votes\) has learned of 0 rules"):
        model.probabilities(VOTES)
    model.fit(VOTES)
    with pytest.raises(ValueError, match="votes are of 2 rules, .* has learned of 3 rules"):
        model.probabilities(VOTES[:, :2])


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    return {"input_ids": torch.randint(5, 60, (4, 7), generator=draw), "attention_mask": torch.ones(4, 7).long()}


def test_the_loss_of_certain_labels_is_the_models_own(batch):
    model = tiny("bert", "classify", torch.float64)
    classes = torch.tensor([0, 1, 2, 0])
    own = model(**batch, labels=classes).loss
    soft = soft_cross_entropy(model, batch | {"labels": torch.eye(3, dtype=torch.double)[classes]})
    assert torch.isclose(soft, own)
    even = soft_cross_entropy(model, batch | {"labels": torch.full((4, 3), 1 / 3, dtype=torch.double)})
    assert torch.isclose(even, -model(**batch).logits.log_softmax(1).mean())
    with pytest.raises(ValueError, match="a row's label must be a list of probabilities"):
        soft_cross_entropy(model, batch | {"labels": classes})


def test_probabilities_are_learned(batch):
    """Trained long enough the model says what it was told: 0.9 and 0.5, and no certainty."""
    model = tiny("bert", "classify", torch.float64)
    told = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]] * 2, dtype=torch.double)
    seed(0)
    LoRA(4).attach(model)
    fit(model, [batch | {"labels": told}], 150, lr=1e-2, objective=soft_cross_entropy)
    with torch.no_grad():
        assert torch.allclose(model(**batch).logits.softmax(1), told, atol=0.05)
