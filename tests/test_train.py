import random
from collections import UserDict
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from families import LANGUAGE_MODELS, SIZES, VOCABULARY, batch, tiny
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    get_linear_schedule_with_warmup,
)

import peft_edu
from peft_edu import FullFineTuning, HeadOnly, LoRA, PTuning, evaluate, fit, seed, trainable
from peft_edu.method import Method
from peft_edu.train import Checkpoint

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


@pytest.fixture
def mixed_precision():
    """What `Trainer(bf16=True)` leaves behind in a kernel."""
    AcceleratorState._reset_state(True)
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state(True)


def test_what_ran_before_in_another_precision_does_not_matter(request):
    seed(0)
    before, model = fit(classifier(), CLASSIFY, steps=3, lr=0.01), None
    assert request.getfixturevalue("mixed_precision").mixed_precision == "bf16"
    seed(0)
    model = classifier()
    marks = set(vars(model))
    assert fit(model, CLASSIFY, steps=3, lr=0.01).loss.tolist() == before.loss.tolist()
    assert set(vars(model)) == marks  # no wrapped forward, no mark


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


def test_a_stream_that_ends_for_good_keeps_what_was_learned():
    class Stream(IterableDataset):
        def __init__(self):
            self.rest = iter(CLASSIFY[:3])

        def __iter__(self):
            return self.rest

    model = classifier()
    with pytest.warns(UserWarning, match="the batches have ended for good after 3 of them, and the training with them"):
        history = fit(model, DataLoader(Stream(), batch_size=None), steps=5, lr=0.01)
    assert list(history.step) == [1, 2, 3]
    assert not model.training


@pytest.mark.parametrize("beside", [{"text": ["a", "b", "c"]}, {"token_type_ids": None}, {"id": [[4], [5], [6]]}])
@pytest.mark.parametrize("kind", [dict, UserDict])  # a tokenizer's batch is a UserDict
def test_what_is_no_tensor_is_left_out_as_the_trainer_does(beside, kind):
    more = [kind(each | beside) for each in CLASSIFY]
    losses = []
    for batches in (CLASSIFY, more):
        seed(0)
        losses.append(fit(classifier(), batches, steps=3, lr=0.01).loss.tolist())
    assert losses[0] == losses[1]
    assert evaluate(classifier(), more) == evaluate(classifier(), CLASSIFY)


def language_batch(rows=4, seed=0):
    """Causal labels, of which another number counts in each row, in the last one none."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (rows, 9), generator=draw)
    asked = torch.arange(9) >= torch.tensor([[0], [3], [7], [9]]).repeat(rows // 4 + 1, 1)[:rows]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.where(asked, ids, -100)}


def still(model):
    """Without dropout: what it leaves out is drawn batch by batch."""
    model.eval().train = lambda mode=True: model
    return model


def in_parts(whole, size=1):
    rows = len(whole["input_ids"])
    return [{name: each[i : i + size] for name, each in whole.items()} for i in range(0, rows, size)]


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert"])
@pytest.mark.parametrize("size", [1, 3])
def test_batches_that_are_accumulated_are_one_large_batch(family, size):
    """The mean over all labels that count: not the mean of the batches' means, in one of which none counts."""
    whole = [language_batch(seed=seed) for seed in range(3)]
    parts = [part for each in whole for part in in_parts(each, size)]
    models, histories = [], []
    for batches, accumulate in ((whole, 1), (parts, len(parts) // 3)):
        seed(0)
        models.append(still(LoRA(rank=4).attach(tiny(family, dtype=torch.float64))))
        histories.append(fit(models[-1], batches, steps=5, lr=0.1, clip=1e-2, accumulate=accumulate))
    assert list(histories[1].step) == [1, 2, 3, 4, 5]
    assert np.allclose(histories[0].loss, histories[1].loss, atol=1e-12)
    for one, other in zip(*(trainable(model).values() for model in models), strict=True):
        assert torch.allclose(one, other, atol=1e-9)  # Adam divides small differences by small gradients


NUMBERS, SEVERAL = torch.tensor([0.5, 2.0, -100.0, 1.0]).double(), torch.eye(4, 3).double()
PLACES = {"start_positions": torch.tensor([1, 2, 3, 4]), "end_positions": torch.tensor([5, 6, 7, 8])}


@pytest.mark.parametrize(
    "auto, width, asked",
    [
        (BertForSequenceClassification, 1, {"labels": NUMBERS}),
        (BertForSequenceClassification, 3, {"labels": SEVERAL}),
        (BertForQuestionAnswering, 2, PLACES),
    ],
)
def test_numbers_and_places_are_accumulated_too(auto, width, asked):
    whole, losses = {"input_ids": language_batch()["input_ids"]} | asked, []
    for size in (4, 3):
        seed(0)
        config = BertConfig(**(tiny("bert").config.to_dict() | {"problem_type": None, "num_labels": width}))
        batches = in_parts(whole, size)
        losses.append(fit(still(auto(config).double()), batches, steps=3, lr=0.01, accumulate=len(batches)).loss)
    assert np.allclose(*losses, atol=1e-12)


def test_a_step_may_reach_into_the_next_pass():
    seen = []
    model = classifier(HeadOnly())
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    fit(model, CLASSIFY[:3], steps=3, lr=0.1, accumulate=2)
    assert all(map(torch.equal, seen, [CLASSIFY[i]["input_ids"] for i in (0, 1, 2, 0, 1, 2)]))


def test_no_label_counts_in_a_whole_step():
    ignored = [each | {"labels": torch.full((3,), -100)} for each in CLASSIFY]
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2"):
        fit(classifier(), [*CLASSIFY[:2], *ignored], steps=5, lr=0.01, accumulate=2)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_in_bfloat16_small_steps_add_up(accumulate):
    """A step of 1e-4 of a weight is less than bfloat16 can tell apart; a hundred of them are not."""
    models = []
    for dtype in (torch.float32, torch.bfloat16):
        seed(0)
        models.append(classifier(HeadOnly(), dtype))
        with torch.no_grad():
            for parameter in trainable(models[-1]).values():
                parameter.fill_(1.0)
        fit(models[-1], CLASSIFY, steps=100, lr=1e-4, schedule="constant", warmup=0, accumulate=accumulate,
            optimizer=partial(torch.optim.AdamW, weight_decay=0.0))  # fmt: skip
    exact, rounded = (model.classifier.weight for model in models)
    assert rounded.dtype == torch.bfloat16 and rounded.grad is None
    assert (exact - 1).abs().max() > 5e-3
    assert (exact - rounded.float()).abs().max() < 5e-3  # half of what bfloat16 can tell apart at 1 is 0.004


def run(stop_at=None, checkpoint=None, dtype=torch.float32, optimizer=torch.optim.AdamW, resume=True):
    """With chance in the order of the rows, in dropout and in what a learner draws between."""
    rows = [{name: each[i % 3] for name, each in batch("classify", i).items()} for i in range(10)]
    drawn = []

    def on_step(step, loss):
        drawn.append((random.random(), np.random.rand()))
        return step == stop_at

    seed(1)
    model = classifier(LoRA(rank=2, dropout=0.1), dtype)
    kept = checkpoint and Checkpoint(checkpoint, every=1, resume=resume)
    options = {"accumulate": 2, "optimizer": optimizer, "checkpoint": kept, "on_step": on_step}
    history = fit(model, DataLoader(rows, batch_size=3, shuffle=True), 9, 0.01, **options)
    return history, drawn, [parameter.detach() for parameter in trainable(model).values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9), torch.optim.Adagrad])
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(dtype, optimizer, tmp_path):
    """Stopped in the midst of a pass of four batches, at its end, and where nothing is left."""
    whole, drawn, learned = run(dtype=dtype, optimizer=optimizer)
    for stop_at in (1, 2, 5, None, None):
        history, last, again = run(stop_at, tmp_path / "kept", dtype, optimizer)
        assert history.drop(columns="seconds").equals(whole.drop(columns="seconds")[: stop_at or 9])
        assert history.seconds.is_monotonic_increasing
        assert last == drawn[len(history) - len(last) : len(history)]
    assert last == [] and all(map(torch.equal, learned, again))
    with pytest.raises(FileExistsError, match="kept holds a run up to step 9: resume it, or delete the file to begin"):
        run(None, tmp_path / "kept", dtype, optimizer, resume=False)
    with pytest.raises(ValueError, match="kept holds a run with optimizer .*, not Adam: give it the same, or begin"):
        run(None, tmp_path / "kept", dtype, torch.optim.Adam)


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    run(4, tmp_path / "kept")
    before = (tmp_path / "kept").read_bytes()

    def full(path, content):
        path.open("wb").write(content[:100])
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patched,
        pytest.raises(OSError, match="kept was not written, and is as it was"),
    ):
        patched.setattr(Path, "write_bytes", full)
        run(None, tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == before
    assert run(None, tmp_path / "kept")[0].drop(columns="seconds").equals(run()[0].drop(columns="seconds"))


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


INF, NAN = float("inf"), float("nan")
BAD = {
    "steps": [0, "10", None, [2], 1.5, -3],
    "lr": [INF, NAN, "1e-3", -1.0, 1e30],
    "head_lr": [-1, "x", NAN, INF],
    "warmup": [1, -0.1, "x", None],
    "clip": [0, -1, "1", NAN, None],
    "accumulate": [0, 1.5, "2", None],
    "schedule": ["cosine", None],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_settings_out_of_range_are_refused_before_anything_moves(name, value):
    model = classifier()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=rf"^{name} is .*, but must be"):
        fit(model, CLASSIFY, **({"steps": 5, "lr": 0.01} | {name: value}))
    assert all(map(torch.equal, before, model.parameters()))


SGD = torch.optim.SGD([torch.zeros(1)])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"optimizer": "adam"}, "optimizer is a str, but must be of the kind Callable"),
        ({"optimizer": None}, "optimizer is a NoneType"),
        ({"optimizer": SGD}, "optimizer is a SGD"),
        ({"on_step": 5}, "on_step is a int"),
        ({"batches": None}, "batches is a NoneType, but must be of the kind Iterable"),
        ({"batches": 5}, "batches is a int"),
        ({"batches": "reviews"}, "batch is a str, but must be of the kind Mapping"),
        ({"batches": CLASSIFY[0]}, "batch is a str"),
        ({"batches": [[1, 2]]}, "batch is a list"),
        ({"batches": [None]}, "batch is a NoneType"),
        ({"model": None}, r"expected a transformers model \(a PreTrainedModel\), got NoneType"),
        ({"model": (1, 2)}, "got tuple"),
        ({"model": torch.nn.Linear(2, 2)}, "got Linear"),
        ({"model": LoRA()}, "got LoRA"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_of_another_kind_is_named(wrong, message):
    with pytest.raises(TypeError, match=message):
        fit(**({"model": classifier(), "batches": CLASSIFY, "steps": 2, "lr": 0.01} | wrong))
    if "optimizer" not in wrong and "on_step" not in wrong:
        with pytest.raises(TypeError, match=message):
            evaluate(**({"model": classifier(), "batches": CLASSIFY} | wrong))


IDS, LABELS = CLASSIFY[0]["input_ids"], CLASSIFY[0]["labels"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": LABELS + 5}, r"labels \(3,\) torch.int64\): Target 5 is out of bounds"),
        ({"labels": LABELS[:2]}, r"labels \(2,\) .*Expected input batch_size"),
        ({"labels": LABELS.double()}, r"labels \(3,\) torch.float64"),
        ({"input_ids": IDS.double()}, r"input_ids \(3, 7\) torch.float64"),
        ({"input_ids": IDS + 1000}, r"input_ids \(3, 7\) .*index out of range"),
        ({"input_ids": IDS[0]}, r"input_ids \(7,\)"),
        ({"input_ids": IDS[:0], "attention_mask": IDS[:0]}, r"input_ids \(0, 7\)"),
        ({"input_ids": IDS.repeat(1, 99), "attention_mask": IDS.repeat(1, 99)}, r"input_ids \(3, 693\).* 512"),
        ({"attention_mask": IDS[:, :1]}, r"attention_mask \(3, 1\) .*the mask must be as long as the text"),
        ({"input_ids": IDS.tolist()}, r"labels \(3,\) torch.int64\): You must specify .*input_ids"),
        ({"input_ids": IDS.numpy(), "attention_mask": None}, "You must specify"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_batch_that_the_model_cannot_take_is_told(change, message):
    with pytest.raises(ValueError, match=rf"BertForSequenceClassification cannot take this batch \(.*{message}"):
        fit(classifier(), [CLASSIFY[0] | change], steps=2, lr=0.01)


def test_a_model_without_weights():
    with pytest.raises(ValueError, match="this BertForSequenceClassification has no weights: it is on the device meta"):
        evaluate(classifier().to("meta"), CLASSIFY)


def test_numbers_that_overflow_in_the_last_step_are_told():
    class Broken(torch.optim.SGD):
        def step(self):
            self.param_groups[-1]["params"][-1].data.fill_(INF)

    with pytest.raises(FloatingPointError, match="after step 1 classifier.bias is not finite: try a lower lr"):
        fit(classifier(), CLASSIFY, steps=1, lr=0.01, optimizer=Broken)


class TestWhatAMethodAddedTakesPart:
    @pytest.mark.parametrize("task", ["classify", "language"])
    @pytest.mark.parametrize("method", [PTuning("[P] {text}"), PTuning("[P] {text}", encoder="none", joint=True)])
    @pytest.mark.parametrize("steps", [1, 30])
    def test_pseudo_tokens_that_no_text_holds(self, method, task, steps):
        model, moved = replace(method).attach(tiny("bert", task)), []
        with pytest.raises(
            ValueError, match=r"what PTuning\(.*\) added has no part in the loss: the batches hold noth"
        ):
            fit(model, [batch(task)], steps=steps, lr=0.01, on_step=lambda step, loss: moved.append(step))
        assert moved in ([], [1])

    def test_a_module_that_the_model_never_calls(self):
        @dataclass
        class Idle(Method):
            def insert(self, model):
                self.add(model, "idle", torch.nn.Linear(2, 2))

        with pytest.raises(ValueError, match="added has no part in the loss"):
            fit(Idle().attach(tiny("bert", "classify")), CLASSIFY, steps=5, lr=0.01)
        with pytest.raises(ValueError, match='each batch needs "labels", and what is trained a part in it'):
            fit(Idle().attach(tiny("gpt2")), [batch()], steps=5, lr=0.01)  # here there is no head either

    def test_a_head_of_zeros_lets_nothing_through_at_first(self):
        model = classifier()
        torch.nn.init.zeros_(model.classifier.weight)
        assert len(fit(model, CLASSIFY, steps=3, lr=0.01)) == 3
        assert any(parameter.any() for name, parameter in trainable(model).items() if name.endswith(".B"))

    def test_a_loss_of_zero_has_no_gradient(self):
        model, learned = classifier(), [CLASSIFY[0] | {"labels": torch.zeros(3, dtype=torch.long)}]
        model.classifier.bias.data[0] = 1e4
        assert list(fit(model, learned, steps=3, lr=0.01).loss) == [0, 0, 0]

    def test_what_somebody_froze_by_hand_need_not(self):
        model = classifier()
        for name, parameter in trainable(model).items():
            parameter.requires_grad_(name.startswith("classifier"))
        assert len(fit(model, CLASSIFY, steps=3, lr=0.01)) == 3

    @pytest.mark.parametrize("family", SIZES)
    def test_no_honest_case_is_refused(self, family):
        """FullFineTuning trains what a task does not use, BERT's pooler under a tagger."""
        for method, task in ((FullFineTuning(), "tag"), (FullFineTuning(), "language"), (HeadOnly(), "tag")):
            assert len(fit(method.attach(tiny(family, task)), [batch(task)], steps=2, lr=1e-3)) == 2
        assert len(fit(LoRA(2).attach(tiny(family)), [batch()], steps=2, lr=1e-3)) == 2


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

    @pytest.mark.parametrize(
        "family", [family for family, auto in LANGUAGE_MODELS.items() if "Causal" in auto.__name__]
    )
    def test_a_causal_model_is_one_also_inside_of_something(self, family):
        model = tiny(family, dtype=torch.float64)
        subclass = tiny(family, dtype=torch.float64)
        subclass.__class__ = type("Mine", (type(subclass),), {})
        parallel = torch.nn.DataParallel(model)
        compiled = torch.compile(model)
        right = model(**batch()).logits.argmax(-1)[:, :-1] == batch()["labels"][:, 1:]
        expected = pytest.approx(right.double().mean().item())
        with torch.compiler.set_stance("force_eager"):  # a wrapper all the same, without the minute of tracing
            assert [evaluate(each, [batch()]) for each in (model, subclass, parallel, compiled)] == [expected] * 4
        assert evaluate(get_peft_model(model, LoraConfig()), [batch()]) == expected

    def test_a_model_that_reads_both_ways_is_not_shifted(self):
        for family in ("bert", "t5"):
            model = tiny(family, dtype=torch.float64)
            right = model(**batch()).logits.argmax(-1) == batch()["labels"]
            assert evaluate(torch.nn.DataParallel(model), [batch()]) == pytest.approx(right.double().mean().item())

    def test_where_no_label_is_right_or_wrong_it_asks_for_a_metric(self):
        config = tiny("bert", "classify").config
        numbers = {"labels": torch.tensor([0.5, 0.0, 3.0]), "input_ids": IDS}
        several = {"labels": torch.eye(3, dtype=torch.float64), "input_ids": IDS}
        places = {"start_positions": LABELS, "end_positions": LABELS + 1, "input_ids": IDS}

        def model(**changed):
            again = type(config)(**(config.to_dict() | {"problem_type": None} | changed))
            return type(tiny("bert", "classify"))(again).double()

        answers = BertForQuestionAnswering(type(config)(**(config.to_dict() | {"num_labels": 2}))).double()
        for each, given in ((model(num_labels=1), numbers), (model(problem_type="multi_label_classification"), several),
                            (model(num_labels=1), numbers | {"labels": LABELS}), (answers, places)):  # fmt: skip
            with pytest.raises(ValueError, match="no share of right labels, so give a metric"):
                evaluate(each, [given])
            assert evaluate(each, [given], lambda output, batch: output.loss) > 0

    def test_logits_of_virtual_tokens_belong_to_no_label(self):
        model = get_peft_model(tiny("gpt2"), PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
        with pytest.raises(
            ValueError, match=r"labels \(3, 7\) .* logits \(3, 11, 64\): no share of right labels, so g"
        ):
            evaluate(model, [batch()])

    def test_no_label_counts(self):
        ignored = [each | {"labels": torch.full((3,), -100)} for each in CLASSIFY]
        with pytest.raises(ValueError, match="none of their labels counts: all are -100"):
            evaluate(classifier(), ignored)
        model = classifier()
        assert evaluate(model, [*ignored, *CLASSIFY]) == evaluate(model, CLASSIFY)

    def test_a_metric_that_is_none(self):
        with pytest.raises(TypeError, match="metric is a str, but must be of the kind Callable"):
            evaluate(classifier(), CLASSIFY, "accuracy")
        for score in (None, 0.5):
            with pytest.raises(TypeError, match=f"score is a {type(score).__name__}, but must be of the kind Tensor"):
                evaluate(classifier(), CLASSIFY, lambda output, batch, score=score: score)


def test_a_wrapped_model_trains_as_the_plain_one():
    losses = []
    for wrap in (copy, torch.nn.DataParallel, torch.compile):
        seed(0)
        model = classifier()
        with torch.compiler.set_stance("force_eager"):
            losses.append(fit(wrap(model), CLASSIFY, steps=3, lr=0.01, head_lr=0.1).loss.tolist())
        assert not model.training
    assert losses[1:] == [pytest.approx(losses[0])] * 2


def test_seed_repeats():
    draws = []
    for _ in range(2):
        seed(3)
        draws.append((torch.rand(2).tolist(), np.random.rand(2).tolist()))
    assert draws[0] == draws[1]


def test_the_public_names():
    assert sorted(peft_edu.__all__) == peft_edu.__all__
    assert all(hasattr(peft_edu, name) for name in peft_edu.__all__)
