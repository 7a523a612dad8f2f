"""Hugging Face's Trainer with an attached model: it trains, saves, goes on, and gives back the best state."""

import os

import pytest
import torch
from accelerate.state import AcceleratorState
from families import batch, tiny
from transformers import Trainer, TrainingArguments

from peft_edu import LoRA, PrefixTuning, PTuningV2, load, save, trainable
from peft_edu.lab import backbone


def bert(method):
    return method.attach(backbone("tiny-bert", head="classify", labels=3, dtype=torch.float32)[0])


def rows(task):
    return [{name: each[i % 3] for name, each in batch(task, i).items()} for i in range(8)]


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """Of three epochs, after each of which the state of what is learned is noted, it holds the second for the best."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # in which it notes the precision
    scores = [0.1, 0.9, 0.3]

    class Noting(Trainer):
        def _save_checkpoint(self, *args, **kwargs):
            super()._save_checkpoint(*args, **kwargs)
            states.append({name: each.detach().clone() for name, each in trainable(self.model).items()})

    def build(model, task="classify"):
        arguments = TrainingArguments(
            tmp_path / "runs", num_train_epochs=3, per_device_train_batch_size=4, learning_rate=0.01, use_cpu=True,
            eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="score",
            greater_is_better=True, report_to=[], disable_tqdm=True,
        )  # fmt: skip
        metrics = {"compute_metrics": lambda _: {"score": scores[len(states) % 3]}}
        return Noting(model, arguments, train_dataset=rows(task), eval_dataset=rows(task)[:3], **metrics), states

    states = []
    AcceleratorState._reset_state(True)
    yield build
    AcceleratorState._reset_state(True)


MODELS = {
    "bert": (bert, LoRA(rank=4), "classify"),
    "bert, prompts in every layer": (bert, PTuningV2(length=3), "classify"),
    "gpt2": (lambda method: method.attach(tiny("gpt2")), LoRA(rank=4), "language"),  # whose head is its embedding
    "llama": (lambda method: method.attach(tiny("llama")), PrefixTuning(length=3, hidden=0), "language"),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_gives_back_the_best_state(name, trainer, tmp_path):
    build, method, task = MODELS[name]
    model = build(method)
    frozen = {each: value.clone() for each, value in model.state_dict().items() if each not in trainable(model)}
    training, states = trainer(model, task)
    training.train()
    best, last = states[1], states[2]
    assert training.state.best_model_checkpoint.endswith("checkpoint-4")
    assert any(not torch.equal(best[each], last[each]) for each in best)
    assert all(torch.equal(value, best[each]) for each, value in trainable(model).items())
    assert all(torch.equal(value, model.state_dict()[each]) for each, value in frozen.items())
    save(model, tmp_path / "kept")
    method.detach()
    again = load(model, tmp_path / "kept")
    assert all(torch.equal(value, best[each]) for each, value in trainable(again).items())


def test_it_goes_on_from_its_own_checkpoint(trainer):
    """The state of the optimizer and of chance included: the last epoch comes out as it was."""
    training, states = trainer(bert(LoRA(rank=4, dropout=0.1)))
    training.train()
    fresh, again = trainer(bert(LoRA(rank=4, dropout=0.1)))
    fresh.train(resume_from_checkpoint=training.state.best_model_checkpoint)
    assert len(again) == 4 and all(torch.equal(value, again[3][each]) for each, value in states[2].items())
