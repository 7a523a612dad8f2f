import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from families import batch, tiny
from lab_models import save_model
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

import peft_edu
from peft_edu import FullFineTuning, HeadOnly, LoRA, evaluate, fit, load, seed, trainable
from peft_edu.lab import backbone
from peft_edu.method import attached
from peft_edu.storage.folder import place_for
from peft_edu.train.__main__ import main

CLASSIFY = [batch("classify", seed) for seed in range(4)]


def classifier(method=None, dtype=torch.float64):
    return (method or LoRA(rank=4)).attach(tiny("bert", "classify", dtype))


def test_fit_is_the_plain_loop():
    """The same numbers as the loop that everyone writes, with the schedule of transformers."""
    model, other = classifier(), classifier()
    pairs = list(zip(trainable(model).values(), trainable(other).values(), strict=True))
    for mine, theirs in pairs:
        theirs.data.copy_(mine)
    seed(0)
    history = fit(model, CLASSIFY, steps=6, lr=0.01, warmup=0)
    seed(0)
    optimizer = torch.optim.AdamW(trainable(other).values(), lr=0.01)
    scheduler = get_linear_schedule_with_warmup(optimizer, 0, 6)
    other.train()
    for step in range(6):
        loss = other(**CLASSIFY[step % 4]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable(other).values(), 1.0)
        assert history.lr[step] == scheduler.get_last_lr()[0]
        assert history.loss[step] == pytest.approx(loss.item(), abs=1e-12)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert all(torch.allclose(p, q, atol=1e-12) for p, q in pairs)


def test_training_learns():
    model = classifier(FullFineTuning())
    history = fit(model, CLASSIFY, steps=60, lr=0.01)
    assert history.loss.iloc[-4:].mean() < 0.2 < history.loss.iloc[:4].mean()
    assert evaluate(model, CLASSIFY) == 1


def test_history():
    history = fit(classifier(), CLASSIFY, steps=5, lr=0.01)
    assert list(history.columns) == ["step", "loss", "lr", "seconds"]
    assert list(history.step) == [1, 2, 3, 4, 5]
    assert history.seconds.is_monotonic_increasing


@pytest.mark.parametrize(
    "schedule, warmup, expected",
    [
        ("linear", 0, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("linear", 0.2, [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("constant", 0, [1] * 10),
        ("constant", 0.3, [0.25, 0.5, 0.75] + [1] * 7),
    ],
)
def test_schedules(schedule, warmup, expected):
    history = fit(classifier(), CLASSIFY, steps=10, lr=0.5, schedule=schedule, warmup=warmup)
    assert np.allclose(history.lr, 0.5 * np.array(expected))


def test_the_head_may_have_a_rate_of_its_own():
    model = classifier(FullFineTuning())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, CLASSIFY, steps=2, lr=0.0, head_lr=0.1)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    model = classifier(FullFineTuning())
    fit(model, CLASSIFY, steps=2, lr=0.01, head_lr=0.0)
    assert torch.equal(model.classifier.weight, before["classifier.weight"])
    assert fit(classifier(HeadOnly()), CLASSIFY, steps=1, lr=0.01, head_lr=0.5, warmup=0).lr[0] == 0.5


def test_another_optimizer_and_clipped_gradients():
    model = classifier(HeadOnly())
    before = torch.cat([parameter.detach().flatten() for parameter in trainable(model).values()])
    fit(model, CLASSIFY, steps=1, lr=1.0, optimizer=torch.optim.SGD, clip=1e-3, warmup=0)
    after = torch.cat([parameter.detach().flatten() for parameter in trainable(model).values()])
    assert (after - before).norm() == pytest.approx(1e-3, rel=1e-2)


def test_the_model_is_left_ready_for_use():
    model = classifier()
    fit(model, CLASSIFY, steps=2, lr=0.01)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("answer, steps", [("stop", 3), (True, 3), (None, 5), (False, 5)])
def test_on_step_may_stop(answer, steps):
    seen = []

    def on_step(step, loss):
        seen.append((step, loss))
        return answer if step == 3 else None

    history = fit(classifier(), CLASSIFY, steps=5, lr=0.01, on_step=on_step)
    assert len(history) == steps
    assert seen == list(zip(history.step, history.loss, strict=True))


def test_an_interrupt_keeps_the_history_and_the_model():
    model = classifier()

    def press_stop(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    history = fit(model, CLASSIFY, steps=50, lr=0.01, on_step=press_stop)
    assert len(history) == 3
    assert not model.training
    assert model(**CLASSIFY[0]).loss.isfinite()
    fit(model, CLASSIFY, steps=2, lr=0.01)


def test_a_loss_that_is_no_number_stops_before_it_does_harm():
    model = classifier(FullFineTuning())
    batches = [CLASSIFY[0], CLASSIFY[1] | {"labels": torch.full((3,), -100)}]
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2: try a lower lr, .* labels are all -100"):
        fit(model, batches, steps=5, lr=0.01)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not model.training


def test_batches_are_gone_through_again_and_again():
    lists = fit(classifier(), CLASSIFY[:1], steps=5, lr=0.01)
    assert len(lists) == 5
    rows = [{name: tensor[i] for name, tensor in CLASSIFY[0].items()} for i in range(3)]
    assert len(fit(classifier(), DataLoader(rows, batch_size=2), steps=5, lr=0.01)) == 5


def test_batches_that_run_out():
    with pytest.raises(ValueError, match="batches are a list_iterator, gone through only once: give a list or a Data"):
        fit(classifier(), iter(CLASSIFY), steps=2, lr=0.01)
    with pytest.raises(ValueError, match="there are no batches"):
        fit(classifier(), [], steps=5, lr=0.01)
    with pytest.raises(ValueError, match="there are no batches"):
        evaluate(classifier(), [])


def test_stray_gradients_are_not_used():
    weights = []
    for stray in (0, 3):
        model = classifier(HeadOnly())
        for _ in range(stray):
            model(**CLASSIFY[1]).loss.backward()
        fit(model, CLASSIFY, steps=1, lr=0.1, optimizer=torch.optim.SGD)
        weights.append(model.classifier.weight.detach())
    assert torch.equal(*weights)


def test_a_language_model_is_measured_by_next_tokens():
    model = FullFineTuning().attach(tiny("gpt2", dtype=torch.float64))
    learned = [batch()]
    fit(model, learned, steps=150, lr=0.01)
    assert evaluate(model, learned) == 1  # what it was trained to do, it does
    fresh = tiny("gpt2", dtype=torch.float64)
    logits = fresh(**learned[0]).logits.argmax(-1)
    expected = (logits[:, :-1] == learned[0]["labels"][:, 1:]).double().mean().item()
    assert evaluate(fresh, learned) == pytest.approx(expected)


def test_nothing_to_train():
    model = tiny("bert", "classify")
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing in this BertForSequenceClassification is trainable: attach a method"):
        fit(model, CLASSIFY, steps=1, lr=0.01)


def test_batches_without_labels():
    unlabelled = [{name: tensor for name, tensor in CLASSIFY[0].items() if name != "labels"}]
    with pytest.raises(ValueError, match='the model gave no loss: each batch needs "labels"'):
        fit(classifier(), unlabelled, steps=1, lr=0.01)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"warmup": 1}, {"warmup": -0.1}, {"schedule": "cosine"}])
def test_settings_out_of_range(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r}.*: expected at least 1 step"):
        fit(classifier(), CLASSIFY, lr=0.01, **({"steps": 5} | bad))


class TestEvaluate:
    def test_accuracy_counts_every_example_once(self):
        model = classifier()
        batches = [CLASSIFY[0], {name: tensor[:1] for name, tensor in CLASSIFY[1].items()}]
        right = [
            int(model(**each).logits[i].argmax() == each["labels"][i])
            for each in batches
            for i in range(len(each["labels"]))
        ]
        assert evaluate(model, batches) == pytest.approx(sum(right) / 4)

    def test_labels_of_minus_100_do_not_count(self):
        model = tiny("bert", "tag")
        tokens = batch("tag")
        predicted = model(**tokens).logits.argmax(-1)
        labels = torch.where(torch.arange(7) < 2, predicted, -100)
        assert evaluate(model, [tokens | {"labels": labels}]) == 1

    def test_a_metric_of_your_own(self):
        model = classifier()

        def margin(output, batch):
            return output.logits[:, 0] - output.logits[:, 1]

        expected = torch.cat([margin(model(**each), each) for each in CLASSIFY]).mean()
        assert evaluate(model, CLASSIFY, margin) == pytest.approx(expected.item())

    @pytest.mark.parametrize("training", [True, False])
    def test_it_runs_in_eval_and_goes_back(self, training):
        model = classifier(LoRA(dropout=0.9)).train(training)
        assert evaluate(model, CLASSIFY) == evaluate(model, CLASSIFY)
        assert model.training is training


def test_seed_repeats():
    draws = []
    for _ in range(2):
        seed(3)
        draws.append((torch.rand(2).tolist(), np.random.rand(2).tolist()))
    assert draws[0] == draws[1]


def test_the_public_names():
    assert sorted(peft_edu.__all__) == peft_edu.__all__
    assert all(hasattr(peft_edu, name) for name in peft_edu.__all__)


def test_the_command_line_says_what_it_takes():
    out = subprocess.run([sys.executable, "-m", "peft_edu.train", "--help"], capture_output=True, text=True, check=True)
    assert "--backbone" in out.stdout and "--task" in out.stdout
    assert "Warning" not in out.stderr


def test_the_command_line_trains_measures_and_saves(tmp_path, monkeypatch, capsys):
    save_model(tmp_path / "model", "bert")
    rows = ["text\tlabel"] + [f"the food was {word}\t{word}" for word in ("good", "bad")] * 10
    (tmp_path / "words.tsv").write_text("\n".join(rows))
    arguments = f"--backbone {tmp_path}/model --task {tmp_path}/words.tsv --steps 3 --out {tmp_path}/out"
    monkeypatch.setattr(sys, "argv", ["train", *arguments.split(), "--method", "LoRA", "rank=2", "targets=query,key"])
    main()
    assert re.search(r"^290 of .* trained.*\nloss 0.*\ntest accuracy [01]\.\d+\nsaved in", capsys.readouterr().out)
    model, _ = backbone(tmp_path / "model", head="classify", labels=["bad", "good"])
    assert attached(load(model, tmp_path / "out")) == LoRA(rank=2, targets=("query", "key"))


@pytest.mark.parametrize(
    "name, method, metric",
    [
        ("owners", "PTuningV2 length=2", "f1"),
        ("pairs", "HeadOnly", "accuracy"),
        ("facts", "PTuning encoder=mlp", "accuracy"),
    ],
)
def test_the_command_line_knows_every_kind_of_task(name, method, metric, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", f"train --backbone tiny-bert --task {name} --steps 2 --method {method}".split())
    main()
    assert re.search(rf"test {metric} 0\.\d+", capsys.readouterr().out)


def test_the_command_line_refuses_a_place_to_save_before_it_trains(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    arguments = f"--backbone none --task none --out {tmp_path}/file/out"
    monkeypatch.setattr(sys, "argv", ["train", *arguments.split()])
    with pytest.raises(NotADirectoryError, match="is a file, so there can be no folder .*out: name another"):
        main()


def test_a_place_to_save_is_one_whose_folder_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="cannot be written, so nothing can be kept in .*out"):
        place_for(tmp_path / "out", set())  # it can be written, but what replaces it is written beside it
