"""What a learner builds in lesson 06: any right solution passes, whatever its style, and a misconception is named."""

import re
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.nn import functional as F

from peft_edu import BitFit, PTuningV2, count, load, save
from peft_edu.anatomy import attentions, key_value_shape
from peft_edu.attention import ATTENTION, attention
from peft_edu.lab import recipe
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.p_tuning_v2_method import (
    DeepPrompt,
    deep_count,
    split_table,
    start_positions_at,
    top_layers,
)
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.method import METHODS, Method

several = settings(max_examples=8, deadline=None, database=None)


def expect(feedback, message):
    assert not feedback and re.search(message, repr(feedback), re.DOTALL), feedback


def in_a_loop(table, layers, heads):
    rows = table.view(len(table), layers, 2, heads, -1)
    return [torch.stack([rows[:, i, kind].transpose(0, 1) for kind in (0, 1)]) for i in range(layers)]


def by_chunks(table, layers, heads):
    for part in table.chunk(layers, 1):
        keys, values = (each.unflatten(1, (heads, -1)).movedim(0, 1) for each in part.chunk(2, 1))
        yield torch.stack([keys, values])


def by_einsum(table, layers, heads):
    return torch.einsum("plkhw->lkhpw", table.reshape(table.shape[0], layers, 2, heads, -1)).unbind(0)


@several
@given(some.sampled_from([split_table, in_a_loop, by_chunks, by_einsum]), *[some.integers(1, 4)] * 4)
def test_any_right_split_passes_and_is_the_same(split, p, layers, heads, width):
    assert checked("p_tuning_v2.split", lambda *given: split(*given))
    table = torch.randn(p, layers * 2 * heads * width)
    assert torch.equal(torch.stack(list(split(table, layers, heads))), split_table(table, layers, heads))


def opened(table, layers, heads):
    return table.unflatten(1, (layers, 2, heads, -1))


@pytest.mark.parametrize(
    "split, message",
    [
        (lambda t, L, h: t.reshape(L, 2, h, len(t), -1), "only cut into pieces of the right shape"),
        (lambda t, L, h: split_table(t, L, h).flip(0), "reversed order"),
        (lambda t, L, h: split_table(t, L, h).flip(1), "keys and values are exchanged"),
        (lambda t, L, h: t.unflatten(1, (2, L, h, -1)).permute(2, 1, 3, 0, 4), "all keys and then all values"),
        (lambda t, L, h: t.unflatten(1, (L, 2, -1, h)).permute(1, 2, 4, 0, 3), "read with a stride"),
        (lambda t, L, h: [split_table(t, L, h)[0]] * L, "the first layer's numbers"),
        (lambda t, L, h: opened(t, L, h).permute(1, 2, 0, 3, 4), "positions and heads are exchanged"),
        (lambda t, L, h: opened(t, L, h), "a part for each of 4 layers, got 3"),
        (lambda t, L, h: split_table(t.detach(), L, h), "no gradient reaches the table"),
        (lambda t, L, h: split_table(t, 4, 2), "stopped|not for 3 layers"),
        (lambda t, L, h: print(end=""), "is there a return"),
        (lambda t, L, h: [0] * L, "expected a tensor for each layer, got int"),
        (lambda t, L, h: split_table(t, L, h).roll(1, -1), "it should be number 0 of row 0"),
    ],
)
def test_a_misconception_of_the_split_is_named(split, message):
    expect(checked("p_tuning_v2.split", split), message)


def deep_prompt(style="plain", fault=""):
    """A learner's DeepPrompt, in one of several styles, with one fault or none."""

    class Mine(nn.Module):
        def __init__(self, keys_values):
            super().__init__()
            if style == "two":
                self.key, self.value = (nn.Parameter(each.clone()) for each in keys_values)
            elif fault == "no parameter":
                self.both = keys_values
            elif fault == "keys alone":
                self.key, self.fixed = nn.Parameter(keys_values[0].clone()), keys_values[1]
            else:
                self.both = nn.Parameter(keys_values, requires_grad=fault != "frozen")

        def forward(self, query, key, value, mask, **options):
            if style == "two" or fault == "keys alone":
                first, second = self.key, self.value if style == "two" else self.fixed
            else:
                first, second = self.both
            if fault == "exchanged":
                first, second = second, first
            if fault == "keys twice":
                second = first
            if fault == "detach":
                second = second.detach()
            p = first.shape[-2]
            if style == "behind":  # attention does not care where a key stands, as long as its mask stands there, too
                key = torch.cat([key, first.expand(len(key), -1, -1, -1)], 2)
                value = torch.cat([value, second.expand(len(value), -1, -1, -1)], 2)
                return attention(query, key, value, mask if mask is None else F.pad(mask, (0, p)), **options)
            if fault != "nothing":
                key, value = (
                    torch.cat([torch.stack([mine] * len(query)), theirs], 2)
                    for mine, theirs in ((first, key), (second, value))
                )
            if fault == "no mask":
                mask = None
            elif (mask is not None or fault == "always") and fault not in ("nothing", "unpadded"):
                if style == "cat":
                    mask = torch.cat([mask.new_zeros(*mask.shape[:-1], p), mask], -1)
                else:
                    value_in_front = -1e30 if fault == "hidden" else 0
                    mask = F.pad(mask, (0, p) if fault == "wrong end" else (p, 0), value=value_in_front)
            given = attention(query, key, value, mask, **({} if fault == "options" else options))
            return None if fault == "no return" else given

    return Mine


@several
@given(some.sampled_from(["plain", "two", "behind", "cat"]))
def test_any_right_prompt_passes(style):
    feedback = checked("p_tuning_v2.prompt", deep_prompt(style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("no parameter", "nothing in it would be trained"),
        ("keys alone", "half of the numbers"),
        ("frozen", "a parameter is frozen"),
        ("exchanged", "keys and values of the prompt are exchanged"),
        ("keys twice", "the prompt's keys stand for its values as well"),
        ("detach", "no gradient reaches the keys, or the values"),
        ("nothing", "the prompt does nothing"),
        ("no mask", "the padding of shorter texts is seen"),
        ("always", "mask may be None"),
        ("unpadded", "the mask needs p columns more"),
        ("hidden", "the mask hides the prompt"),
        ("wrong end", "the mask grew at the wrong end"),
        ("options", "the options are not handed on"),
        ("no return", "is there a return"),
    ],
)
def test_a_misconception_of_the_prompt_is_named(fault, message):
    expect(checked("p_tuning_v2.prompt", deep_prompt(fault=fault)), message)


def my_method(fault="", style="table"):
    """A learner's MyPTuningV2, in one of several styles, with one fault or none."""

    @dataclass
    class MyPTuningV2(Method):
        length: int = 8
        layers: tuple[int, ...] | None = None

        def insert(self, model):
            if fault == "nothing":
                return
            (modules,), (heads, width) = attentions(model), key_value_shape(model)
            if fault == "query heads":
                heads = model.config.num_attention_heads
            chosen = range(len(modules)) if self.layers is None or fault == "all" else self.layers
            if fault == "by hand":
                model.config._attn_implementation = ATTENTION
            elif fault != "no attention":
                self.configure(model.config, "_attn_implementation", ATTENTION)
            length = 8 if fault == "length" else self.length
            parts = split_table(torch.randn(length, len(chosen) * 2 * heads * width), len(chosen), heads)
            shared = DeepPrompt(parts[0])
            for place, layer in enumerate(chosen):
                if style == "each":
                    prompt = DeepPrompt(torch.randn(2, heads, length, width))
                elif style == "two":
                    prompt = deep_prompt("two")(parts[place])
                else:
                    prompt = DeepPrompt(parts[0 if fault == "alike" else place])
                prompt = shared if fault == "shared" else prompt
                module = modules[place if fault == "place" else layer]
                if fault == "not added":
                    module.prefix = prompt
                else:
                    self.add(module, "prompt" if fault == "name" else "prefix", prompt)
                if fault == "first":
                    return
            if fault == "hooked":
                self.hook(modules[0].register_forward_pre_hook(lambda module, inputs: (2 * inputs[0], *inputs[1:])))
            if fault == "trains":
                modules[0].query.weight.requires_grad_(True) if hasattr(modules[0], "query") else None
            if style != "from 0":
                self.hook(start_positions_at(self.length, model))

    return MyPTuningV2


@settings(several, max_examples=6)
@given(some.sampled_from(["table", "each", "two", "from 0"]))
def test_any_right_insert_passes(style):
    feedback = checked("p_tuning_v2.insert", my_method(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert adds nothing yet"),
        ("not added", "Not written yet: insert adds nothing|put in by hand"),
        ("name", "no attention module has a child called prefix"),
        ("no attention", "nobody calls them: self.configure"),
        ("by hand", "after detach the model still attends in another way"),
        ("length", "that self.length or"),
        ("first", "only the first layer has a prompt"),
        ("all", "self.layers says which ones"),
        ("place", r"layers \[0, 2\] are asked for, and \[0, 1\] have"),
        ("shared", "layers share one prompt"),
        ("alike", "start from the same numbers"),
        ("hooked", "does not answer as it should"),
        ("trains", "only the prompts and the task head are trained"),
        ("query heads", "right on a BERT, but not on a Llama"),
    ],
)
def test_a_misconception_of_the_insert_is_named(fault, message):
    expect(checked("p_tuning_v2.insert", my_method(fault)), message)


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_s_method_is_the_package_s_and_is_saved_and_loaded(solved, tmp_path):
    MyPTuningV2 = check("p_tuning_v2.insert", my_method("" if solved else "first"))
    assert METHODS["MyPTuningV2"] is MyPTuningV2
    assert (MyPTuningV2 is EXERCISES["p_tuning_v2.insert"].reference) != solved
    mine, theirs = tiny_model("bert"), tiny_model("bert")
    method, package = MyPTuningV2(length=2), PTuningV2(length=2)
    method.attach(mine), package.attach(theirs)
    assert count(mine).trainable == count(theirs).trainable == deep_count(2, 3, 8, 2)
    with torch.no_grad():
        for prompt, prefix in zip(method.added, package.added, strict=True):
            prefix.keys_values.copy_(prompt.keys_values)
    logits = mine(input_ids=IDS).logits
    assert torch.allclose(logits, theirs(input_ids=IDS).logits)
    save(mine, tmp_path / "mine")
    assert torch.equal(load(tiny_model("bert"), tmp_path / "mine")(input_ids=IDS).logits, logits)


@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("count", lambda p, L, d, n: 2 * p * L * d, "without the task head"),
        ("count", lambda p, L, d, n: 2 * p * L * d + n * d, "the head's biases are left out"),
        ("count", lambda p, L, d, n: p * L * d + n * (d + 1), "twice as many"),
        ("count", lambda p, L, d, n: 2 * p * d + n * (d + 1), "one layer"),
        ("count", lambda p, L, d, n: p * d + n * (d + 1), "a prompt at the input"),
        ("count", lambda p, L, d, n: 2 * 5 * L * d + n * (d + 1), "not for 2 positions in 4 layers"),
        ("top", lambda n, depth: tuple(range(n)), "the bottom two"),
        ("top", lambda n, depth: tuple(range(depth - n + 1, depth + 1)), "counts from 1"),
        ("top", lambda n, depth: tuple(range(depth - n, depth - 1)), "range ends before its last"),
        ("top", lambda n, depth: range(depth - n, depth), "expected a tuple, got a range"),
        ("top", lambda n, depth: (3, 4), "the top 1 of 4 layers are"),
        ("top", lambda n, depth: print(end=""), "is there a return"),
    ],
)
def test_a_misconception_of_a_small_function_is_named(name, wrong, message):
    expect(checked(f"p_tuning_v2.{name}", wrong), message)


@several
@given(some.booleans())
def test_other_ways_to_count_and_to_choose_pass(first):
    assert checked("p_tuning_v2.count", lambda p, L, d, n: d * (2 * p * L + n) + n)
    top = (lambda n, depth: tuple(range(depth))[depth - n :]) if first else (lambda *given: top_layers(*given))
    assert checked("p_tuning_v2.top", top)


def maker(fault="", style="plain"):
    class Maker(nn.Module):
        def __init__(self, length, width, hidden, columns):
            super().__init__()
            start = torch.randn(length, width)
            if style == "embedding":
                self.start = nn.Embedding(length, width)
            else:
                self.start = start if fault == "start" else nn.Parameter(start)
            bent = [] if fault == "linear" else [nn.ReLU() if fault == "relu" else nn.Tanh()]
            up = nn.Linear(hidden, columns, bias=fault != "bias")
            self.made = nn.Sequential(nn.Linear(width, hidden), *bent, up)

        def forward(self):
            start = self.start.weight if style == "embedding" else self.start
            return None if fault == "no return" else self.made(start)

    return Maker


@pytest.mark.parametrize(
    "fault, message",
    [
        ("start", "no nn.Parameter of"),
        ("linear", "a tanh is missing"),
        ("relu", "a tanh is missing"),
        ("bias", "and not 85"),
        ("no return", "is there a return"),
    ],
)
def test_a_misconception_of_the_mlp_is_named(fault, message):
    expect(checked("p_tuning_v2.mlp", maker(fault)), message)


def test_any_right_mlp_passes():
    assert checked("p_tuning_v2.mlp", maker()) and checked("p_tuning_v2.mlp", maker(style="embedding"))


FAULTS = {
    "dropout": "the answers differ. Something random",
    "mask": "alone, and again in a batch with a longer one",
    "first": "8,192 parameters beside the task head. How many are there?",
}


def hunted(*faults):
    """The cell of the hunt, with these of its faults."""

    class Hunted(DeepPrompt):
        def forward(self, query, key, value, mask, **options):
            both = F.dropout(self.keys_values, 0.5, self.training or "dropout" in faults)
            first, second = both.unsqueeze(1).expand(-1, len(key), -1, -1, -1)
            if mask is not None:
                mask = F.pad(mask, (0, first.shape[2]) if "mask" in faults else (first.shape[2], 0))
            return attention(query, torch.cat([first, key], 2), torch.cat([second, value], 2), mask, **options)

    @dataclass
    class HuntedPTuningV2(Method):
        length: int = 8

        def insert(self, model):
            (modules,), (heads, width) = attentions(model), key_value_shape(model)
            self.configure(model.config, "_attn_implementation", ATTENTION)
            for module in modules:
                self.add(module, "prefix", Hunted(torch.randn(2, heads, self.length, width)))
                if "first" in faults:
                    return

    return HuntedPTuningV2


@given(some.sets(some.sampled_from(list(FAULTS))))
@several
def test_the_hunt_counts_the_faults_that_are_left(faults):
    feedback = checked("p_tuning_v2.hunt", hunted(*faults))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback


@pytest.mark.parametrize("fault, message", FAULTS.items())
def test_each_fault_of_the_hunt_alone_is_named(fault, message):
    feedback = checked("p_tuning_v2.hunt", hunted(fault))
    assert not feedback and "Not yet: 1 fault is still in." in repr(feedback) and message in repr(feedback)


FEW = {"method": PTuningV2(1, layers=(3,)), "steps": 2}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": PTuningV2(2)}, "2,048 parameters are trained beside the task head, and 1,600 are allowed"),
        ({"method": BitFit()}, "this task is about PTuningV2"),
        ({"steps": 301}, "301 steps are more than the 300"),
        ({}, "% on validation, and 90% are asked for"),
    ],
)
def test_the_open_task_says_what_is_missing(change, message, capsys):
    feedback = checked("p_tuning_v2.fewest", lambda: replace(recipe("deep", "reviews deep p=4"), **FEW | change))
    assert not feedback and message in repr(feedback)


def test_the_open_task_asks_for_a_recipe():
    assert "expected a Recipe, got PTuningV2" in repr(checked("p_tuning_v2.fewest", lambda: PTuningV2(1)))
