"""What a learner builds in lesson 04: any right solution passes, whatever its style, and a misconception is named."""

import re
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.nn import functional as F

from peft_edu import LoRA, PromptTuning, count, load, save
from peft_edu.lab import moves, recipe, rms_move, starts
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.prompt_method import IDS, PADDED, tiny_decoder
from peft_edu.lab.exercises.prompt_tuning import prompt_inputs, prompt_mask, prompt_positions, start_rows
from peft_edu.method import METHODS, Method

several = settings(max_examples=8, deadline=None, database=None)


def counted(mask):
    positions = torch.zeros_like(mask)
    for row, ones in zip(positions, mask, strict=True):
        seen = 0
        for i, one in enumerate(ones):
            row[i] = seen
            seen += int(one)
    return positions.clamp(max=mask.shape[1] - 1)


RIGHT = {
    "prompt.inputs": [
        lambda e, P: torch.cat([P[None].repeat(len(e), 1, 1), e], dim=1),
        lambda e, P: torch.stack([torch.cat([P, row]) for row in e]),
    ],
    "prompt.mask": [
        lambda mask, p: F.pad(mask, (p, 0), value=1),
        lambda mask, p: torch.cat([torch.ones(mask.shape[0], p, dtype=mask.dtype), mask], 1),
    ],
    "prompt.positions": [
        counted,
        lambda mask: (torch.cumsum(mask, dim=-1) - 1).masked_fill(mask == 0, 1),  # as transformers has it
    ],
    "prompt.labels": [lambda labels, p: F.pad(labels, (p, 0), value=-100)],
    "prompt.count": [lambda p, d, blocks: d * p],
    "prompt.start": [
        lambda words, ids, n: torch.stack([words[ids[i % len(ids)]] for i in range(n)]),
        lambda words, ids, n: words[(list(ids) * n)[:n]],
    ],
    "prompt.nearest": [
        lambda vectors, words: torch.cosine_similarity(vectors[:, None], words[None], dim=-1).argmax(1),
        lambda vectors, words: [int(torch.cosine_similarity(each[None], words).argmax()) for each in vectors],
    ],
    "prompt.vote": [
        lambda answers: [max(set(each), key=each.count) for each in zip(*answers, strict=True)],
    ],
}


@pytest.mark.parametrize("name, f", [(name, f) for name, every in RIGHT.items() for f in every])
def test_any_right_style_passes(name, f):
    feedback = checked(name, f)
    assert feedback, feedback


@pytest.mark.parametrize(
    "name, f, message",
    [
        ("prompt.inputs", lambda e, P: torch.cat([e, P.expand(2, -1, -1)], 1), "behind the text"),
        ("prompt.inputs", lambda e, P: e + P[:3], "not added to the text"),
        ("prompt.inputs", lambda e, P: torch.cat([P, e], 1), "show it once for each of the b texts"),
        ("prompt.inputs", lambda e, P: prompt_inputs(e, P.detach()), "no gradient reaches the prompt"),
        ("prompt.inputs", lambda e, P: print(end=""), "is there a return"),
        ("prompt.mask", lambda mask, p: mask, "as long as before"),
        ("prompt.mask", lambda mask, p: F.pad(mask, (p, 0)), "nobody could attend to them"),
        ("prompt.mask", lambda mask, p: F.pad(mask, (0, p), value=1), "behind the text"),
        ("prompt.mask", lambda mask, p: torch.cat([mask[:, :p], mask], 1), "the text's own first entries"),
        ("prompt.mask", lambda mask, p: torch.ones(2, p + 4).long(), "the padding is attended to"),
        ("prompt.mask", lambda mask, p: torch.cat([torch.ones(2, p), mask], 1), "keeps it"),
        ("prompt.positions", lambda mask: torch.arange(6).expand(3, 6), "the padding is counted"),
        ("prompt.positions", lambda mask: mask.cumsum(1), "the first position is 0"),
        ("prompt.positions", lambda mask: mask.cumsum(1) - 1, None),
        ("prompt.positions", lambda mask: mask.cumsum(1).double(), "whole numbers"),
        ("prompt.labels", lambda labels, p: labels, "as long as before"),
        ("prompt.labels", lambda labels, p: F.pad(labels, (p, 0)), "guessed as token 0"),
        ("prompt.labels", lambda labels, p: F.pad(labels, (0, p), value=-100), "behind the text"),
        ("prompt.count", lambda p, d, blocks: p * d * blocks, "the depth does not matter"),
        ("prompt.count", lambda p, d, blocks: 2 * p * d * blocks, "this is a prefix"),
        ("prompt.count", lambda p, d, blocks: 35, "always the same number"),
        ("prompt.start", lambda words, ids, n: words[list(ids)], "repeat the text"),
        ("prompt.start", lambda words, ids, n: words[:n], "the first rows of words"),
        ("prompt.start", lambda words, ids, n: words[ids], "index by a list"),
        (
            "prompt.start",
            lambda words, ids, n: words[list(ids)].repeat_interleave(-(-n // len(ids)), 0)[:n],
            "repeated as a whole",
        ),
        ("prompt.nearest", lambda vectors, words: (vectors @ words.T).argmax(1), "the longest word wins"),
        ("prompt.nearest", lambda v, w: (F.normalize(v) @ F.normalize(w).T).argmin(1), "furthest away"),
        ("prompt.nearest", lambda v, w: (F.normalize(v) @ F.normalize(w).T).argmax(0), "for each virtual token"),
        ("prompt.vote", lambda answers: [Counter(each).most_common(1)[0][0] for each in answers], "what each voter"),
        ("prompt.vote", lambda answers: answers[0], "one answer a text"),
    ],
)
def test_a_misconception_is_named(name, f, message):
    feedback = checked(name, f)
    if message is None:  # -1 stands only where nobody looks, and only in a mask that begins with padding
        assert feedback, feedback
        return
    assert not feedback and re.search(message, repr(feedback)), feedback


def soft_prompt(style="plain", fault=""):
    """A learner's SoftPrompt, in one of several styles, with one fault or none."""

    class Mine(nn.Module):
        def __init__(self, start):
            super().__init__()
            if fault == "no parameter":
                self.P = start.clone()
                return
            if fault == "scaled":
                start = start * 2
            P = nn.Parameter(start if fault == "shared" else start.clone(), requires_grad=fault != "frozen")
            if fault == "other name":
                self.prompt = P
            else:
                self.P = P
            if fault == "two":
                self.more = nn.Parameter(start.clone())

        def splice(self, stack, inputs, named):
            (ids,) = inputs
            P = next(iter(self.parameters()), None)
            if fault == "nothing":
                return (), named
            text, mask = stack.get_input_embeddings()(ids), named["attention_mask"]
            if mask is None and fault != "no mask":
                mask = torch.ones_like(ids)
            embeddings = prompt_inputs(text, P.detach() if fault == "detach" else P)
            if fault == "behind":
                embeddings = torch.cat([text, P.expand(len(text), -1, -1)], 1)
            whole = prompt_mask(mask, len(P))
            if fault == "hidden":
                whole = F.pad(mask, (len(P), 0))
            if fault == "short mask":
                whole = mask
            positions = prompt_positions(prompt_mask(mask, len(P)))
            if fault == "own positions":
                own = torch.arange(len(P)).expand(len(ids), -1)
                positions = torch.cat([own, prompt_positions(mask)], 1)
            if fault == "counted":
                positions = torch.arange(whole.shape[1]).expand(len(ids), -1)
            if fault == "short positions":
                positions = prompt_positions(mask)
            new = {"inputs_embeds": embeddings, "attention_mask": whole, "position_ids": positions}
            if fault == "no positions":
                del new["position_ids"]
            if fault == "lost":
                return (), new
            if fault == "named alone":
                return named | new
            first = inputs if fault == "ids too" else (None,) if style == "none" else ()
            return first, named | new

        def take_out(self, stack, inputs, output):
            p = len(next(iter(self.parameters())))
            cut = {"kept": slice(None, p), "end": slice(None, -p), "one too many": slice(p + 1, None)}
            states = output.last_hidden_state[:, cut.get(fault, slice(p, None))]
            if fault == "not taken out":
                return output
            if fault == "states":
                return states
            if style == "new":
                return type(output)(**{**output, "last_hidden_state": states})
            output.last_hidden_state = states
            return None if style == "in place" else output

    return Mine


@several
@given(some.sampled_from(["plain", "none", "new", "in place"]))
def test_any_right_prompt_passes(style):
    feedback = checked("prompt.module", soft_prompt(style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("no parameter", "nothing in it would be trained"),
        ("scaled", "does not start as start"),
        ("shared", "share their numbers"),
        ("frozen", "P is frozen"),
        ("two", "one parameter of that shape"),
        ("other name", "later cells read the parameter as P"),
        ("nothing", "Not written yet: splice changes nothing"),
        ("behind", "behind the text"),
        ("detach", "no gradient reaches P"),
        ("hidden", "nobody could attend to them"),
        ("short mask", "the mask is as long as before"),
        ("no positions", "left to the stack"),
        ("own positions", "both start at position 0"),
        ("counted", "padding is counted"),
        ("short positions", "the mask that has the prompt in front"),
        ("lost", "something of named got lost"),
        ("no mask", "keep the line that makes one"),
        ("named alone", "return .., named"),
        ("ids too", "the ids are handed on"),
        ("not taken out", "nothing is taken out"),
        ("states", "the states alone"),
        ("kept", "the prompt is kept"),
        ("end", "the end is cut off"),
        ("one too many", "3 are left|the prompt is kept"),
    ],
)
def test_a_misconception_of_the_prompt_is_named(fault, message):
    feedback = checked("prompt.module", soft_prompt(fault=fault))
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_the_stub_is_not_yet_written():
    class SoftPrompt(nn.Module):
        def __init__(self, start):
            super().__init__()
            ...

        def splice(self, stack, inputs, named):
            (ids,) = inputs
            ...
            return (), named

        def take_out(self, stack, inputs, output): ...

    assert repr(checked("prompt.module", SoftPrompt)).startswith("Not written yet: take_out is still empty")
    assert "write class SoftPrompt(nn.Module)" in repr(checked("prompt.module", type("SoftPrompt", (), {})))


def my_prompt(fault="", style="plain"):
    """A learner's MyPrompt, in one of two styles, with one fault or none."""

    @dataclass
    class MyPrompt(Method):
        length: int = 5
        start: tuple = ()

        def insert(self, model):
            stack = model if fault == "model" else model.base_model
            words = stack.get_input_embeddings().weight.detach()
            ids = self.start or torch.randperm(len(words))[: self.length].tolist()
            if fault == "alike":
                ids = self.start or [1]
            if fault != "cache":
                self.configure(model.generation_config, "use_cache", False)
            if fault == "nothing":
                return
            rows = {"length": 5, "first rows": 3}.get(fault, self.length)
            prompt = soft_prompt("none" if style == "closure" else "plain")(
                words[:rows] if fault == "first rows" else start_rows(words, ids, rows)
            )
            if fault == "by hand":
                stack.add_module("my_prompt", prompt)
            elif fault == "not added":
                prompt.to(words)
            else:
                self.add(stack, "my_prompt", prompt)
            if fault == "no hooks":
                return
            before, behind = stack.register_forward_pre_hook, stack.register_forward_hook
            if fault == "no kwargs":
                self.hook(before(prompt.splice))
            elif style == "closure":
                self.hook(before(lambda stack, ids, named: prompt.splice(stack, ids, named), with_kwargs=True))
            elif fault != "no splice":
                self.hook(before(prompt.splice, with_kwargs=True))
            if fault == "kept hook":
                behind(prompt.take_out)
            elif fault != "no take out":
                self.hook(behind(prompt.take_out))
            if fault == "unfrozen":
                words = stack.get_input_embeddings().weight.requires_grad_(True)

    return MyPrompt


@settings(several, max_examples=4)
@given(some.sampled_from(["plain", "closure"]))
def test_any_right_insert_passes(style):
    feedback = checked("prompt.insert", my_prompt(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert adds nothing yet"),
        ("no hooks", "the two hooks are missing"),
        ("not added", "hooked, but not added"),
        ("by hand", "put in by hand: self.add"),
        ("no kwargs", "with_kwargs=True"),
        ("model", "belongs to stack, and not to model"),
        ("no splice", "1 places come out|splice before the stack is missing"),
        ("no take out", "take_out behind the stack is missing"),
        ("kept hook", "after detach a hook is still there"),
        ("length", "use self.length"),
        ("first rows", "does not start as the words 1, 2 and 1"),
        ("alike", "starts as different words"),
        ("unfrozen", "the model stays frozen"),
        ("cache", 'keep the line with "use_cache"'),
    ],
)
def test_a_misconception_of_the_insert_is_named(fault, message):
    feedback = checked("prompt.insert", my_prompt(fault))
    assert not feedback and re.search(message, repr(feedback), re.DOTALL), feedback


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_s_method_is_the_package_s_prompt_and_is_saved_and_loaded(solved, tmp_path):
    MyPrompt = check("prompt.insert", my_prompt() if solved else my_prompt("no hooks"))
    assert METHODS["MyPrompt"] is MyPrompt and (MyPrompt is EXERCISES["prompt.insert"].reference) != solved
    mine, theirs = tiny_decoder(), tiny_decoder()
    torch.manual_seed(3)
    MyPrompt(4).attach(mine)
    torch.manual_seed(3)
    PromptTuning(4).attach(theirs)
    assert count(mine).trainable == count(theirs).trainable == 4 * 8
    for mask in PADDED.values():
        batch = {"input_ids": IDS, "attention_mask": mask}
        logits, seen = mine(**batch).logits, mask.bool()
        as_generate_does = {"position_ids": prompt_positions(mask)}  # ours counts them itself
        assert torch.allclose(logits[seen], theirs(**batch, **as_generate_does).logits[seen])
    save(mine, tmp_path / "mine")
    assert torch.equal(load(tiny_decoder(), tmp_path / "mine")(**batch).logits, logits)


FAULTS = {
    "rows": "its rows get different answers",
    "mask": "with padding beside it: the answers differ",
    "scale": "compare the length of a virtual token",
}


def hunted(*faults):
    """The cell of the hunt, with these of its faults."""

    class Hunted(nn.Module):
        def __init__(self, start):
            super().__init__()
            self.P = nn.Parameter(start * start.shape[1] ** 0.5 if "scale" in faults else start.clone())

        def splice(self, stack, inputs, named):
            (ids,), p = inputs, len(self.P)
            mixed = self.P.repeat(len(ids), 1).view(p, len(ids), -1).transpose(0, 1)
            rows = mixed if "rows" in faults else self.P.expand(len(ids), -1, -1)
            mask = named["attention_mask"]
            named["inputs_embeds"] = torch.cat([rows, stack.get_input_embeddings()(ids)], 1)
            named["attention_mask"] = F.pad(mask, (0, p) if "mask" in faults else (p, 0), value=1)
            named["position_ids"] = prompt_positions(named["attention_mask"])
            return (), named

        def take_out(self, stack, inputs, output):
            output.last_hidden_state = output.last_hidden_state[:, len(self.P) :]

    @dataclass
    class HuntedPrompt(Method):
        length: int = 5

        def insert(self, model):
            stack = model.base_model
            words = stack.get_input_embeddings().weight.detach()
            hunted = Hunted(words[torch.randperm(len(words))[: self.length]])
            self.configure(model.generation_config, "use_cache", False)
            self.add(stack, "hunted", hunted)
            self.hook(stack.register_forward_pre_hook(hunted.splice, with_kwargs=True))
            self.hook(stack.register_forward_hook(hunted.take_out))

    return HuntedPrompt


@several
@given(some.sets(some.sampled_from(list(FAULTS))))
def test_the_hunt_counts_the_faults_that_are_left(faults):
    feedback = checked("prompt.hunt", hunted(*faults))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback


@pytest.mark.parametrize("fault, message", FAULTS.items())
def test_each_fault_of_the_hunt_alone_is_named(fault, message):
    feedback = checked("prompt.hunt", hunted(fault))
    assert not feedback and "Not yet: 1 fault is still in." in repr(feedback) and message in repr(feedback)


def test_another_way_to_write_the_hunt_passes():
    assert checked("prompt.hunt", my_prompt(style="closure"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": PromptTuning(5)}, "240 parameters are trained, and 144 are allowed"),
        ({"method": LoRA(rank=1)}, "parameters are trained, and 144 are allowed"),
        ({"steps": 401}, "401 steps are more than the 400"),
        ({"backbone": "tiny-gpt2"}, "this is about w48-seed1"),
        ({}, "% on validation, and 90% are asked for"),
    ],
)
def test_the_open_task_says_what_is_missing(change, message):
    small = {"method": PromptTuning(1), "steps": 2} | change
    feedback = checked("prompt.shortest", lambda: replace(recipe("ladder", "w48-seed1 p=5"), **small))
    assert not feedback and message in repr(feedback), feedback


def test_the_open_task_asks_for_a_recipe():
    assert "expected a Recipe, got PromptTuning" in repr(checked("prompt.shortest", lambda: PromptTuning(1)))


def test_a_move_is_measured_from_where_training_began_and_drawn():
    model = tiny_decoder().requires_grad_(False)
    model.transformer.wte.weight.requires_grad_(True)
    before = starts(model)
    with torch.no_grad():
        model.transformer.wte.weight.add_(0.5)
    assert rms_move(model, before) == pytest.approx(0.5)
    figure = moves({"prompt of 2": {0.01: (0.2, 50.0), 0.1: (2.0, 90.0)}}, "Far", {"a word": 0.3})
    assert figure.axes[0].get_ylabel() == "how far a parameter moved"
