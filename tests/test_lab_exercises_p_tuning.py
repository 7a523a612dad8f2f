"""What a learner builds in lesson 05: any right solution passes, whatever its style, and a misconception is named."""

import re
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.nn import functional as F

from peft_edu import LoRA, PTuning, count, load, save
from peft_edu.lab import ask_people, backbone, recipe, task
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.p_tuning import encoder_count, put_in
from peft_edu.lab.exercises.p_tuning_method import (
    PSEUDO_TEXTS,
    SHORT,
    Kept,
    PromptEncoder,
    after_lookup,
    before_lookup,
)
from peft_edu.lab.exercises.whole_method import tiny_model
from peft_edu.method import METHODS, Method

several = settings(max_examples=8, deadline=None, database=None)


def refuses(name, thing, message):
    feedback = checked(name, thing)
    assert not feedback and re.search(message, repr(feedback), re.DOTALL), feedback


def by_place(embeddings, ids, pseudo):
    result = embeddings.clone()
    for place in (ids < 0).nonzero():
        at = tuple(place)
        result[at] = pseudo[-1 - ids[at]]
    return result


def by_one_hot(embeddings, ids, pseudo):
    which = F.one_hot((-ids).clamp(min=0), len(pseudo) + 1)[..., 1:].to(pseudo)
    return torch.where((ids < 0).unsqueeze(-1), which @ pseudo, embeddings)


@pytest.mark.parametrize("f", [by_place, by_one_hot])
def test_any_right_put_in_passes(f):
    assert checked("p_tuning.put_in", f)


def placed(embeddings, ids, pseudo, which=lambda ids: -1 - ids):
    return torch.where((ids < 0)[..., None], pseudo[which(ids.clamp(max=-1))], embeddings)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x, ids, pseudo: placed(x, ids, pseudo, lambda ids: ids), "counts from the end"),
        (lambda x, ids, pseudo: placed(x, ids, pseudo) + x * (ids < 0)[..., None], "in its place"),
        (lambda x, ids, pseudo: x.masked_scatter((ids < 0)[:, None], pseudo), "by their order"),
        (lambda x, ids, pseudo: placed(x, ids, pseudo, lambda ids: 0 * ids), "every pseudo token gets the first row"),
        (lambda x, ids, pseudo: placed(x, torch.where(ids < 1, ids.clamp(max=-1), ids), pseudo), "id 0 is a word"),
        (lambda x, ids, pseudo: x + 0, "nothing was put in"),
        (lambda x, ids, pseudo: torch.where((ids < 0)[:, None], pseudo[(-1 - ids).clamp(min=0)], x), "not for a batch"),
        (lambda x, ids, pseudo: x.copy_(placed(x, ids, pseudo)), "changed in place"),
        (lambda x, ids, pseudo: x.new_tensor(placed(x, ids, pseudo).tolist()), "no gradient comes back"),
        (lambda x, ids, pseudo: placed(x, ids, pseudo.detach()), "only a part of its gradient"),
    ],
)
def test_a_misconception_of_put_in_is_named(f, message):
    refuses("p_tuning.put_in", f, message)


def one_by_one(logits, ids, mask, candidates):
    places = [row.tolist().index(mask) for row in ids]
    return [max(candidates, key=lambda each, b=b: logits[b, place, each]) for b, place in enumerate(places)]


def banned(logits, ids, mask, candidates):
    at_gap = logits[torch.arange(len(ids)), (ids == mask).long().argmax(1)]
    allowed = torch.full_like(at_gap, -torch.inf)
    allowed[:, candidates] = 0
    return (at_gap + allowed).argmax(1)


@pytest.mark.parametrize("f", [one_by_one, banned])
def test_any_right_answer_passes(f):
    assert checked("p_tuning.answer", f)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda logits, ids, mask, c: logits[ids == mask].argmax(-1), "no candidate"),
        (lambda logits, ids, mask, c: logits[ids == mask][:, c].argmax(-1), "give the tokens' ids"),
        (lambda logits, ids, mask, c: [c[0]] * len(ids), "whatever the logits say"),
        (lambda logits, ids, mask, c: torch.tensor(c)[logits[:, 0, c].argmax(-1)], "the first place of the text"),
        (lambda logits, ids, mask, c: torch.tensor(c)[logits[:, -1, c].argmax(-1)], "the last place of the text"),
        (
            lambda logits, ids, mask, c: torch.tensor(c)[logits[:, ids[0].tolist().index(mask)][:, c].argmax(-1)],
            "each text has its own",
        ),
        (lambda logits, ids, mask, c: print(end=""), "is there a return"),
        (lambda logits, ids, mask, c: logits[ids == mask], "expected one id a text"),
        (lambda logits, ids, mask, c: int(logits[0, 0].argmax()), "there are two texts"),
        (lambda logits, ids, mask, c: one_by_one(logits, ids, mask, [7, 5, 8]), "with other candidates"),
    ],
)
def test_a_misconception_of_the_answer_is_named(f, message):
    refuses("p_tuning.answer", f, message)


@several
@given(some.sampled_from([one_by_one, banned]), some.sampled_from(["train", "test"]))
def test_what_passes_reads_the_same_answers_as_the_task(f, split):
    """Hence a lesson's own reading agrees with what a run is scored by."""
    data = replace(task("facts").where(relation="birthplace"), template="{subject} is a native of [MASK].")
    model, tokenizer = backbone("tiny-bert")
    asked = ask_people(data, model, tokenizer, split)
    found = asked.per_cent(f(asked.logits, asked.ids, tokenizer.mask_token_id, asked.candidates))
    assert found == pytest.approx(100 * data.evaluate(model, tokenizer, split)["accuracy"])


def encoder(style="plain", fault=""):
    """A learner's PromptEncoder, in one of several styles, with one fault or none."""

    class Mine(nn.Module):
        def __init__(self, n, d):
            super().__init__()
            start = torch.zeros(n, d) if fault == "alike" else torch.randn(n, d)
            half = d if fault == "wide" else d // 2
            both = fault not in ("one way", "one way, wide")
            layers = 1 if fault == "one layer" else 2
            first = style == "batch first"
            if style == "table":
                self.inputs = nn.Embedding(n, d)
            else:
                self.start = start if fault == "no parameter" else nn.Parameter(start, fault != "frozen")
            width = d if fault == "one way, wide" else half
            if style == "two":
                self.lower, self.lstm = (nn.LSTM(d, half, bidirectional=True) for _ in range(2))
            else:
                self.lstm = nn.LSTM(d, width, num_layers=layers, bidirectional=both, batch_first=first)
            out = width * (1 + both)
            into, up = nn.Linear(out, d), nn.Linear(d, d)
            between = {"no relu": nn.Identity(), "tanh": nn.Tanh()}.get(fault, nn.ReLU())
            parts = [into, nn.Identity(), up, nn.ReLU()] if fault == "relu last" else [into, between, up]
            if fault == "one map":
                parts = [nn.Linear(out, d)]
            self.mlp = nn.Sequential(*parts)

        def forward(self):
            x = self.inputs.weight if style == "table" else self.start
            if fault == "drawn":
                x = torch.randn_like(x)
            if fault == "detach":
                x = x.detach()
            if style == "batch first":
                return self.mlp(self.lstm(x[None])[0][0])
            if style == "axis":
                return self.mlp(self.lstm(x.unsqueeze(1))[0].squeeze(1))
            if style == "two":
                x = self.lower(x)[0]
            if fault == "alone":
                return self.mlp(self.lstm(x[None])[0][0])
            read = self.lstm(x)
            if fault == "pair":
                return read
            if fault == "batch":
                return self.mlp(read[0])[None]
            if fault == "no start":
                return self.mlp(self.lstm(torch.ones_like(x))[0])
            return None if fault == "no return" else self.mlp(read[0])

    if style == "table":
        Mine.start = property(lambda self: self.inputs.weight)
    return Mine


@pytest.mark.parametrize("style", ["plain", "batch first", "axis", "table", "two"])
def test_any_right_encoder_passes(style):
    feedback = checked("p_tuning.encoder", encoder(style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("no parameter", "no parameter has the shape"),
        ("frozen", "a parameter is frozen"),
        ("alike", "rows of start are alike"),
        ("drawn", "something is drawn anew in forward"),
        ("detach", "no gradient reaches start"),
        ("alone", "follows from its own row alone"),
        ("one way, wide", "the first embedding does not know of the last row"),
        ("one layer", "the LSTM has one layer"),
        ("wide", "makes half of d"),
        ("no relu", "no ReLU between"),
        ("relu last", "a ReLU stands at the end"),
        ("tanh", "the paper has a ReLU"),
        ("one map", "the MLP has two maps"),
        ("pair", "forward gives a pair"),
        ("batch", "take the axis of the batch off again"),
        ("no start", "start changes nothing"),
        ("no return", "is there a return"),
    ],
)
def test_a_misconception_of_the_encoder_is_named(fault, message):
    refuses("p_tuning.encoder", encoder(fault=fault), message)


def test_the_encoder_s_kind_and_names_are_told():
    class Renamed(encoder()):
        def __init__(self, n, d):
            super().__init__(n, d)
            self.network = self.mlp
            del self.mlp

        def forward(self):
            return self.network(self.lstm(self.start)[0])

    refuses("p_tuning.encoder", Renamed, "well done. One thing is missing, the attribute mlp")
    refuses("p_tuning.encoder", type("PromptEncoder", (), {"forward": lambda self: 1}), r"write class PromptEncoder")


@several
@given(some.integers(1, 9), some.sampled_from([2, 6, 12]))
def test_the_encoder_is_the_package_s_and_is_counted(n, d):
    ours, theirs = PromptEncoder(n, d), encoder("batch first")(n, d)
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(ours(), theirs(), atol=1e-6)
    assert encoder_count(n, d) == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda n, d: encoder_count(n, d) - n * d, "x is left out"),
        (lambda n, d: n * d, "this is x alone"),
        (lambda n, d: n * d + 2 * (d * d + d), "the LSTM is left out"),
        (lambda n, d: encoder_count(n, d) - 2 * (d * d + d), "the MLP is left out"),
        (lambda n, d: encoder_count(n, d) - 2 * d, "the MLP's biases"),
        (lambda n, d: encoder_count(n, d) - 16 * (d // 2), "two biases a gate"),
        (lambda n, d: encoder_count(5, 8), "not for 2 of width 12"),
        (lambda n, d: 1, "yours gives 1"),
    ],
)
def test_a_misconception_of_the_count_is_named(f, message):
    refuses("p_tuning.count", f, message)


def kept_before(table, inputs, change=lambda ids: ids.clamp(min=0), keep=True):
    if keep:
        table.my_pseudo.ids = inputs[0]
    changed = change(inputs[0])
    return None if changed is None else (changed,)


def changed_in_place(table, inputs):
    table.my_pseudo.ids = inputs[0]
    return (inputs[0].clamp_(min=0),)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda table, inputs: kept_before(table, inputs, lambda ids: None), "Not written yet"),
        (lambda table, inputs: kept_before(table, inputs, lambda ids: ids), "an id is still below 0"),
        (lambda table, inputs: kept_before(table, inputs, lambda ids: ids.clamp(min=1)), "the id of a word is changed"),
        (lambda table, inputs: kept_before(table, inputs, lambda ids: ids % 1068), "larger than the table"),
        (lambda table, inputs: kept_before(table, inputs, keep=False), "does not hold the ids"),
        (changed_in_place, "changed in place"),
    ],
)
def test_a_misconception_of_the_first_hook_is_named(f, message):
    refuses("p_tuning.before", f, message)


def test_a_first_hook_in_another_style_passes():
    assert checked("p_tuning.before", lambda table, inputs: kept_before(table, inputs, lambda ids: ids * (ids > 0)))
    assert checked("p_tuning.before", lambda table, inputs: kept_before(table, inputs, F.relu)[0])


def added_up(table, inputs, output):
    return output + put_in(torch.zeros_like(output), table.my_pseudo.ids, table.my_pseudo())


def in_place(table, inputs, output):
    where = table.my_pseudo.ids < 0
    output[where] = table.my_pseudo()[-1 - table.my_pseudo.ids[where]]
    return output


@pytest.mark.parametrize(
    "f, message",
    [
        (
            lambda table, inputs, output: put_in(output, inputs[0], table.my_pseudo()),
            "none of them is below 0",
        ),
        (lambda table, inputs, output: output + 0, "nothing is put in"),
        (added_up, "stand in its place"),
        (in_place, "changed in place"),
        (lambda table, inputs, output: after_lookup(table, inputs, output).detach(), "no gradient reaches my_pseudo"),
        (lambda table, inputs, output: print(end=""), "is there a return"),
    ],
)
def test_a_misconception_of_the_second_hook_is_named(f, message):
    refuses("p_tuning.after", f, message)


def my_p_tuning(fault="", style="named"):
    """A learner's MyPTuning, in one of several styles, with one fault or none."""

    @dataclass
    class MyPTuning(Method):
        template: str = SHORT
        starts_at_base = fault == "base"

        def insert(self, model):
            if fault == "nothing":
                return
            table = model.get_input_embeddings()
            n = 9 if fault == "nine" else self.template.count("[P]")
            made = PromptEncoder(n, table.weight.shape[1])
            if fault == "by hand":
                table.my_pseudo = made
            elif fault == "not added":
                object.__setattr__(table, "my_pseudo", made.double())
            else:
                self.add(table, "my_pseudo", made)
            if fault == "trained":
                table.weight.requires_grad_(True)
            if style == "bound":
                made.before = before_lookup
                self.hook(table.register_forward_pre_hook(lambda table, inputs: made.before(table, inputs)))
                self.hook(table.register_forward_hook(lambda *call: after_lookup(*call)))
                return
            if fault != "no pre-hook":
                self.hook(table.register_forward_pre_hook(before_lookup))
            if fault == "kept hook":
                table.register_forward_hook(after_lookup)
            elif fault == "words":
                self.hook(table.register_forward_hook(lambda *call: 2 * after_lookup(*call)))
            elif fault == "else":
                self.hook(table.register_forward_hook(lambda *call: put_in(call[2], made.ids, 2 * made())))
            elif fault != "no hook":
                self.hook(table.register_forward_hook(after_lookup))

    return MyPTuning


@pytest.mark.parametrize("style", ["named", "bound"])
def test_any_right_insert_passes(style):
    feedback = checked("p_tuning.insert", my_p_tuning(style=style))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("nothing", "Not written yet: insert adds nothing yet"),
        ("not added", "hooked, but not added"),
        ("by hand", "put in by hand: self.add"),
        ("no pre-hook", "a row that it does not have"),
        ("no hook", "stay what token 0 is"),
        ("kept hook", "after detach a hook is still there"),
        ("nine", r"makes \(9, 8\), and not \(3, 8\)"),
        ("trained", "the model stays frozen"),
        ("words", "the embedding of a word is changed"),
        ("else", "something else than what the encoder makes"),
        ("base", "starts_at_base = False"),
    ],
)
def test_a_misconception_of_the_insert_is_named(fault, message):
    refuses("p_tuning.insert", my_p_tuning(fault), message)


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_s_method_is_the_package_s_p_tuning_and_is_saved_and_loaded(solved, tmp_path):
    MyPTuning = check("p_tuning.insert", my_p_tuning() if solved else my_p_tuning("no hook"))
    assert METHODS["MyPTuning"] is MyPTuning and (MyPTuning is EXERCISES["p_tuning.insert"].reference) != solved
    mine, theirs = tiny_model("bert"), tiny_model("bert")
    method, packaged = MyPTuning(template=SHORT), PTuning(SHORT)
    method.attach(mine), packaged.attach(theirs)
    assert count(mine).trainable == count(theirs).trainable
    with torch.no_grad():
        for here, there in zip(method.added[0].parameters(), packaged.added[0].parameters(), strict=True):
            there.copy_(here)
    logits = mine(input_ids=PSEUDO_TEXTS).logits
    assert torch.allclose(logits, theirs(input_ids=PSEUDO_TEXTS).logits)
    save(mine, tmp_path / "mine")
    assert torch.equal(load(tiny_model("bert"), tmp_path / "mine")(input_ids=PSEUDO_TEXTS).logits, logits)
    table = mine.get_input_embeddings()
    table.my_pseudo = Kept(table.my_pseudo)
    assert torch.allclose(mine(input_ids=PSEUDO_TEXTS).logits, logits)


class KeepsTheEncoder(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self):
        return self.encoder()


class KeepsStart(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.rows = nn.Parameter(encoder.start.detach().clone())

    def forward(self):
        return self.rows


class KeepsNothing(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.rows = encoder().detach()

    def forward(self):
        return self.rows


class AsTable(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(encoder().detach(), freeze=False)

    def forward(self):
        return self.table.weight


@pytest.mark.parametrize(
    "cls, message",
    [
        (KeepsTheEncoder, "the encoder among them"),
        (KeepsStart, "this is start"),
        (KeepsNothing, "nothing of it would be saved"),
        (type("Kept", (), {"forward": lambda self: 1}), "is no nn.Module"),
    ],
)
def test_a_misconception_of_what_is_kept_is_named(cls, message):
    refuses("p_tuning.kept", cls, message)


def test_another_way_to_keep_passes():
    assert checked("p_tuning.kept", AsTable)


FAULTS = {"drawn": "the logits differ", "first": "the same vector", "places": "a word of the name is gone"}


def hunted(*faults):
    """The cells of the hunt, with these of their faults."""

    class Mine(PromptEncoder):
        def __init__(self, template, d):
            pieces = ["[CLS]", *template.split()]
            self.places = [place for place, piece in enumerate(pieces) if piece == "[P]"]
            super().__init__(len(self.places), d)

        def forward(self):
            return self.mlp(self.lstm(nn.init.normal_(self.start) if "drawn" in faults else self.start)[0])

        def set_aside(self, table, inputs):
            self.ids = inputs[0]
            return (inputs[0].clamp(min=0),)

        def put(self, table, inputs, output):
            output, made = output.clone(), self()
            for b, text in enumerate(self.ids):
                places = self.places if "places" in faults else (text < 0).nonzero().flatten().tolist()
                for n, place in enumerate(places):
                    output[b, place] = made[0 if "first" in faults else n]
            return output

    @dataclass
    class HuntedPTuning(Method):
        template: str
        starts_at_base = False

        def insert(self, model):
            table = model.get_input_embeddings()
            mine = Mine(self.template, table.embedding_dim)
            self.add(table, "hunted", mine)
            self.hook(table.register_forward_pre_hook(mine.set_aside))
            self.hook(table.register_forward_hook(mine.put))

    return HuntedPTuning


@several
@given(some.sets(some.sampled_from(list(FAULTS))))
def test_the_hunt_counts_the_faults_that_are_left(faults):
    feedback = checked("p_tuning.hunt", hunted(*faults))
    assert bool(feedback) == (not faults), feedback
    if faults:
        assert re.search(rf"{len(faults)} faults? (is|are) still in", repr(feedback)), feedback


@pytest.mark.parametrize("fault, message", FAULTS.items())
def test_each_fault_of_the_hunt_alone_is_named(fault, message):
    refuses("p_tuning.hunt", hunted(fault), f"1 fault is still in.*{message}")


FEW = {"method": PTuning("{subject} [P] [MASK]", encoder="none"), "steps": 1}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method": PTuning("[P] [P] {subject} [P] [P] [MASK]")}, "has 4 pseudo tokens, and 2 are allowed"),
        ({"method": PTuning("{subject} [P] in [MASK]")}, "the template has words, in"),
        ({"method": PTuning("{subject} [P]")}, "needs {subject} and .MASK."),
        ({"method": PTuning("{subject} [P] [MASK]", joint=True)}, "here it stays frozen"),
        ({"method": LoRA()}, "this task is about PTuning"),
        ({"steps": 61}, "61 steps are more than the 60"),
        ({}, "% on validation, and 90% are asked for"),
    ],
)
def test_the_open_task_says_what_is_missing(change, message, capsys):
    refuses("p_tuning.fewest", lambda: replace(recipe("facts", "birthplace none"), **FEW | change), message)


def test_the_open_task_asks_for_a_recipe():
    refuses("p_tuning.fewest", lambda: PTuning(), "expected a Recipe, got PTuning")
