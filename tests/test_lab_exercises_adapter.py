"""What a learner builds in lesson 02: any right solution passes, whatever its style, and a misconception is named."""

import re
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.nn import functional as F

from peft_edu import Adapter, BitFit, count, load, save
from peft_edu.anatomy import blocks, norms, sublayer_outputs
from peft_edu.lab import recipe
from peft_edu.lab.exercises.adapter import moved_share, switch_off, trained_norms
from peft_edu.lab.exercises.adapter_method import MyBottleneck, through_my_adapter
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.method import METHODS, Method

several = settings(max_examples=6, deadline=None, database=None)
FLOAT64 = {"dtype": torch.float64}
ACTS = {"no gelu": lambda x: x, "relu": F.relu, "silu": F.silu, "tanh": partial(F.gelu, approximate="tanh")}


def bottleneck(style="plain", start="normal", fault=""):
    """A learner's MyBottleneck, in one of several styles, with one fault or none."""
    act = ACTS.get(fault, F.gelu)

    class Mine(nn.Module):
        def __init__(self, width, bottleneck, std=1e-3):
            super().__init__()
            like = {} if fault == "float32" else FLOAT64
            self.down = nn.Linear(width, width if fault == "square" else bottleneck, bias=fault != "no bias", **like)
            self.up = nn.Linear(self.down.out_features, width, bias=fault != "no bias", **like)
            self.act = nn.GELU()
            if fault == "own start":
                nn.init.zeros_(self.down.bias), nn.init.zeros_(self.up.bias)
                return
            std = 1e-3 if fault == "fixed" else std
            for each in (self.down, self.up):
                if start == "uniform":
                    nn.init.uniform_(each.weight, -(3**0.5) * std, 3**0.5 * std)
                elif start == "scaled":
                    each.weight.data = std * torch.randn(each.weight.shape, **FLOAT64)
                else:
                    nn.init.normal_(each.weight, std=std)
                if fault not in ("biases", "no bias"):
                    nn.init.zeros_(each.bias)
            if fault in ("up zero", "both zero"):
                nn.init.zeros_(self.up.weight)
            if fault == "both zero":
                nn.init.zeros_(self.down.weight)
            if fault == "alike":
                nn.init.constant_(self.down.weight, std)
            if fault == "frozen":
                self.down.requires_grad_(False)
            if fault == "names":
                self.first, self.second = self.down, self.up
                del self.down, self.up

        def forward(self, x):
            down, up = (self.first, self.second) if fault == "names" else (self.down, self.up)
            if style == "functional":
                return F.linear(F.gelu(F.linear(x, down.weight, down.bias)), up.weight, up.bias).add(x)
            if style == "module":
                return nn.Sequential(down, self.act, up)(x) + x
            inner = act(down(x.detach() if fault == "detach" else x))
            if fault == "dropout":
                inner = F.dropout(inner, 0.5)
            if fault == "late":
                return x + F.gelu(up(down(x)))
            if fault == "around":
                return F.gelu(x) + up(inner)
            if fault == "no x":
                return up(inner)
            if fault == "cut":
                return x.detach() + up(inner)
            if fault == "no gradient":
                return x + up(inner).detach()
            if fault == "in place":
                return x.add_(up(inner))
            if fault == "no return":
                return None
            return (2 * x if fault == "twice" else x) + up(inner)

    return Mine


@several
@given(some.sampled_from(["plain", "functional", "module"]), some.sampled_from(["normal", "uniform", "scaled"]))
def test_any_right_bottleneck_passes(style, start):
    feedback = checked("adapter.module", bottleneck(style, start))
    assert feedback, feedback


@several
@given(some.integers(1, 6), some.integers(1, 6))
def test_what_passes_is_the_bottleneck_of_any_shape(width, size):
    ours, theirs = MyBottleneck(width, size, 1.0), bottleneck("functional")(width, size, 1.0)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, width, **FLOAT64)
    assert torch.allclose(ours(x), theirs(x))


@pytest.mark.parametrize(
    "fault, message",
    [
        ("float32", "a parameter is torch.float32"),
        ("no bias", "the biases are missing"),
        ("square", "a matrix of d by d"),
        ("frozen", "a parameter is frozen"),
        ("biases", "a bias does not start at 0"),
        ("own start", "nn.Linear has drawn its own start"),
        ("fixed", "draw both with std, the third argument"),
        ("both zero", "both maps start at zero"),
        ("up zero", "one map starts at zero"),
        ("alike", "made or used alike"),
        ("no x", "x is missing"),
        ("twice", "x is added twice"),
        ("no gelu", "the nonlinearity is missing"),
        ("relu", "this is ReLU"),
        ("silu", "this is SiLU"),
        ("tanh", "tanh approximation"),
        ("late", "GELU comes after W_up"),
        ("around", "far larger|x goes through GELU"),
        ("dropout", "asked twice it gives two answers"),
        ("no gradient", "no gradient reaches one of the maps"),
        ("cut", "is there a detach"),
        ("in place", "changed in place"),
        ("no return", "is there a return"),
        ("names", "an nn.Linear named self.down"),
    ],
)
def test_a_misconception_of_the_bottleneck_is_named(fault, message):
    feedback = checked("adapter.module", bottleneck(fault=fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_a_stub_and_what_is_no_class_are_told():
    class Stub(nn.Module):
        def __init__(self, width, bottleneck, std=1e-3):
            super().__init__()
            ...

        def forward(self, x): ...

    assert repr(checked("adapter.module", Stub)).startswith("Not written yet: forward is still empty")
    assert "a class is asked for, and this is a function" in repr(checked("adapter.module", lambda width: width))
    assert "write class MyBottleneck(nn.Module)" in repr(checked("adapter.module", type("MyBottleneck", (), {})))


@pytest.mark.parametrize(
    "hook, message",
    [
        (lambda module, inputs, output: output + module.my_adapter(output), "the output is added once more"),
        (lambda module, inputs, output: module.my_adapter(inputs[0]), "it stands behind the module"),
        (lambda module, inputs, output: output + module.my_adapter(inputs[0]), "that is LoRA's place"),
        (lambda module, inputs, output: output, "comes back as it was"),
        (lambda module, inputs, output: module.my_adapter(module.my_adapter(output)), "twice"),
        (lambda module, inputs, output: print(end=""), "is there a return"),
        (lambda module, inputs, output: module.my_adapter(output).detach(), "no gradient"),
        (lambda module, inputs, output: module.my_adapter(module(inputs[0])), "calls the module again"),
        (lambda module, inputs, output: output.copy_(module.my_adapter(output)), "changed in place"),
        (lambda module, inputs, output: module.my_adapter(inputs), "stopped in .*TypeError"),
    ],
)
def test_a_misconception_of_the_hook_is_named(hook, message):
    feedback = checked("adapter.hook", hook)
    assert not feedback and re.search(message, repr(feedback)), feedback


def my_adapter(fault="", style="named"):
    """A learner's MyAdapter, in one of several styles, with one fault or none."""

    @dataclass
    class MyAdapter(Method):
        bottleneck: int = 16
        std: float = 1e-3

        def insert(self, model):
            if fault == "nothing":
                return
            for norm in {"no norms": [], "block norms": norms(model)[1:]}.get(fault, norms(model)):
                norm.requires_grad_(True) if fault == "by hand" else self.unfreeze(norm)
            if fault == "more":
                self.unfreeze(next(blocks(model)[0].parameters()))
            size = 16 if fault == "size" else self.bottleneck
            one = MyBottleneck(model.config.hidden_size, size, self.std)
            for number, block in enumerate(blocks(model)):
                places = sublayer_outputs(model, block)
                places = {"one": places[1:], "attention": places[:1], "block": [block]}.get(fault, places)
                if fault == "bert":
                    places = [block.attention.output.dropout, block.output.dropout]
                for place in places:
                    adapter = MyBottleneck(model.config.hidden_size, size, *([] if fault == "std" else [self.std]))
                    if fault == "shared":
                        adapter = one
                    if fault != "not added":
                        self.add(place, "my_adapter", adapter)
                    handle = place.register_forward_hook
                    if fault == "no hook":
                        continue
                    if fault == "kept hook":
                        handle(through_my_adapter)
                    elif fault == "twice":
                        self.hook(handle(through_my_adapter)), self.hook(handle(through_my_adapter))
                    elif fault == "double":
                        self.hook(handle(lambda module, ins, output: output + module.my_adapter(output)))
                    elif fault == "late":
                        self.hook(handle(lambda module, inputs, output: adapter(output)))  # noqa: B023
                    elif style == "closure" or fault == "not added":
                        self.hook(handle(lambda module, inputs, output, adapter=adapter: adapter(output)))
                    elif style == "partial":
                        self.hook(handle(partial(sent, adapter)))
                    else:
                        self.hook(handle(through_my_adapter))
                if fault == "first" and number == 0:
                    return

    return MyAdapter


def sent(adapter, module, inputs, output):
    return adapter(output)


@settings(several, max_examples=4)
@given(some.sampled_from(["named", "closure", "partial"]))
def test_any_right_insert_passes(style):
    feedback = checked("adapter.insert", my_adapter(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert adds no adapter yet"),
        ("not added", "no adapter was added"),
        ("no hook", "the hook is forgotten"),
        ("kept hook", "after detach a hook is still there"),
        ("no norms", "the LayerNorms stay frozen"),
        ("block norms", "that of the embeddings as well"),
        ("by hand", "by hand: self.unfreeze"),
        ("more", "only LayerNorms and the task head are trained"),
        ("one", "attention gets one, too"),
        ("attention", "the feed-forward network gets one, too"),
        ("block", "stand somewhere else"),
        ("bert", r"right on a BERT, but a Llama's parts have other names"),
        ("first", "every block gets two"),
        ("shared", "all places share one adapter"),
        ("late", "all places use the last adapter"),
        ("twice", "registered twice"),
        ("double", "the output is added once more"),
        ("size", "use self.bottleneck"),
        ("std", "give self.std to the adapter"),
    ],
)
def test_a_misconception_of_the_insert_is_named(fault, message):
    feedback = checked("adapter.insert", my_adapter(fault))
    assert not feedback and re.search(message, repr(feedback), re.DOTALL), feedback


def test_a_class_that_is_no_recipe_is_told():
    assert "write class MyAdapter(Method)" in repr(checked("adapter.insert", type("MyAdapter", (), {})))

    class NoDataclass(Method):
        def insert(self, model):
            model.eval()

    assert "is @dataclass above the class?" in repr(checked("adapter.insert", NoDataclass))


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_s_method_is_the_package_s_adapter_and_is_saved_and_loaded(solved, tmp_path):
    MyAdapter = check("adapter.insert", my_adapter() if solved else my_adapter("no hook"))
    assert METHODS["MyAdapter"] is MyAdapter and (MyAdapter is EXERCISES["adapter.insert"].reference) != solved
    mine, theirs = tiny_model("bert"), tiny_model("bert")
    method, packaged = MyAdapter(bottleneck=2), Adapter(bottleneck=2, init_std=1.0)
    method.attach(mine), packaged.attach(theirs)
    assert count(mine).trainable == count(theirs).trainable and trained_norms(mine) == trained_norms(theirs) == 112
    for one, other in zip(method.added, packaged.added, strict=True):
        one.load_state_dict(other.state_dict())
    logits = mine(input_ids=IDS).logits
    assert torch.allclose(logits, theirs(input_ids=IDS).logits)
    save(mine, tmp_path / "mine")
    assert torch.equal(load(tiny_model("bert"), tmp_path / "mine")(input_ids=IDS).logits, logits)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda A, x: A(x).norm() / x.norm(), "take x away first"),
        (lambda A, x: (A(x) - x).norm() / A(x).norm(), "a share of what comes out"),
        (lambda A, x: ((A(x) - x).norm() / x.norm()) ** 2, "the share of the squares"),
        (lambda A, x: (A(x) - x).norm(), "divide it by that of x"),
        (lambda A, x: x.norm() / (A(x) - x).norm(), "upside down"),
        (lambda A, x: (A(x).norm() - x.norm()).abs() / x.norm(), "the difference of two lengths"),
        (lambda A, x: (A(x) - x).norm(dim=1) / x.norm(dim=1), "it must give one number"),
        (lambda A, x: print(end=""), "is there a return"),
        (lambda A, x: 3, "expected .*, got 3.0"),
    ],
)
def test_a_misconception_of_the_moved_share_is_named(f, message):
    feedback = checked("adapter.moved", f)
    assert not feedback and re.search(message, repr(feedback)), feedback


def folded(W, b, V, c, U, e, weight=None, bias=None):
    return (W + U @ V @ W if weight is None else weight), (b + U @ (V @ b + c) + e if bias is None else bias)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda W, b, V, c, U, e: folded(W, b, V, c, U, e, weight=U @ V @ W), "the map's own W is missing"),
        (lambda W, b, V, c, U, e: folded(W, b, V, c, U, e, weight=W), "W stays as it was"),
        (lambda W, b, V, c, U, e: folded(W, b, V, c, U, e, bias=b), "b stays as it was"),
        (lambda W, b, V, c, U, e: folded(W, b, V, c, U, e, bias=b + U @ c + e), "the adapter reads all of h"),
        (lambda W, b, V, c, U, e: folded(W, b, V, c, U, e, bias=U @ (V @ b + c) + e), "b itself is missing"),
        (lambda W, b, V, c, U, e: folded(W, b, V, c, U, e, bias=b + U @ V @ b + e), "b_down is missing"),
        (lambda W, b, V, c, U, e: folded(W, b, V, c, U, e, bias=b + U @ (V @ b + c)), "b_up is missing"),
        (lambda W, *rest: W, "expected two tensors"),
        (lambda W, b, V, c, U, e: (W.add_(U @ V @ W), b), "changed in place"),
    ],
)
def test_a_misconception_of_folding_is_named(f, message):
    feedback = checked("adapter.fold", f)
    assert not feedback and message in repr(feedback), feedback


def test_other_ways_to_fold_and_to_measure_pass():
    assert checked("adapter.fold", folded)
    eye = torch.eye(5, **FLOAT64)
    assert checked("adapter.fold", lambda W, b, V, c, U, e: [(eye + U @ V) @ W, (eye + U @ V) @ b + U @ c + e])
    assert checked("adapter.moved", lambda A, x: float(torch.linalg.norm(A(x) - x)) / float(torch.linalg.norm(x)))


@torch.no_grad()
def emptied(*names):
    """Switches off by emptying these parameters."""

    def off(adapter):
        for name in names:
            adapter.get_parameter(name).zero_()

    return off


def replaced(adapter):
    adapter.forward = lambda x: x


@pytest.mark.parametrize(
    "f, message",
    [
        (emptied("up.weight"), "b_up is still added"),
        (emptied("down.weight", "up.bias"), "W_down is zero"),
        (replaced, "forward is replaced"),
        (lambda adapter: None, "the adapter does what it did before"),
    ],
)
def test_a_misconception_of_switching_off_is_named(f, message):
    feedback = checked("adapter.off", torch.no_grad()(f))
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_other_ways_to_switch_off_pass():
    for f in (switch_off, emptied("up.weight", "up.bias"), emptied("down.weight", "down.bias", "up.bias")):
        assert checked("adapter.off", lambda adapter, f=f: torch.no_grad()(f)(adapter))
    adapter = MyBottleneck(4, 2, 1.0)
    x = torch.randn(3, 4, **FLOAT64)
    assert moved_share(adapter, x) > 0
    switch_off(adapter)
    assert moved_share(adapter, x) == 0


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda model: sum(p.numel() for p in model.parameters() if p.requires_grad), "all that is trained is counted"),
        (lambda model: sum(p.requires_grad for norm in norms(model) for p in norm.parameters()), "tensors are counted"),
        (lambda model: sum(p.numel() for norm in norms(model) for p in norm.parameters()), "only what is trained"),
        (
            lambda model: sum(
                p.numel() for n in norms(model) if any(q.requires_grad for q in n.parameters()) for p in n.parameters()
            ),
            "can be trained in part",
        ),
    ],
)
def test_a_misconception_of_the_trained_norms_is_named(f, message):
    feedback = checked("adapter.norms", f)
    assert not feedback and message in repr(feedback), feedback


FAULTS = {
    "double": "x itself must come out, once",
    "shared": "Which place has one of its own",
    "start": "Which deviation do the maps start with",
}


def hunted(*faults, style="named"):
    """The cell of the hunt, with these of its faults."""

    class Hunted(MyBottleneck):
        def __init__(self, width, bottleneck):
            super().__init__(width, bottleneck, 1.0 if "start" in faults else 1e-3)

        def forward(self, x):
            added = self.up(F.gelu(self.down(x)))
            return added if style == "around outside" else x + added

    def through_hunted(module, inputs, output):
        again = ("double" in faults) + (style == "around outside")
        return again * output + module.hunted(output)

    @dataclass
    class HuntedAdapter(Method):
        bottleneck: int = 16

        def insert(self, model):
            adapter = Hunted(model.config.hidden_size, self.bottleneck)
            for block in blocks(model):
                places = sublayer_outputs(model, block)
                if style == "dense":
                    places = [block.attention.output.dense, block.output.dense]
                for place in places:
                    if "shared" not in faults:
                        adapter = Hunted(model.config.hidden_size, self.bottleneck)
                    self.add(place, "hunted", adapter)
                    self.hook(place.register_forward_hook(through_hunted))

    return HuntedAdapter


@settings(several, max_examples=8)
@given(some.sets(some.sampled_from(list(FAULTS))), some.sampled_from(["named", "around outside", "dense"]))
def test_the_hunt_counts_the_faults_that_are_left(faults, style):
    feedback = checked("adapter.hunt", hunted(*faults, style=style))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback


@pytest.mark.parametrize("fault, message", FAULTS.items())
def test_each_fault_of_the_hunt_alone_is_named(fault, message):
    feedback = checked("adapter.hunt", hunted(fault))
    assert not feedback and "Not yet: 1 fault is still in." in repr(feedback) and message in repr(feedback)


SMALL = {"method": Adapter(1, placement="pfeiffer", norms=False), "steps": 2}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": Adapter(1)}, "5,384 parameters are trained beside the task head, 2,304 of them in LayerNorms"),
        (
            {"method": Adapter(1, norms=False)},
            "3,080 parameters are trained beside the task head, and 1,600 are allowed",
        ),
        ({"method": BitFit()}, "this task is about Adapter"),
        ({"steps": 151}, "151 steps are more than the 150"),
        ({}, "% on validation, and 90% are asked for"),
    ],
)
def test_the_open_task_says_what_is_missing(change, message, capsys):
    feedback = checked("adapter.smallest", lambda: replace(recipe("reviews", "adapter m=1"), **SMALL | change))
    assert not feedback and message in repr(feedback)


def test_the_open_task_asks_for_a_recipe():
    assert "expected a Recipe, got Adapter" in repr(checked("adapter.smallest", lambda: Adapter(1)))
