"""What lesson 12 draws: the card of beta, texts with what a judge hears in them, how far a policy went for what."""

import re

import pytest

from peft_edu.lab import BetaCard, happy_judge, predict, preference_runs, show_chase, show_climbs, show_heard
from peft_edu.lab.figures import heard, leash
from peft_edu.lab.study.preferences import BETAS, dpo_runs
from peft_edu.lab.widgets.training import _TRAINING

LINE = {"win": 70.0, "happy": 60.0, "slots": 98.0, "KL": 2.0, "fluency": -2.0, "text": "The soup was good. | Fine."}
RUNS = {
    0.3: [LINE, LINE | {"win": 80.0, "KL": 4.0}],
    0.03: [LINE | {"KL": 70.0, "fluency": -6.0, "text": "good <b>good</b> good"}] * 2,
}


def trained(card):
    card.trainer.start.click()
    card.trainer.thread.join(60)
    assert not _TRAINING.locked()


def test_the_card_shows_the_stored_runs_of_a_beta():
    card = BetaCard(runs=RUNS)
    assert card.state() == 0.3
    assert (
        "75.0%" in card.result.value
        and "3.0" in card.result.value
        and "The soup was good.<br>Fine." in (card.result.value)
    )
    assert str(card) == (
        "At beta 0.3, in the mean of 2 stored runs: 75% wins, 60% happy texts, 98.0% of the facts, KL 3.0 nats a text."
    )
    before = card.image.value
    card.controls["beta"].value = 0.03
    assert "good &lt;b&gt;good" in card.result.value  # a text is a text, whatever stands in it
    assert card.image.value != before
    (title,) = {text.get_text() for text in card.figure().texts if text.get_text()} | {card.figure().get_suptitle()}
    assert title == "From beta 0.3 to 0.03 the KL grows from 3.0 to 70 nats"


def test_what_the_learner_trains_enters_the_picture():
    def train(beta, on_step):
        on_step(1, 0.69)
        return {"win": 0.8, "happy": 0.9, "slots": 0.95, "KL": 5.0, "fluency": -2.2, "text": "Mine."}

    card = BetaCard(train, steps=1, runs=RUNS)
    without = card.image.value
    trained(card)
    assert "your run" in card.result.value and "80.0%" in card.result.value and "Mine." in card.result.value
    assert card.image.value != without and "wins 80%, KL 5.0 nats a text" in card.trainer.status.value
    card.controls["beta"].value = 0.03
    assert "your run" not in card.result.value


def test_a_training_that_measures_nothing_is_told():
    card = BetaCard(lambda beta, on_step: 0.5, steps=1, runs=RUNS)
    trained(card)
    assert "but must give a dict with win, happy" in card.trainer.status.value
    with pytest.raises(TypeError, match="train is 3, but must be a function"):
        BetaCard(3, runs=RUNS)
    with pytest.raises(ValueError, match=r"runs\[0.3\] must be dicts with win"):
        BetaCard(runs={0.3: [{"win": 1}]})


def test_the_runs_wait_for_a_guess():
    guess = predict("How often does it win, in a test?", low=0, high=100)
    card = BetaCard(runs=RUNS, after=guess)
    assert "once you have guessed" in card.result.value and "75.0%" not in card.result.value + str(card)
    held = card.image.value
    guess.commit("70")
    assert "75.0%" in card.result.value and card.image.value != held


def test_the_stored_runs_are_there():
    runs = dpo_runs()
    assert tuple(runs) == BETAS and len({len(lines) for lines in runs.values()}) == 1
    far = {beta: sum(line["KL"] for line in lines) for beta, lines in runs.items()}
    assert sorted(far, key=far.get, reverse=True) == sorted(far)  # KL grows as beta falls
    assert len(preference_runs("judge, KL x 0", 20)) == len(preference_runs("judge, KL x 0"))
    with pytest.raises(ValueError, match="no run 'DPO'; there are supervised, chosen texts"):
        preference_runs("DPO")
    with pytest.raises(ValueError, match="was measured at the steps 20, 40, 60"):
        preference_runs("judge, KL x 0", 30)
    with pytest.raises(ValueError, match="was measured at the steps of its end"):
        preference_runs("supervised", 30)


def test_what_the_judge_hears_is_told_in_words_too(monkeypatch):
    shown = []
    monkeypatch.setattr(heard, "display", lambda bundle, **_: shown.append(bundle))
    show_heard({"before": ["The soup was not bad, but rude."], "after": ["Fine."]}, happy_judge())
    assert shown[0]["text/plain"] == "before: +0.00 The soup was not bad, but rude.\nafter: +1.00 Fine."
    with pytest.raises(ValueError, match="each needs as many"):
        show_heard({"before": ["a", "b"], "after": ["a"]}, happy_judge())


def test_a_marked_text_keeps_its_letters():
    text = "Good soup & more, not bad, anything but fine; <rude>"
    marked = heard._marked(text, happy_judge())
    assert "<b>Good<sup>+</sup></b>" in marked and "<b>bad<sup>+</sup></b>" in marked
    assert "<u>fine<sup>&minus;</sup></u>" in marked and "&lt;<u>rude" in marked
    bare = re.sub(r"<sup>.*?</sup>|</?[bui]>|&nbsp;.*$", "", marked)
    assert bare.strip() == text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def test_figures_of_distance_have_words(capsys):
    show_chase({"DPO": [(2.0, 60.0), (4.0, 80.0)], "price 0": [(100.0, 100.0)]}, "Far and happy")
    show_climbs({"verdict": {"free": {20: [0.1, 0.3], 40: [0.5, 0.7]}}, "KL, nats": {"free": {20: [1, 2], 40: [9, 9]}}},
                "It climbs")  # fmt: skip
    said = capsys.readouterr().out
    assert "Far and happy. DPO: 70% happy at 3.0 nats; price 0: 100% happy at 100.0 nats." in said
    assert "It climbs. verdict, free: 0.20 at step 20, 0.60 at step 40. KL, nats, free: 1.50 at" in said
    (axes,) = leash.chase({"DPO": [(2.0, 60.0), (4.0, 80.0)]}, "one").axes
    assert axes.get_xscale() == "log" and len(axes.lines) == 2
    verdict, apart = leash.climbs(
        {"verdict": {"free": {20: [0.1], 40: [0.5]}}, "KL, nats": {"free": {20: [1], 40: [9]}}}, "two"
    ).axes
    assert verdict.get_yscale() == "linear" and apart.get_yscale() == "log"
