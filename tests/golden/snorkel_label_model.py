"""Makes snorkel_label_model.safetensors: what snorkel's label model (0.10.0) makes of five matrices of votes.

snorkel needs what nothing else here does, so its numbers are made once, in an environment of their own:

    python3 -m venv golden && golden/bin/pip install torch==2.13.0 snorkel==0.10.0 safetensors==0.8.0
    golden/bin/python tests/golden/snorkel_label_model.py

The truth and the votes follow from numbers: `truth_and_votes` gives a test the same ones, and needs torch alone.
Of each case the file holds

    <case>.probabilities  (n, 2)   of the two classes, for each row; where no rule votes, the prior
    <case>.weights        (m)      LabelModel.get_weights(): about P(a rule is right | it votes), cut at 1
    <case>.accuracy       (3)      on the rows that have a vote: of snorkel, of the majority, and of Bayes' rule with
                                   the accuracies that made the votes, each rule taken as independent of the others
    <case>.seeds          (5)      snorkel's accuracy with the seeds 0 to 4; the other numbers are of seed 0
    <case>.checksum       (2)      the truth's sum, and the votes' sum with the weights 1, 2, 3, ... n m, row by row
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

ABSTAIN, ROWS, EPOCHS, SEEDS = -1, 2000, 500, 5  # 500 epochs, as in snorkel's tutorials; its default is 100


@dataclass(frozen=True)
class Case:
    """Rules of an accuracy, P(right | votes), and a coverage, P(votes); some are copies of another rule."""

    seed: int
    accuracy: tuple[float, ...]
    coverage: tuple[float, ...]
    balance: tuple[float, float] = (0.5, 0.5)
    copies: tuple[tuple[int, int], ...] = ()  # (copy, of which)


SIX = (0.55, 0.65, 0.75, 0.8, 0.9, 0.95)
CASES = {
    "six": Case(1, SIX, (0.8, 0.5, 0.6, 0.3, 0.7, 0.4)),
    "unbalanced": Case(2, SIX, (0.8, 0.5, 0.6, 0.3, 0.7, 0.4), balance=(0.3, 0.7)),
    "copy": Case(3, (0.65, 0.65, 0.75, 0.8, 0.85), (0.7, 0.7, 0.6, 0.5, 0.6), copies=((1, 0),)),
    "weak": Case(4, (0.6,) * 8, (0.8, 0.85, 0.9, 0.95, 0.8, 0.85, 0.9, 0.95)),
    "seldom": Case(5, (0.98, 0.95, 0.92, 0.9, 0.95, 0.97), (0.05, 0.08, 0.1, 0.12, 0.15, 0.2)),
}


def truth_and_votes(case: Case) -> tuple[Tensor, Tensor]:
    """The classes (n), and what each rule says (n, m): 0, 1, or -1 where it abstains."""
    draw = torch.Generator().manual_seed(case.seed)
    shape, kind = (ROWS, len(case.accuracy)), {"generator": draw, "dtype": torch.float64}
    truth = (torch.rand(ROWS, **kind) < case.balance[1]).long()
    right = torch.rand(shape, **kind) < torch.tensor(case.accuracy)
    speaks = torch.rand(shape, **kind) < torch.tensor(case.coverage)
    votes = torch.where(right, truth[:, None], 1 - truth[:, None]).where(speaks, ABSTAIN)
    for copy, original in case.copies:
        votes[:, copy] = votes[:, original]
    return truth, votes


def checksum(truth: Tensor, votes: Tensor) -> Tensor:
    return torch.stack([truth.sum(), (votes.flatten() * torch.arange(1, votes.numel() + 1)).sum()])


def majority(votes: Tensor) -> Tensor:
    """The share of the votes (n, 2) that each class has; where there is none, zeros."""
    counts = torch.stack([(votes == label).sum(1) for label in (0, 1)], 1).double()
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def bayes(votes: Tensor, case: Case) -> Tensor:
    """P(class | votes) (n, 2) for independent rules whose accuracies are known."""
    right = torch.tensor(case.accuracy, dtype=torch.float64)
    scores = [torch.where(votes == label, right, 1 - right).log().where(votes != ABSTAIN, 0).sum(1) for label in (0, 1)]
    return (torch.stack(scores, 1) + torch.tensor(case.balance).log()).softmax(1)


def accuracy(probabilities: Tensor, truth: Tensor, votes: Tensor) -> float:
    """On the rows that have a vote; a tie is half right."""
    of_truth, of_other = probabilities.gather(1, torch.stack([truth, 1 - truth], 1)).unbind(1)
    points = (of_truth > of_other).double() + 0.5 * (of_truth == of_other).double()
    return points[(votes != ABSTAIN).any(1)].mean().item()


def learn(case: Case) -> dict[str, Tensor]:
    truth, votes = truth_and_votes(case)
    found, seeds = {}, []
    for seed in range(SEEDS):
        model, probabilities = fit(votes, case.balance, seed)
        seeds.append(accuracy(probabilities, truth, votes))
        if seed == 0:
            found["probabilities"] = probabilities.float()
            found["weights"] = torch.from_numpy(model.get_weights()).float()
    others = [accuracy(other, truth, votes) for other in (majority(votes), bayes(votes, case))]
    found["accuracy"], found["seeds"] = torch.tensor([seeds[0], *others]), torch.tensor(seeds)
    return found | {"checksum": checksum(truth, votes)}


def fit(votes: Tensor, balance: tuple[float, float], seed: int):
    """The trained label model, and its probabilities (n, 2)."""
    from snorkel.labeling.model import LabelModel  # here, because the tests make the same votes without snorkel

    model = LabelModel(cardinality=2, verbose=False)
    model.fit(votes.numpy(), class_balance=list(balance), n_epochs=EPOCHS, seed=seed, progress_bar=False)
    return model, torch.from_numpy(model.predict_proba(votes.numpy()))


if __name__ == "__main__":
    numbers = {f"{name}.{key}": value for name, case in CASES.items() for key, value in learn(case).items()}
    save_file(numbers, Path(__file__).with_name("snorkel_label_model.safetensors"))
    for name in CASES:
        print(name, *(f"{each:.4f}" for each in numbers[f"{name}.accuracy"]), *numbers[f"{name}.checksum"].tolist())
