"""The map of methods and the card that chooses one: what they say follows from what they are given."""

from pathlib import Path

import pytest
from matplotlib.colors import to_rgba

from peft_edu.lab.figures import style
from peft_edu.lab.widgets.decision import Cost, DecisionCard, judge
from peft_edu.lab.widgets.taxonomy import FAMILIES, PLACES, TaxonomyCard

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SCORES = {"full": [99.0, 100.0], "LoRA": [98.0, 99.0], "adapter": [98.5, 98.5], "prompt": [80.0, 90.0]}
COSTS = {"full": Cost(8_000_000, 1.0), "LoRA": Cost(66_000, 1.0), "adapter": Cost(140_000, 1.2), "prompt": Cost(1, 1.3)}


def colours(card):
    return [bar.get_facecolor() for bar in card.figure().axes[0].patches]


def chosen(**wishes):
    return [verdict.method for verdict in judge(SCORES, COSTS, **wishes) if not verdict.reason]


def test_of_what_is_as_good_the_smallest_comes_first():
    assert chosen() == ["LoRA", "adapter", "full"]
    assert chosen(slower=False) == ["LoRA", "full"]
    assert chosen(tasks=100, room=10_000_000) == ["LoRA"]


def test_each_that_is_left_out_has_its_reason_in_numbers():
    reasons = {one.method: one.reason for one in judge(SCORES, COSTS, tasks=100, room=10_000_000, slower=False)}
    assert reasons["prompt"] == "14.5 points below the best"
    assert reasons["full"] == "800 MB for 100 tasks, more than 10 MB"
    assert reasons["adapter"] == "14 MB for 100 tasks, more than 10 MB" and reasons["LoRA"] == ""
    assert {one.method: one.reason for one in judge(SCORES, COSTS, slower=False)}["adapter"] == (
        "1.20 times the base model's operations"
    )


def test_the_decision_follows_the_controls():
    card = DecisionCard({"easy": SCORES, "hard": {"full": [90.0], "LoRA": [50.0]}}, COSTS)
    assert "LoRA: within 2 points of the best, and keeps least, 66 kB." in card.result.value
    card.controls["task"].value = "hard"
    assert "full: within" in str(card) and "40.0 points below the best" in card.result.value
    card.controls["tasks"].value, card.controls["room"].value = 1000, "1 MB"
    assert "Nothing fits. The best, full, is left out: 8 GB for 1000 tasks, more than 1 MB." in str(card)
    assert colours(card) == [to_rgba(style.FROZEN)] * 2
    card.controls["tasks"].value = 1
    card.controls["room"].value = "10 MB"
    assert colours(card) == [to_rgba(style.TRAINED), to_rgba(style.FROZEN)]


def test_the_map_has_every_family_and_leads_to_lessons_that_are_there():
    assert {place.family for place in PLACES} == set(FAMILIES)
    assert all((NOTEBOOKS / place.lesson).is_file() for place in PLACES)
    assert all(place.also in {"", *FAMILIES} for place in PLACES)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.method)
def test_the_map_shows_what_is_chosen(place):
    card = TaxonomyCard()
    card.controls["method"].value = place.method
    assert f'href="{place.lesson}"' in card.result.value and place.idea in str(card)
    axes = card.figure().axes[0]
    lit = [
        patch for patch in axes.patches if patch.get_facecolor()[:3] == pytest.approx((0.91, 0.502, 0.047), abs=0.01)
    ]
    assert len(lit) == 1
    heavy = [patch for patch in axes.patches if patch.get_linewidth() > 2]
    assert len(heavy) == 1 + bool(place.also)
