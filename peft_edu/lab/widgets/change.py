"""The card of a real change: full fine-tuning's, cut to its best copy of each rank, and what the model then answers."""

import html
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, blocks, linear_maps
from peft_edu.checks import choice
from peft_edu.lab.figures import change as figures
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import needs_function

ALL, PAPER = "all linear maps", "query and value alone"  # the second is where LoRA's paper puts its updates


@dataclass(frozen=True, eq=False)
class Change:
    """What training did to one linear map: W before and after, and the singular directions of the difference.

    Of all matrices of rank r, U_r S_r V_r is the nearest to the change (Eckart and Young 1936).
    """

    target: LinearMap  # in the model that the copies are written into
    block: int
    before: Tensor  # (out, in)
    after: Tensor  # (out, in)
    u: Tensor  # (out, n)
    s: Tensor  # (n,), the largest first
    vh: Tensor  # (n, in)

    def copy(self, rank: int) -> Tensor:
        """The best copy of the change with so many directions, (out, in)."""
        return self.u[:, :rank] * self.s[:rank] @ self.vh[:rank]

    def write(self, rank: int) -> None:
        """W and the copy, into the model; with all directions the weight after training, without rounding."""
        self.target.weight.copy_(self.after if rank >= len(self.s) else self.before + self.copy(rank))

    def energy(self, rank: int | None = None) -> float:
        """The squares of the largest singular values, of all without a rank."""
        return self.s[:rank].square().sum().item()

    def directions(self, share: float = 0.9) -> int:
        """How many of the largest directions it takes to hold this share of the energy."""
        return int((self.s.square().cumsum(0) < share * self.energy()).sum()) + 1


def changes(before: PreTrainedModel, after: PreTrainedModel, model: PreTrainedModel) -> list[Change]:
    """The change of every linear map of the blocks, to be written into `model`, a third one of the same form."""
    block = {module: i for i, each in enumerate(blocks(model), start=1) for module in each.modules()}
    first, second = ([each.weight.detach().clone() for each in linear_maps(each)] for each in (before, after))
    if [each.shape for each in first] != [each.shape for each in second]:
        raise ValueError("before and after differ in their linear maps: give one model before and after its training")
    found = []
    for target, old, new in zip(linear_maps(model), first, second, strict=True):
        found.append(Change(target, block[target.module], old, new, *torch.linalg.svd(new - old, full_matrices=False)))
    return found


@dataclass(frozen=True)
class Kept:
    """What copies of a rank in these maps keep: of the whole change's energy, and of right answers; and other ranks."""

    rank: int
    where: str
    energy: dict[int, float]
    right: dict[int, float]

    def __str__(self) -> str:
        energy, right = self.energy[self.rank], self.right[self.rank]
        where = "" if self.where == ALL else f" in {self.where}"
        kept = f"Rank {self.rank}{where} keeps {energy:.0%} of the change's energy"
        return f"{kept}: {right:.1%} of the answers are right"


class ChangeCard(Card):
    """A slider for the rank: each linear map of the blocks gets the best copy of its change with so many directions.

    `before` and `after` are the model without and with what training did to it; both stay as they are. `score(model)`
    gives the share of right answers. Drawn is the change of the map of this `role` that needs most directions. What
    lies outside the blocks' linear maps (embeddings, biases, LayerNorms, task head) is as it was trained.
    """

    def __init__(
        self,
        before: PreTrainedModel,
        after: PreTrainedModel,
        score: Callable[[PreTrainedModel], float],
        role: str = "value",
    ):
        needs_function("score", score, "score(model) gives the share of right answers")
        self.model, self.score = deepcopy(after), score
        self.changes = changes(before, after, self.model)
        choice("role", role, tuple(dict.fromkeys(each.target.role for each in self.changes)))
        self.shown = max((each for each in self.changes if each.target.role == role), key=Change.directions)
        if not self.shown.energy():
            raise ValueError(f"before and after have the same {role} maps: there is no change to look at")
        most = max(len(each.s) for each in self.changes)
        self.ranks = [0, *(2**i for i in range(most.bit_length()) if 2**i < most), most]
        self.scores: dict[tuple[str, int], float] = {}  # each is measured once, when it is asked for
        self._score(ALL, most)
        controls = {
            "rank": widgets.SelectionSlider(options=self.ranks, value=1, description="rank of the copies"),
            "where": widgets.Dropdown(options=[ALL, PAPER], description="in"),
        }
        super().__init__("How many directions of a real change does it take?", controls)

    def state(self) -> tuple[int, str, int]:
        """How many copies were tried is part of it: the picture shows them all."""
        return self.controls["rank"].value, self.controls["where"].value, len(self.scores)

    def measure(self, state: tuple[int, str, int]) -> Kept:
        rank, where, _ = state
        self._score(where, rank)
        inside, tried = self._inside(where), sorted(self.scores.items())
        total = sum(each.energy() for each in self.changes)
        energy = {r: sum(each.energy(r) for each in inside) / total for r in self.ranks}
        return Kept(rank, where, energy, {rank: score for (place, rank), score in tried if place == where})

    def words(self, kept: Kept) -> str:
        whole = f"With the whole change of all maps it is <b>{self.scores[ALL, self.ranks[-1]]:.1%}</b>."
        others = " The other linear maps are as they were before." if kept.where == PAPER else ""
        maps = f"{len(self._inside(kept.where))} maps are W and such a copy of their change.{others}"
        rest = "Embeddings, biases, LayerNorms and the task head are as fine-tuned."
        return f"<b>{html.escape(str(kept))}.</b> {whole} {maps} {rest}"

    def alt(self, kept: Kept) -> str:
        tried = ", ".join(f"rank {rank} {score:.1%}" for rank, score in kept.right.items())
        drawn = f"Drawn is the {self._name()} and its copy of rank {kept.rank}"
        return f"{kept}. {drawn}. Right answers of the ranks tried so far: {tried}."

    def draw(self, kept: Kept) -> Figure:
        whole = self.scores[ALL, self.ranks[-1]]
        title = f"{kept} (with all of the change {whole:.1%})"
        change = self.shown.after - self.shown.before
        matrices = (each.cpu().double().numpy() for each in (change, self.shown.copy(kept.rank)))
        return figures.figure(*matrices, kept.rank, kept.energy, kept.right, whole, title, self._name())

    def _name(self) -> str:
        return f"change of block {self.shown.block}, {self.shown.target.role}"

    def _inside(self, where: str) -> list[Change]:
        """The maps that get a copy."""
        return [each for each in self.changes if where == ALL or each.target.role in ("query", "value")]

    @torch.no_grad()
    def _score(self, where: str, rank: int) -> float:
        """The share of right answers with copies of this rank; a map that is left out is as it was before."""
        if (where, rank) not in self.scores:
            inside = self._inside(where)
            for each in self.changes:
                each.write(rank if each in inside else 0)
            self.scores[where, rank] = self.score(self.model)
        return self.scores[where, rank]
