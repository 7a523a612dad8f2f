"""Lesson 08: a method of the learner's own. Which one is free; the solution is IA3 (Liu et al. 2022,
https://arxiv.org/abs/2205.05638): keys, values and what the feed-forward's second map reads are scaled by a vector.

The check asks what any method must do, whatever it is: train little, act, be saved, be loaded, and go without a trace.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import head_parameters, linear_maps
from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise, same, tensors, untouched
from peft_edu.lab.exercises.whole_method import IDS, expect_a_method, put_in, tiny_model
from peft_edu.lab.models.backbones import backbone
from peft_edu.method import METHODS, Method
from peft_edu.storage.checkpoint import count, load, save

MOST = 10_000  # trained parameters in tiny-bert, beside the task head
PACKAGED = tuple(each for each in METHODS.values() if ".lab." not in each.__module__)  # what the lessons have already


class Scale(nn.Module):
    """One vector that multiplies what flows through a linear map."""

    def __init__(self, width):
        super().__init__()
        self.by = nn.Parameter(torch.ones(width))

    def after(self, module, inputs, output):
        return self.by * output

    def before(self, module, inputs):
        return (self.by * inputs[0],)


@exercise(
    "choosing.scale",
    reference=Scale,
    hints=(
        "A vector of ones changes nothing, so training starts at the pretrained model.",
        "What is trained is an nn.Parameter: `nn.Parameter(torch.ones(width))`.",
        "`after` gives the new output. `before` gives the new inputs, a tuple with one tensor in it: (x,).",
    ),
)
def _scale(cls) -> None:
    """class Scale(nn.Module): Scale(width) holds one trained vector, all ones. after(module, inputs, output) gives the
    output times the vector; before(module, inputs) gives the inputs times the vector, again as a tuple (x,)"""
    if not issubclass(cls, nn.Module):
        raise Misconception("Scale is no nn.Module: write class Scale(nn.Module)")
    scale, module = cls(4), nn.Linear(4, 4, dtype=torch.float64)
    (vector,) = _one_vector(list(scale.parameters()))
    x, output = tensors((2, 3, 4), (2, 3, 4))
    with torch.no_grad():
        vector.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
    by = vector.detach().double()
    wrong = {
        "the vector is added: scaling multiplies": output + by,
        "the output comes back as it was: multiply it by the vector": output,
        "the inputs are scaled: after is to scale what the map gives, output": by * x,
        "the map is run once more: output is there already": by * module(x),
        "1 is added to the vector: it starts at one itself": (1 + by) * output,
    }
    after = untouched(lambda x, output: scale.after(module, (x,), output), (x, output))
    same(after, by * output, wrong)
    if not after.requires_grad:
        raise Misconception("no gradient reaches the vector: is there a detach(), a .data or a no_grad?")
    before = untouched(lambda x: scale.before(module, (x,)), (x,))
    if isinstance(before, tuple | list):
        if len(before) != 1:
            raise Misconception(f"before gives {len(before)} things: the map reads one, so give a tuple (x,)")
        before = before[0]  # PyTorch takes a tensor alone as well
    same(before, by * x, {"the inputs come back as they were: multiply inputs[0] by the vector": x})


def _one_vector(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    if not parameters:
        raise Misconception("nothing is trained: a tensor becomes a parameter by nn.Parameter(...)")
    numbers = sum(parameter.numel() for parameter in parameters)
    if numbers == 16:
        raise Misconception("this is a matrix, 4 by 4: one number for each of the 4 features is asked for")
    if numbers == 1:
        raise Misconception("one number scales all features alike: a vector with a number for each is asked for")
    if len(parameters) > 1 or numbers != 4:
        raise Misconception(f"Scale(4) has {numbers} parameters, and not 4: one vector, as wide as width says")
    if not parameters[0].requires_grad:
        raise Misconception("the vector is frozen: it is what training is to change")
    if not torch.equal(parameters[0], torch.ones_like(parameters[0])):
        start = "at zero: nothing would pass" if not parameters[0].any() else "somewhere else than at one"
        raise Misconception(f"the vector starts {start}. Ones leave the pretrained model as it is")
    return parameters


@dataclass
class MyMethod(Method):
    def insert(self, model):
        for target in linear_maps(model, ("key", "value", "down")):
            module, (out_features, in_features) = target.module, target.weight.shape
            if target.role == "down":
                self.add(module, "scale", Scale(in_features))
                self.hook(module.register_forward_pre_hook(module.scale.before))
            else:
                self.add(module, "scale", Scale(out_features))
                self.hook(module.register_forward_hook(module.scale.after))


METHODS.pop("MyMethod")  # `check` puts on the list what the lesson goes on with: the learner's, or this one


@exercise(
    "choosing.own",
    reference=MyMethod,
    beside=(Scale,),
    hints=(
        'For each of linear_maps(model, ("key", "value", "down")): `self.add(target.module, "scale", Scale(...))`.',
        "Key and value: `self.hook(target.module.register_forward_hook(target.module.scale.after))`.",
        "Down: its input is scaled, by `register_forward_pre_hook(...scale.before)`, so that Scale is as wide as in.",
        "A weight is (out, in): `target.weight.shape`. `target.role` tells which map it is.",
    ),
)
def _own(cls) -> None:
    """class MyMethod(Method), a @dataclass: insert(self, model) puts in what no lesson has, by self.add and self.hook,
    or trains weights that no lesson chooses, by self.unfreeze. It trains fewer than 10,000 parameters of tiny-bert
    beside the task head, they act, it can be saved and loaded, and it goes without a trace"""
    expect_a_method(cls)
    if not is_dataclass(cls):
        raise Misconception("is @dataclass above the class? It is what lets a method be saved")
    if known := [each.__name__ for each in cls.__mro__ if each in PACKAGED]:
        raise Misconception(f"this is the package's {known[0]} with another name: make one that no lesson has")
    model = tiny_model("bert")
    base = _answers(model)
    with _named(cls), put_in(method := cls(), model, "what you put in", unfrozen=True):
        _expect_trained(model, method)
        start = _answers(model)
        if not torch.allclose(start, _answers(model)):
            raise Misconception("the same text twice gives two answers: something random is awake in eval()")
        if cls.starts_at_base and not torch.allclose(start, base):
            raise Misconception(
                "the model computes something else right after attach. Begin where nothing changes: a factor at 1, a "
                "term at 0. If that is how it must be, say starts_at_base = False in the class"
            )
        _expect_to_act(model)
        _expect_the_same_when_loaded(model)
    if not torch.allclose(_answers(model), base):
        raise Misconception("after detach the model computes something else: change it by self.hook or self.configure")
    trained = count(_on_tiny_bert(cls))
    if (own := trained.trainable - trained.head) >= MOST:
        asked = f"fewer than {MOST:,} are asked for: take fewer places, or less at each"
        raise Misconception(f"it trains {own:,} parameters of tiny-bert beside the task head, and {asked}")


def _on_tiny_bert(cls: type[Method]) -> PreTrainedModel:
    """Attached to the model of the lesson, where a map may read more numbers than it gives: does text go through?"""
    model = cls().attach(backbone("tiny-bert", head="classify")[0])
    try:
        _answers(model)
    except RuntimeError as error:
        raise Misconception(
            f"it stops on tiny-bert, where down reads 512 numbers and gives 128 ({error}): a weight is (out, in). Is "
            "each vector as wide as what it multiplies?"
        ) from error
    return model


@torch.no_grad()
def _answers(model: PreTrainedModel) -> Tensor:
    return model(input_ids=IDS).logits


@contextmanager
def _named(cls: type[Method]) -> Iterator[None]:
    """Files name the learner's class for as long as it is looked at."""
    before = METHODS.get(cls.__name__)
    METHODS[cls.__name__] = cls
    try:
        yield
    finally:
        METHODS.pop(cls.__name__)
        METHODS.update({cls.__name__: before} if before else {})


def _own_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    heads = head_parameters(model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad and p not in heads}


def _expect_trained(model: PreTrainedModel, method: Method) -> None:
    if _own_parameters(model):
        return
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise Misconception("it is hooked, but not added: without self.add nothing of it is trained or saved")
    if method.added:
        raise Misconception("what is added has no parameters: a tensor becomes one by nn.Parameter(...)")
    raise NotWritten("insert adds nothing yet. For each target two lines: self.add(...) and self.hook(...)")


def _expect_to_act(model: PreTrainedModel) -> None:
    """After some steps, as it were: every trained parameter is somewhere on the way to the answer."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in _own_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64), alpha=0.3)
    model(input_ids=IDS).logits.square().sum().backward()
    idle = [name for name, parameter in _own_parameters(model).items() if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    if not idle:
        return
    if len(idle) == len(_own_parameters(model)):
        raise Misconception("nothing of it acts: is the hook forgotten, is there a return in it, or a detach()?")
    raise Misconception(
        f"{idle[0]} does nothing. Do all hooks call the last one? A function made in a loop looks its names up when it "
        "is called, and by then the loop is over: take a method of the module, scale.after"
    )


def _expect_the_same_when_loaded(model: PreTrainedModel) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        again = tiny_model("bert")
        torch.manual_seed(1)  # what insert draws at random must come from the file
        load(again, folder)
    if not torch.equal(_answers(again), _answers(model)):
        raise Misconception("saved and loaded it answers differently: what it needs must be parameters, or fields")
