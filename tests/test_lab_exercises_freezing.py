"""What a learner builds in lesson 01: any right solution passes, whatever its style, and a misconception is named."""

import re
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from peft_edu import BitFit, FullFineTuning, LoRA, TopBlocks, count, fit, load, save
from peft_edu.anatomy import blocks, head
from peft_edu.lab import FreezingCard, predict, recipe
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.freezing_method import _part_frozen, alike, batches, my_fit, state, training_step
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.method import METHODS, Method, trainable

several = settings(max_examples=6, deadline=None, database=None)


def step(fault="", zero="after", plain="item"):
    """A learner's training step, in one of several styles, with one fault or none."""

    def mine(model, batch, optimizer):
        if zero == "before":
            optimizer.zero_grad()
        if zero == "model":
            model.zero_grad()
        loss = model(**batch).loss
        if fault == "upwards":
            loss = -loss
        if fault != "no backward":
            loss.backward()
        if fault == "two backwards":
            model(**batch).loss.backward()
        if fault == "zero between":
            optimizer.zero_grad()
        if fault not in ("no step", "no backward"):
            optimizer.step()
        if zero == "after" and fault != "no zero":
            optimizer.zero_grad()
        if fault == "after":
            return model(**batch).loss.item()
        if fault == "no return":
            return None
        if fault == "output":
            return [loss.item()]
        return loss if fault == "tensor" else float(loss.detach()) if plain == "float" else loss.item()

    return mine


@several
@given(some.sampled_from(["before", "after", "model"]), some.sampled_from(["item", "float"]))
def test_any_right_step_passes(zero, plain):
    feedback = checked("freezing.step", step(zero=zero, plain=plain))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("no zero", "still holds the gradient of the first"),
        ("no backward", "after the forward pass come loss.backward"),
        ("no step", r"optimizer.step\(\) is missing"),
        ("zero between", "zero_grad.. does not stand between"),
        ("two backwards", "twice as far"),
        ("upwards", "the loss goes up"),
        ("after", "the loss after the step"),
        ("tensor", "give loss.item"),
        ("output", "expected the loss as a number, got list"),
        ("no return", "is there a return"),
    ],
)
def test_a_misconception_of_the_step_is_named(fault, message):
    feedback = checked("freezing.step", step(fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def loop(fault="", params="all", falls="groups"):
    """A learner's my_fit, in one of several styles, with one fault or none."""

    def mine(model, batches, lr):
        every = list(model.parameters())
        if fault == "all":
            model.requires_grad_(True)
        learned = every if params == "all" else [p for p in every if p.requires_grad]
        kind = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}.get(fault, torch.optim.AdamW)
        rate = 1e-3 if fault == "default" else lr
        optimizer, losses, steps = kind(learned, lr=rate), [], len(batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / steps)
        if fault != "no train":
            model.train()
        for i, batch in enumerate(batches):
            if fault == "anew":
                optimizer = kind(learned, lr=rate)
            share = {"constant": 1, "too soon": 1 - (i + 1) / steps, "rising": (i + 1) / steps}.get(
                fault, 1 - i / steps
            )
            if falls == "groups" or fault:
                for group in optimizer.param_groups:
                    group["lr"] = share * (group["lr"] if fault == "product" else rate)
            take = batches[0] if fault == "one batch" else batch
            losses.append(step("no zero" if fault == "sum" else "")(model, take, optimizer))
            if falls == "scheduler" and not fault:
                scheduler.step()
            if fault == "early":
                return losses
        if fault != "no eval":
            model.eval()
        return {"no return": None, "last": losses[-1], "short": losses[1:]}.get(fault, losses)

    return mine


@several
@given(some.sampled_from(["all", "trained"]), some.sampled_from(["groups", "scheduler"]))
def test_any_right_loop_passes(params, falls):
    feedback = checked("freezing.fit", loop(params=params, falls=falls))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("constant", "the learning rate stays as it is"),
        ("too soon", "the last step has a learning rate of 0"),
        ("product", "of the step before smaller"),
        ("rising", "the learning rate rises"),
        ("default", "lr is not used"),
        ("SGD", "plain gradient descent"),
        ("Adam", "this is Adam"),
        ("anew", "each step makes a new optimiser"),
        ("one batch", "all steps see the first batch"),
        ("sum", "gradients are never set to zero"),
        ("all", "frozen parameters have moved"),
        ("early", "ends after the first step"),
        ("last", "collect the loss of each step"),
        ("short", "4 batches gave 3 losses"),
        ("no return", "is there a return"),
        ("no train", r"model.train\(\) before the loop"),
        ("no eval", r"model.eval\(\) after the loop"),
    ],
)
def test_a_misconception_of_the_loop_is_named(fault, message):
    feedback = checked("freezing.fit", loop(fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_the_loop_that_is_asked_for_is_the_package_s_without_warm_up_and_clipping():
    ours, theirs = _part_frozen(), _part_frozen()
    losses = my_fit(ours, batches(4), 0.05)
    history = fit(theirs, batches(4), steps=4, lr=0.05, warmup=0, clip=1e9)
    assert history.loss.tolist() == pytest.approx(losses, abs=1e-9) and alike(state(ours), state(theirs))


def test_the_stubs_of_the_lesson_are_told_to_be_empty():
    def training_step(model, batch, optimizer): ...

    assert repr(checked("freezing.step", training_step)).startswith("Not written yet: training_step is still empty")
    assert "a function is asked for" in repr(checked("freezing.fit", 3))


def share(fault=""):
    def mine(model):
        every = list(model.parameters())
        if fault == "twice":
            every = [p for module in model.modules() for p in module._parameters.values() if p is not None]
        trained = sum(p.numel() for p in every if p.requires_grad)
        total = sum(p.numel() for p in every)
        parts = {"number": trained, "frozen": 1 - trained / total, "per cent": 100 * trained / total}
        parts |= {"tensors": trained / len(every), "else": trained / (total + 1)}
        return parts.get(fault, trained / (total - trained) if fault == "odds" else trained / total)

    return mine


@pytest.mark.parametrize(
    "fault, message",
    [
        ("number", "the number of trained parameters"),
        ("frozen", "the frozen share"),
        ("per cent", "in per cent"),
        ("odds", "divided by frozen"),
        ("tensors", "by the number of tensors"),
        ("else", "of 47 parameters 15 are trained"),
        ("twice", "counted twice"),
    ],
)
def test_a_misconception_of_the_share_is_named(fault, message):
    assert checked("freezing.share", share())
    feedback = checked("freezing.share", share(fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def top(fault="", style="slice"):
    """A learner's MyTopBlocks, in one of several styles, with one fault or none."""

    @dataclass
    class MyTopBlocks(Method):
        n: int = 1

        def insert(self, model):
            every = blocks(model)
            chosen = every[len(every) - self.n :]
            if style == "reversed":
                chosen = [*reversed(every)][: self.n]
            chosen = {"bottom": every[: self.n], "zero": every[-self.n :], "one": every[-1:]}.get(fault, chosen)
            if fault == "nothing":
                return
            if fault == "model":
                return self.unfreeze(model)
            if fault == "pooler" and hasattr(model, "bert"):
                self.unfreeze(model.bert.pooler)
            for block in chosen:
                if fault == "by hand":
                    block.requires_grad_(True)
                elif fault == "part":
                    self.unfreeze(next(block.children()))
                elif fault == "changed":
                    next(block.parameters()).data.add_(1)
                elif style == "parameters":
                    for parameter in block.parameters():
                        self.unfreeze(parameter)
                else:
                    self.unfreeze(block)
            if style == "head too":
                for part in head(model):
                    self.unfreeze(part)

    return MyTopBlocks


@several
@given(some.sampled_from(["slice", "reversed", "parameters", "head too"]))
def test_any_right_insert_passes(style):
    feedback = checked("freezing.insert", top(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert unfreezes nothing yet"),
        ("bottom", "the first n blocks, at the bottom"),
        ("zero", "n = 0 trains every block"),
        ("one", "n = 2 trains block 3"),
        ("model", "trains the whole model"),
        ("pooler", "bert.pooler.dense.weight is trained, and lies in no block"),
        ("by hand", "requires_grad is set by hand"),
        ("part", "in part only"),
        ("changed", "a weight of the model is changed by insert"),
    ],
)
def test_a_misconception_of_the_insert_is_named(fault, message):
    feedback = checked("freezing.insert", top(fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def biases(fault="", style="names"):
    """A learner's MyBitFit, in one of several styles, with one fault or none."""

    @dataclass
    class MyBitFit(Method):
        def insert(self, model):
            for name, parameter in model.named_parameters():
                wanted = name.endswith("weight" if fault == "weights" else ".bias" if style == "names" else "bias")
                if fault == "no norms":
                    wanted = wanted and "LayerNorm" not in name
                if fault == "one block":
                    wanted = wanted and "layer.2" in name
                if fault == "nothing" or not wanted or style == "modules":
                    continue
                if fault == "by hand":
                    parameter.requires_grad_(True)
                elif fault == "modules":
                    self.unfreeze(model.get_submodule(name.rpartition(".")[0]))
                else:
                    self.unfreeze(parameter)
            for module in model.modules() if style == "modules" else ():
                if getattr(module, "bias", None) is not None:
                    self.unfreeze(module.bias)

    return MyBitFit


@several
@given(some.sampled_from(["names", "ends", "modules"]))
def test_any_right_bitfit_passes(style):
    feedback = checked("freezing.bitfit", biases(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert unfreezes nothing yet"),
        ("weights", "these are the weights"),
        ("no norms", "the biases of the LayerNorms are missing"),
        ("one block", "stays frozen: every bias is trained"),
        ("modules", "is no bias: unfreeze the parameter, not its module"),
        ("by hand", "requires_grad is set by hand"),
    ],
)
def test_a_misconception_of_bitfit_is_named(fault, message):
    feedback = checked("freezing.bitfit", biases(fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_a_class_that_is_no_recipe_is_told():
    assert "write class MyTopBlocks(Method)" in repr(checked("freezing.insert", type("MyTopBlocks", (), {})))

    class NoDataclass(Method):
        def insert(self, model):
            model.eval()

    assert "is @dataclass above the class?" in repr(checked("freezing.insert", NoDataclass))


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_s_methods_are_the_package_s_and_are_saved_and_loaded(solved, tmp_path):
    mine = {
        "freezing.insert": check("freezing.insert", top() if solved else top("bottom")),
        "freezing.bitfit": check("freezing.bitfit", biases() if solved else biases("weights")),
    }
    packaged = {"freezing.insert": TopBlocks(2), "freezing.bitfit": BitFit()}
    for name, cls in mine.items():
        assert METHODS[cls.__name__] is cls and (cls is EXERCISES[name].reference) != solved
        method = cls(n=2) if "insert" in name else cls()
        model, other = method.attach(tiny_model("bert")), packaged[name].attach(tiny_model("bert"))
        assert trainable(model).keys() == trainable(other).keys() and count(model) == count(other)
        training_step(model, batches(1)[0], torch.optim.AdamW(trainable(model).values(), lr=0.1))
        save(model, tmp_path / name)
        loaded = load(tiny_model("bert"), tmp_path / name)
        assert torch.equal(loaded(input_ids=IDS).logits, model(input_ids=IDS).logits)


FAULTS = {
    "bottom": "is what moved the top of the model",
    "first": "How many different sentences has it seen",
    "mask": "where each sentence ends",
}


def hunted(*faults, style="named"):
    """The function of the hunt, with these of its faults."""

    def mine(model, batches, lr):
        model.requires_grad_(False)
        layers = model.bert.encoder.layer
        for part in (*(layers[:2] if "bottom" in faults else layers[-2:]), model.classifier):
            part.requires_grad_(True)
        optimizer = torch.optim.AdamW(model.parameters() if style == "all" else trainable(model).values(), lr=lr)
        every, losses = iter(batches), []
        for _ in range(len(batches)):
            batch = next(iter(batches) if "first" in faults else every)
            texts = {"input_ids": batch["input_ids"], "labels": batch["labels"]}
            mask = {} if "mask" in faults else {"attention_mask": batch["attention_mask"]}
            if style == "positional" and mask:
                loss = model(batch["input_ids"], batch["attention_mask"], labels=batch["labels"]).loss
            else:
                loss = model(**texts, **mask).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return mine


@settings(several, max_examples=8)
@given(some.sets(some.sampled_from(list(FAULTS))), some.sampled_from(["named", "all", "positional"]))
def test_the_hunt_counts_the_faults_that_are_left(faults, style):
    feedback = checked("freezing.hunt", hunted(*faults, style=style))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback


@pytest.mark.parametrize("fault, message", FAULTS.items())
def test_each_fault_of_the_hunt_alone_is_named(fault, message):
    feedback = checked("freezing.hunt", hunted(fault))
    assert not feedback and "Not yet: 1 fault is still in." in repr(feedback) and message in repr(feedback)


def test_what_the_hunt_had_right_stays_asked():
    assert "Not written yet: it makes no step" in repr(checked("freezing.hunt", lambda model, batches, lr: [model]))
    assert "one loss for each batch" in repr(checked("freezing.hunt", lambda *those: hunted()(*those)[:-1]))


@dataclass
class Some(Method):
    ends: str = "LayerNorm.bias"

    def insert(self, model):
        for name, parameter in model.named_parameters():
            if name.endswith(self.ends):
                self.unfreeze(parameter)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": BitFit()}, "5,888 parameters are trained beside the task head, and 1,200 are allowed"),
        ({"method": LoRA(rank=1, targets=("value",))}, "LoRA puts something into the model"),
        ({"method": Some("nothing")}, "nothing is trained beside the task head"),
        ({"steps": 151}, "151 steps are more than the 150"),
        pytest.param({}, "% on validation, and 90% are asked for", marks=pytest.mark.thorough),
    ],
)
def test_the_open_task_says_what_is_missing(change, message, capsys):
    start = {"method": Some(), "steps": 2}
    feedback = checked("freezing.fewest", lambda: replace(recipe("reviews", "BitFit"), **start | change))
    assert not feedback and message in repr(feedback), feedback


def test_the_open_task_asks_for_a_recipe():
    assert "expected a Recipe, got FullFineTuning" in repr(checked("freezing.fewest", FullFineTuning))


def test_the_lesson_s_card_holds_its_scores_back_until_there_is_a_guess(monkeypatch, tmp_path):
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    guess = predict("How many top blocks are enough?", low=0, high=4)
    card = FreezingCard(tiny_model("bert"), {"top 2": [90.0]}, after=guess)
    assert "appear once you have guessed" in card.result.value and "90.0" not in card.result.value
    guess.commit("2")
    assert "90.0" in card.result.value
