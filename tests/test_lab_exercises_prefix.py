"""What a learner builds in lesson 03: any right solution passes, whatever its style, and a misconception is named."""

import re
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention

from peft_edu import LoRA, PrefixTuning, count, load, save
from peft_edu.anatomy import attentions
from peft_edu.attention import ATTENTION, activations, attention
from peft_edu.lab import prefix_mass, recipe
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.prefix_method import MyPrefix
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.method import METHODS, Method

several = settings(max_examples=10, deadline=None, database=None)
WORDS = (4, 1, 7)


def module(style="plain", fault=""):
    """A learner's MyPrefix, in one of many styles, with one fault or none."""

    class Mine(nn.Module):
        def __init__(self, start):
            super().__init__()
            if fault == "nothing trained":
                self.keys_values = start
            elif fault == "float32":
                self.keys_values = nn.Parameter(start.float())
            elif fault == "anew":
                self.keys_values = nn.Parameter(torch.randn_like(start))
            elif fault == "keys alone":
                self.keys_values = nn.Parameter(start[:1])
            elif style == "two":
                self.k, self.v = (nn.Parameter(each.clone()) for each in start)
            else:
                self.keys_values = nn.Parameter(start, requires_grad=fault != "frozen")
            if fault == "name":
                self.mine = self.keys_values
                del self.keys_values

        def forward(self, query, key, value, mask, **options):
            own = self.mine if fault == "name" else self.keys_values
            ours = own.detach() if fault == "detach" else own
            if style == "repeat":
                pk, pv = ours[0].repeat(len(query), 1, 1, 1), ours[1].repeat(len(query), 1, 1, 1)
            else:
                pk, pv = (each.expand(len(query), *each.shape) for each in ours)
            p = pk.shape[2]
            if fault == "one key for both":
                pv = pk
            if fault == "exchanged":
                pk, pv = pv, pk
            if fault == "prefix alone":
                return attention(query, pk, pv, None, **options)
            if fault == "two softmaxes":
                return attention(query, key, value, mask, **options) + attention(query, pk, pv, None, **options)
            if fault == "text alone":
                return attention(query, key, value, mask, **options)
            front = [torch.cat([pk, key], 2), torch.cat([pv, value], 2), pad(mask, (p, 0))]
            if style == "behind":  # the same sum in another order
                front = [torch.cat([key, pk], 2), torch.cat([value, pv], 2), pad(mask, (0, p))]
            if fault in ("values behind", "both behind"):
                front[1] = torch.cat([value, pv], 2)
            if fault == "both behind":
                front[0] = torch.cat([key, pk], 2)
            if fault == "mask behind":
                front[2] = pad(mask, (0, p))
            if fault == "mask hides":
                front[2] = pad(mask, (p, 0), value=-1e9)
            if fault == "mask of ones":
                front[2] = pad(mask, (p, 0), value=1)
            if fault == "no mask":
                front[2] = None
            if fault == "mask as before":
                front[2] = mask
            if fault == "no batch":
                front[0] = torch.cat([ours[0], key], 2)
            if fault == "scale lost":
                options.pop("scale")
            if fault == "scale twice":
                query = options["scale"] * query
            if style == "by hand":
                scores = options["scale"] * query @ front[0].transpose(-1, -2) + front[2]
                return scores.softmax(-1) @ front[1]
            if style == "torch":
                return scaled_dot_product_attention(query, *front, scale=options["scale"])
            if fault == "no return":
                return None
            return attention(query, *front, **options)

    if style == "two":
        Mine.keys_values = property(lambda self: torch.stack([self.k, self.v]))
    return Mine


@several
@given(some.sampled_from(["plain", "repeat", "two", "behind", "by hand", "torch"]))
def test_any_right_prefix_passes(style):
    feedback = checked("prefix.module", module(style))
    assert feedback, feedback


@several
@given(some.integers(1, 3), some.integers(1, 3), some.integers(1, 4), some.integers(1, 5), some.integers(1, 4))
def test_what_passes_is_attention_of_any_shape(b, heads, p, t, w):
    start = torch.randn(2, heads, p, w, dtype=torch.float64)
    q, k, v = torch.randn(3, b, heads, t, w, dtype=torch.float64)
    mask = torch.full((b, 1, t, t), -1e9, dtype=torch.float64).triu(1)
    ours, theirs = MyPrefix(start.clone()), module("by hand")(start.clone())
    assert torch.allclose(ours(q, k, v, mask, scale=0.7), theirs(q, k, v, mask, scale=0.7))


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing trained", "nothing in it would be trained"),
        ("frozen", "a parameter is frozen"),
        ("float32", "and start is torch.float64: keep that"),
        ("anew", "does not start as start"),
        ("keys alone", "trains 24 parameters: keys and values"),
        ("detach", "no gradient comes through"),
        ("one key for both", "used as its values, too"),
        ("exchanged", "keys and values are exchanged"),
        ("prefix alone", "the text is left out"),
        ("two softmaxes", "two softmaxes are added"),
        ("text alone", "the prefix does nothing"),
        ("values behind", "the keys have the prefix in front and the values behind"),
        ("both behind", "but the mask has the prefix in front"),
        ("mask behind", "zeros behind the text"),
        ("mask hides", "the prefix does nothing: .* zeros in front of the mask"),
        ("mask of ones", "places in the mask are 1"),
        ("no mask", "there is no mask any more"),
        ("mask as before", "the mask has a place for 5 of them"),
        ("no batch", "show it once for each of the b texts"),
        ("scale lost", "the options are not handed on"),
        ("scale twice", "the scale is used twice"),
        ("no return", "is there a return"),
        ("name", "well done. One thing is missing, the attribute keys_values"),
    ],
)
def test_a_misconception_of_the_prefix_is_named(fault, message):
    feedback = checked("prefix.module", module(fault=fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_the_prefix_s_kind_and_options_are_told():
    class NoOptions(MyPrefix):
        def forward(self, query, key, value, mask):
            return super().forward(query, key, value, mask, scale=1)

    assert "forward takes **options" in repr(checked("prefix.module", NoOptions))
    assert "a class is asked for, and this is a function" in repr(checked("prefix.module", lambda start: start))
    assert "write class MyPrefix(nn.Module)" in repr(checked("prefix.module", type("MyPrefix", (), {})))


def my_prefix_tuning(fault="", style="zip"):
    """A learner's MyPrefixTuning, in one of several styles, with one fault or none."""

    @dataclass
    class MyPrefixTuning(Method):
        words: tuple[int, ...] = (1, 2, 3)

        def insert(self, model):
            if fault == "nothing":
                return
            modules = attentions(model)[0]
            ids = torch.tensor([(1, 2, 3) if fault == "other words" else self.words])
            if fault == "too early":
                activations(model, modules, ids)
            if fault == "by hand":
                model.config._attn_implementation = ATTENTION
            elif fault != "not set":
                self.configure(model.config, "_attn_implementation", ATTENTION)
            if fault == "not added":
                return
            if fault == "not set":
                starts = [torch.randn(2, 2, 3, 4) for _ in modules]
            else:
                starts = list(activations(model, modules, ids))
            if fault == "same start":
                starts = starts[:1] * len(starts)
            if fault == "reversed":
                starts = starts[::-1]
            if fault == "a token each":
                starts = [start[:, :, :1].contiguous() for start in starts]
            one = MyPrefix(starts[0])
            for i in range(len(modules)):
                child = one if fault == "shared" else MyPrefix(starts[i])
                name = "my_prefix" if fault == "name" else "prefix"
                if fault == "set by hand":
                    modules[i].prefix = child
                else:
                    self.add(modules[i], name, child)
                if fault == "first":
                    return
                if fault == "weights":
                    modules[i].c_attn.weight.requires_grad_(True)

    @dataclass
    class Zipped(Method):
        words: tuple[int, ...] = ()

        def insert(self, model):
            (modules,) = attentions(model)
            self.configure(model.config, "_attn_implementation", ATTENTION)
            for module, start in zip(modules, activations(model, modules, torch.tensor(self.words)[None]), strict=True):
                self.add(module, "prefix", MyPrefix(start))

    return Zipped if style == "zip" and not fault else MyPrefixTuning


@pytest.mark.parametrize("style", ["zip", "index"])
def test_any_right_insert_passes(style):
    feedback = checked("prefix.insert", my_prefix_tuning(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert adds nothing yet"),
        ("not added", "the attention function is set, but nothing is added"),
        ("not set", "nothing calls them: set the attention function"),
        ("too early", "self.configure.* comes first"),
        ("by hand", "set it by self.configure"),
        ("set by hand", "put in by hand: self.add"),
        ("name", 'looks for the name "prefix"'),
        ("first", "layer 2 of three has no prefix"),
        ("shared", "the layers share one prefix"),
        ("same start", "layer 2 starts from the keys and values of another layer"),
        ("reversed", "layer 1 starts from the keys and values of another layer"),
        ("other words", "does not start as the keys and values that its module computes"),
        ("a token each", r"the prefix is \(2, 2, 1, 4\) instead of \(2, 2, 3, 4\)"),
        ("weights", "the model stays frozen, only keys and values"),
    ],
)
def test_a_misconception_of_the_insert_is_named(fault, message):
    feedback = checked("prefix.insert", my_prefix_tuning(fault))
    assert not feedback and re.search(message, repr(feedback), re.DOTALL), feedback


def test_a_class_that_is_no_recipe_is_told():
    assert "write class MyPrefixTuning(Method)" in repr(checked("prefix.insert", type("MyPrefixTuning", (), {})))


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_s_method_is_the_package_s_and_is_saved_and_loaded(solved, tmp_path):
    chosen = check("prefix.insert", my_prefix_tuning() if solved else my_prefix_tuning("first"))
    assert METHODS[chosen.__name__] is chosen and (chosen is EXERCISES["prefix.insert"].reference) != solved
    mine, theirs = tiny_model("gpt2"), tiny_model("gpt2")
    method = chosen(words=WORDS)
    method.attach(mine)
    PrefixTuning(3, hidden=0, init=WORDS, shift=False).attach(theirs)
    assert count(mine).trainable == count(theirs).trainable
    logits = mine(input_ids=IDS).logits
    assert torch.allclose(logits, theirs(input_ids=IDS).logits)
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    assert prefix_mass(mine, batch) == pytest.approx(prefix_mass(theirs, batch))
    save(mine, tmp_path / "mine")
    assert torch.equal(load(tiny_model("gpt2"), tmp_path / "mine")(input_ids=IDS).logits, logits)


def share(q, k, prefix_k, scale=0.5):
    return torch.softmax(scale * q @ torch.cat([prefix_k, k]).T, -1)[:, : len(prefix_k)]


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda q, k, P: 1 - share(q, k, P).sum(-1), "share of the text"),
        (lambda q, k, P: share(q, k, P).mean(-1), "mean over the virtual tokens"),
        (lambda q, k, P: share(q, k, P)[:, 0], "first virtual token alone"),
        (lambda q, k, P: share(q, k, P), "one by one: sum over them"),
        (lambda q, k, P: share(q, k, P).sum(0), "a sum over the queries"),
        (lambda q, k, P: share(q, k, P).sum(), "one number for all queries"),
        (lambda q, k, P: torch.softmax(0.5 * q @ P.T, -1).sum(-1), "have to be in one softmax"),
        (lambda q, k, P: share(q, k, P, 1).sum(-1), "not divided by the square root"),
        (lambda q, k, P: share(q, k, P, 0.25).sum(-1), "divided by w, not by its square root"),
    ],
)
def test_a_misconception_of_the_share_is_named(f, message):
    feedback = checked("prefix.share", f)
    assert not feedback and message in repr(feedback), feedback


def test_other_ways_to_the_share_pass():
    assert checked("prefix.share", lambda q, k, P: share(q, k, P).sum(1))

    def by_sums(q, k, P):
        ours, theirs = ((0.5 * q @ keys.T).exp().sum(-1) for keys in (P, k))
        return ours / (ours + theirs)

    assert checked("prefix.share", by_sums)


@several
@given(some.lists(some.integers(0, 9), min_size=1, max_size=5), some.integers(1, 12))
def test_any_way_to_the_words_passes(ids, length):
    def one_by_one(ids, length):
        return tuple(ids[i % len(ids)] for i in range(length))

    assert checked("prefix.words", one_by_one)
    assert EXERCISES["prefix.words"].reference(ids, length) == one_by_one(ids, length)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda ids, length: (ids * length)[:length], "give a tuple"),
        (lambda ids, length: tuple(ids[:length]), "three ids do not become eight"),
        (lambda ids, length: tuple(ids * length), "repeated, but not cut"),
        (lambda ids, length: tuple((ids + ids[-1:] * length)[:length]), "the last id is repeated"),
        (lambda ids, length: torch.tensor(ids[:length]), "expected a tuple, got Tensor"),
        (lambda ids, length: tuple((ids * length)[-length:]), "should give"),
        (lambda ids, length: tuple(torch.tensor(ids * length)[:length]), "is no plain number: a method keeps those"),
        (lambda ids, length: print(end=""), "is there a return"),
    ],
)
def test_a_misconception_of_the_words_is_named(f, message):
    feedback = checked("prefix.words", f)
    assert not feedback and message in repr(feedback), feedback


def rows(flat, heads):
    return flat.view(len(flat), 2, heads, -1)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda start, down, up, heads: up(down(start).tanh()), "still flat"),
        (lambda start, down, up, heads: rows(up(down(start)), heads).permute(1, 2, 0, 3), "tanh is missing"),
        (lambda start, down, up, heads: rows(up(down(start)).tanh(), heads).permute(1, 2, 0, 3), "comes last here"),
        (lambda start, down, up, heads: rows(up(down(start.tanh())), heads).permute(1, 2, 0, 3), "comes first here"),
        (lambda start, down, up, heads: up(down(start).tanh()).view(2, heads, len(start), -1), "cuts across the rows"),
        (
            lambda start, down, up, heads: rows(up(down(start).tanh()), heads).permute(1, 2, 0, 3).flip(0),
            "keys and values are exchanged",
        ),
        (
            lambda start, down, up, heads: rows(up(down(start).tanh()), heads).permute(1, 2, 0, 3).detach(),
            "no gradient comes through",
        ),
    ],
)
def test_a_misconception_of_the_mlp_is_named(f, message):
    feedback = checked("prefix.mlp", f)
    assert not feedback and message in repr(feedback), feedback


def test_another_way_through_the_mlp_passes():
    def in_two_halves(start, down, up, heads):
        halves = torch.tanh(down(start)) @ up.weight.T + up.bias
        return torch.stack([half.unflatten(1, (heads, -1)).transpose(0, 1) for half in halves.chunk(2, 1)])

    assert checked("prefix.mlp", in_two_halves)


FAULTS = {
    "order": "Each key needs its own value",
    "mask": "tokens see what comes later",
    "shared": "a quarter of 2 p L d",
}


def hunted(*faults, style="cat"):
    """The cell of the hunt, with these of its faults."""

    class Hunted(nn.Module):
        def __init__(self, start):
            super().__init__()
            self.keys_values = nn.Parameter(start)

        def forward(self, query, key, value, mask, **options):
            prefix_key, prefix_value = self.keys_values[:, None].expand(-1, len(query), -1, -1, -1)
            p, behind = prefix_key.shape[2], style == "behind"
            key = torch.cat([key, prefix_key] if behind else [prefix_key, key], 2)
            value = torch.cat([value, prefix_value] if behind or "order" in faults else [prefix_value, value], 2)
            mask = pad(mask, (0, p) if behind or "mask" in faults else (p, 0))
            return attention(query, key, value, mask, **options)

    @dataclass
    class HuntedPrefixTuning(Method):
        words: tuple[int, ...] = (1, 2, 3)

        def insert(self, model):
            modules = attentions(model)[0]
            self.configure(model.config, "_attn_implementation", ATTENTION)
            starts = activations(model, modules, torch.tensor([self.words]))
            prefix = Hunted(starts[0])
            for module, start in zip(modules, starts, strict=True):
                self.add(module, "prefix", prefix if "shared" in faults else Hunted(start))

    return HuntedPrefixTuning


@settings(several, max_examples=8)
@given(some.sets(some.sampled_from(list(FAULTS))))
def test_the_hunt_counts_the_faults_that_are_left(faults):
    feedback = checked("prefix.hunt", hunted(*faults))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback


@pytest.mark.parametrize("fault, message", FAULTS.items())
def test_each_fault_of_the_hunt_alone_is_named(fault, message):
    feedback = checked("prefix.hunt", hunted(fault))
    assert not feedback and "Not yet: 1 fault is still in." in repr(feedback) and message in repr(feedback)


def test_a_hunt_that_is_mended_in_another_way_passes():
    assert checked("prefix.hunt", hunted(style="behind"))
    assert "keep the class" in repr(checked("prefix.hunt", type("Other", (), {})))
    assert "a layer has no prefix" in repr(checked("prefix.hunt", my_prefix_tuning("first")))


SHORT = {"method": PrefixTuning(1, hidden=0), "words": "In full:", "steps": 1}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": PrefixTuning(6, hidden=0)}, "6 virtual tokens, and 5 are allowed"),
        ({"method": PrefixTuning(3, hidden=8), "words": ""}, "an MLP makes this prefix"),
        ({"method": LoRA()}, "this task is about PrefixTuning"),
        ({"steps": 301}, "301 steps are more than the 300"),
        ({"limit": 10}, "the model and its training rows stay as they are"),
        pytest.param({}, "% on validation, and 80% are asked for", marks=pytest.mark.thorough),
    ],
)
def test_the_open_task_says_what_is_missing(change, message, capsys):
    feedback = checked("prefix.shortest", lambda: replace(recipe("tables", "prefix p=5"), **SHORT | change))
    assert not feedback and message in repr(feedback)


def test_the_open_task_asks_for_a_recipe():
    assert "expected a Recipe, got PrefixTuning" in repr(checked("prefix.shortest", lambda: PrefixTuning(3)))
