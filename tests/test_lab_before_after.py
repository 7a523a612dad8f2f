"""What lesson 09 shows: a stand-in for a real model, tokens with their labels, one text with two answers."""

import pytest
import torch
from ipywidgets import Textarea

from peft_edu import LoRA
from peft_edu.anatomy import blocks, linear_maps
from peft_edu.lab import (
    BeforeAfterCard,
    backbone,
    general_questions,
    new_facts,
    real_backbone,
    reply,
    scoreboard,
    show_texts,
)
from peft_edu.lab.figures.learned import show_learned
from peft_edu.lab.models import real, stand_in
from peft_edu.lab.study.new_facts import ASKED, SPLITS


@pytest.fixture(scope="module")
def talker():
    """A model without English, which has a template."""
    model, tokenizer = backbone("tiny-gpt2")
    tokenizer.chat_template = stand_in.TEMPLATE
    return LoRA(rank=4).attach(model), tokenizer


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PEFT_EDU_WORK", str(tmp_path))
    monkeypatch.setattr(real, "installed", lambda name: None)


def test_without_the_real_model_a_bundled_one_stands_in_and_one_line_says_so(nothing_installed, capsys):
    model, tokenizer = real_backbone("smollm2-135m-instruct")
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "`make real`" in said[0] and "an untrained Llama" in said[0]
    assert model.config.model_type == "llama" and model.dtype == torch.float32
    assert len({target.module for target in linear_maps(model, ("query", "value"))}) == 2 * len(blocks(model))
    assert isinstance(reply(model, tokenizer, "Hello", tokens=3), str)
    encoder, _ = real_backbone("minilm-l6", head="classify", labels=["bad", "good"])
    assert encoder.config.num_labels == 2


def test_another_mistake_is_no_reason_for_a_stand_in(nothing_installed):
    with pytest.raises(ValueError, match="labels"):
        real_backbone("minilm-l6", head="classify", labels=["one"])


def test_a_reply_ends_where_it_is_told_to(talker):
    model, tokenizer = talker
    assert len(tokenizer(reply(model, tokenizer, "Where is it?", tokens=2)).input_ids) <= 3
    with pytest.raises(ValueError, match="tokens"):
        reply(model, tokenizer, "Where is it?", tokens=0)


def test_learned_tokens_are_told_in_words(talker, capsys):
    _, tokenizer = talker
    ids = tokenizer("The soup was good.", add_special_tokens=False).input_ids
    show_learned(ids, [-100] * (len(ids) - 1) + ids[-1:], tokenizer, "One is learned")
    said = capsys.readouterr().out
    assert f"One is learned. Of {len(ids)} tokens 1 are learned: ." in said
    with pytest.raises(ValueError, match="3 ids and 1 labels"):
        show_learned(ids[:3], [1], tokenizer, "none")


def test_a_scoreboard_has_its_numbers_in_the_page_alone(monkeypatch):
    shown = []
    monkeypatch.setattr("peft_edu.lab.widgets.scoreboard.display", lambda bundle, raw: shown.append(bundle))
    scoreboard({"before": {"valid": 0.5, "f1": 0.25, "exact": 0.0}})
    assert (
        "50%" in shown[0]["text/html"]
        and "25%" in shown[0]["text/html"]
        and "F1 of the fields" in shown[0]["text/html"]
    )
    assert shown[0]["text/plain"] == "Scores (valid JSON, F1 of the fields, all fields right) of: before."
    show_texts({"Where?": "<here>"}, ("question", "answer"))
    assert "&lt;here&gt;" in shown[1]["text/html"] and shown[1]["text/plain"] == "question and answer"


def test_the_card_answers_without_the_adapter_and_with_it(talker):
    model, tokenizer = talker
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    card = BeforeAfterCard(model, tokenizer, "The soup", asked=lambda text: f"Go on: {text}", tokens=8)
    box = card.controls["text"]
    assert isinstance(box, Textarea)
    answers = card.measure("The soup")
    assert answers["without the adapter"] == reply(*plain(tokenizer), "Go on: The soup", tokens=8)
    assert answers["with the adapter"] == reply(model, tokenizer, "Go on: The soup", tokens=8)
    assert answers["with the adapter"] != answers["without the adapter"]
    assert answers["with the adapter"].split()[0] in card.result.value and card.image.value
    box.value = "   "
    assert "type a text for the model" in card.result.value
    assert "two answers stand" in str(BeforeAfterCard(model, tokenizer, "Hm", tokens=2))


def plain(tokenizer):
    return backbone("tiny-gpt2")[0], tokenizer


def test_the_card_needs_an_adapter_and_a_question(talker):
    model, tokenizer = talker
    with pytest.raises(ValueError, match="nothing is attached to this GPT2LMHeadModel"):
        BeforeAfterCard(backbone("tiny-gpt2")[0], tokenizer, "The soup")
    with pytest.raises(TypeError, match="asked is 'how', but must be a function"):
        BeforeAfterCard(model, tokenizer, "The soup", asked="how")


def test_general_questions_are_scored_by_their_answer():
    rows = general_questions().rows("test")
    assert len(rows) == 12
    for row in rows:
        assert row["slots"]["is"] in row["target"] and row["slots"]["is"] not in row["source"]
    assert general_questions().metric == "slots"


def test_new_facts_are_asked_in_words_that_were_not_trained():
    data = new_facts()
    trained = {row["source"] for row in data.rows("train")}
    assert len(trained) == 72 == 2 * len(data.rows("in new words"))
    assert {row["source"] for row in data.rows("asked as trained")} < trained
    assert not trained & {row["source"] for name in SPLITS[1:] for row in data.rows(name)}
    assert len({row["slots"]["is"] for row in data.rows("reversed")}) == 12
    assert all(len(wordings) == 4 for wordings in ASKED.values())
