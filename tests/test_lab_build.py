"""Build a method: what is put together is what its parts are, it goes without a trace, and the card trains it."""

from dataclasses import replace

import pytest
import torch
from families import batch, tiny

from peft_edu import LoRA, PrefixTuning, PromptTuning, attached, count, load, save, trainable
from peft_edu.anatomy import linear_maps
from peft_edu.lab import BuildCard, backbone, recipe, scores, task
from peft_edu.lab.measure.block_parts import block_parts, describe
from peft_edu.lab.study.assembled import BEHIND, NORMS, PLACES, PREFIX, PROMPT, Assembled
from peft_edu.lab.widgets.build import DOES
from peft_edu.lab.widgets.views import BLOCK, FIGURE

RUNS = {"full": (1000, [90.0, 95.0]), "LoRA r=4": (100, [93.0, 94.0])}
ALONE = {("query", "value"): LoRA(3, alpha=6), (PREFIX,): PrefixTuning(3, hidden=0), (PROMPT,): PromptTuning(3)}


def card(train=lambda method, lr, on_step: 88.0):
    return BuildCard(tiny("bert", "classify"), batch("classify"), train, RUNS, "accuracy, %", steps=3)


@pytest.mark.parametrize("places, alone", ALONE.items())
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_one_part_is_the_package_s_method(family, places, alone):
    models = []
    for method in (Assembled(places, 3), replace(alone)):
        torch.manual_seed(0)
        models.append(method.attach(tiny(family, "classify")))
    mine, theirs = models
    assert [*trainable(mine)] == [*trainable(theirs)]
    with torch.no_grad():
        assert torch.equal(mine(**batch("classify")).logits, theirs(**batch("classify")).logits)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "llama"])
def test_all_places_at_once_learn_are_saved_and_leave_no_trace(family, tmp_path):
    model = tiny(family, "classify")
    roles = {target.role for target in linear_maps(model)}
    places = [place for place in PLACES if place in roles or place not in DOES or "LoRA" not in DOES[place]]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    Assembled(tuple(places), 2).attach(model)(**batch("classify")).loss.backward()
    reached = [name for name, parameter in trainable(model).items() if parameter.grad is not None]
    assert len(reached) == len(trainable(model))
    again = load(tiny(family, "classify"), save(model, tmp_path / "built"))
    assert torch.equal(again(**batch("classify")).logits, model(**batch("classify")).logits)
    attached(model).detach()
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.parametrize("place, acts", [(BEHIND[0], "attention"), (BEHIND[1], "feed-forward")])
def test_an_adapter_stands_behind_its_sub_layer_alone(place, acts):
    parts = block_parts(Assembled((place,), 3).attach(tiny("bert", "classify")))
    assert [each.name for each in parts.sublayers if each.behind] == [acts]


def test_what_is_no_place_is_refused():
    with pytest.raises(ValueError, match="no place 'querry' in a block; there are query, key"):
        Assembled(("querry",))
    with pytest.raises(ValueError, match="size"):
        Assembled(("query",), 0)


def test_a_click_puts_it_there_and_the_next_takes_it_away():
    shown = card()
    assert "nothing yet" in shown.result.value and shown.controls["show"].value == BLOCK
    buttons = dict(shown.block.buttons)
    for places in (("query",), ()):
        buttons["query"].click()
        model = Assembled(places, 4).attach(tiny("bert", "classify"))
        assert shown.places == places and describe(block_parts(model))[:40] in shown.block.svg.value
        counted = count(model)
        assert f"{counted.trainable - counted.head:,}" in shown.result.value
        assert buttons["query"].description.endswith("on" if places else "off")


def test_every_place_of_the_model_has_a_button_where_it_is_drawn():
    shown = card()
    names = [name for name, _ in shown.block.buttons]
    assert set(names) == set(shown.does) and names.count(NORMS) == 2  # BERT has one behind each sub-layer
    assert all(button.layout.margin.endswith("px") and button.layout.width for _, button in shown.block.buttons)


def test_the_size_is_everybody_s_and_backward_is_a_share_of_full_fine_tuning_s():
    shown = card()
    shown.click("value")
    shown.controls["size"].value = 2
    built = shown.measure(shown.state())
    assert built.method == Assembled(("value",), 2) and 0 < built.share < 1
    assert f"{built.share:.0%} of full" in shown.result.value


def test_a_run_of_one_s_own_enters_the_figure():
    asked = []
    shown = card(lambda method, lr, on_step: asked.append((method, lr)) or 88.0)
    shown.click("query")
    shown.controls["lr"].value = 0.03
    shown.trainer.start.click()
    shown.trainer.thread.join(10)
    assert asked == [(Assembled(("query",), 4), 0.03)]
    assert shown.own == [("query (4)", shown.measure(shown.state()).numbers.trainable, 88.0)]
    assert "88.0 at a learning rate of 0.03, ring 1" in shown.trainer.status.value
    assert shown.controls["show"].value == FIGURE and "Yours, 1: query (4), 88.0." in str(shown)
    assert shown.image.value and not shown.block.svg.value  # hidden, its hatching would hide that of others


def test_a_training_without_a_score_is_told():
    shown = card(lambda method, lr, on_step: "done")
    shown.trainer.start.click()
    shown.trainer.thread.join(10)
    assert "train gave &#x27;done&#x27;, but must give a score" in shown.trainer.status.value and not shown.own


def test_the_card_of_a_study_stands_beside_its_stored_runs():
    shown = BuildCard.on("reviews", ["full", "LoRA r=4"], steps=2)
    data = task("reviews")
    for row, (numbers, seeds) in shown.runs.items():
        model = replace(recipe("reviews", row).method).attach(backbone("tiny-bert", **data.head)[0])
        assert numbers == count(model).trainable and seeds == scores("reviews", [row], "validation")[row]
    shown.click("value")
    shown.trainer.start.click()
    shown.trainer.thread.join(60)
    (ring,) = shown.own
    assert ring.name == "value (4)" and 0 <= ring.score <= 100
