"""Lesson 12: preferences as functions: who wins, the loss of pairs, DPO in two pieces, and policy gradients in two."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from peft_edu import LoRA, attached
from peft_edu.lab.exercises.check import (
    Misconception,
    exercise,
    expect_number,
    same,
    same_gradient,
    shape,
    tensors,
    untouched,
)
from peft_edu.method import trainable
from peft_edu.preferences import Batch, log_probability

VOCABULARY, LENGTH = 9, 6


def win_rate(ours, theirs):
    return ((ours > theirs).double() + (ours == theirs).double() / 2).mean().item()


@exercise(
    "preferences.win_rate",
    reference=win_rate,
    hints=(
        "Row i of both is an answer to the same prompt: compare them one by one, `ours > theirs`.",
        "`(ours > theirs).double()` is 1 where ours is better, and 0 elsewhere.",
        "A tie counts a half: add `(ours == theirs).double() / 2`, and take the mean.",
    ),
)
def _win_rate(f) -> None:
    """f(ours, theirs) -> a number from 0 to 1: ours and theirs are verdicts (n,); the share of rows where ours is
    higher, and a tie counts a half"""
    ours = torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0, -1.0, 0.2, 1.0], dtype=torch.float64)
    theirs = torch.tensor([0.0, 0.2, -1.0, 0.0, 1.0, -1.0, 0.5, 1.5], dtype=torch.float64)
    wrong = {
        0.5: "a tie counts nothing here: it is half a win",
        0.75: "a tie counts as a whole win here: it is half a win, and half a win of the other",
        0.375: "this is the win rate of the other one: ours is to be higher",
        5.0: "this is the number of wins: divide by the number of rows",
    }
    result = untouched(f, (ours, theirs))
    if isinstance(result, Tensor) and result.numel() > 1:
        raise Misconception(f"one number is asked for, and it gives {tuple(result.shape)}: take the mean over the rows")
    value = result.item() if isinstance(result, Tensor) else result
    if isinstance(value, float) and abs(value - 4 / 6) < 1e-6:
        raise Misconception("rows with a tie are left out here: they count a half, so that all rows count")
    expect_number(value, 0.625, wrong, f"of 8 rows ours wins 4 and ties 2: that is 0.625, and yours gives {value}")


def bradley_terry(scores):
    return -F.logsigmoid(scores[:, 0] - scores[:, 1]).mean()


@exercise(
    "preferences.bradley_terry",
    reference=bradley_terry,
    hints=(
        "The probability that the chosen one is preferred is sigmoid(r+ - r-): `scores[:, 0] - scores[:, 1]`.",
        "The loss is -log of that probability, as with every label that is known.",
        "`F.logsigmoid(x)` is log(sigmoid(x)), without rounding to log(0). Then take the mean over the pairs.",
    ),
)
def _bradley_terry(f) -> None:
    """f(scores) -> the loss, one number: scores (b, 2), of the chosen and of the rejected answer; the mean over pairs
    of -log sigmoid(r+ - r-)"""
    scores = 2 * tensors((5, 2))[0]
    margin = scores[:, 0] - scores[:, 1]
    losses = -F.logsigmoid(margin)
    wrong = {
        "chosen and rejected are exchanged: the chosen one stands in column 0": -F.logsigmoid(-margin).mean(),
        "the sign is turned: a loss is to become small, and -log p is small where p is near 1": -losses.mean(),
        "the log is missing: -sigmoid(...) is no log-likelihood": -margin.sigmoid().mean(),
        "first the log of each pair, then the mean: this is the log of the mean": -margin.sigmoid().mean().log(),
        "this is the sum over the pairs: take the mean": losses.sum(),
        "the sigmoid is missing: the margin alone can grow for ever": -margin.mean(),
        "these are two rows, so two pairs: chosen and rejected are the columns, scores[:, 0] and scores[:, 1]": (
            -F.logsigmoid(scores[0] - scores[1]).mean()
        ),
        "each score has its own sigmoid here: only the difference of the two counts": -(
            F.logsigmoid(scores[:, 0]) - F.logsigmoid(scores[:, 1])
        ).mean(),
    }
    result = untouched(f, (scores,))
    if isinstance(result, Tensor) and result.shape == (5,):
        raise Misconception("this is the loss of each pair: the mean over the pairs is asked for, one number")
    same(result, losses.mean(), wrong)
    try:
        finite = bool(f(torch.tensor([[-1000.0, 0.0], [0.0, 0.0]], dtype=torch.float64)).isfinite())
    except (OverflowError, ValueError, ZeroDivisionError):  # math.exp, math.log
        finite = False
    if not finite:
        raise Misconception(
            "right, but at a margin of -1000 it is infinite: sigmoid rounds to 0 there, and log(0) is -inf. "
            "F.logsigmoid does both in one, and does not round in between"
        )
    scores.requires_grad_()
    same_gradient(
        f(scores),
        bradley_terry(scores),
        [scores],
        "the number is right, but no gradient comes back, so nothing learns by it: .item(), .tolist() and a new "
        "torch.tensor(...) cut it",
    )


def log_ratio(model, batch):
    with torch.no_grad(), attached(model).off():
        reference = log_probability(model, batch)
    return log_probability(model, batch) - reference


@exercise(
    "preferences.log_ratio",
    reference=log_ratio,
    hints=(
        "`log_probability(model, batch)` is log policy(y|x). You need the same for the reference, and the difference.",
        "`attached(model)` is the LoRA in the model. Inside `with attached(model).off():` the model is without it.",
        "The reference gets no gradient: `with torch.no_grad(), attached(model).off():` and one line in it.",
    ),
)
def _log_ratio(f) -> None:
    """f(model, batch) -> log(policy(y|x) / reference(y|x)) of each answer, the shape that log_probability gives: the
    policy is the model with its LoRA, the reference the same model with the LoRA off"""
    model, batch = policy(), pairs()
    with torch.no_grad():
        own = log_probability(model, batch)
        with attached(model).off():
            reference = log_probability(model, batch)
    with as_it_was(model):
        result = f(model, batch)
    wrong = {
        "policy and reference are the same here, so the difference is 0: the LoRA was not off": 0 * own,
        "the sign is turned: it is the policy's, minus the reference's": reference - own,
        "this is the policy's log-probability alone: take the reference's away": own,
        "this is the reference's log-probability alone": reference,
        "these are log-probabilities: log(a / b) is log a - log b": own / reference,
        "this is the ratio itself: its logarithm is asked for": (own - reference).exp(),
        "the two are added: log(a / b) is log a - log b": own + reference,
    }
    otherwise, learns = "the numbers are not those", isinstance(result, Tensor) and result.requires_grad
    if learns and torch.allclose(_slope(result, model), _slope(log_probability(model, batch), model)):
        otherwise = "the reference is another model's: it is the `model` that is given, with its LoRA off"
    same(result, own - reference, wrong, otherwise)
    expect_gradient(result, model, log_ratio(model, batch))
    alone = {name: each.flatten(0, 1) for name, each in batch.items()}
    try:
        fits = torch.allclose(f(model, alone), (own - reference).flatten())
    except Exception:
        fits = False
    if not fits:
        raise Misconception(
            "right for pairs (b, 2, t), but later it meets answers that are in no pair, (n, t): log_probability takes "
            "both, so leave the first dimensions as they come"
        )


def dpo(model, batch, beta):
    return bradley_terry(beta * log_ratio(model, batch))


@exercise(
    "preferences.dpo",
    reference=dpo,
    beside=(log_ratio, bradley_terry),
    hints=(
        "DPO is the loss of pairs, with a reward that the policy itself gives.",
        "That reward is beta * log_ratio(model, batch), of the shape (b, 2): chosen, then rejected.",
        "So it is one line: bradley_terry of that.",
    ),
)
def _dpo(f) -> None:
    """f(model, batch, beta) -> the loss, one number: the mean over pairs of -log sigmoid(beta (log_ratio of the chosen
    answer - log_ratio of the rejected one)); batch holds tensors (b, 2, t)"""
    model, batch, beta = policy(), pairs(), 0.3
    with torch.no_grad():
        ratio, own = log_ratio(model, batch), log_probability(model, batch)
    margin = ratio[:, 0] - ratio[:, 1]
    loss = -F.logsigmoid(beta * margin).mean()
    wrong = {
        "beta is left out: it says what a nat away from the reference is worth": -F.logsigmoid(margin).mean(),
        "beta stands in front of the loss, where AdamW hardly sees it: it belongs into the sigmoid": -(
            beta * F.logsigmoid(margin)
        ).mean(),
        "it is divided by beta: the reward is beta times the log-ratio": -F.logsigmoid(margin / beta).mean(),
        "chosen and rejected are exchanged": -F.logsigmoid(-beta * margin).mean(),
        "the sign is turned: a loss is to become small": F.logsigmoid(beta * margin).mean(),
        "the reference is missing: the reward is the log-RATIO of policy and reference": -F.logsigmoid(
            beta * (own[:, 0] - own[:, 1])
        ).mean(),
        "this is the sum over the pairs: take the mean": -F.logsigmoid(beta * margin).sum(),
        "this is the loss of the chosen answers alone": -F.logsigmoid(beta * ratio[:, 0]).mean(),
    }
    with as_it_was(model):
        result = f(model, batch, beta)
    if isinstance(result, Tensor) and result.shape == (len(margin),):
        raise Misconception("this is the loss of each pair: the mean over the pairs is asked for, one number")
    same(result, loss, wrong)
    expect_gradient(result, model, dpo(model, batch, beta))
    same(f(model, batch, 1.0), -F.logsigmoid(margin).mean(), {}, "right for beta 0.3, but not for beta 1")


def advantages(rewards, ratios, price, size):
    earned = (rewards - price * ratios).view(-1, size)
    return (earned - earned.mean(1, keepdim=True)).flatten()


@exercise(
    "preferences.advantages",
    reference=advantages,
    hints=(
        "First what each answer earned: its reward, minus the price times its log-ratio.",
        "`size` neighbours answer the same prompt: `.view(-1, size)` puts each group into a row.",
        "Take from each the mean of its own row, `.mean(1, keepdim=True)`, and bring all into one line: `.flatten()`.",
    ),
)
def _advantages(f) -> None:
    """f(rewards, ratios, price, size) -> advantages (n,): rewards and ratios (n,), where `size` neighbours answer the
    same prompt; each earned reward - price * ratio, and the mean of its group is taken away"""
    rewards, ratios = tensors((12,), (12,))
    price, size = 0.5, 4
    earned = (rewards - price * ratios).view(-1, size)
    right = earned - earned.mean(1, keepdim=True)
    (added, free) = (paid.view(-1, size) for paid in (rewards + price * ratios, rewards))
    across = (rewards - price * ratios).view(size, -1)
    wrong = {
        "the mean is taken away, but nothing was paid for the log-ratio: reward - price * ratio": (
            free - free.mean(1, keepdim=True)
        ).flatten(),
        "the price is added: a nat away from the reference costs something": (
            added - added.mean(1, keepdim=True)
        ).flatten(),
        "the mean of all is taken away: each group has its own prompt, and its own mean": (
            earned - earned.mean()
        ).flatten(),
        "the mean goes across the groups: it is that of the answers to the same prompt": (
            earned - earned.mean(0)
        ).flatten(),
        "the rows are not the groups: .view(-1, size) puts `size` neighbours into a row": (
            across - across.mean(1, keepdim=True)
        ).flatten(),
        "the rows are not the groups: .view(-1, size) puts `size` neighbours into a row, .view(size, -1) does not": (
            across - across.mean(0)
        ).flatten(),
        "no mean is taken away: an advantage says how much better than usual an answer is": earned.flatten(),
        "only the rewards' mean is taken away, and the price paid afterwards: the mean is that of what was earned": (
            rewards.view(-1, size) - rewards.view(-1, size).mean(1, keepdim=True)
        ).flatten()
        - price * ratios,
        "it is divided by the standard deviation, as GRPO does: here it is not": (
            right / earned.std(1, keepdim=True)
        ).flatten(),
        "it is divided by the standard deviation: here it is not": (
            right / earned.std(1, keepdim=True, correction=0)
        ).flatten(),
    }
    result = untouched(f, (rewards, ratios), price, size)
    if isinstance(result, Tensor) and result.shape == right.shape:
        raise Misconception("the groups still stand in rows: .flatten() brings them into one line, as they came")
    same(result, right.flatten(), wrong)
    one = f(*tensors((6,), (6,)), 0.0, 2)
    shape(one, (6,), "right for groups of 4, but not for groups of 2")


def policy_gradient(model, batch):
    return -(batch["advantages"] * log_probability(model, batch)).mean()


@exercise(
    "preferences.policy_gradient",
    reference=policy_gradient,
    hints=(
        "An answer with a positive advantage is to become likelier, one with a negative advantage less likely.",
        "So advantage * log_probability is to grow, for each answer.",
        "A loss is made small: put a minus in front, and take the mean over the answers.",
    ),
)
def _policy_gradient(f) -> None:
    """f(model, batch) -> the loss, one number: minus the mean over the answers of batch["advantages"] (n,) times
    log_probability(model, batch) (n,)"""
    model, batch = policy(), {name: each.flatten(0, 1) for name, each in pairs().items()}
    batch["advantages"] = tensors((len(batch["labels"]),))[0]
    with torch.no_grad():
        own, ratio = log_probability(model, batch), log_ratio(model, batch)
    worth = batch["advantages"] * own
    wrong = {
        "the sign is turned: fit makes this small, and the better answers would become less likely": worth.mean(),
        "this is the sum over the answers: take the mean": -worth.sum(),
        "the advantages are left out: then every answer becomes likelier, good or bad": -own.mean(),
        "the advantage multiplies the probability: it is the log-probability's gradient that is wanted": -(
            batch["advantages"] * own.exp()
        ).mean(),
        "the reference is taken away: that changes no gradient, but what is asked for is log policy alone": -(
            batch["advantages"] * ratio
        ).mean(),
        "the means are multiplied: each answer has its own advantage": -batch["advantages"].mean() * own.mean(),
    }
    with as_it_was(model):
        result = f(model, batch)
    if isinstance(result, Tensor) and result.shape == worth.shape:
        raise Misconception("this is one number an answer: the mean over the answers is asked for")
    same(result, -worth.mean(), wrong)
    expect_gradient(result, model, policy_gradient(model, batch))


# --------------------------------------------------------------------------------------- a small policy, and pairs
def policy() -> PreTrainedModel:
    """A tiny language model in float64, with a LoRA that is no longer zero."""
    config = AutoConfig.for_model(
        "gpt2", vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, pad_token_id=0, bos_token_id=1, eos_token_id=1
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
    LoRA(rank=2, alpha=4).attach(model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return model


def pairs() -> Batch:
    """Four pairs (4, 2, 6): a prompt of two tokens, answers of three or four, and padding."""
    ids = torch.randint(2, VOCABULARY, (4, 2, LENGTH), generator=torch.Generator().manual_seed(2))
    ids[..., :2] = ids[:, :1, :2]
    mask = torch.ones_like(ids)
    mask[::2, 1, -1] = 0  # of every other pair the rejected answer is shorter
    ids = ids * mask
    labels = ids.masked_fill(mask == 0, -100)
    labels[..., :2] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@contextmanager
def as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """What is called here leaves the model's method on, and its parameters as they were."""
    before = {name: each.clone() for name, each in model.state_dict().items()}
    yield
    if attached(model) is None:
        raise Misconception("the LoRA is gone from the model: `with attached(model).off():` takes it away for a moment")
    if any(not torch.equal(each, before[name]) for name, each in model.state_dict().items()):
        raise Misconception("a weight of the model was changed: the function only measures")


def expect_gradient(found: Tensor, model: PreTrainedModel, right: Tensor) -> None:
    """Of a number that is right: its gradient at A and B is right, too."""
    if not found.requires_grad:
        raise Misconception("no gradient comes through to the policy: no_grad is for the reference alone")
    missing = "no gradient reaches A and B: is there a detach(), or is the LoRA off for the policy too?"
    same_gradient(found, right, list(trainable(model).values()), missing)


def _slope(found: Tensor, model: PreTrainedModel) -> Tensor:
    """The gradient of the sum at A and B, as one long vector."""
    of = list(trainable(model).values())
    slopes = torch.autograd.grad(found.sum(), of, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([each.flatten() for each in slopes])
