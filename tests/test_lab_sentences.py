"""Sentences as boxes: what stands in them, that nothing leaves the figure, and the card of templates."""

import re

import pytest
from matplotlib.patches import Rectangle

from peft_edu import PTuning, count
from peft_edu.lab import TemplateCard, backbone
from peft_edu.lab.figures import style
from peft_edu.lab.figures.sentences import BOXES, sentences, template_tokens

LONG = [("word" * 3, "word")] * 20 + [("soup", "PRAISED"), ("bed", "CRITICISED")]


def drawn(figure):
    [axes] = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return boxes, [text.get_text() for text in axes.texts]


def test_the_boxes_of_a_template():
    found = template_tokens("[P][P] {subject} was [P] [MASK] .", "Rosa Balford")
    words = [("1", "pseudo"), ("2", "pseudo"), ("Rosa", "word"), ("Balford", "word"), ("was", "word"), ("3", "pseudo")]
    assert found == [*words, ("[MASK]", "gap"), (".", "word")]


@pytest.mark.parametrize("name", ["", "the model"])
def test_a_long_sentence_is_broken_into_lines_that_fit(name):
    figure = sentences([(name, LONG)], "title")
    boxes, texts = drawn(figure)
    width, height = figure.get_size_inches() * style.DPI
    assert len(boxes) == len(LONG) and texts.count("soup") == 1 and "praised" in texts
    assert all(box.get_x() >= 0 and box.get_x() + box.get_width() <= width for box in boxes)
    assert all(box.get_y() >= 0 and box.get_y() + box.get_height() <= height for box in boxes)
    assert len({box.get_y() for box in boxes}) > 1


def test_no_two_boxes_touch():
    boxes, _ = drawn(sentences([("", LONG)], "title"))
    for one, other in zip(boxes, boxes[1:], strict=False):
        if one.get_y() == other.get_y():
            assert one.get_x() + one.get_width() < other.get_x()


def test_kinds_are_told_apart_without_colour():
    """By what is written under a box, or by what is written in it."""
    figure = sentences([("", [("x", kind) for kind in BOXES])], "title")
    _, texts = drawn(figure)
    assert {"praised", "criticised", "first", "middle", "last"} <= set(texts)


@pytest.fixture
def card():
    seen = []

    def train(template, on_step):
        seen.append(template)
        for step in range(1, 4):
            on_step(step, 1.0 / step)
        return "done"

    card = TemplateCard(128, "Rosa Balford", train, steps=3)
    return card, seen


def test_the_template_of_the_card(card):
    card, _ = card
    assert card.template() == "[P] [P] [P] {subject} [P] [P] [P] [MASK] [P] [P] [P]"
    card.controls["between"].value, card.controls["after"].value = 1, 0
    card.controls["words"].value = " is a native of "
    assert card.template() == "[P] [P] [P] {subject} is a native of [P] [MASK]"
    assert "4 pseudo tokens" in card.result.value
    card.controls["before"].value = card.controls["between"].value = 0
    assert "written by hand" in card.result.value and "Error" not in card.result.value


def test_without_a_pseudo_token_nothing_is_counted_and_nothing_is_trained(card):
    card, _ = card
    for place in ("before", "between", "after"):
        assert not card.trainer.start.disabled
        card.controls[place].value = 0
    assert re.findall(">([0-9,]+)<", card.result.value) == ["0", "0"] and card.trainer.start.disabled
    card.controls["before"].value = 1
    assert "1 pseudo token." in card.result.value and not card.trainer.start.disabled
    assert card.figure().get_suptitle().startswith("1 pseudo token of 128")


def test_a_typed_half_becomes_a_whole_number(card):
    card, _ = card
    card.controls["before"].value = 2.4
    assert card.controls["before"].value == 2 and card.template().startswith("[P] [P] {subject}")


@pytest.mark.parametrize("words", ["{who}", "{", "was [MASK]", "[P]"])
def test_words_that_stand_for_something_else_are_refused_in_the_card(card, words):
    card, seen = card
    card.controls["words"].value = words
    assert "ValueError" in card.result.value and "plain words" in card.result.value
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert not seen and "plain words" in card.trainer.status.value
    card.controls["words"].value = "was"
    assert "Error" not in card.result.value


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": "x"}, "width is 'x', but must be a whole number"),
        ({"width": -1}, "width is -1, but must be a whole number"),
        ({"subject": None}, "subject is None, but must be plain words"),
        ({"subject": "{Rosa}"}, "subject is '{Rosa}', but must be plain words"),
        ({"train": None}, "train is None, but must be a function"),
        ({"steps": 0}, "steps is 0, but must be a whole number"),
    ],
)
def test_a_card_of_templates_is_given_what_it_needs(wrong, message):
    given = {"width": 128, "subject": "Rosa", "train": print, "steps": 3} | wrong
    with pytest.raises((ValueError, TypeError), match=message):
        TemplateCard(**given)


def test_a_subject_with_braces_is_drawn_as_it_is():
    assert template_tokens("{subject} [MASK]", "{x}") == [("{x}", "word"), ("[MASK]", "gap")]


def test_the_numbers_of_the_card_are_those_of_the_method(card):
    card, _ = card
    for encoder in ("none", "lstm"):
        model = PTuning(card.template(), encoder).attach(backbone("tiny-bert")[0])
        assert f">{count(model).trainable:,}<" in card.result.value


def test_it_trains_the_template_that_stands_there(card):
    card, seen = card
    card.controls["before"].value = 1
    card.trainer.start.click()
    card.trainer.thread.join(10)
    assert seen == [card.template()] and "1+3+3: <b>done</b>" in card.trainer.status.value


def test_a_figure_of_its_own_size(card):
    card, _ = card
    assert card.image.layout.height == f"{card.inches * style.DPI:.0f}px"
    assert card.figure().get_size_inches()[1] == card.inches
