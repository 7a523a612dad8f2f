"""Lesson 12, the hunt: a DPO loss with three faults that people make. None stops with an error: a token's logits are
compared with its own label, the reference is the policy itself, and beta stands in front of the loss. In the study's
first seed (beta 0.3, 88% happy texts, KL 5) the first leaves 48% happy, the second goes 78 nats away, the third makes
all betas one; the three together go 45 nats away, and 33% are happy.
"""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from peft_edu import attached
from peft_edu.lab.exercises.check import Misconception, exercise, shape
from peft_edu.lab.exercises.preferences import as_it_was, pairs, policy
from peft_edu.method import trainable
from peft_edu.preferences import Batch

BETA = 0.3


def log_p(model, batch):
    rows = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
    labels = batch["labels"].flatten(0, 1)[:, 1:]
    logs = model(**rows).logits[:, :-1].log_softmax(-1)
    each = logs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return (each * (labels >= 0)).sum(-1).unflatten(0, (-1, 2))


def hunted_dpo(model, batch, beta):
    with torch.no_grad(), attached(model).off():
        reference = log_p(model, batch)
    ratio = log_p(model, batch) - reference
    return -F.logsigmoid(beta * (ratio[:, 0] - ratio[:, 1])).mean()


@exercise(
    "preferences.hunt",
    reference=hunted_dpo,
    beside=(log_p,),
    hints=(
        "What must DPO's loss be before the first step, whatever beta is? Print it, and compare.",
        "Print the loss of every step. Does it ever change? Which of the two log-probabilities is the reference's?",
        "Where the model reads token t, its logits are about token t + 1. Which label do they meet here?",
        "One fault lies in log_p, one in how the reference is made, one in the last line.",
    ),
)
def _hunt(f) -> None:
    """hunted_dpo(model, batch, beta) -> the loss of DPO, without its three faults"""
    model, batch = policy(), pairs()
    with as_it_was(model):
        loss = f(model, batch, BETA)
    if not isinstance(loss, Tensor):
        raise Misconception(f"a loss is asked for, and it gives a {type(loss).__name__}: bring the cell back")
    shape(loss, (), "one number, the mean over the pairs")
    if not loss.requires_grad:
        raise Misconception("no gradient comes through to the policy: no_grad is for the reference alone")
    found = _signature(f)
    every = [left for number in range(len(FAULTS) + 1) for left in combinations(FAULTS, number)]
    same = [left for left in every if torch.allclose(found, _signature(_with(left)), rtol=1e-6, atol=1e-9)]
    if not same:
        right = _signature(hunted_dpo)[0].item()
        raise Misconception(
            f"something else has changed: on a small batch the loss is {loss.item():.4f}, and that of DPO {right:.4f}. "
            "Bring the cell back as it was, and mend one fault at a time"
        )
    (left,) = same
    if left:
        more = f"{len(left)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {FAULTS[left[0]]}" if len(left) == 1 else more)


def _signature(f) -> Tensor:
    """The loss and its gradient on a small policy that has moved: each set of faults has its own."""
    model = policy()
    loss = f(model, pairs(), BETA)
    gradients = torch.autograd.grad(loss, list(trainable(model).values()))
    return torch.cat([loss.detach()[None], *(each.flatten() for each in gradients)])


def _with(faults: tuple[str, ...]):
    """The loss with these faults."""
    measured = _unshifted if "place" in faults else log_p

    def faulty(model, batch, beta):
        reference = measured(model, batch).detach()
        if "reference" not in faults:
            with torch.no_grad(), attached(model).off():
                reference = measured(model, batch)
        ratio = measured(model, batch) - reference
        margin = ratio[:, 0] - ratio[:, 1]
        return -beta * F.logsigmoid(margin).mean() if "beta" in faults else -F.logsigmoid(beta * margin).mean()

    return faulty


def _unshifted(model, batch: Batch) -> Tensor:
    """What comes out where each label meets the logits of its own place."""
    rows = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
    labels = batch["labels"].flatten(0, 1)
    each = model(**rows).logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return (each * (labels >= 0)).sum(-1).unflatten(0, (-1, 2))


FAULTS = {
    "place": "Train with it: the loss falls nearly to 0, and the texts hardly become happier. What was learned? Logits "
    "at a place are about the next token: which label do they meet? A model's own loss shifts the labels, and here "
    "nobody does",
    "reference": "Print the loss of each step: it never moves from its first value, though the model does. Is the "
    "reference another model than the policy?",
    "beta": "Train with beta 0.03 and with beta 3: the two models are nearly the same. What does AdamW do with a loss "
    "that is ten times as large?",
}
