"""The map of methods and the card that chooses one: what they say follows from what they are given."""

import re
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from peft_edu import count
from peft_edu.lab import architecture, readable
from peft_edu.lab.figures import style
from peft_edu.lab.measure.stages import REAL, STAGES, real_sizes
from peft_edu.lab.widgets.decision import HAVE, SLOWER, Cost, DecisionCard, judge
from peft_edu.lab.widgets.predict import TypedGuess
from peft_edu.lab.widgets.sliders import HELD
from peft_edu.lab.widgets.taxonomy import FAMILY_DOES, METHOD_PLACES, TaxonomyCard

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
VALIDATION = {"full": [99.0, 100.0], "LoRA": [98.0, 99.0], "adapter": [98.5, 98.5], "prompt": [80.0, 90.0]}
TEST = {"full": [97.0, 98.0], "LoRA": [96.0, 97.0], "adapter": [90.0, 91.0], "prompt": [99.0, 100.0]}
COSTS = {"full": Cost(8_000_000, 1.0), "LoRA": Cost(66_000, 1.0), "adapter": Cost(140_000, 1.2), "prompt": Cost(1, 1.3)}


def colours(card):
    return [bar.get_facecolor()[:3] for bar in card.figure().axes[0].patches]


def chosen(validation=VALIDATION, costs=COSTS, **wishes):
    return [verdict.method for verdict in judge(validation, TEST, costs, **wishes) if not verdict.reason]


def test_of_what_is_as_good_on_validation_the_smallest_comes_first():
    assert chosen() == ["LoRA", "adapter", "full"]  # prompt's test scores, the best, choose nothing
    assert chosen(slower=False) == ["LoRA", "full"]
    assert chosen(tasks=100, room=10_000_000) == ["LoRA"]


def test_what_is_just_at_a_bound_is_let_pass():
    means = {"full": [90.3], "LoRA": [88.3], "adapter": [88.2]}  # in binary 90.3 - 88.3 is a little more than 2
    assert chosen(means) == ["LoRA", "full"]
    assert chosen(tasks=100, room=6_600_000) == ["LoRA"] and chosen(tasks=100, room=6_599_999) == []
    near = COSTS | {"LoRA": Cost(66_000, SLOWER), "adapter": Cost(140_000, SLOWER + 0.001)}
    assert chosen(costs=near, slower=False) == ["LoRA", "full"] and SLOWER == 1.03


def test_each_that_is_left_out_has_its_reason_in_numbers():
    reasons = {one.method: one.reason for one in judge(VALIDATION, TEST, COSTS, 100, 10_000_000, slower=False)}
    assert reasons["prompt"] == "14.5 points below the best"
    assert reasons["full"] == "800 MB for 100 tasks, more than 10 MB"
    assert reasons["adapter"] == "14 MB for 100 tasks, more than 10 MB" and reasons["LoRA"] == ""
    assert {one.method: one.reason for one in judge(VALIDATION, TEST, COSTS, slower=False)}["adapter"] == (
        "1.20 times the base model's operations"
    )
    one = {verdict.method: verdict.reason for verdict in judge(VALIDATION, TEST, COSTS, room=10**6)}
    assert one["full"] == "8 MB for 1 task, more than 1 MB"


def test_the_decision_follows_the_controls():
    hard = {"full": [90.0], "LoRA": [50.0]}
    card = DecisionCard({"easy": VALIDATION, "hard": hard}, {"easy": TEST, "hard": hard}, COSTS)
    assert "LoRA: within 2 points of the best on validation, and keeps least, 66 kB." in card.result.value
    assert "LoRA 98.5 (96.5)" in str(card) and "prompt 85.0 (99.5)" in str(card)
    cells = re.findall("<td[^>]*>([^<]+)</td>", card.result.value)
    assert cells[:4] == ["98.5", "98.0", "96.5", "66 kB"]  # validation, its worst seed, test, bytes
    card.controls["task"].value = "hard"
    assert "full: within" in str(card) and "40 points below the best" in card.result.value
    card.controls["tasks"].value, card.controls["room"].value = 1000, "1 MB"
    assert "Nothing fits. The best, full, is left out: 8 GB for 1000 tasks, more than 1 MB." in str(card)
    assert colours(card) == [to_rgb(style.FROZEN)] * 2
    card.controls["tasks"].value = 1
    card.controls["room"].value = "10 MB"
    assert colours(card) == [to_rgb(style.TRAINED), to_rgb(style.FROZEN)]


def card():
    return DecisionCard({"easy": VALIDATION}, {"easy": TEST}, COSTS)


@pytest.mark.parametrize(
    "have, lesson, everything, needed",
    [
        ("rules instead of labels", "11_weak_supervision.ipynb", 16, "rules that vote"),
        ("preferences: pairs", "12_preferences.ipynb", 20, "two answers to one prompt"),
        ("a score that code computes", "12_preferences.ipynb", 20, "a rule that scores"),
        ("only text", "01_full_fine_tuning_and_freezing.ipynb", 16, "plain text"),
    ],
)
def test_another_signal_is_told_its_needs_and_no_score_of_labels(have, lesson, everything, needed):
    """Bytes a parameter: 16 where it is trained, 4 more for a frozen copy."""
    which = card()
    which.controls["have"].value = have
    total = count(architecture(REAL)).total
    for told in (which.result.value, str(which)):
        assert needed in told and readable(everything * total) in told and "arXiv:" in told
        assert not any(f"{method}:" in told or f">{method}<" in told for method in VALIDATION)
    assert f'href="{lesson}"' in which.result.value and f"lesson {lesson[:2]}" in str(which)
    assert [name for name, control in which.controls.items() if not control.disabled] == ["have"]
    assert readable(everything * total) in which.figure().get_suptitle().replace("\n", " ")
    which.controls["have"].value = "labels"
    assert "LoRA: within 2 points" in str(which) and not any(each.disabled for each in which.controls.values())


def test_the_memory_that_is_drawn_is_what_is_told():
    which = card()
    which.controls["have"].value = "preferences: pairs"
    (axes,) = which.figure().axes
    heights = {}
    for bar in axes.patches:
        heights[round(bar.get_x(), 1)] = heights.get(round(bar.get_x(), 1), 0) + bar.get_height()
    lora = real_sizes().beside_one_base(STAGES["pairs"]).total
    assert list(heights.values()) == pytest.approx([20 * real_sizes().base / 1e9, lora / 1e9])
    assert "activations" not in [text.get_text() for text in axes.get_legend().get_texts()]  # there are none to show


def test_nothing_is_told_before_the_guess():
    guess = TypedGuess("How many?", 0, 9, None)
    which = DecisionCard({"easy": VALIDATION}, {"easy": TEST}, COSTS, after=guess)
    for have in HAVE:
        which.controls["have"].value = have
        assert HELD in which.result.value and str(which) == HELD


@pytest.mark.parametrize(
    ("validation", "test", "costs", "message"),
    [
        (None, {}, {}, "validation is None, but must be a dict: for each task"),
        ({}, {}, {}, "validation is {}, but must be a dict: for each task"),
        ({"easy": {}}, {"easy": {}}, COSTS, "validation has no method"),
        ({"easy": VALIDATION}, {}, COSTS, "test is None, but must be a dict"),
        ({"easy": VALIDATION}, {"easy": {"full": [1.0]}}, COSTS, "'LoRA' needs scores on test and a Cost"),
        ({"easy": VALIDATION}, {"easy": TEST}, {"full": Cost(1, 1.0)}, "'LoRA' needs scores on test and a Cost"),
        ({"easy": {"full": []}}, {"easy": TEST}, COSTS, r"validation\['full'\] is \[\], but must be a list of finite"),
        ({"easy": {"full": [float("nan")]}}, {"easy": TEST}, COSTS, r"validation\['full'\] is \[nan\], but must be"),
        ({"easy": {"full": 95.0}}, {"easy": TEST}, COSTS, r"validation\['full'\] is 95.0, but must be a list"),
        ({"easy": {"full": "95"}}, {"easy": TEST}, COSTS, r"validation\['full'\] is '95', but must be a list"),
        (
            {"easy": VALIDATION},
            {"easy": TEST},
            dict.fromkeys(COSTS, 5),
            r"'full' needs scores on test and a Cost\(kept, operations\), got 5",
        ),
    ],
)
def test_a_decision_without_its_numbers_is_refused(validation, test, costs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DecisionCard(validation, test, costs)


@pytest.mark.parametrize(("kept", "operations"), [("x", 1.0), (5, None), (-1, 1.0), (5, 0), (5, float("nan"))])
def test_a_cost_is_of_numbers(kept, operations):
    with pytest.raises(ValueError, match="(kept|operations) is .*, but must be"):
        Cost(kept, operations)


def test_the_map_has_every_family_and_leads_to_lessons_that_are_there():
    assert {place.family for place in METHOD_PLACES} == set(FAMILY_DOES)
    assert all((NOTEBOOKS / place.lesson).is_file() for place in METHOD_PLACES)
    assert all(place.also in {"", *FAMILY_DOES} for place in METHOD_PLACES)


@pytest.mark.parametrize("place", METHOD_PLACES, ids=lambda place: place.method)
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
