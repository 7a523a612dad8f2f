"""Brief answers of a real model: how its study measures, and what it has stored."""

from dataclasses import replace

import pytest
import torch

from peft_edu import LoRA
from peft_edu.lab import backbone, brief_runs, general_questions, task
from peft_edu.lab.models import stand_in
from peft_edu.lab.study import brief


@pytest.fixture
def small(monkeypatch):
    """In SmolLM2's place a Llama that was never trained: it answers no question, and shows the way."""
    _, tokenizer = backbone("tiny-gpt2")
    tokenizer.chat_template = stand_in.TEMPLATE
    monkeypatch.setattr(brief, "backbone", lambda name: (stand_in._small_llama(tokenizer), tokenizer))
    data = task("brief")
    few = replace(data, splits={split: rows[:8] for split, rows in data.splits.items()})
    monkeypatch.setattr(brief, "task", lambda name: few)
    monkeypatch.setattr(brief, "TOKENS", 4)
    return few, tokenizer


def test_answers_are_counted_by_their_words_and_by_the_right_word(small, monkeypatch):
    data, tokenizer = small
    rows, model = data.rows("test", 4), stand_in._small_llama(tokenizer)
    a, b = rows[0]["chosen"], rows[1]["rejected"]
    monkeypatch.setattr(brief, "write", lambda *_, **__: [a, b, "No.", "It is none of all these words."])
    texts, found = brief.answers(model, tokenizer, rows)
    assert texts[:2] == [a, b] and found["right"] == 0.5 and found["short"] == 0.5 and found["both"] == 0.25
    assert found["words"] == (1 + 7) / 2


def test_before_training_a_model_is_its_own_reference(small):
    found = brief.before()
    assert found["KL"] == found["chosen"] == found["rejected"] == 0
    assert 0 <= found["general"] <= 1 and found["open words"] <= brief.TOKENS


@pytest.mark.parametrize("run", brief.RUNS)
def test_each_run_learns_what_it_is_to_learn(small, run):
    model, tokenizer = brief.tuned(run, lr=1e-2, steps=4, number=0)
    found = brief.measured(model, tokenizer)
    if run == brief.CHOSEN:
        assert found["chosen"] > 0
    else:
        assert found["chosen"] > found["rejected"]


def test_who_is_measured_leaves_the_random_numbers_as_they_were(small):
    _, tokenizer = small
    model = LoRA(8, 16).attach(stand_in._small_llama(tokenizer))
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    brief.measured(model, tokenizer)
    assert torch.equal(torch.rand(1), wanted)


def test_the_setting_is_that_of_the_best_validation():
    lines = [
        {"split": "validation", "run": "DPO beta=0.1", "lr": lr, "steps": steps, "both": both}
        for lr, steps, both in ((1, 30, 0.2), (2, 30, 0.4), (2, 60, 0.3))
    ]
    lines += [{"split": "test", "run": "DPO beta=0.1", "lr": 3, "steps": 30, "both": 0.9}]
    assert brief.best(lines, "DPO beta=0.1") == brief.best(lines, "DPO beta=0.3") == (2, 30)
    with pytest.raises(ValueError):
        brief.best(lines, brief.CHOSEN)


def test_open_requests_are_no_questions_that_are_trained_or_measured_elsewhere():
    asked = {row["prompt"] for rows in task("brief").splits.values() for row in rows}
    assert len(set(brief.OPEN)) == 10
    assert not set(brief.OPEN) & (asked | {row["source"] for row in general_questions().rows("test")})


def test_all_runs_are_stored_and_before_is_the_reference():
    base = brief_runs("before")
    assert base[["KL", "chosen", "rejected"]].to_numpy().tolist() == [[0, 0, 0]] and base.general.tolist() == [100]
    for name in brief.RUNS:
        runs = brief_runs(name)
        assert sorted(runs.index) == list(brief.SEEDS), name
        assert (runs.KL > 0).all() and (runs.both <= runs[["short", "right"]].min(axis=1)).all()
        assert len(runs[["lr", "steps"]].drop_duplicates()) == 1, "all seeds take what validation chose"
    with pytest.raises(ValueError, match="no run 'DPO beta=7'; there are before, chosen answers, "):
        brief_runs("DPO beta=7")
