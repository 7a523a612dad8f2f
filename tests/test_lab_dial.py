"""The dial: what is recorded, what a turn makes of the model, what the card says; no trained model is touched."""

import threading
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from families import batch, tiny
from lab_models import random_model, word_tokenizer
from torch import nn

from peft_edu import BitFit, FullFineTuning, HeadOnly, LoRA, PrefixTuning, attached, fit
from peft_edu.anatomy import linear_maps
from peft_edu.lab.figures import dial, style
from peft_edu.lab.widgets.dial import Dial, DialCard, Recorder
from peft_edu.method import Method


class LowRank(nn.Module):
    """As a learner writes it."""

    def __init__(self, weight, rank, alpha):
        super().__init__()
        self.A = nn.Parameter(weight.new_empty(rank, weight.shape[1]).uniform_(-0.2, 0.2))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.scale = alpha / rank

    def forward(self, x):
        return self.scale * (x @ self.A.T @ self.B.T)


@dataclass
class MyLoRA(Method):
    """A learner's method, whose hook is a closure: a deep copy of the model would go on using the first one's."""

    rank: int = 2

    def insert(self, model):
        for target in linear_maps(model, ("query", "value")):
            update = LowRank(target.weight, self.rank, 4)
            self.add(target.module, f"mine_{target.role}", update)
            self.hook(target.module.register_forward_hook(lambda module, x, out, update=update: out + update(*x)))


def trained(method, steps=12, every=5):
    model = method.attach(tiny("bert", "classify"))
    recorder = Recorder(model, every)
    fit(model, [batch("classify")], steps, lr=1e-2, schedule="constant", on_step=recorder)
    return model, recorder


def logits(model):
    with torch.no_grad():
        return model(batch()["input_ids"]).logits


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def bars(model, text):
    return dict(zip(("a", "b", "c"), logits(model)[0].softmax(-1).tolist(), strict=True))


@pytest.mark.parametrize(("steps", "kept"), [(1, [0, 1]), (4, [0, 4]), (5, [0, 5]), (12, [0, 5, 10, 12])])
def test_every_fifth_step_and_the_last_are_kept(steps, kept):
    model, recorder = trained(LoRA(rank=2), steps)
    assert list(recorder.kept) == kept
    assert same(recorder.kept[steps], attached(model).learned())
    assert not any(tensor.any() for name, tensor in recorder.kept[0].items() if name.endswith(".B"))


def test_a_training_that_goes_on_is_counted_on():
    model, recorder = trained(LoRA(rank=2), steps=7)
    fit(model, [batch("classify")], 6, lr=1e-2, on_step=recorder)
    assert list(recorder.kept) == [0, 5, 10, 13] and same(recorder.kept[13], attached(model).learned())


def test_a_recorder_does_not_stop_or_change_a_training():
    alone = LoRA(rank=2)
    torch.manual_seed(3)
    plain = alone.attach(tiny("bert", "classify"))
    fit(plain, [batch("classify")], 12, lr=1e-2, schedule="constant")
    torch.manual_seed(3)
    model, _ = trained(LoRA(rank=2))
    assert same(weights(plain), weights(model))


@pytest.mark.parametrize("make", [lambda: LoRA(rank=2), MyLoRA, BitFit, FullFineTuning, lambda: PrefixTuning(3)])
def test_one_is_as_trained_and_zero_is_without_the_update(make):
    model, recorder = trained(make())
    turned, without = Dial(model, recorder), tiny("bert", "classify")
    assert torch.equal(logits(turned.turn(1.0, 12)), logits(model))
    if isinstance(recorder.method, PrefixTuning):  # which starts elsewhere
        without = deepcopy(model)
        without.load_state_dict(recorder.kept[0], strict=False)
    without.classifier.load_state_dict(model.classifier.state_dict())
    assert torch.equal(logits(turned.turn(0.0, 12)), logits(without))
    assert not torch.equal(logits(turned.turn(0.5, 12)).clone(), logits(turned.turn(0.0, 12)))
    assert not torch.equal(logits(turned.turn(1.0, 5)).clone(), logits(turned.turn(1.0, 12)))


@pytest.mark.parametrize("method", [LoRA(rank=2), MyLoRA()], ids=str)
def test_half_of_the_update_is_half_of_b_a(method):
    model, recorder = trained(replace(method))
    halved = attached(Dial(model, recorder).turn(0.5, 12)).added
    for half, whole in zip(halved, attached(model).added, strict=True):
        torch.testing.assert_close(half.B @ half.A, 0.5 * whole.B @ whole.A)


@pytest.mark.parametrize("method", [LoRA(rank=2), MyLoRA(), BitFit()])
def test_the_trained_model_is_never_touched(method):
    model, recorder = trained(replace(method))
    before, state = weights(model), torch.get_rng_state()
    card = DialCard(model, bars, recorder)
    for factor in (0, 0.3, 2):
        card.controls["factor"].value = factor
    card.controls["step"].value = 5
    assert same(weights(model), before) and torch.equal(torch.get_rng_state(), state)
    card.answer = lambda model, text: 1 / 0
    card.controls["factor"].value = 1.5
    assert "ZeroDivisionError" in card.result.value and 'role="alert"' in card.result.value
    assert same(weights(model), before) and attached(model) is recorder.method and not model.training


def test_the_dial_lives_on_when_the_method_is_taken_off():
    model, recorder = trained(MyLoRA())
    card = DialCard(model, bars, recorder)
    before = card.measure((1.0, 12, "a"))
    attached(model).detach()
    assert card.measure((1.0, 12, "a")) == before


def test_playing_and_training_do_not_meet():
    model, recorder = trained(LoRA(rank=2))
    card = DialCard(model, bars, recorder)
    before = card.measure((1.0, 12, "a"))
    training = threading.Thread(target=fit, args=(model, [batch("classify")], 30), kwargs={"lr": 1e-2})
    training.start()
    while training.is_alive():
        assert card.measure((1.0, 12, "a")) == before
    training.join()


def test_what_the_card_shows_follows_its_dials():
    model, recorder = trained(LoRA(rank=2))
    card = DialCard(model, bars, recorder)
    assert card.state() == (1.0, 12, "Though the soup was stunning, the dessert was awful.")
    pictures = {card.image.value}
    says = {0: "Without the update", 1: "With the update", 2: "With 2 times the update"}
    for factor, step in ((0, 12), (2, 12), (1, 5)):
        card.controls["factor"].value, card.controls["step"].value = factor, step
        pictures.add(card.image.value)
        shares = bars(card.dial.turn(factor, step), "")
        label = max(shares, key=shares.get)
        assert f"{says[factor]}, after step {step}, the model answers {label}" in card.result.value
        assert ", ".join(f"{name} {share:.2f}" for name, share in shares.items()) in str(card)
    assert len(pictures) == 4
    assert "multiplies B" in card.result.value and "task head stays as it was after step 5" in card.result.value


def test_a_state_is_answered_once():
    model, recorder = trained(LoRA(rank=2))
    asked = []
    card = DialCard(model, lambda model, text: asked.append(text) or bars(model, text), recorder)
    for factor in (0.5, 1, 0.5, 1):
        card.controls["factor"].value = factor
    assert len(asked) == 3  # once for the height of the picture


def test_a_tokenizer_is_enough_for_a_classifier():
    model, recorder = trained(LoRA(rank=2))
    card = DialCard(model, word_tokenizer(), recorder, "the food was good")
    ids = torch.tensor([word_tokenizer()("the food was good").input_ids])
    with torch.no_grad():
        shares = model(ids).logits[0].softmax(-1).tolist()
    assert dict(enumerate(card.measure(card.state()).answer.values())) == pytest.approx(dict(enumerate(shares)))


def test_a_language_model_writes():
    model = LoRA(rank=2).attach(random_model("gpt2"))
    recorder = Recorder(model)
    card = DialCard(model, word_tokenizer(), recorder, "the food")
    assert isinstance(card.measure(card.state()).answer, str) and "task head" not in card.result.value
    card = DialCard(model, lambda model, text: "We were <here>", recorder, "a")
    assert "<b>We were &lt;here&gt;</b>" in card.result.value
    assert str(card) == "With the update, after step 0, the model writes: We were <here>"


def test_an_empty_sentence_is_asked_for():
    card = DialCard(*trained_card())
    card.controls["text"].value = " "
    assert "type a sentence" in card.result.value
    card.controls["text"].value = "a good pub"
    assert "the model answers" in card.result.value


def trained_card():
    model, recorder = trained(LoRA(rank=2))
    return model, bars, recorder


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Recorder(tiny("bert", "classify")), "nothing is attached to this BertForSequenceClassification"),
        (lambda: Recorder(LoRA(rank=2).attach(tiny("bert")), every=0), "every is 0, but must be a whole number from 1"),
        (lambda: DialCard(tiny("bert"), bars, "x"), "recorder is 'x', but must be the Recorder"),
        (lambda: DialCard(trained_card()[0], 5, trained_card()[2]), "answer is 5, but must be a function"),
        (lambda: Dial(*trained(HeadOnly())), r"HeadOnly\(\) trains the task head alone: there is no update to turn"),
        (lambda: Dial(trained(BitFit())[0], trained_card()[2]), "the recorder is of another model"),
    ],
)
def test_a_dial_is_given_what_it_needs(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize(
    "answer", [{"negative": 0.2, "positive": 0.8}, {str(i): 1 / 6 for i in range(6)}, "A joy.", "long " * 200, ""]
)
def test_the_picture_has_the_height_that_was_said(answer):
    figure = dial.figure(answer, "The finding")
    assert tuple(figure.get_size_inches()) == (style.WIDTH, dial.inches(answer))
    assert dial.inches(answer) * style.DPI <= 352 and style.png(figure)
