"""What a learner builds in lesson 12: any right solution passes, whatever its style, and a misconception is named."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from peft_edu import attached
from peft_edu.lab.exercises import preferences_open
from peft_edu.lab.exercises.check import EXERCISES, checked
from peft_edu.lab.exercises.preferences import (
    advantages,
    bradley_terry,
    dpo,
    log_ratio,
    pairs,
    policy,
    policy_gradient,
    win_rate,
)
from peft_edu.lab.exercises.preferences_hunt import log_p
from peft_edu.method import trainable
from peft_edu.preferences import DPO, Samples, log_probability
from peft_edu.preferences import bradley_terry as packaged
from peft_edu.preferences import log_ratio as packaged_ratio
from peft_edu.preferences import policy_gradient as packaged_gradient


def reference(model, batch):
    with attached(model).off():
        return log_probability(model, batch)


def counted(ours, theirs):
    wins = sum((a > b) + 0.5 * (a == b) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True))
    return wins / len(ours)


def in_a_loop(rewards, ratios, price, size):
    groups = [rewards[i : i + size] - price * ratios[i : i + size] for i in range(0, len(rewards), size)]
    return torch.cat([group - group.mean() for group in groups])


@pytest.mark.parametrize(
    "name, right",
    [
        ("preferences.win_rate", counted),
        ("preferences.win_rate", lambda ours, theirs: ((ours - theirs).sign() + 1).mean() / 2),
        ("preferences.bradley_terry", lambda s: F.softplus(s[:, 1] - s[:, 0]).mean()),
        ("preferences.bradley_terry", lambda s: -s.log_softmax(-1)[:, 0].mean()),
        ("preferences.bradley_terry", lambda s: F.cross_entropy(s, torch.zeros(len(s), dtype=torch.long))),
        ("preferences.log_ratio", lambda model, batch: log_probability(model, batch) - reference(model, batch)),
        ("preferences.log_ratio", packaged_ratio),
        ("preferences.dpo", lambda model, batch, beta: DPO(beta)(model, batch)),
        (
            "preferences.dpo",
            lambda m, b, beta: F.softplus(-beta * (log_ratio(m, b)[:, 0] - log_ratio(m, b)[:, 1])).mean(),
        ),
        ("preferences.advantages", in_a_loop),
        ("preferences.policy_gradient", packaged_gradient),
        ("preferences.policy_gradient", lambda m, b: -(b["advantages"] @ log_probability(m, b)) / len(b["advantages"])),
    ],
)
def test_other_ways_pass(name, right):
    feedback = checked(name, right)
    assert feedback, feedback


def per_row(scores):
    return -F.logsigmoid(scores[:, 0] - scores[:, 1])


def half(two):
    """The gradient of the first column alone."""
    return torch.stack([two[:, 0], two[:, 1].detach()], 1)


def by_math(scores):
    each = [torch.log(1 + (b - a).exp() + 0 * math.exp(b - a)) for a, b in scores]
    return torch.stack(each).mean()


def other():
    model = policy()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    return model


def side_by_side(model, batch):
    sides = [log_ratio(model, {name: each[:, side] for name, each in batch.items()}) for side in (0, 1)]
    return torch.stack(sides, 1)


def of_the_first_alone(model, batch):
    logs = log_probability(model, batch)
    return -(batch["advantages"] * torch.cat([logs[:1], logs[1:].detach()])).mean()


def with_margin(shaped):
    """A dpo that makes the loss of beta and margin in another way."""

    def wrong(model, batch, beta):
        ratio = log_ratio(model, batch)
        return shaped(beta, ratio[:, 0] - ratio[:, 1]).mean()

    return wrong


def grouped(changed):
    def wrong(rewards, ratios, price, size):
        return changed((rewards - price * ratios).view(-1, size)).flatten()

    return wrong


@torch.no_grad()
def emptied(model, batch):
    own = log_probability(model, batch)
    for parameter in trainable(model).values():
        parameter.zero_()
    return own - log_probability(model, batch)


def without_gradient(model, batch):
    with torch.no_grad():
        return log_ratio(model, batch)


def detached(model, batch):
    own = log_probability(model, batch)
    attached(model).detach()
    return own - log_probability(model, batch)


@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("preferences.win_rate", lambda a, b: (a > b).double().mean(), "a tie counts nothing"),
        ("preferences.win_rate", lambda a, b: (a >= b).double().mean(), "a tie counts as a whole win"),
        ("preferences.win_rate", lambda a, b: win_rate(b, a), "win rate of the other one"),
        ("preferences.win_rate", lambda a, b: (a > b).sum() + (a == b).sum() / 2, "number of wins"),
        ("preferences.win_rate", lambda a, b: (a > b)[a != b].double().mean(), "rows with a tie are left out"),
        ("preferences.win_rate", lambda a, b: (a > b).double() + (a == b) / 2, "take the mean over the rows"),
        ("preferences.win_rate", lambda a, b: 0.9, "ours wins 4 and ties 2"),
        ("preferences.win_rate", lambda a, b: print(end=""), "is there a return"),
        ("preferences.bradley_terry", per_row, "loss of each pair"),
        ("preferences.bradley_terry", lambda s: per_row(s.flip(1)).mean(), "exchanged"),
        ("preferences.bradley_terry", lambda s: -per_row(s).mean(), "the sign is turned"),
        ("preferences.bradley_terry", lambda s: -(s[:, 0] - s[:, 1]).sigmoid().mean(), "the log is missing"),
        ("preferences.bradley_terry", lambda s: -(s[:, 0] - s[:, 1]).sigmoid().mean().log(), "log of the mean"),
        ("preferences.bradley_terry", lambda s: per_row(s).sum(), "the sum over the pairs"),
        ("preferences.bradley_terry", lambda s: (s[:, 1] - s[:, 0]).mean(), "the sigmoid is missing"),
        ("preferences.bradley_terry", lambda s: -(s[:, 0] - s[:, 1]).sigmoid().log().mean(), "margin of -1000"),
        (
            "preferences.bradley_terry",
            lambda s: (F.logsigmoid(s[:, 1]) - F.logsigmoid(s[:, 0])).mean(),
            "each score has its own sigmoid",
        ),
        ("preferences.bradley_terry", lambda s: -F.logsigmoid(s[0] - s[1]).mean(), "two rows, so two pairs"),
        (
            "preferences.bradley_terry",
            lambda s: torch.tensor(per_row(s).mean().item()).double(),
            "no gradient comes back",
        ),
        ("preferences.bradley_terry", lambda s: per_row(half(s)).mean(), "only a part of its gradient"),
        ("preferences.bradley_terry", by_math, "margin of -1000"),
        (
            "preferences.log_ratio",
            lambda m, b: log_probability(m, b) - reference(other(), b).detach(),
            "another model's",
        ),
        ("preferences.log_ratio", lambda m, b: half(log_ratio(m, b)), "only a part of its gradient"),
        ("preferences.log_ratio", side_by_side, "answers that are in no pair"),
        ("preferences.dpo", lambda m, b, beta: bradley_terry(half(beta * log_ratio(m, b))), "only a part of its"),
        ("preferences.dpo", lambda m, b, beta: per_row(beta * log_ratio(m, b)).sum(), "the sum over the pairs"),
        ("preferences.policy_gradient", of_the_first_alone, "only a part of its gradient"),
        (
            "preferences.advantages",
            lambda *args: advantages(*args).tolist(),
            r"got list: torch.tensor\(...\) makes one",
        ),
        ("preferences.log_ratio", lambda m, b: log_probability(m, b) - log_probability(m, b).detach(), "was not off"),
        ("preferences.log_ratio", lambda m, b: -log_ratio(m, b), "the sign is turned"),
        ("preferences.log_ratio", log_probability, "policy's log-probability alone"),
        ("preferences.log_ratio", reference, "reference's log-probability alone"),
        ("preferences.log_ratio", lambda m, b: log_probability(m, b) / reference(m, b), "log a - log b"),
        ("preferences.log_ratio", lambda m, b: log_probability(m, b) + reference(m, b), "the two are added"),
        ("preferences.log_ratio", lambda m, b: log_ratio(m, b).exp(), "its logarithm is asked for"),
        ("preferences.log_ratio", without_gradient, "no gradient comes through"),
        ("preferences.log_ratio", emptied, "a weight of the model was changed"),
        ("preferences.log_ratio", detached, "the LoRA is gone"),
        ("preferences.dpo", with_margin(lambda beta, margin: -F.logsigmoid(margin)), "beta is left out"),
        ("preferences.dpo", with_margin(lambda beta, margin: -beta * F.logsigmoid(margin)), "in front of the loss"),
        ("preferences.dpo", with_margin(lambda beta, margin: -F.logsigmoid(margin / beta)), "divided by beta"),
        ("preferences.dpo", with_margin(lambda beta, margin: -F.logsigmoid(-beta * margin)), "exchanged"),
        ("preferences.dpo", with_margin(lambda beta, margin: F.logsigmoid(beta * margin)), "the sign is turned"),
        ("preferences.dpo", with_margin(lambda beta, margin: -F.logsigmoid(0.3 * margin)), "but not for beta 1"),
        ("preferences.dpo", lambda m, b, beta: bradley_terry(beta * log_probability(m, b)), "reference is missing"),
        ("preferences.dpo", lambda m, b, beta: -F.logsigmoid(beta * log_ratio(m, b)[:, 0]).mean(), "chosen answers"),
        ("preferences.dpo", lambda m, b, beta: per_row(beta * log_ratio(m, b)), "loss of each pair"),
        ("preferences.dpo", lambda m, b, beta: bradley_terry(beta * log_ratio(m, b)).detach(), "no gradient comes"),
        ("preferences.advantages", lambda r, k, price, size: advantages(r, k, 0, size), "nothing was paid"),
        ("preferences.advantages", lambda r, k, price, size: advantages(r, k, -price, size), "the price is added"),
        ("preferences.advantages", grouped(lambda e: e - e.mean()), "the mean of all"),
        ("preferences.advantages", grouped(lambda e: e - e.mean(0)), "across the groups"),
        ("preferences.advantages", grouped(lambda e: e), "no mean is taken away"),
        ("preferences.advantages", grouped(lambda e: (e - e.mean(1, True)) / e.std(1, keepdim=True)), "as GRPO does"),
        (
            "preferences.advantages",
            grouped(lambda e: (e - e.mean(1, True)) / e.std(1, keepdim=True, correction=0)),
            "divided by the standard deviation",
        ),
        (
            "preferences.advantages",
            lambda r, k, price, size: advantages(r, k, 0, size) - price * k,
            "only the rewards' mean",
        ),
        (
            "preferences.advantages",
            lambda r, k, price, size: advantages(r, k, price, len(r) // size),
            "the rows are not the groups",
        ),
        (
            "preferences.advantages",
            lambda r, k, price, size: grouped(lambda e: e - e.mean(0))(r, k, price, len(r) // size),
            r"\.view\(size, -1\) does not",
        ),
        ("preferences.advantages", lambda r, k, price, size: advantages(r, k, price, size).view(-1, size), "flatten"),
        ("preferences.policy_gradient", lambda m, b: -policy_gradient(m, b), "the sign is turned"),
        ("preferences.policy_gradient", lambda m, b: -log_probability(m, b).mean(), "advantages are left out"),
        ("preferences.policy_gradient", lambda m, b: -(b["advantages"] * log_probability(m, b)).sum(), "the sum over"),
        ("preferences.policy_gradient", lambda m, b: -b["advantages"] * log_probability(m, b), "one number an answer"),
        (
            "preferences.policy_gradient",
            lambda m, b: -(b["advantages"] * log_probability(m, b).exp()).mean(),
            "multiplies the probability",
        ),
        (
            "preferences.policy_gradient",
            lambda m, b: -b["advantages"].mean() * log_probability(m, b).mean(),
            "the means are multiplied",
        ),
        (
            "preferences.policy_gradient",
            lambda m, b: -(b["advantages"] * log_ratio(m, b)).mean(),
            "log policy alone",
        ),
    ],
)
def test_a_misconception_is_named(name, wrong, message):
    feedback = checked(name, wrong)
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_what_the_lesson_trains_with_is_the_packages():
    model, batch = policy(), pairs()
    assert torch.equal(log_ratio(model, batch), packaged_ratio(model, batch))
    assert torch.equal(dpo(model, batch, 0.3), DPO(0.3)(model, batch))
    scores = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bradley_terry(scores), packaged(scores))
    assert torch.allclose(log_p(model, batch), log_probability(model, batch))


def test_advantages_are_those_of_samples(monkeypatch):
    """The package's Samples pays and takes the mean as the learner's function does."""
    import peft_edu.preferences as core

    model, flat = policy(), {name: each.flatten(0, 1) for name, each in pairs().items()}
    rewards = torch.arange(8, dtype=torch.float64) ** 2
    monkeypatch.setattr(core, "sample", lambda *_: (["text"] * 8, flat))
    (batch,) = Samples(model, None, [[1], [2]], lambda texts: rewards, beta=0.2, groups=2, size=4)
    ratios = packaged_ratio(model, flat).detach()
    assert torch.allclose(batch["advantages"], advantages(rewards, ratios, 0.2, 4))


FAULTS = {"place": "hardly become happier", "reference": "it never moves", "beta": "What does AdamW do"}


def hunted(*faults):
    """The cells of the hunt, with these of its faults."""

    def at_its_own_place(model, batch):
        rows = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
        labels = batch["labels"].flatten(0, 1)
        logs = model(**rows).logits.log_softmax(-1)
        each = logs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return (each * (labels >= 0)).sum(-1).unflatten(0, (-1, 2))

    measured = at_its_own_place if "place" in faults else log_probability

    def hunted_dpo(model, batch, beta):
        with torch.no_grad():
            before = measured(model, batch)
        if "reference" not in faults:
            with attached(model).off(), torch.no_grad():
                before = measured(model, batch)
        ratio = measured(model, batch) - before
        inside, outside = (1, beta) if "beta" in faults else (beta, 1)
        return -outside * F.logsigmoid(inside * (ratio[:, 0] - ratio[:, 1])).mean()

    return hunted_dpo


@pytest.mark.parametrize(
    "faults",
    [(), ("place",), ("reference",), ("beta",), ("place", "beta"), ("reference", "beta"), tuple(FAULTS)],
)
def test_the_hunt_counts_the_faults_that_are_left(faults):
    feedback = checked("preferences.hunt", hunted(*faults))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback
    if len(faults) == 1:
        assert re.search(FAULTS[faults[0]], repr(feedback)), feedback


def test_a_new_fault_in_the_hunt_is_seen():
    feedback = checked("preferences.hunt", lambda model, batch, beta: 2 * dpo(model, batch, beta))
    assert not feedback and "something else has changed" in repr(feedback)


def test_a_judge_of_one_mind_is_told_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(preferences_open, "_start", None)  # to train would be an error
    feedback = checked("preferences.own", lambda text: 1)
    assert "prefers one of two texts in 0 of 524 pairs" in repr(feedback)


@pytest.mark.thorough
def test_the_open_task_trains_for_the_learners_judge_and_each_try_from_the_same_model(capsys):
    told = []
    for _ in range(2):
        feedback = checked("preferences.own", lambda text: text.count("."))
        assert feedback, feedback
        told.append(capsys.readouterr().out)
    assert "Win rate by your judge" in told[0] and told[0] == told[1]


@pytest.mark.parametrize(
    "judge, message",
    [
        (lambda text: "good", "a judge gives a number"),
        (lambda text: print(end=""), "a judge gives a number"),
        (lambda text: float("nan"), "a judge gives a number"),
    ],
)
def test_a_judge_gives_a_number(judge, message):
    assert message in repr(checked("preferences.own", judge))


def test_each_exercise_of_the_lesson_has_hints():
    names = [name for name in EXERCISES if name.startswith("preferences.")]
    assert len(names) == 8 and all(len(EXERCISES[name].hints) >= 3 for name in names)
