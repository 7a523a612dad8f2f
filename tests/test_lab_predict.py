"""A guess, committed or not, and what is said when the measurement is there."""

import pytest

from peft_edu.lab import predict
from peft_edu.lab.figures import display

HINT = {"too high": "It is fewer than one thinks.", "too low": "It is more.", "right": "Low rank was found."}


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: bundles.append(bundle))
    return bundles


def test_with_nobody_at_the_keyboard_it_is_the_measurement_and_one_line(shown, capsys):
    guess = predict("How many?", low=1, high=128)
    guess.reveal(11, hint=HINT)
    assert capsys.readouterr().out == (
        "Measured: 11.\nNo guess was committed. To compare one, commit it above and run this cell again.\n"
    )
    assert shown[0]["text/plain"] == "Predict. How many? (a number from 1 to 128)"
    assert "application/vnd.jupyter.widget-view+json" in shown[0]


@pytest.mark.parametrize("typed, verdict", [("40", "too high"), (" 3 ", "too low"), ("12", "right"), ("10,5", "right")])
def test_a_number_is_compared(shown, capsys, typed, verdict):
    guess = predict("How many?", low=1, high=128)
    guess.box.value = typed
    guess.button.click()
    guess.reveal(11.04, hint=HINT)
    assert f", {verdict}. {HINT[verdict]}" in capsys.readouterr().out
    assert "Your guess" in guess.note.value


def test_a_comma_before_three_digits_groups_them(shown, capsys):
    guess = predict("How many?", low=1, high=1e6)
    guess.box.value = "12,288"
    guess.button.click()
    assert guess.value == 12288


@pytest.mark.parametrize("typed", ["", "many", "0", "129", "1,000", "nan"])
def test_what_is_no_guess_is_told_under_the_box(shown, typed):
    guess = predict("How many?", low=1, high=128)
    guess.box.value = typed
    guess.button.click()
    assert guess.value is None and guess.note.value == "Type a number from 1 to 128."


def test_a_choice_is_compared_and_explained(shown, capsys):
    guess = predict("Which?", choices=["head", "biases", "blocks"])
    guess.button.click()
    assert guess.note.value == "Choose one first."
    guess.box.value = "head"
    guess.button.click()
    guess.reveal("blocks", hint={"head": "The features are frozen."})
    assert capsys.readouterr().out.endswith("Your guess: head, not what was measured. The features are frozen.\n")
    with pytest.raises(ValueError, match="none of the choices head, biases, blocks"):
        guess.reveal("norms")


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "asked",
    [
        {"low": 3},
        {"low": 3, "high": 3},
        {"low": NAN, "high": 5},
        {"low": 0, "high": INF},
        {"low": "1", "high": "5"},
        {"choices": []},
        {"choices": ["one"]},
        {"choices": 5},
        {"choices": "abc"},
        {"choices": [1, 2]},
        {"choices": ["a", "b", "a"]},
        {"choices": ["a", "b"], "low": 0, "high": 1},
    ],
    ids=str,
)
def test_a_question_without_bounds_or_choices_is_refused(asked):
    with pytest.raises(ValueError, match="predict needs numbers low < high, or two or more different texts as choices"):
        predict("How many?", **asked)


@pytest.mark.parametrize("question", [None, "", 5])
def test_a_question_is_a_text(question):
    with pytest.raises(TypeError, match="question is .*, but must be a text"):
        predict(question, low=0, high=1)


@pytest.mark.parametrize("measured", [None, "11", NAN, INF])
@pytest.mark.parametrize("typed", ["12", ""])
def test_what_is_measured_is_a_number_with_a_guess_and_without(shown, measured, typed):
    guess = predict("How many?", low=1, high=128)
    guess.commit(typed)
    with pytest.raises(ValueError, match="measured is .*, but must be a finite number"):
        guess.reveal(measured)


@pytest.mark.parametrize("hint", ["It is more.", {"to high": "Never shown."}, ["too high"]])
def test_a_hint_that_could_never_be_shown_is_refused(shown, hint):
    with pytest.raises(
        ValueError, match="hint is .*, but must be a dict whose keys are among too high, too low, right"
    ):
        predict("How many?", low=1, high=128).reveal(11, hint)
    with pytest.raises(ValueError, match="among head, biases"):
        predict("Which?", choices=["head", "biases"]).reveal("head", {"norms": "They are few."})
