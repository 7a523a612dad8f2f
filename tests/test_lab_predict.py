"""A guess, committed or not, and what is said when the measurement is there."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from peft_edu.lab import predict, workbook
from peft_edu.lab.exercises.model_answers import HINTS
from peft_edu.lab.figures import display
from peft_edu.lab.widgets.predict import TypedGuess

HINT = {"too high": "It is fewer than one thinks.", "too low": "It is more.", "right": "Low rank was found."}


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: "text/plain" in bundle and bundles.append(bundle))
    return bundles


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    """A workbook of the test's own, so that no guess is remembered from another one."""
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    monkeypatch.setattr("peft_edu.lab.widgets.predict._ASKED", {})
    return tmp_path / "progress.jsonl"


def test_with_nobody_at_the_keyboard_it_is_the_measurement_alone(shown):
    guess = predict("How many?", low=1, high=128)
    guess.reveal(11, hint=HINT)
    assert [each["text/plain"] for each in shown] == ["Predict. How many? (a number from 1 to 128)", "Measured: 11."]
    assert all("application/vnd.jupyter.widget-view+json" in each for each in shown)
    assert "is compared here" in guess.compared.value


@pytest.mark.parametrize("typed, verdict", [("40", "too high"), (" 3 ", "too low"), ("12", "right"), ("10,5", "right")])
def test_a_number_is_compared(shown, typed, verdict):
    guess = predict("How many?", low=1, high=128)
    guess.box.value = typed
    guess.button.click()
    guess.reveal(11.04, hint=HINT)
    far = "" if verdict == "right" else f" by {abs(float(typed) - 11.04):.3g}"
    assert f", {verdict}{far}. {HINT[verdict]}" in shown[-1]["text/plain"] == guess.says()
    assert "Your guess" in guess.note.value


def enter(guess):
    """What the page sends when Enter is pressed in the box."""
    guess.box._handle_custom_msg({"event": "submit"}, [])


def test_enter_commits_and_leaving_the_box_does_not(shown):
    guess = predict("How many?", low=1, high=128)
    guess.box.value = "12"
    assert guess.value is None
    enter(guess)
    assert guess.value == 12 and guess.open
    enter(guess)
    guess.box.value = "40"  # the page sends new text after Enter
    assert guess.value == 40
    guess.box.value = "50"
    assert guess.value == 40


def test_a_cell_that_asks_again_keeps_what_was_revealed(shown):
    guess = predict("How many?", low=1, high=128)
    guess.reveal(11, HINT)
    predict("How many?", low=1, high=128).commit("64")
    assert "too high by 53" in guess.compared.value


@pytest.mark.parametrize("late", [False, True])
def test_a_guess_is_kept_once_with_what_was_measured(shown, book, late):
    guess = predict("How many?", low=1, high=128)
    for step in [lambda: guess.commit("12"), lambda: guess.reveal(np.int64(11))][:: -1 if late else 1] * 2:
        step()
    assert workbook.kept("guess", "How many?") | {"value": 12, "measured": 11} == workbook.kept("guess", "How many?")
    assert len(book.read_text().splitlines()) == (1 if late else 2)


def test_a_large_number_is_said_whole(shown):
    guess = predict("How many?", low=1, high=1e6)
    guess.commit("50,000")
    guess.reveal(12288)
    assert guess.says() == "Measured: 12,288. Your guess: 50,000, right."


def test_a_guess_that_comes_after_the_measurement_is_compared_at_once(shown):
    guess = predict("How many?", low=1, high=128)
    guess.reveal(11, hint=HINT)
    guess.commit("64")
    assert "Your guess (after you saw it): 64, too high by 53. It is fewer" in guess.compared.value
    guess.commit("11")
    assert "Your guess (after you saw it): 11, right. Low rank was found." in guess.compared.value
    assert "run this cell" not in guess.compared.value + guess.note.value.lower()


def test_a_guess_outlives_its_cell_and_its_kernel(shown, book, monkeypatch):
    first = predict("How many?", low=1, high=128)
    first.box.value = "12"
    first.button.click()
    assert book.is_file()
    again = predict("How many?", low=1, high=128)
    monkeypatch.setattr("peft_edu.lab.widgets.predict._ASKED", {})
    tomorrow = predict("How many?", low=1, high=128)
    assert again is first is not tomorrow
    for question in (again, tomorrow):
        assert question.value == 12 and question.box.value == "12" and "Your guess: <b>12</b>" in question.note.value
        question.reveal(11, HINT)
        assert "Your guess: 12, right." in shown[-1]["text/plain"]
    which = predict("Which?", choices=["head", "norms"])
    which.box.value = "norms"
    which.button.click()
    assert predict("Which?", choices=["head", "norms"]).box.value == "norms"
    assert predict("How many others?", low=1, high=128).value is None


@pytest.mark.parametrize("asked", [{"low": 1, "high": 10}, {"choices": ["head", "norms"]}])
def test_a_guess_that_no_longer_answers_the_question_is_left_out(shown, asked):
    predict("How many?", low=1, high=128).commit("12")
    guess = predict("How many?", **asked)
    assert guess.value is None and not guess.open


@pytest.mark.parametrize(
    "entry", ["{}", '{"kind": "guess", "name": "How many?"}', "half a li", '{"kind": "guess", "na']
)
def test_a_damaged_memory_is_no_guess(shown, book, entry):
    book.write_text(entry)
    assert predict("How many?", low=1, high=128).value is None


@pytest.mark.parametrize(
    "typed, verdict",
    [
        ("0.95", "right"),
        ("2", "right"),
        ("5", "too high by a factor of 3.6"),
        ("0.1", "too low by a factor of 14"),
        ("0", "too low by 1.4"),
    ],
)
def test_where_smallness_is_the_point_a_factor_decides(shown, typed, verdict):
    guess = predict("Which share?", low=0, high=100, scale="log")
    guess.commit(typed)
    guess.reveal(1.4)
    assert guess.says().endswith(f", {verdict}.")


@pytest.mark.parametrize("asked", [{"scale": "ln"}, {"low": -1, "scale": "log"}])
def test_a_scale_is_linear_or_logarithmic(asked):
    with pytest.raises(ValueError, match="scale is .*, but must be 'linear', or 'log' for numbers from 0 on"):
        predict("How many?", **{"low": 0, "high": 1} | asked)


@pytest.mark.parametrize("opens", [lambda g: g.commit("3"), lambda g: g.skip.click(), lambda g: g.reveal(11)])
def test_what_waits_for_the_guess_is_told_when_it_may_show_itself(shown, opens):
    guess, told = predict("How many?", low=1, high=128), []
    guess.when_open(lambda: told.append(guess.open))
    guess.commit("nothing")
    assert not told and not guess.open
    opens(guess)
    assert told == [True]


def test_a_comma_before_three_digits_groups_them(shown):
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


def test_a_choice_is_compared_and_explained(shown):
    guess = predict("Which?", choices=["head", "biases", "blocks"])
    guess.button.click()
    assert guess.note.value == "Choose one first."
    guess.box.value = "head"
    guess.button.click()
    guess.reveal("blocks", hint={"head": "The features are frozen."})
    assert shown[-1]["text/plain"].endswith("Your guess: head, not what was measured. The features are frozen.")
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


def test_a_guess_that_was_changed_in_the_light_of_the_answer_says_so(shown):
    guess = predict("How many?", low=1, high=128)
    guess.commit("8")
    guess.reveal(11)
    assert "Your guess: 8, right by" not in guess.says() and "after you saw it" not in guess.says()
    guess.commit("8")
    assert "after you saw it" not in guess.says()
    guess.commit("11")
    assert "Your guess (after you saw it): 11" in guess.says()
    assert workbook.kept("guess", "How many?")["late"] is True


def test_a_tensor_of_one_number_is_a_measurement(shown):
    guess = predict("How many?", low=1, high=128)
    guess.reveal(torch.tensor(32))
    assert guess.says() == "Measured: 32."


def test_a_skip_is_remembered_and_is_no_guess(shown):
    predict("How many?", low=1, high=128).skip.click()
    again = TypedGuess("How many?", 1, 128, None)
    assert again.open and again.value is None and "Skipped" in again.note.value
    assert workbook.kept("guess", "How many?") is None
    again.commit("12")
    assert TypedGuess("How many?", 1, 128, None).value == 12


def test_a_hint_that_no_cell_gives_away_is_looked_up(shown):
    guess = predict(
        "B starts at zero. What if A starts at zero, too?", choices=["it learns as well", "it never learns"]
    )
    guess.commit("it learns as well")
    guess.reveal("it never learns")
    assert guess.says().endswith("Why never? Say it in the box below.")


def test_every_hint_belongs_to_a_question_of_a_lesson_and_can_be_shown():
    lessons = [nbformat.read(path, 4) for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))]
    asked = [output["data"].get("text/plain", "") for lesson in lessons for cell in lesson.cells
             for output in cell.get("outputs", []) if output.output_type == "display_data"]  # fmt: skip
    for question, hints in HINTS.items():
        (text,) = [each for each in asked if each.startswith(f"Predict. {question} (")]
        assert hints.keys() <= {"too high", "too low", "right"} or all(choice in text for choice in hints)
