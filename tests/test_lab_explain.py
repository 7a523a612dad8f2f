"""An explanation: nothing is given away before the learner's own words, and these are kept."""

import pytest

from peft_edu.lab import explain
from peft_edu.lab.exercises.model_answers import ANSWERS
from peft_edu.lab.figures import display
from peft_edu.lab.widgets.explain import Explanation

QUESTION = "Why does merging cost nothing at inference?"


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))


def test_with_nobody_at_the_keyboard_it_is_the_question_alone(monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: "text/plain" in bundle and shown.append(bundle))
    explain(QUESTION)
    assert shown[0]["text/plain"] == f"Explain. {QUESTION}"


def test_the_model_answer_stands_beside_words_of_ones_own():
    box = Explanation(QUESTION)
    box.button.click()
    assert "Write a sentence of your own first" in box.shown.value and ANSWERS[QUESTION].text not in box.shown.value
    box.box.value = "One product <instead> of three."
    box.button.click()
    assert "LoRA computes W x" in box.shown.value and "<instead>" not in box.shown.value
    assert all(f"<li>{point[:20]}" in box.shown.value for point in ANSWERS[QUESTION].look_for)


def test_what_was_written_is_there_again():
    first = Explanation(QUESTION)
    first.box.value = "One product."
    first.button.click()
    again = Explanation(QUESTION)
    assert again.box.value == "One product." and "One way to say it" in again.shown.value
    assert Explanation("What could the rank have to do with the task?").box.value == ""


def test_an_unknown_question_is_told_the_nearest_one():
    with pytest.raises(ValueError, match="no model answer to .*; did you mean 'Why does merging cost nothing at"):
        explain("Why does merging cost nothing?")


@pytest.mark.parametrize("question", ANSWERS)
def test_an_answer_is_worth_reading(question):
    answer = ANSWERS[question]
    assert 40 <= len(answer.text.split()) <= 120 and 2 <= len(answer.look_for) <= 3
