"""The tools of the browser tests, proven on a small card: keys change text and figure, stop stops, errors are seen."""

import time

import pytest
from lesson import wait_until


def test_a_key_on_the_slider_changes_words_and_figure(open_lesson):
    lesson = open_lesson("card")
    lesson.run_all()
    card = lesson.card("The card")
    with card.changing("text", "figure"):
        card.move("rank", "ArrowRight")
    card.wait_for("rank 9")
    card.move("rank", "ArrowRight", "ArrowRight", "ArrowLeft")
    card.wait_for("rank 10")
    lesson.no_errors()
    lesson.screenshot("card")


def test_stop_answers_while_it_trains(open_lesson):
    lesson = open_lesson("card")
    lesson.run_all()
    card = lesson.card("The card")
    card.press("train")
    card.wait_for("step")
    asked = time.monotonic()
    card.press("stop")
    card.wait_for("stopped after")
    assert time.monotonic() - asked < 5  # of the ten seconds that it would take
    lesson.no_errors()


@pytest.fixture
def break_card(room):
    def break_card(sound, broken):
        text = (room.notebooks / "card.ipynb").read_text()
        assert sound in text
        (room.notebooks / "broken.ipynb").write_text(text.replace(sound, broken))
        return "broken"

    return break_card


def test_an_error_in_a_cell_is_seen(open_lesson, break_card):
    lesson = open_lesson(break_card("import threading", "import no_such_module"))
    with pytest.raises(AssertionError, match="no_such_module"):
        lesson.run_all()


def test_an_error_in_a_callback_is_seen(open_lesson, break_card):
    """JupyterLab hides it: the figure stays as it was, and that is all."""
    lesson = open_lesson(break_card("picture(change.new)", "no_such_name"))
    lesson.run_all()
    card = lesson.card("The card")
    card.move("rank", "ArrowRight")
    card.wait_for("rank 9")
    wait_until(lesson.page, lambda: lesson.errors, "the error comes", seconds=10)
    with pytest.raises(AssertionError, match="no_such_name"):
        lesson.no_errors()


def test_an_error_in_a_thread_is_seen(open_lesson, break_card):
    lesson = open_lesson(break_card("progress.value = step", "no_such_name"))
    lesson.run_all()
    lesson.card("The card").press("train")
    wait_until(lesson.page, lambda: "no_such_name" in "".join(lesson.errors), "the error comes", seconds=10)
    with pytest.raises(AssertionError, match="no_such_name"):
        lesson.no_errors()
