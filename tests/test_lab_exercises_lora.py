"""What a learner builds in lesson 07: any right solution passes, whatever its style, and a misconception is named."""

import re
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.nn import functional as F

from peft_edu import BitFit, LoRA, count, load, save
from peft_edu.anatomy import linear_maps
from peft_edu.lab import recipe
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.lora import _best_copy, _directions
from peft_edu.lab.exercises.lora_method import LowRank, add_my_lora
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.method import METHODS, Method

several = settings(max_examples=15, deadline=None, database=None)


def low_rank(style="plain", start="uniform", scaled="late", fault=""):
    """A learner's LowRank, in one of many styles, with one fault or none."""

    class Mine(nn.Module):
        def __init__(self, weight, rank, alpha):
            super().__init__()
            out, into = weight.shape
            self.scale = {"": alpha / rank, "no scale": 1, "alpha": alpha, "upside": rank / alpha}.get(
                fault, alpha / rank
            )
            like = {} if fault in ("float32", "device") else {"dtype": weight.dtype, "device": weight.device}
            if fault == "device":
                like = {"dtype": weight.dtype}
            if style == "linear":
                self.down = nn.Linear(into, rank, bias=fault == "bias", **like)
                self.up = nn.Linear(rank, out, bias=False, **like)
                nn.init.zeros_(self.up.weight)
                return
            A = torch.randn(rank, into, **like) if start == "normal" else torch.rand(rank, into, **like) / into - 0.02
            B = torch.zeros(out, rank, **like)
            if fault == "alike":
                A = torch.ones_like(A)
            if fault in ("both zero", "A zero"):
                A = torch.zeros_like(A)
            if fault in ("both random", "A zero"):
                B = torch.randn_like(B)
            self.A = nn.Parameter(A, requires_grad=fault != "frozen")
            self.B = B if fault == "no parameter" else nn.Parameter(B)
            if fault == "W":
                self.W = nn.Parameter(weight.clone())

        def forward(self, x):
            if style == "linear":
                return self.scale * self.up(self.down(x))
            A = self.A.detach() if fault == "detach" else self.A
            if style == "einsum":
                return torch.einsum("...i,ri,or->...o", x, A, self.scale * self.B)
            if style == "functional":
                return F.linear(F.linear(x, A), self.B) * self.scale
            if fault == "relu":
                return self.scale * (F.relu(x @ A.T) @ self.B.T)
            if fault == "two axes":
                return self.scale * (self.B @ (A @ x.t())).t()
            if fault == "no return":
                x @ A.T @ self.B.T
                return None
            return x @ A.T @ self.B.T * self.scale if scaled == "late" else x @ (self.scale * self.B @ A).T

    if style == "linear" and not fault:
        Mine.A, Mine.B = property(lambda self: self.down.weight), property(lambda self: self.up.weight)
    return Mine


@several
@given(
    some.sampled_from(["plain", "einsum", "functional", "linear"]),
    some.sampled_from(["uniform", "normal"]),
    some.sampled_from(["late", "early"]),
)
def test_any_right_update_passes(style, start, scaled):
    feedback = checked("lora.module", low_rank(style, start, scaled))
    assert feedback, feedback


@several
@given(some.integers(1, 6), some.integers(1, 6), some.integers(1, 4), some.floats(0.5, 32))
def test_what_passes_is_the_update_of_any_shape(out, into, rank, alpha):
    weight = torch.randn(out, into, dtype=torch.float64)
    ours, theirs = LowRank(weight, rank, alpha), low_rank("einsum")(weight, rank, alpha)
    nn.init.normal_(ours.B)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, into, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x)) and torch.allclose(ours(x), alpha / rank * x @ ours.A.T @ ours.B.T)


@pytest.mark.parametrize(
    "fault, message",
    [
        ("no scale", "alpha / r is left out"),
        ("alpha", "scaled by alpha, not by alpha / r"),
        ("upside", "upside down"),
        ("float32", "is torch.float32, and weight is torch.float64"),
        ("device", "not on the device of weight"),
        ("alike", "rows of A are alike"),
        ("both zero", "both zero"),
        ("A zero", "it is B that is zero and A that is random"),
        ("both random", "does not start at zero"),
        ("frozen", "a parameter is frozen"),
        ("no parameter", "B is missing, or is no nn.Parameter"),
        ("W", "as large as W"),
        ("detach", "no gradient reaches A"),
        ("relu", "is there something more in it"),
        ("two axes", r"right for x \(t, in\), but it stops for"),
        ("no return", "is there a return"),
    ],
)
def test_a_misconception_of_the_update_is_named(fault, message):
    feedback = checked("lora.module", low_rank(fault=fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_the_update_s_kind_and_names_are_told():
    assert "there is a bias in it" in repr(checked("lora.module", low_rank("linear", fault="bias")))
    named = repr(checked("lora.module", low_rank("linear", fault="other names")))
    assert "computes what it should, well done. One thing is missing, the attribute A: later" in named
    assert "a class is asked for, and this is a function" in repr(checked("lora.module", lambda weight: weight))
    assert "write class LowRank(nn.Module)" in repr(checked("lora.module", type("LowRank", (), {})))

    class Stub(nn.Module):
        def __init__(self, weight, rank, alpha):
            super().__init__()
            ...

        def forward(self, x): ...

    assert repr(checked("lora.module", Stub)).startswith("Not written yet: forward is still empty")


def in_place(module, inputs, output):
    output += module.my_lora(inputs[0])
    return output


@pytest.mark.parametrize(
    "hook, message",
    [
        (in_place, "changed in place"),
        (lambda module, inputs, output: module.my_lora(inputs[0]), "this is the update alone"),
        (lambda module, inputs, output: output + module.my_lora(output), "my_lora reads the output"),
        (lambda module, inputs, output: output + 2 * module.my_lora(inputs[0]), "added twice"),
        (lambda module, inputs, output: output - module.my_lora(inputs[0]), "taken away"),
        (lambda module, inputs, output: output + 0, "comes back as it was"),
        (lambda module, inputs, output: print(end=""), "is there a return"),
        (lambda module, inputs, output: output + module.my_lora(inputs), "stopped in .*TypeError"),
        (lambda module, inputs, output: output + module.my_lora(inputs[0]).detach(), "no gradient"),
        (lambda module, inputs, output: module(inputs[0]) + module.my_lora(inputs[0]), "calls the module again"),
    ],
)
def test_a_misconception_of_the_hook_is_named(hook, message):
    feedback = checked("lora.hook", hook)
    assert not feedback and re.search(message, repr(feedback)), feedback


@several
@given(some.booleans())
def test_any_right_hook_passes(unpacked):
    plain = [
        lambda m, inputs, output: output + m.my_lora(inputs[0]),
        lambda m, ins, out: torch.add(out, m.my_lora(*ins)),
    ]
    assert checked("lora.hook", plain[unpacked])


def my_lora(fault="", style="named"):
    """A learner's MyLoRA, in one of several styles, with one fault or none."""

    @dataclass
    class MyLoRA(Method):
        rank: int = 8
        alpha: float = 16

        def insert(self, model):
            if fault == "nothing":
                return
            roles = {"query": ("query",), "key": ("query", "key")}.get(fault, ("query", "value"))
            updates = []
            for target in linear_maps(model, roles):
                module, weight = target.module, target.weight
                rank = 8 if fault == "rank" else self.rank
                alpha = 16 if fault == "alpha" else self.alpha
                rank, alpha = (alpha, rank) if fault == "exchanged" else (rank, alpha)
                update = LowRank(weight.T if fault == "transposed" else weight, rank, alpha)
                updates.append(update)
                if fault == "by hand":
                    module.add_module("my_lora", update)
                elif fault == "not added":
                    update.to(weight)
                else:
                    self.add(module, "lora" if fault == "other name" else "my_lora", update)
                if fault == "W":
                    module.weight.requires_grad_(True)
                if fault == "W changed":
                    module.weight.data.add_(1)
                handle = module.register_forward_hook
                if fault == "no hook":
                    continue
                if fault == "kept hook":
                    handle(add_my_lora)
                elif fault == "in place":
                    self.hook(handle(in_place))
                elif fault == "output":
                    self.hook(handle(lambda module, inputs, output: output + module.my_lora(output)))
                elif fault == "late":
                    self.hook(handle(lambda module, inputs, output: output + update(inputs[0])))  # noqa: B023
                elif style == "closure" or fault == "not added":
                    self.hook(handle(lambda module, ins, output, update=update: output + update(*ins)))
                elif style == "partial":
                    self.hook(handle(partial(added, update)))
                else:
                    self.hook(handle(add_my_lora))
                if fault == "twice":
                    self.hook(handle(add_my_lora))
                if fault == "first":
                    return
                if fault == "first block" and len(updates) == 2:
                    return

    return MyLoRA


def added(update, module, inputs, output):
    return output + update(inputs[0])


@settings(several, max_examples=6)
@given(some.sampled_from(["named", "closure", "partial"]))
def test_any_right_insert_passes(style):
    feedback = checked("lora.insert", my_lora(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert adds nothing yet"),
        ("no hook", "the hook is forgotten"),
        ("not added", "hooked, but not added"),
        ("by hand", "put in by hand: self.add"),
        ("kept hook", "after detach a hook is still there"),
        ("query", "only query maps are changed"),
        ("key", "a key map is changed, and the value map of none"),
        ("first block", "only block 1 of three"),
        ("first", "only query maps"),
        ("in place", "changed in place"),
        ("output", "does it read inputs.0."),
        ("late", "all maps use the last update: a function made in a loop"),
        ("twice", "added twice"),
        ("W", "the model stays frozen, only A and B"),
        ("W changed", "a weight of the model is changed by insert"),
        ("rank", "use self.rank"),
        ("alpha", "not scaled by self.alpha"),
        ("exchanged", "rank and alpha are exchanged"),
        ("other name", "the hook looks for module.my_lora"),
        ("transposed", r"right on a BERT, but on a Llama.* shapes do not fit"),
    ],
)
def test_a_misconception_of_the_insert_is_named(fault, message):
    feedback = checked("lora.insert", my_lora(fault))
    assert not feedback and re.search(message, repr(feedback), re.DOTALL), feedback


def test_a_class_that_is_no_recipe_is_told():
    class NoDataclass(Method):
        def insert(self, model):
            model.eval()

    assert "is @dataclass above the class?" in repr(checked("lora.insert", NoDataclass))
    assert "write class MyLoRA(Method)" in repr(checked("lora.insert", type("MyLoRA", (), {})))


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_s_method_is_the_package_s_lora_and_is_saved_and_loaded(solved, tmp_path):
    MyLoRA = check("lora.insert", my_lora() if solved else my_lora("no hook"))
    assert METHODS["MyLoRA"] is MyLoRA and (MyLoRA is EXERCISES["lora.insert"].reference) != solved
    mine, theirs = tiny_model("bert"), tiny_model("bert")
    method, packaged = MyLoRA(rank=2, alpha=6), LoRA(rank=2, alpha=6)
    method.attach(mine), packaged.attach(theirs)
    assert count(mine).trainable == count(theirs).trainable
    with torch.no_grad():
        for update, (_, other) in zip(method.added, packaged.updates, strict=True):
            other.A.copy_(update.A), other.B.copy_(nn.init.normal_(update.B))
    logits = mine(input_ids=IDS).logits
    assert torch.allclose(logits, theirs(input_ids=IDS).logits)
    save(mine, tmp_path / "mine")
    assert torch.equal(load(tiny_model("bert"), tmp_path / "mine")(input_ids=IDS).logits, logits)


def directions(strengths, share, power=2, more=1):
    energy = strengths**power
    return int((energy.cumsum(0) / energy.sum() < share).sum()) + more


@pytest.mark.parametrize(
    "f, message",
    [
        (partial(directions, power=1), "energy is their square"),
        (partial(directions, more=0), "one more is needed"),
        (lambda s, share: directions(s.flip(0), share), "starts with the weakest"),
        (lambda s, share: directions(s, 0.9), "share is not used"),
        (lambda s, share: int((s**2 / (s**2).sum() > share).sum()), "first add up the energies"),
        (lambda s, share: int(((s**2).cumsum(0) / (s**2).sum() <= share).sum()) + 1, "that is enough"),
        (lambda s, share: s, "expected a number, got Tensor"),
    ],
)
def test_a_misconception_of_the_directions_is_named(f, message):
    with pytest.raises(Exception, match=message):
        _directions(f)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda W, r: W, "nothing is cut"),
        (lambda W, r: cut(W, slice(-r, None)), "the weakest directions"),
        (lambda W, r: cut(W, slice(r), power=0), "S is left out"),
        (lambda W, r: cut(W, slice(r), power=2), "S is squared"),
        (lambda W, r: cut(W, slice(r - 1)), "one direction too few"),
        (lambda W, r: cut(W, slice(r + 1)), "one direction too many"),
        (lambda W, r: W - cut(W, slice(r)), "this is what is lost"),
        (lambda W, r: torch.linalg.svd(W), "expected one matrix"),
        (lambda W, r: F.pad(W[:r, :r], (0, 5 - r, 0, 5 - r)), "a corner of the matrix"),
    ],
)
def test_a_misconception_of_the_best_copy_is_named(f, message):
    with pytest.raises(Exception, match=message):
        _best_copy(f)


def cut(W, kept, power=1):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return U[:, kept] @ torch.diag(S[kept] ** power) @ Vh[kept]


def test_other_ways_to_the_directions_and_the_copy_pass():
    assert checked(
        "lora.directions", lambda s, share: int(torch.searchsorted((s**2).cumsum(0) / (s**2).sum(), share)) + 1
    )
    assert checked("lora.best_copy", lambda W, r: cut(W, slice(r)))
    assert checked(
        "lora.best_copy", lambda W, r: sum(s * torch.outer(u, v) for u, s, v in [*zip(*parts(W), strict=True)][:r])
    )


def parts(W):
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    return U.T, S, Vh


FAULTS = {
    "alike": "one direction, where there could be r",
    "dropout": "the answers differ",
    "late": "which of them have moved",
}


def hunted(*faults):
    """The cell of the hunt, with these of its faults."""

    class Hunted(LowRank):
        def __init__(self, weight, rank, alpha):
            super().__init__(weight, rank, alpha)
            if "alike" in faults:
                nn.init.constant_(self.A, weight.shape[1] ** -0.5)

        def forward(self, x):
            return super().forward(F.dropout(x, 0.5, self.training or "dropout" in faults))

    @dataclass
    class HuntedLoRA(Method):
        rank: int = 4
        alpha: float = 8

        def insert(self, model):
            for target in linear_maps(model, ("query", "value")):
                update = Hunted(target.weight, self.rank, self.alpha)
                self.add(target.module, "hunted", update)

                def add_hunted(module, inputs, output):
                    return output + (update if "late" in faults else module.hunted)(inputs[0])  # noqa: B023

                self.hook(target.module.register_forward_hook(add_hunted))

    return HuntedLoRA


@settings(several, max_examples=8)
@given(some.sets(some.sampled_from(list(FAULTS))))
def test_the_hunt_counts_the_faults_that_are_left(faults):
    feedback = checked("lora.hunt", hunted(*faults))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback


@pytest.mark.parametrize("fault, message", FAULTS.items())
def test_each_fault_of_the_hunt_alone_is_named(fault, message):
    feedback = checked("lora.hunt", hunted(fault))
    assert not feedback and "Not yet: 1 fault is still in." in repr(feedback) and message in repr(feedback)


SMALL = {"method": LoRA(rank=1, targets=("value",)), "steps": 2}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": LoRA(rank=1)}, "2,048 parameters are trained beside the task head, and 1,200 are allowed"),
        ({"method": BitFit()}, "this task is about LoRA"),
        ({"steps": 301}, "301 steps are more than the 300"),
        ({"pretrained": False}, "about the pretrained tiny-bert"),
        ({"method": type("Narrow", (LoRA,), {})(rank=1)}, "2,048 parameters are trained"),  # a LoRA of one's own
        ({}, "% on validation, and 90% are asked for"),
    ],
)
def test_the_open_task_says_what_is_missing(change, message, capsys):
    feedback = checked("lora.smallest", lambda: replace(recipe("reviews", "LoRA r=1"), **SMALL | change))
    assert not feedback and message in repr(feedback)


def test_the_open_task_asks_for_a_recipe():
    assert "expected a Recipe, got LoRA" in repr(checked("lora.smallest", lambda: LoRA(rank=1)))
