"""Weak supervision: rules that somebody writes in the place of labels that somebody gives.

A labelling function reads a text and votes for a class, or abstains (Ratner et al. 2017, section 2.1). Where rules
disagree, somebody has to say whom to believe. A label model learns that without a single label: it takes the class z of
a text for unknown, and a rule for somebody who says v of a text of class k at a rate of its own,

    p(z_i = k | votes of text i) ~ prior_k  prod_j rate_j[k, vote_ij]          over the rules j that vote

EM goes round (Dawid and Skene 1979): from the rates to what each text probably is (E), and from there to the rates (M).
The product says what it believes: given the class, no rule copies another. That a rule abstains is left out of it.

Votes are a tensor (n, m) of whole numbers: n texts, m rules, -1 where a rule abstains. Probabilities are (n, k).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_edu.checks import as_numbers, list_of_texts, number, whole_number

ABSTAIN = -1


def vote(rules: Sequence[Callable[[str], int]], texts: Sequence[str], classes: int = 2) -> Tensor:
    """What each rule says of each text (n, m): a class from 0 on, or ABSTAIN."""
    list_of_texts("texts", texts)
    if callable(rules) or not all(callable(rule) for rule in rules):
        raise TypeError(f"rules is {rules!r:.60}, but must be a list of functions, as in [praises, blames]")
    votes = [[_said(rule, text, classes) for rule in rules] for text in texts]
    return torch.tensor(votes, dtype=torch.long).view(len(texts), len(rules))


def _said(rule: Callable[[str], int], text: str, classes: int) -> int:
    said = rule(text)
    if isinstance(said, bool) or not isinstance(said, Integral) or not ABSTAIN <= said < classes:
        known = f"a class from 0 to {classes - 1}, or ABSTAIN ({ABSTAIN})"
        forgot = ": does a branch of it lack its return?" if said is None else ""
        raise ValueError(f"{_name(rule)} said {said!r} of {text[:60]!r}, but must say {known}{forgot}")
    return int(said)


def _name(rule: Callable) -> str:
    return getattr(rule, "__name__", repr(rule))


def report(votes: Tensor, labels: Sequence[int] | None = None, names: Sequence[str] | None = None) -> pd.DataFrame:
    """For each rule the share of texts on which it votes (coverage), on which another votes too (overlaps), and on
    which another says something else (conflicts); of labelled texts also the share of its votes that are right."""
    _check(votes)
    if names is not None and len(names) != votes.shape[1]:
        raise ValueError(f"{len(names)} names for the votes of {votes.shape[1]} rules: each rule has one")
    voted = votes != ABSTAIN
    others = voted.sum(1, keepdim=True) - voted.long()  # (n, m): how many other rules vote
    against = (votes[:, :, None] != votes[:, None, :]) & voted[:, :, None] & voted[:, None, :]  # (n, m, m)
    shares = {"coverage": voted, "overlaps": voted & (others > 0), "conflicts": against.any(2)}
    table = pd.DataFrame({name: each.double().mean(0).tolist() for name, each in shares.items()}, index=names)
    if labels is not None:
        right = (votes == _classes_of(labels, len(votes))[:, None]) & voted
        table["right"] = (right.sum(0) / voted.sum(0)).tolist()  # nan for a rule that never votes
    return table


def _classes_of(labels: Sequence[int], count: int) -> Tensor:
    classes = as_numbers(labels)
    if classes.shape != (count,) or classes.is_floating_point():
        raise ValueError(f"labels is {labels!r:.60}, but must be {count} whole numbers, the class of each text")
    return classes


def covered(votes: Tensor) -> Tensor:
    """Which texts some rule votes on (n,)."""
    return (votes != ABSTAIN).any(1)


def majority(votes: Tensor, classes: int = 2) -> Tensor:
    """Each class's share of the votes (n, k); the same for all classes where nobody votes."""
    _check(votes, classes)
    counts = one_hot(votes, classes).sum(1)
    total = counts.sum(1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1), 1 / classes)


def one_hot(votes: Tensor, classes: int) -> Tensor:
    """(n, m, k): 1 at the class that is voted for; nothing but 0 where a rule abstains."""
    return F.one_hot(votes + 1, classes + 1)[..., 1:].double()


@dataclass
class LabelModel:
    """Dawid and Skene's model, fitted by EM. `prior`: how frequent each class is, if you know; else all alike.

    After `fit`, `rates` (m, k, k) are of each rule the shares of the texts of a class (before the last) of which it
    says this or that (last). Where it abstains it says nothing, so they need not sum to 1. A rule may vote for one
    class alone: its vote tells as much as it is more frequent there than elsewhere. `accuracy` (m,) is how often a
    rule is right when it votes. All are estimates.

    >>> votes = torch.tensor([[0, 0, -1], [1, 1, 1], [0, 1, 1], [0, 0, 0]])
    >>> LabelModel().fit(votes).argmax(1).tolist()
    [0, 1, 1, 0]
    """

    classes: int = 2
    prior: Sequence[float] | None = None
    steps: int = 100
    smoothing: float = 1.0  # texts of each class that a rule is given for each answer, so that no rate is 0

    def __post_init__(self):
        whole_number("classes", self.classes, at_least=2)
        whole_number("steps", self.steps)
        number("smoothing", self.smoothing, "above 0", lambda texts: texts > 0)
        given = [1 / self.classes] * self.classes if self.prior is None else self.prior
        self.shares = as_numbers(given, torch.double)
        fits = self.shares.shape == (self.classes,) and (self.shares > 0).all()
        if not fits or abs(self.shares.sum() - 1) > 1e-6:
            raise ValueError(f"prior is {self.prior!r}, but must be {self.classes} shares above 0 that sum to 1")

    def fit(self, votes: Tensor) -> Tensor:
        """Learn whom to believe, and say what each text probably is: (n, k). Where nobody votes it is the prior."""
        believed = majority(votes, self.classes)  # the start: everybody is believed alike
        said = one_hot(votes, self.classes)
        for _ in range(self.steps):
            counts = torch.einsum("nk,nmv->mkv", believed, said) + self.smoothing
            self.rates = counts / (believed.sum(0)[:, None] + self.classes * self.smoothing)  # M
            believed = self.probabilities(votes)  # E
        return believed

    def probabilities(self, votes: Tensor) -> Tensor:
        """What texts probably are (n, k), by the rules' rates: the prior times the rate of each vote, normalised."""
        _check(votes, self.classes)
        if (learned := len(getattr(self, "rates", ()))) != votes.shape[1]:
            raise ValueError(f"votes are of {votes.shape[1]} rules, and fit(votes) has learned of {learned} rules")
        said = one_hot(votes, self.classes)
        return (self.shares.log() + torch.einsum("nmv,mkv->nk", said, self.rates.log())).softmax(-1)

    @property
    def accuracy(self) -> Tensor:
        said = self.shares[:, None] * self.rates  # (m, k, v): of all texts
        return said.diagonal(dim1=1, dim2=2).sum(-1) / said.sum((1, 2))


def soft_cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """-sum_k p_k log q_k, the mean over rows: `labels` (b, k) are probabilities p, q is what the model says. Of a label
    that is certain it is the usual loss. For `fit(..., objective=soft_cross_entropy)`."""
    labels = batch["labels"]
    logits = model(**{name: each for name, each in batch.items() if name != "labels"}).logits
    if labels.shape != logits.shape or not labels.is_floating_point():
        told = f"labels {tuple(labels.shape)} {labels.dtype} and logits {tuple(logits.shape)}"
        raise ValueError(f"{told}: a row's label must be a list of probabilities, one for each class")
    return F.cross_entropy(logits, labels.to(logits.dtype))


def _check(votes: Tensor, classes: int | None = None) -> None:
    if not isinstance(votes, Tensor) or votes.dim() != 2 or votes.is_floating_point() or votes.is_complex():
        got = f"{tuple(votes.shape)} {votes.dtype}" if isinstance(votes, Tensor) else type(votes).__name__
        raise TypeError(f"votes is {got}, but must be a tensor (n, m) of whole numbers: vote(rules, texts) gives it")
    low, high = (votes.min().item(), votes.max().item()) if votes.numel() else (ABSTAIN, ABSTAIN)
    if low < ABSTAIN or (classes is not None and high >= classes):
        raise ValueError(f"votes go from {low} to {high}, but must be {ABSTAIN} (abstains) or a class from 0 on")
