"""The rank of a real change: the best copy of each rank, what is evaluated, and that no model is touched."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from families import SIZES, tiny

from peft_edu.anatomy import linear_maps
from peft_edu.lab.figures import change as figures
from peft_edu.lab.figures import style
from peft_edu.lab.widgets.change import ALL, PAPER, ChangeCard, changes


def pair(family="bert"):
    """A model before and after its weights were moved, all of them, in directions of falling strength."""
    before = tiny(family, "language", torch.float64)
    after, draw = deepcopy(before), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return before, after


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Score:
    """What is evaluated is remembered."""

    def __init__(self):
        self.seen = []

    def __call__(self, model):
        self.seen.append(weights(model))
        return 1 / len(self.seen)


@pytest.mark.parametrize("family", SIZES)
def test_a_copy_has_its_rank_and_is_the_best_one(family):
    before, after = pair(family)
    for each in changes(before, after, deepcopy(after)):
        change, copy = each.after - each.before, each.copy(3)
        assert torch.linalg.matrix_rank(copy) == 3
        lost = torch.linalg.svdvals(change)[3:].square().sum()  # Eckart and Young
        torch.testing.assert_close((change - copy).square().sum(), lost)
        assert each.energy(3) == pytest.approx(copy.square().sum().item())
        assert each.energy() == pytest.approx(change.square().sum().item())


@pytest.mark.parametrize("where", [ALL, PAPER])
@pytest.mark.parametrize("rank", [0, 4, 32])
def test_what_is_evaluated_is_w_and_its_copy_and_the_rest_as_trained(rank, where):
    (before, after), score = pair(), Score()
    card = ChangeCard(before, after, score)
    card.controls["where"].value, card.controls["rank"].value = where, rank
    seen, maps = deepcopy(after), zip(linear_maps(before), linear_maps(after), strict=True)
    seen.load_state_dict(score.seen[-1] if rank < 32 or where == PAPER else score.seen[0])
    for (old, new), now in zip(maps, linear_maps(seen), strict=True):
        change = new.weight - old.weight
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
        inside = where == ALL or new.role in ("query", "value")
        expected = old.weight + u[:, :rank] * s[:rank] @ vh[:rank] if inside else old.weight
        torch.testing.assert_close(now.weight, expected)
        if rank in (0, 32):
            assert torch.equal(now.weight, new.weight if rank and inside else old.weight)
    of_maps = {each.module for each in linear_maps(after)}
    names = {f"{name}.weight" for name, module in after.named_modules() if module in of_maps}
    assert all(
        torch.equal(now, after.state_dict()[name]) for name, now in seen.state_dict().items() if name not in names
    )


def test_both_models_stay_as_they_are():
    before, after = pair()
    was = weights(before), weights(after)
    card = ChangeCard(before, after, lambda model: 0.5)
    card.controls["rank"].value = 2
    card.score = lambda model: 1 / 0
    card.controls["rank"].value = 4
    assert "ZeroDivisionError" in card.result.value
    assert same(weights(before), was[0]) and same(weights(after), was[1])
    card.score = lambda model: 0.25
    card.controls["rank"].value = 8
    assert "25.0% of the answers are right" in card.result.value


def test_each_rank_is_evaluated_once_and_stays_in_the_picture():
    score = Score()
    card = ChangeCard(*pair(), score)
    assert card.ranks == [0, 1, 2, 4, 8, 16, 32] and len(score.seen) == 2  # as trained, and where the slider stands
    for rank in (2, 1, 2, 32):
        card.controls["rank"].value = rank
    assert len(score.seen) == 3
    assert str(card).endswith("Right answers of the ranks tried so far: rank 1 50.0%, rank 2 33.3%, rank 32 100.0%.")
    (tried,) = (line for line in card.figure().axes[0].lines if line.get_label() == "right answers")
    assert len(tried.get_xdata()) == 3
    card.controls["where"].value = PAPER
    assert len(score.seen) == 4 and "other linear maps are as they were before" in card.result.value


def test_the_share_of_the_energy_is_that_of_all_copies_together():
    before, after = pair()
    card = ChangeCard(before, after, lambda model: 0.5)
    card.controls["rank"].value = 4
    maps = zip(linear_maps(before), linear_maps(after), strict=True)
    found = [torch.linalg.svdvals(new.weight - old.weight) for old, new in maps]
    share = sum(s[:4].square().sum() for s in found) / sum(s.square().sum() for s in found)
    assert card.measure(card.state()).energy[4] == pytest.approx(share.item())
    assert f"Rank 4 keeps {share:.0%} of the change's energy: 50.0% of the answers are right" in str(card)
    card.controls["where"].value, card.controls["rank"].value = PAPER, 32
    inside = [s for s, each in zip(found, linear_maps(before), strict=True) if each.role in ("query", "value")]
    share = sum(s.square().sum() for s in inside) / sum(s.square().sum() for s in found)
    assert card.measure(card.state()).energy[32] == pytest.approx(share.item())


def test_the_map_that_needs_most_directions_is_drawn():
    before, after = pair()
    old, new = (linear_maps(model, ("value",))[0].weight for model in (before, after))
    with torch.no_grad():
        new.copy_(old + torch.ones_like(old))  # one direction
    card = ChangeCard(before, after, lambda model: 0.5)
    assert card.changes[2].directions() == 1 and card.shown.directions() > 1
    assert "Drawn is the change of block 2, value and its copy" in str(card)
    assert ", up and its copy" in str(ChangeCard(before, after, lambda model: 0.5, role="up"))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ChangeCard(*pair(), 5), "score is 5, but must be a function"),
        (lambda: ChangeCard(*pair(), len, role="vlaue"), "role is 'vlaue', but must be one of 'query', 'key', 'value'"),
        (lambda: ChangeCard(pair()[0], pair()[0], len), "before and after have the same value maps"),
        (lambda: ChangeCard(pair()[0], pair("gpt2")[1], len), "differ in their linear maps"),
        (lambda: ChangeCard("a", pair()[1], len), r"expected a transformers model \(a PreTrainedModel\), got str"),
    ],
)
def test_a_card_is_given_what_it_needs(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_the_picture_has_one_size_and_the_same_pixels_each_time():
    change = np.random.default_rng(0).normal(size=(8, 12))
    given = (change, np.zeros((8, 12)), 0, {0: 0.0, 1: 0.6, 8: 1.0}, {0: 0.5, 8: 0.9}, 0.9, "The finding", "the change")
    first, again = style.png(figures.figure(*given)), style.png(figures.figure(*given))
    assert first == again
