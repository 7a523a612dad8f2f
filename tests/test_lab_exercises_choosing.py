"""What a learner writes in lesson 08: any right solution passes, whatever its style, and a misconception is named."""

import csv
import re
from dataclasses import dataclass, replace
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from peft_edu import BitFit, LoRA, count, fit, load, save, seed
from peft_edu.anatomy import blocks, linear_maps, norms
from peft_edu.lab import backbone, recipe, task
from peft_edu.lab.exercises import choosing_open
from peft_edu.lab.exercises.check import EXERCISES, check, checked
from peft_edu.lab.exercises.choosing import choose, pareto, serving, training_bytes
from peft_edu.lab.exercises.choosing_method import MyMethod, Scale
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.lab.measure.cost import training_memory
from peft_edu.method import METHODS, Method

several = settings(max_examples=15, deadline=None, database=None)


def says(name, thing, message):
    feedback = checked(name, thing)
    assert not feedback and re.search(message, repr(feedback), re.DOTALL), feedback


@several
@given(some.integers(1, 10**9), some.floats(0, 1))
def test_the_bytes_are_those_of_the_package(total, share):
    trainable = int(share * total)
    memory = training_memory(total, trainable)
    assert training_bytes(total, trainable) == memory.weights + memory.optimizer
    assert checked("choosing.memory", lambda total, trainable: total * 4 + trainable * 3 * 4)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda total, trainable: 16 * total, "a frozen one has neither"),
        (lambda total, trainable: 4 * total + 8 * trainable, "one number is missing"),
        (lambda total, trainable: 4 * (total - trainable) + 12 * trainable, "one number is missing"),
        (lambda total, trainable: 4 * total + 4 * trainable, "the moments are left out"),
        (lambda total, trainable: 12 * trainable, "the weights are left out"),
        (lambda total, trainable: total + 3 * trainable, "these are numbers"),
        (lambda total, trainable: 4_120, "not for 300 of 500"),
        (lambda total, trainable: print(end=""), "is there a return"),
    ],
)
def test_a_misconception_of_the_memory_is_named(wrong, message):
    says("choosing.memory", wrong, message)


@pytest.mark.parametrize("kind", [list, tuple, set, sorted])
def test_the_rates_that_serve_may_come_in_any_order(kind):
    assert checked("choosing.serving", lambda scored, points: kind(serving(scored, points)))
    assert checked(
        "choosing.serving",
        lambda scored, points: [rate for rate in scored if max(scored.values()) - scored[rate] <= points],
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda s, p: [r for r in s if s[r] > max(s.values()) - p], "that is within 5 points"),
        (lambda s, p: [max(s, key=s.get)], "only the best is kept"),
        (lambda s, p: [r for r in s if s[r] < max(s.values()) - p], "that do not serve"),
        (lambda s, p: [r for r in s if s[r] <= min(s.values()) + p], "near to the worst"),
        (lambda s, p: [v for v in s.values() if v >= max(s.values()) - p], "these are the scores"),
        (lambda s, p: list(s), "nothing is left out"),
        (lambda s, p: len(serving(s, p)), "the lesson counts them with len"),
        (lambda s, p: serving(s, 5), "not for 4.75"),
        (lambda s, p: [r for r in s if s[r] >= max(s.values()) * (1 - p / 100)], "0.003 is left out"),
        (lambda s, p: print(end=""), "is there a return"),
    ],
)
def test_a_misconception_of_what_serves_is_named(wrong, message):
    says("choosing.serving", wrong, message)


scored = some.lists(some.floats(0, 100), min_size=1, max_size=3)
some_candidates = some.dictionaries(some.text("abcdefg", min_size=1), some.tuples(some.integers(1, 99), scored))


@several
@given(some_candidates, some.integers(1, 99))
def test_the_rule_takes_the_smallest_of_those_whose_worst_seed_is_near_the_best(candidates, budget):
    name = choose(candidates, budget)
    fits = {each: (kept, min(seeds)) for each, (kept, seeds) in candidates.items() if kept <= budget}
    if not fits:
        assert name is None
        return
    best = max(worst for _, worst in fits.values())
    assert fits[name][1] >= best - 2
    assert all(kept >= fits[name][0] or worst < best - 2 for kept, worst in fits.values())


def in_a_loop(candidates, budget):
    best = None
    fits = sorted((kept, name) for name, (kept, _) in candidates.items() if kept <= budget)
    for _, name in fits:
        if best is None and all(min(candidates[name][1]) + 2 >= min(candidates[other][1]) for _, other in fits):
            best = name
    return best


def test_the_rule_may_be_written_in_any_style():
    assert checked("choosing.choose", in_a_loop)


def rule(score=min, budgeted=True, close=2.0, biggest=False, below=lambda kept, budget: kept <= budget, late=False):
    def choose(candidates, budget):
        fits = {n: c for n, c in candidates.items() if not budgeted or late or below(c[0], budget)}
        best = max((score(seeds) for _, seeds in fits.values()), default=0)
        near = [n for n, (_, seeds) in fits.items() if score(seeds) >= best - close]
        if late:
            near = [n for n in near if fits[n][0] <= budget]
        if biggest:
            return max(near, key=lambda n: score(fits[n][1]), default=None)
        return min(near, key=lambda n: fits[n][0], default=None)

    return choose


@pytest.mark.parametrize(
    "wrong, message",
    [
        (rule(score=fmean), "B is chosen, whose mean is good"),
        (rule(score=max), "one lucky seed"),
        (rule(close=100), "the smallest is chosen"),
        (rule(biggest=True), "the best is chosen, however large"),
        (rule(close=1.99), "exactly 2 points below"),
        (rule(budgeted=False), "the budget is not used"),
        (rule(late=True), "compare with the best of those that fit"),
        (rule(below=lambda kept, budget: kept < budget), "B has exactly 60"),
        (
            lambda c, budget: min((k, n) for n, (k, s) in c.items() if k <= budget and min(s) > 93.5)[1],
            "expected|chosen",
        ),
        (lambda c, budget: [rule()(c, budget)], "expected the name of one candidate"),
        (lambda c, budget: rule()(c, budget) or min([]), "it stops .*give None"),
        (lambda c, budget: print(end=""), "is there a return"),
    ],
)
def test_a_misconception_of_the_rule_is_named(wrong, message):
    says("choosing.choose", wrong, message)


def test_the_front_and_the_rule_agree_that_what_is_beaten_is_not_taken():
    candidates = {"A": (1, [80.0]), "B": (4, [90.0]), "C": (4, [85.0]), "D": (9, [90.0])}
    assert pareto({name: (kept, min(seeds)) for name, (kept, seeds) in candidates.items()}) == {"A", "B"}
    assert choose(candidates, 10) == "B" and choose(candidates, 3) == "A"


def scale(start="ones", acts="plain", fault=""):
    """A learner's Scale, in one of several styles, with one fault or none."""

    class Scale(nn.Module):
        def __init__(self, width):
            super().__init__()
            starts = {"zeros": torch.zeros(width), "random": torch.rand(width), "matrix": torch.eye(width)}
            vector = starts.get(fault, torch.ones({"one": 1, "double": 2 * width}.get(fault, width)))
            if fault == "double":
                self.more = nn.Parameter(torch.ones(width))
                vector = torch.ones(width)
            self.v = vector if fault == "no parameter" else nn.Parameter(vector, requires_grad=fault != "frozen")

        def after(self, module, inputs, output):
            if fault == "in place":
                output *= self.v.detach()
                return output
            x = {"inputs": inputs[0], "again": module(inputs[0])}.get(fault, output)
            if fault in ("added", "idle", "detached"):
                return {"added": x + self.v, "idle": output + 0, "detached": x * self.v.detach()}[fault]
            return torch.einsum("...d,d->...d", x, self.v.to(x)) if acts == "einsum" else torch.mul(x, self.v)

        def before(self, module, inputs):
            if fault == "both":
                return inputs[0] * self.v, inputs[0]
            if fault == "idle before":
                return inputs
            return inputs[0] * self.v if acts == "tensor" else (inputs[0] * self.v,)

    return Scale


@several
@given(some.sampled_from(["plain", "einsum", "tensor"]))
def test_any_right_scale_passes(acts):
    feedback = checked("choosing.scale", scale(acts=acts))
    assert feedback, feedback


@pytest.mark.parametrize(
    "fault, message",
    [
        ("zeros", "at zero: nothing would pass"),
        ("random", "somewhere else than at one"),
        ("matrix", "this is a matrix"),
        ("one", "one number scales all features alike"),
        ("double", "8 parameters, and not 4"),
        ("no parameter", "becomes a parameter by nn.Parameter"),
        ("frozen", "the vector is frozen"),
        ("in place", "changed in place"),
        ("inputs", "the inputs are scaled"),
        ("again", "the map is run once more"),
        ("added", "the vector is added"),
        ("idle", "comes back as it was"),
        ("detached", "no gradient reaches the vector"),
        ("both", "before gives 2 things"),
        ("idle before", "the inputs come back"),
    ],
)
def test_a_misconception_of_the_scale_is_named(fault, message):
    says("choosing.scale", scale(fault=fault), message)


def test_a_scale_is_a_module():
    says("choosing.scale", type("Scale", (), {}), "write class Scale")
    says("choosing.scale", lambda width: width, "a class is asked for")


class Shift(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.by = nn.Parameter(torch.zeros(width))

    def forward(self, module, inputs, output):
        return output + self.by


def method(kind="ia3"):
    """Methods that no lesson has, and some that are none."""

    @dataclass
    class MyMethod(Method):
        factor: float = 1.0

        def insert(self, model):
            if kind == "query biases":
                for target in linear_maps(model, ("query",)):
                    self.unfreeze(target.module.bias)
            elif kind == "norms":
                for norm in norms(model):
                    self.unfreeze(norm)
            elif kind == "shift":
                for target in linear_maps(model, ("output",)):
                    self.add(target.module, "shift", Shift(len(target.weight)))
                    self.hook(target.module.register_forward_hook(target.module.shift))
            elif kind == "one block":
                for target in linear_maps(model, ("value",))[-1:]:
                    self._scaled(target)
            elif kind == "all biases and norms":
                self.unfreeze(blocks(model)[0])
            elif kind != "nothing":
                for target in linear_maps(model, ("key", "value")):
                    self._scaled(target)

        def _scaled(self, target):
            module, child = target.module, Scale(len(target.weight))
            if kind == "empty":
                child = nn.Identity()
            if kind == "random start":
                nn.init.normal_(child.by)
            if kind == "by hand":
                module.add_module("scale", child)
            elif kind != "not added":
                self.add(module, "scale", child)
            if kind == "no hook" or kind == "empty":
                return
            if kind == "kept hook":
                module.register_forward_hook(child.after)
            elif kind == "late":
                Last.child = child
                self.hook(module.register_forward_hook(lambda module, inputs, output: Last.child.by * output))
            elif kind == "hidden":
                hidden = torch.randn(len(target.weight), dtype=torch.float64)
                self.hook(module.register_forward_hook(lambda m, i, output: output * (1 + (child.by - 1) * hidden)))
            elif kind == "dropout":
                self.hook(module.register_forward_hook(lambda m, i, out: nn.functional.dropout(child.by * out, 0.5)))
            else:
                self.hook(module.register_forward_hook(child.after))

    class Last:
        child = None

    return MyMethod


def test_a_vector_as_wide_as_the_wrong_side_of_a_map_is_named():
    @dataclass
    class MyMethod(Method):
        def insert(self, model):
            for target in linear_maps(model, ("down",)):
                self.add(target.module, "scale", Scale(len(target.weight)))
                self.hook(target.module.register_forward_pre_hook(target.module.scale.before))

    says("choosing.own", MyMethod, "down reads 512 numbers and gives 128")


@pytest.mark.parametrize("kind", ["ia3", "one block", "query biases", "norms", "shift"])
def test_any_method_that_no_lesson_has_passes(kind):
    feedback = checked("choosing.own", method(kind))
    assert feedback, feedback


@pytest.mark.parametrize(
    "kind, message",
    [
        ("nothing", "Not written yet: insert adds nothing yet"),
        ("empty", "what is added has no parameters"),
        ("not added", "hooked, but not added"),
        ("by hand", "put in by hand: self.add"),
        ("no hook", "nothing of it acts"),
        ("kept hook", "after detach a hook is still there"),
        ("late", "Do all hooks call the last one"),
        ("random start", "something else right after attach"),
        ("hidden", "saved and loaded it answers differently"),
        ("dropout", "twice gives two answers"),
        ("all biases and norms", "parameters of tiny-bert beside the task head, and fewer than 10,000"),
    ],
)
def test_what_is_no_method_of_one_s_own_is_told(kind, message):
    says("choosing.own", method(kind), message)


def test_a_method_of_the_package_is_not_one_s_own():
    says("choosing.own", type("MyMethod", (LoRA,), {}), "this is the package's LoRA")
    says("choosing.own", type("MyMethod", (BitFit,), {}), "this is the package's BitFit")
    says("choosing.own", type("MyMethod", (), {}), "is no Method")

    class MyMethod(Method):
        def insert(self, model):
            self.unfreeze(norms(model)[0])

    says("choosing.own", MyMethod, "is @dataclass above the class")


@pytest.mark.parametrize("solved", [True, False])
def test_the_lesson_goes_on_with_a_method_that_is_saved_and_loaded(solved, tmp_path):
    mine = check("choosing.own", method("shift" if solved else "no hook"))
    assert METHODS["MyMethod"] is mine and (mine is EXERCISES["choosing.own"].reference) != solved
    model = mine().attach(tiny_model("bert"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    again = load(tiny_model("bert"), save(model, tmp_path / "mine"))
    assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_a_look_at_a_method_leaves_the_list_of_methods_as_it_was():
    before = dict(METHODS)
    mine = method("norms")
    METHODS.clear(), METHODS.update(before)
    assert checked("choosing.own", mine)
    assert before == METHODS


def test_the_solution_is_ia3_of_peft():
    from peft import IA3Config, get_peft_model

    where = r".*layer\.\d+\.(attention\.self\.key|attention\.self\.value|output\.dense)"
    settings = IA3Config(task_type="SEQ_CLS", target_modules=where, feedforward_modules=r".*layer\.\d+\.output\.dense")
    mine, theirs = MyMethod().attach(tiny_model("bert")), get_peft_model(tiny_model("bert"), settings).eval()
    vectors = [p for name, p in theirs.named_parameters() if "ia3_l" in name]
    scales = [p for name, p in mine.named_parameters() if name.endswith("scale.by")]
    assert [p.numel() for p in vectors] == [p.numel() for p in scales]
    with torch.no_grad():
        for vector, scale_vector in zip(vectors, scales, strict=True):
            vector.copy_(scale_vector.normal_().reshape(vector.shape))
    assert torch.allclose(mine(input_ids=IDS).logits, theirs(input_ids=IDS).logits)


class Refuses(Exception):
    """The check came as far as training."""


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda: MyMethod(), "expected a Recipe, got MyMethod"),
        (lambda: recipe("methods", "reviews LoRA"), "LoRA is in the lessons already"),
        (lambda: replace(recipe("methods", "facts BitFit"), method=MyMethod()), "take the recipe of a row of reviews"),
        (lambda: replace(recipe("methods", "reviews BitFit"), method=MyMethod(), steps=300), "300 steps are more than"),
        (
            lambda: replace(recipe("methods", "reviews BitFit"), method=method("all biases and norms")()),
            "4,000 are",
        ),
        (lambda: replace(recipe("methods", "reviews BitFit"), method=MyMethod()), "came as far as training"),
    ],
)
def test_a_rival_is_counted_before_it_is_trained(made, message, monkeypatch):
    def trains(*arguments):
        raise Refuses("came as far as training")

    monkeypatch.setattr(choosing_open, "finetune", trains)
    says("choosing.rival", made, message)


def way(fault=""):
    """A learner's whole way with one step of training, and with one fault or none."""

    def whole_way(path, folder):
        data, tried = task(path), {}
        for name, each in (
            {"BitFit": BitFit(), "LoRA": LoRA(2)}.items() if fault != "one" else {"LoRA": LoRA(2)}.items()
        ):
            model, tokenizer = backbone("tiny-bert", **data.head)
            seed(0)
            fit(each.attach(model), data.batches(tokenizer, "train", steps=1), steps=1, lr=1e-3)
            split = "test" if fault == "test chooses" else "validation" if fault != "no validation" else None
            tried[name] = (data.evaluate(model, tokenizer, split)["accuracy"] if split else 0), model
        chosen = max(tried, key=lambda name: tried[name][0])
        model = tried[chosen][1]
        if fault != "not saved":
            save(model, folder)
        if fault not in ("not loaded", "not saved"):
            model = load(backbone("tiny-bert", **data.head)[0], folder)
        if fault == "validation told":
            data.evaluate(model, tokenizer, "test")
            return chosen, tried[chosen][0] + 1e-3
        told = data.evaluate(model, tokenizer, "test")["accuracy"]
        return chosen if fault == "name alone" else (chosen, told)

    return whole_way


@pytest.mark.parametrize(
    "fault, message",
    [
        ("one", "one method was attached"),
        ("not saved", "nothing is saved in folder"),
        ("no validation", "the validation rows were not asked"),
        ("test chooses", "the validation rows were not asked"),
        ("not loaded", "the model that was trained got the test rows"),
        ("validation told", "is told, and what is saved reaches"),
        ("name alone", "expected a name and an accuracy"),
        ("", "is near to chance"),
    ],
)
def test_a_shortcut_on_the_whole_way_is_named(fault, message, monkeypatch):
    monkeypatch.setattr(choosing_open, "ABOVE_CHANCE", 1.1)
    monkeypatch.setattr(choosing_open, "_some_rows", few_rows)
    says("choosing.whole_way", way(fault), message)


def few_rows(path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerows([("text", "label"), *((row["text"], row["label"]) for row in task("reviews").rows("test")[:40])])
    return path


def test_nothing_written_is_a_beginning():
    for name in ("memory", "serving", "choose"):
        assert repr(checked(f"choosing.{name}", lambda *arguments: None)).startswith("Not")

    def whole_way(path, folder): ...

    assert repr(checked("choosing.whole_way", whole_way)).startswith("Not written yet")
    assert count(MyMethod().attach(backbone("tiny-bert")[0])).trainable == 4 * (128 + 128 + 512)
