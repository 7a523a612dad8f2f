"""Cards without a browser: numbers, words and pictures follow the controls; training starts, reports and stops."""

import html
import io
import re
import sys
import time

import pytest
import torch
from lab_models import bert_classifier, gpt2
from PIL import Image

from peft_edu import (
    Adapter,
    FullFineTuning,
    HeadOnly,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuningV2,
    TopBlocks,
    attached,
    count,
    fit,
)
from peft_edu.lab import (
    BottleneckCard,
    DepthCard,
    FreezingCard,
    PrefixCard,
    PromptCard,
    RankCard,
    TrainerCard,
    architecture,
    predict,
)
from peft_edu.lab.figures import display, model_map
from peft_edu.lab.measure.block_parts import block_parts, describe
from peft_edu.lab.measure.cost import readable, training_memory
from peft_edu.lab.widgets.sliders import Size
from peft_edu.lab.widgets.views import BLOCK, FIGURE, LOSS


def endless(on_step):
    step = 0
    while not on_step(step := step + 1, 1 / step):
        time.sleep(0.01)
    return f"{step} steps done"


@pytest.fixture
def ranks():
    return RankCard(gpt2(), scores={32: [91.0], 1: [80.0, 82.0], 8: [90.0]})


def wait_for(condition, seconds=10):
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_the_rank_card_counts_what_attaching_counts(ranks, rank):
    ranks.controls["slider"].value = rank
    _, sizes = ranks.measure(rank)
    for size, model in zip(sizes, (gpt2(), architecture("gpt2-medium")), strict=True):
        counted = count(LoRA(rank=rank).attach(model))
        assert (size.trainable, size.total) == (counted.trainable, counted.total)
        assert f"{counted.trainable:,}" in ranks.result.value
    stored = {1: "<b>81.0</b> (80.0 to 82.0 over 2 seeds)", 8: "<b>90.0</b> (1 seed)", 32: "<b>91.0</b> (1 seed)"}
    assert stored[rank] in ranks.result.value


@pytest.mark.parametrize("card, method", [(RankCard, LoRA), (BottleneckCard, Adapter)])
def test_the_slider_moves_the_picture_of_the_block(card, method):
    """The second view is drawn from a model to which the method of the slider's setting is attached."""
    shown = card(gpt2())
    assert shown.block.picture.layout.display == "none"
    shown.controls["show"].value = BLOCK
    for setting in (3, 5):
        shown.controls["slider"].value = setting
        words = describe(block_parts(method(setting).attach(gpt2())))
        assert "<svg" in shown.block.svg.value and html.escape(words) in shown.block.svg.value
        assert (shown.image.layout.display, shown.block.picture.layout.display) == ("none", None)
    before = shown.image.value
    shown.controls["show"].value = FIGURE
    assert shown.image.layout.display is None and shown.image.value != before


def test_all_cards_of_a_method_have_the_picture_of_the_block():
    prefix = PrefixCard(bert_classifier(), lambda length: {"untrained": [0.5] * 3})
    for card in (prefix, PromptCard(gpt2()), DepthCard(bert_classifier()), FreezingCard(bert_classifier())):
        card.controls["show"].value = BLOCK
        assert "<svg" in card.block.svg.value, card.result.value


def test_the_learner_s_own_run_enters_the_picture():
    card = RankCard(gpt2(), {1: [80.0, 82.0], 8: [90.0]}, "accuracy", lambda rank, on_step: 70 + rank, lambda rank: 5)
    assert card.trainer.image.layout.display == "none"  # there is no loss to see yet
    card.controls["slider"].value = 8
    before = card.image.value
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert "Your run: <b>78.0</b>." in card.result.value
    assert card.own == {8: 78.0} and "<b>accuracy: 78.0</b>" in card.trainer.status.value
    assert card.image.value != before and card.image.layout.display is None  # the ring is seen, where the loss was
    card.views.show(LOSS)
    assert card.trainer.image.layout.display is None and card.image.layout.display == "none"
    (ring,) = [line for line in card.figure().axes[0].lines if line.get_markersize() == 9]
    assert ring.get_ydata()[0] == pytest.approx(110 + 155 * (78 - 50) / 50)  # the axis goes from 50 to 100


def test_scores_are_held_back_until_there_is_a_guess():
    guess = predict("How far apart?", low=0, high=40)
    card = RankCard(gpt2(), {1: [80.0, 82.0], 8: [90.0]}, after=guess)
    held = card.image.value
    assert "The scores appear once you have guessed" in card.result.value and "90.0" not in card.result.value
    guess.skip.click()
    assert card.image.value != held and "<b>90.0</b>" in card.result.value
    assert RankCard(gpt2(), {8: [90.0]}, after=guess).held is False


@pytest.mark.parametrize("setting", [1, 7, 20])
@pytest.mark.parametrize("kind", ["bottleneck", "prefix", "prompt"])
def test_the_other_cards_count_what_attaching_counts(kind, setting):
    build, method = {
        "bottleneck": (BottleneckCard, Adapter),
        "prefix": (lambda model: PrefixCard(model, lambda n: {"untrained": [0.1, 0.1, n / 100]}), PrefixTuning),
        "prompt": (PromptCard, PromptTuning),
    }[kind]
    card = build(gpt2())
    card.controls["slider"].value = setting
    _, sizes, *_ = card.measure(card.state())
    for size, model in zip(sizes, (gpt2(), architecture("gpt2-medium")), strict=True):
        attached = method(setting) if kind != "prefix" else PrefixTuning(setting, hidden=0)
        assert size.trainable == count(attached.attach(model)).trainable
        assert f"{size.trainable:,}" in card.result.value and f"{size.trainable:,}" in str(card)
    assert str(setting) in card.figure().get_suptitle()


def test_the_depth_card_counts_prompts_from_the_top():
    card = DepthCard(gpt2(), {1: [60.0], 2: [70.0]}, "score")
    deepest = card.controls["slider"].max
    for n in (1, deepest):
        card.controls["slider"].value = n
        for size, model in zip(card.measure(n)[1], (gpt2(), architecture("gpt2-medium")), strict=True):
            depth = model.config.n_layer
            prompts = PTuningV2(card.length, layers=range(depth - n, depth)).attach(model)
            assert size.trainable == count(prompts).trainable and f"{size.trainable:,}" in card.result.value
        drawn = [patch for patch in card.figure().axes[0].patches if patch.get_facecolor()[:3] != (1, 1, 1)]
        assert len(drawn) == n


def test_the_prefix_card_shows_what_training_made_of_the_attention():
    trained = {}

    def masses(length):
        return {"untrained": [0.1, 0.2, 0.3]} | ({"trained": trained[length]} if length in trained else {})

    def train(length, on_step):
        trained[length] = [0.75, 0.85, 0.8]
        return on_step(1, 1.0) or "done"

    card = PrefixCard(gpt2(), masses, train=train, steps=lambda length: 1)
    before = card.image.value
    assert "untrained: 10%, 20%, 30%." in card.result.value and "80% of" not in card.figure().get_suptitle()
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert "untrained: 10%, 20%, 30%; trained: 75%, 85%, 80%." in card.result.value and card.image.value != before
    assert "80% of the attention" in card.figure().get_suptitle()


def test_slider_box_words_and_picture_move_together(ranks):
    before = ranks.result.value, ranks.image.value
    ranks.controls["box"].value = 3
    after = ranks.result.value, ranks.image.value
    assert ranks.controls["slider"].value == 3 and ranks.controls["slider"].max == 32
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert "Stored" not in ranks.result.value and "Rank 3" in str(ranks)
    ranks.controls["slider"].value = 8
    assert (ranks.result.value, ranks.image.value) == before


def test_a_typed_half_becomes_a_whole_number(ranks):
    ranks.controls["box"].value = 7.5
    assert ranks.controls["box"].value == ranks.controls["slider"].value == 8 and "Rank 8" in str(ranks)
    ranks.controls["box"].value = 75
    assert ranks.controls["box"].value == ranks.controls["slider"].value == 32


def test_each_move_is_measured_and_drawn_once(monkeypatch):
    card, done = FreezingCard(bert_classifier()), []
    for step in ("measure", "draw", "words"):
        real = getattr(card, step)
        monkeypatch.setattr(card, step, lambda given, step=step, real=real: done.append(step) or real(given))
    card.controls["slider"].value = 1
    assert done == ["measure", "words", "draw"]
    card.controls["box"].value = 3
    assert done == 2 * ["measure", "words", "draw"]
    str(card), card.figure()
    assert done.count("measure") == 2


def test_an_interrupted_measurement_leaves_no_method_behind(monkeypatch):
    card = FreezingCard(bert_classifier())
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(model_map, "parts", interrupt)
        card.controls["slider"].value = 1
    card.controls["slider"].value = 3
    assert "blocks 1 to 3: trained" in str(card) and not attached(card.model)


def test_the_room_of_the_picture_is_kept(ranks):
    image = Image.open(io.BytesIO(ranks.image.value))
    assert (ranks.image.layout.width, ranks.image.layout.height) == tuple(f"{side}px" for side in image.size)


def test_a_card_shows_itself_and_stands_as_text_where_no_widget_lives(ranks, monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: "text/plain" in bundle and shown.append(bundle))
    ranks._ipython_display_()
    assert shown[0]["text/plain"].startswith("Rank 8: B is 32 by 8 and A 8 by 32")
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert ranks.figure().get_suptitle() == "Rank 8: 512 trained beside 1,024 frozen, 50% of W"


def test_the_freezing_card_counts_what_attaching_counts():
    scores = {"head only": [70.0], "top 2": [90.0], "full": [95.0]}
    card = FreezingCard(bert_classifier(), scores)
    methods = [HeadOnly(), TopBlocks(1), TopBlocks(2), TopBlocks(3), FullFineTuning()]
    words = [
        "stops below the head",
        "stops below block 3",
        "stops below block 2",
        "stops below block 1",
        "down to the emb",
    ]
    assert card.controls["slider"].max == len(methods) - 1
    for n, (method, sentence) in enumerate(zip(methods, words, strict=True)):
        card.controls["slider"].value = n
        assert (
            f">{count(method.attach(bert_classifier())).trainable:,}<" in card.result.value
            and sentence in card.result.value
        )
        assert (f"<b>{scores.get(card.position(n), [0])[0]:.1f}</b>" in card.result.value) == (
            card.position(n) in scores
        )
    assert "blocks 1 to 3: trained; final: trained; head: trained" in card.result.value


def test_the_freezing_card_trains_what_it_shows():
    seen = []
    card = FreezingCard(
        bert_classifier(),
        train=lambda row, on_step: seen.append(row) or on_step(1, 1.0),
        steps={"top 2": 5, "full": 7}.get,
    )
    card.controls["slider"].value = 4
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert seen == ["full"] and card.trainer.progress.max == 7 and list(card.trainer.curves) == ["full"]


def test_the_model_of_a_freezing_card_stays_as_it_was():
    model = bert_classifier()
    FreezingCard(model).controls["slider"].value = 0
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_training_reports_and_ends():
    card = TrainerCard("Train", lambda on_step: "done" if not any(on_step(i, 1.0) for i in (1, 2, 3)) else "cut", 3)
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert card.trainer.status.value.startswith("this run: <b>done</b>, after 3 steps")
    assert card.trainer.progress.value == 3 and card.trainer.stop.disabled and not card.trainer.start.disabled
    assert str(card) == "Training loss. this run 1.000" and card.figure().get_suptitle() == str(card)


def test_stop_ends_the_training_at_once_and_keeps_the_result():
    card = TrainerCard("Train", endless, 100)
    empty = card.trainer.image.value
    card.trainer.start.click()
    wait_for(lambda: len(card.trainer.curves["this run"]) > 5)
    assert card.trainer.start.disabled and not card.trainer.stop.disabled
    pressed = time.perf_counter()
    card.trainer.stop.click()
    assert card.trainer.status.value.startswith("Stopping")
    card.trainer.thread.join(10)
    assert time.perf_counter() - pressed < 5  # at most the step and the drawing that it is in, on a busy machine too
    assert "steps done</b>, stopped after" in card.trainer.status.value
    assert card.trainer.image.value != empty and not card.trainer.start.disabled


def interrupt(*given):
    raise KeyboardInterrupt


@pytest.mark.parametrize("leave", [lambda on_step: sys.exit("bye"), interrupt])
def test_no_way_to_end_leaves_a_training_without_a_word(leave):
    card = TrainerCard("Train", leave, 10)
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert re.match(
        "<details role=.alert.><summary><b>(SystemExit:</b> bye|KeyboardInterrupt:)", card.trainer.status.value
    )
    assert not card.trainer.start.disabled and card.trainer.stop.disabled


def test_a_loss_is_a_number():
    card = TrainerCard("Train", lambda on_step: on_step(1, "much"), 10)
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert "on_step was given the loss &#x27;much&#x27;, but must be given a number" in card.trainer.status.value
    card.trainer.train = lambda on_step: on_step(1, torch.tensor(0.5))
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert card.trainer.curves["this run"] == [0.5] and str(card) == "Training loss. this run 0.500"
    card.trainer.train = lambda on_step: on_step(1, 0.25)
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert str(card) == "Training loss. this run 0.250"  # as many steps, other losses


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RankCard(gpt2(), [1.0]), r"scores is \[1.0\], but must be a dict: for each setting a list"),
        (lambda: RankCard(gpt2(), {1: "80"}), r"scores\[1\] is '80', but must be a list of finite numbers"),
        (lambda: RankCard(gpt2(), {1: ["80"]}), r"scores\[1\] is \['80'\], but must be a list of finite numbers"),
        (lambda: RankCard(gpt2(), {1: []}), r"scores\[1\] is \[\], but must be a list of finite numbers"),
        (lambda: RankCard(gpt2(), {1: [float("nan")]}), r"scores\[1\] is \[nan\], but must be"),
        (lambda: RankCard(gpt2(), {"a": [1.0]}), "a setting of scores is 'a', but must be a whole number from 1"),
        (lambda: RankCard(gpt2(), {0: [1.0]}), "a setting of scores is 0, but must be a whole number from 1"),
        (lambda: RankCard(gpt2(), train=5), "train is 5, but must be a function"),
        (lambda: RankCard(gpt2(), train=print, steps=lambda rank: "x"), "steps is 'x', but must be a whole number"),
        (lambda: FreezingCard(gpt2(), {"full": [None]}), r"scores\['full'\] is \[None\], but must be"),
        (lambda: PrefixCard(gpt2(), 5), "masses is 5, but must be a function"),
        (lambda: TrainerCard("Train", print, -1), "steps is -1, but must be a whole number from 1"),
        (lambda: TrainerCard("Train", print, "x"), "steps is 'x', but must be a whole number from 1"),
        (lambda: TrainerCard("Train", None, 5), "train is None, but must be a function"),
    ],
)
def test_a_card_is_given_what_it_needs(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize("shares", [{}, {"after": [0.1, 0.2]}, {"after": [0.1, 0.2, float("nan")]}, 5])
def test_shares_that_do_not_belong_to_the_layers_are_named_in_the_card(shares):
    shown = PrefixCard(gpt2(), lambda length: shares).result.value
    assert 'role="alert"' in shown and re.search(r"masses(\(10\)|\[.*\])? is .*but must be", shown)


def test_a_title_is_shown_whatever_it_is():
    assert "<b>None</b>" in TrainerCard(None, print, 5).view.children[0].value


def test_one_virtual_token_is_no_plural():
    for card in (PromptCard(gpt2()), PrefixCard(gpt2(), lambda length: {"before": [0.1, 0.2, 0.3]})):
        card.controls["slider"].value = 1
        assert str(card).startswith("1 virtual token in front of the text")


def test_a_failure_is_shown_and_the_next_run_works():
    def fail(on_step):
        on_step(1, 2.0)
        raise FloatingPointError("the loss is <nan>")

    card = TrainerCard("Train", fail, 10)
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert "<b>FloatingPointError:</b> the loss is &lt;nan&gt;" in card.trainer.status.value
    card.trainer.train = lambda on_step: "well"
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert "well" in card.trainer.status.value


def test_a_failure_before_training_is_shown_and_holds_up_nobody():
    card = TrainerCard("Training", lambda on_step: "done", steps=3)

    def broken():
        raise OSError("the disk is on fire")

    card.trainer.steps = broken
    card.trainer.start.click()
    assert "the disk is on fire" in card.trainer.status.value and not card.trainer.start.disabled
    other = TrainerCard("Another", lambda on_step: "done", steps=3)
    other.trainer.start.click()
    other.trainer.thread.join(10)
    assert "done" in other.trainer.status.value


def test_a_second_training_waits_its_turn():
    first, second = TrainerCard("One", endless, 100), TrainerCard("Two", endless, 100)
    first.trainer.start.click()
    second.trainer.start.click()
    assert second.trainer.thread is None and "Another training is running" in second.trainer.status.value
    first.trainer.stop.click()
    first.trainer.thread.join(10)


def test_a_card_trains_at_its_sliders_value_and_keeps_the_last_curves():
    seen = []
    card = RankCard(
        gpt2(), train=lambda rank, on_step: seen.append(rank) or on_step(1, rank) or "ok", steps=lambda rank: 1
    )
    for rank in (1, 2, 3, 4, 5):
        card.controls["slider"].value = rank
        card.trainer.start.click()
        card.trainer.thread.join(10)
    assert seen == [1, 2, 3, 4, 5] and list(card.trainer.curves) == ["rank 2", "rank 3", "rank 4", "rank 5"]


def test_the_package_s_loop_trains_in_a_card():
    model = TopBlocks(1).attach(bert_classifier())
    batch = {"input_ids": torch.randint(50, (4, 6)), "labels": torch.tensor([0, 1, 0, 1])}

    def train(on_step):
        return f"{len(fit(model, [batch], steps=5, lr=1e-3, on_step=on_step))} steps"

    card = TrainerCard("Train", train, 5)
    card.trainer.start.click()
    card.trainer.thread.join(30)
    assert "5 steps</b>, after 5 steps" in card.trainer.status.value


def test_an_error_in_a_callback_is_shown_in_the_card(ranks):
    ranks.draw = lambda numbers: 1 / 0
    ranks.controls["slider"].value = 7
    assert "ZeroDivisionError" in ranks.result.value and 'role="alert"' in ranks.result.value


def test_training_memory_is_weights_gradients_and_two_moments():
    memory = training_memory(total=1000, trainable=10)
    assert (memory.weights, memory.gradients, memory.moments, memory.optimizer) == (4000, 40, 80, 120)
    assert repr(memory) == "4 kB weights, 40 bytes gradients, 80 bytes moments"
    assert [readable(n) for n in (1, 999, 1.5e6, 2e9, 3.1e12)] == ["1 byte", "999 bytes", "1.5 MB", "2 GB", "3.1 TB"]
    assert Size("m", 10, 1000).row() == ("m", "10", "1%", "120 bytes", "12 kB")
    assert Size("t5-v1.1-xxl", 81_920, 11_135_332_352).row()[2] == "0.000736%"  # little, but not 0.00%
