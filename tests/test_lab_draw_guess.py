"""A guess that is drawn: what is drawn, kept, compared and said; and how all guesses lie to what was measured."""

import re

import pytest
import torch
from lab_models import gpt2

from peft_edu.lab import RankCard, calibration, draw_guess, predict, workbook
from peft_edu.lab.exercises.model_answers import HINTS
from peft_edu.lab.figures import calibration as figures
from peft_edu.lab.figures import display, guessed_line, style

QUESTION = "How does accuracy on aspects go with the rank?"
MEASURED = {1: 85.1, 4: 96.6, 16: 99.2}


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: "text/plain" in bundle and bundles.append(bundle))
    return bundles


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    """A workbook of the test's own."""
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    tomorrow(monkeypatch)
    return tmp_path / "progress.jsonl"


def tomorrow(monkeypatch):
    for name in ("predict", "draw_guess"):
        monkeypatch.setattr(f"peft_edu.lab.widgets.{name}._ASKED", {})


def asked(**changes):
    return draw_guess(
        **{"question": QUESTION, "xs": (1, 4, 16), "low": 50, "high": 100, "x": "rank", "y": "F1, %"} | changes
    )


def drawn(*line, **changes):
    guess = asked(**changes)
    for slider, value in zip(guess.sliders, line, strict=True):
        slider.value = value
    guess.button.click()
    return guess


def squares(svg):
    """The heights of the guess's points."""
    return [float(y) for y in re.findall(r'<rect x="\S+" y="(\S+)" width="10"', svg)]


def test_with_nobody_at_the_keyboard_it_is_the_question_and_then_the_measurement(shown):
    guess = asked()
    guess.reveal(MEASURED)
    question, revealed = shown
    assert question["text/plain"] == f"Predict. {QUESTION} (a line over rank 1, rank 4, rank 16, from 50 to 100)"
    assert "image/svg+xml" not in question
    assert revealed["text/plain"] == "Measured: rank 1: 85.1, rank 4: 96.6, rank 16: 99.2; it rises."
    assert "measured</text>" in revealed["image/svg+xml"] and "your line" not in revealed["image/svg+xml"]
    assert "is compared here" in guess.compared.value and all(
        key.endswith("view+json") for key in question if "widget" in key
    )


def test_the_line_follows_the_sliders_and_the_boxes(shown):
    guess = asked()
    assert guessed_line.EMPTY in guess.drawing.value and not squares(guess.drawing.value)
    guess.sliders[0].value = 50
    guess.boxes[2].value = 100
    top, bottom = guessed_line.TOP, guessed_line.BOTTOM
    assert squares(guess.drawing.value) == [bottom - 5, (top + bottom) / 2 - 5, top - 5]
    assert "Your line: rank 1: 50, rank 4: 75, rank 16: 100." in guess.drawing.value
    assert [slider.description for slider in guess.sliders] == ["rank 1", "rank 4", "rank 16"]
    assert guess.boxes[1].tooltip == "rank 4: your guess, from 50 to 100"


def test_a_line_is_compared_in_words_and_in_the_picture(shown):
    guess = drawn(70, 80, 90)
    assert guess.value == [70, 80, 90] and guess.open and "rank 1: 70" in guess.note.value
    guess.reveal(MEASURED, {"too low": "More than one thinks."})
    assert (
        guess.says()
        == shown[-1]["text/plain"]
        == (
            "Measured: rank 1: 85.1, rank 4: 96.6, rank 16: 99.2; it rises. "
            "Your line: rank 1: 70, rank 4: 80, rank 16: 90, on average too low by 13.6. "
            "It was furthest off at rank 4: 16.6 too low. You drew it rising, and so it is. More than one thinks."
        )
    )
    assert "16.6 apart" in shown[-1]["image/svg+xml"] and len(squares(shown[-1]["image/svg+xml"])) == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((85, 96, 99), "average right. It was right at every point. You drew it rising, and so it is. Yes."),
        ((99, 97, 85), "right. It was furthest off at rank 16: 14.2 too low. You drew it falling, and it rises."),
        ((90, 90, 91), "too low by 3.3. It was furthest off at rank 16: 8.2 too low. You drew it flat, and it rises."),
        ((60, 100, 60), "You drew it with a peak, and it rises."),
        ((100, 60, 100), "You drew it with a valley, and it rises."),
    ],
)
def test_what_is_right_on_average_may_have_another_shape(shown, line, words):
    guess = drawn(*line)
    guess.reveal(MEASURED, {"right": "Yes."})
    assert guess.says().endswith(words)


@pytest.mark.parametrize(
    ("measured", "shape"),
    [
        ((60, 90, 61), "it has a peak"),
        ((90, 60, 90), "it has a valley"),
        ((97, 98, 97), "it is flat"),
        ((90, 80, 70), "it falls"),
        ((60, 90, 88), "it rises"),  # a drop within a twentieth of the range is none
    ],
)
def test_the_shape_of_what_was_measured(shown, measured, shape):
    guess = asked()
    guess.reveal(dict(zip((1, 4, 16), measured, strict=True)))
    assert guess.says().endswith(f"; {shape}.")


def test_nothing_was_drawn_before_a_slider_moved(shown, book):
    guess = asked()
    guess.button.click()
    assert guess.value is None and guess.note.value.startswith("Draw first") and not book.exists()
    guess.sliders[1].value = 80
    guess.sliders[1].value = 75  # back: a flat line in the middle is a guess
    guess.button.click()
    assert guess.value == [75, 75, 75]


def test_a_line_outlives_its_cell_and_its_kernel(shown, monkeypatch):
    first = drawn(70, 80, 90)
    assert asked() is first
    tomorrow(monkeypatch)
    again = asked()
    assert again is not first and again.value == [slider.value for slider in again.sliders] == [70, 80, 90]
    again.reveal(MEASURED)
    assert "after you saw it" not in again.says()
    kept = workbook.kept("guess", QUESTION)
    assert kept["measured"] == [85.1, 96.6, 99.2] and kept["xs"] == [1, 4, 16]
    tomorrow(monkeypatch)
    assert asked(xs=(1, 8, 16)).value is None and asked(low=85).value is None


def test_a_line_that_comes_after_the_measurement_says_so(shown, book):
    guess = asked()
    guess.reveal(MEASURED)
    drawn(85, 97, 99)
    assert (
        "Your line (after you saw it): rank 1: 85" in guess.compared.value
        and "your line</text>" in guess.compared.value
    )
    guess.button.click()
    assert len(book.read_text().splitlines()) == 1


def test_a_skip_shows_what_waits_for_the_guess(shown):
    guess = asked()
    card = RankCard(gpt2(), {1: [80.0, 82.0], 8: [90.0]}, after=guess)
    assert "appear once you have guessed" in card.result.value and "90.0" not in card.result.value
    guess.skip.click()
    assert "<b>90.0</b>" in card.result.value
    other = asked(question="Another?")
    card = RankCard(gpt2(), {8: [90.0]}, after=other)
    drawn(60, 70, 80, question="Another?")
    assert not card.held


def test_a_hint_is_looked_up(shown, monkeypatch):
    monkeypatch.setitem(HINTS, QUESTION, {"too high": "It needs rank."})
    guess = drawn(100, 100, 100)
    guess.reveal({x: torch.tensor(value) for x, value in MEASURED.items()})
    assert guess.says().endswith("It needs rank.")


def test_settings_may_be_words_and_measured_values_lie_outside(shown):
    guess = draw_guess("Which?", xs=("head", "top 1", "full"), low=0, high=1)
    guess.sliders[0].value = 0.5
    guess.button.click()
    guess.reveal({"full": 2, "head": -1, "top 1": 0.5})
    assert "Measured: head: -1, top 1: 0.5, full: 2; it rises." in guess.says()
    assert all(0 < y < guessed_line.BOTTOM for y in squares(guess.compared.value))


@pytest.mark.parametrize(
    "xs", [(), (1,), (4, 1), (1, 1), (1, "a"), "abc", 5, tuple(range(9)), (1, float("nan")), ("a", "a")]
)
def test_settings_are_several_and_in_order(xs):
    with pytest.raises(
        ValueError, match="xs is .*, but must be two to eight different texts, or numbers in rising order"
    ):
        asked(xs=xs)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"low": 3, "high": 3}, ValueError, "draw_guess needs numbers low < high; got low=3, high=3"),
        ({"low": "3"}, ValueError, "draw_guess needs numbers low < high"),
        ({"high": float("inf")}, ValueError, "draw_guess needs numbers low < high"),
        ({"x": 5}, TypeError, "x and y name the axes"),
        ({"question": ""}, TypeError, "question is '', but must be a text"),
    ],
)
def test_what_is_asked_for_is_clear(changes, error, message):
    with pytest.raises(error, match=message):
        asked(**changes)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({1: 85.1, 4: 96.6}, r"reveal needs what was measured at each of \[1, 4, 16\], as a dict; got \[1, 4\]"),
        ({1: 85.1, 4: 96.6, 8: 99.2}, r"at each of \[1, 4, 16\], as a dict; got \[1, 4, 8\]"),
        ([85.1, 96.6, 99.2], r"as a dict; got \[85"),
        ({1: 85.1, 4: None, 16: 99.2}, r"measured\[4\] is None, but must be a finite number"),
    ],
)
def test_what_is_measured_belongs_to_what_was_asked(shown, measured, message):
    with pytest.raises(ValueError, match=message):
        asked().reveal(measured)


@pytest.mark.parametrize("n", [2, 8])
def test_the_sliders_stand_below_their_settings(n, shown):
    guess = draw_guess("Where?", xs=list(range(n)), low=0, high=1, x="depth")
    svg = guessed_line.svg(guess.axes, "", "", [0.5] * n)
    places = [float(x) + 5 for x in re.findall(r'<rect x="(\S+)" y="\S+" width="10"', svg)]
    wide = float(guess.sliders[0].layout.width.removesuffix("px"))
    assert places == pytest.approx([guessed_line.LEFT + (i + 0.5) * wide for i in range(n)], abs=n / 2)


def test_all_guesses_lie_beside_what_was_measured(shown):
    for question, value, measured in (("One?", 10, 50), ("Two?", 95, 50), ("Three?", 52, 50)):
        guess = predict(question, low=0, high=100)
        guess.commit(value)
        guess.reveal(measured)
    seen = predict("Seen?", low=0, high=100)
    seen.reveal(50)
    seen.commit("50")
    which = predict("Which?", choices=["a", "b"])
    which.commit("a")
    which.reveal("b")
    small = predict("How small?", low=0, high=100, scale="log")
    small.commit("10")
    small.reveal(1)
    predict("Not measured?", low=0, high=100).commit("3")
    drawn(85, 90, 50).reveal(MEASURED)
    found = {each.question: each for each in figures.compared(workbook.everything()) if not each.drawn}
    assert list(found) == ["One?", "Two?", "Three?", "Seen?", "How small?"]
    assert (found["One?"].guessed, found["One?"].measured) == (0.1, 0.5) and found["Seen?"].late
    assert found["How small?"].measured == pytest.approx(1 / 3)
    assert found["How small?"].guessed == pytest.approx(2 / 3)
    calibration()
    text = shown[-1]["text/plain"]
    assert text.startswith("Your guesses: of 7 points 2 right, 2 too high, 3 too low; on average ")
    assert "Seen? measured 0.50, guessed 0.50 (late)." in text


def test_without_a_guess_the_diagonal_waits(shown, book):
    calibration()
    assert shown[0]["text/plain"] == f"{figures.NONE}."
    book.write_text('{"kind": "guess", "name": "x", "value": 3, "measured": {}, "low": 1, "high": 1}\n')
    calibration()
    assert shown[1]["text/plain"] == f"{figures.NONE}."


def test_the_picture_of_all_guesses_has_a_legend_for_what_is_in_it():
    points = [figures.Compared("?", 0.5, 0.4), figures.Compared("?", 0.5, 0.9, drawn=True, late=True)]
    figure = figures.figure(points, figures.finding(points))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "typed",
        "drawn, each point, after the answer",
    ]
    assert style.png(figure)
