"""Lesson 10: what the learner builds and trains with: a linear map that unpacks as it goes, and a model full of them.

The checks know no attribute by name but `weight` and `packed`, which LoRA and its merge ask for.
"""

from dataclasses import FrozenInstanceError

import torch
from torch import Tensor, nn

from peft_edu.anatomy import linear_maps, names
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise, same, shape, tensors, untouched
from peft_edu.lab.exercises.four_bits import from_levels, round_to_levels, two_in_a_byte
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.quantization import levels, pack

NF4 = levels("nf4")


class FourBit(nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        codes, scale = round_to_levels(weight.detach().reshape(-1, 64), NF4)
        self.register_buffer("packed", two_in_a_byte(codes))
        self.register_buffer("scale", scale)
        self.shape, self.dtype, self.bias = weight.shape, weight.dtype, bias

    @property
    def weight(self):
        codes = torch.stack([self.packed // 16, self.packed % 16], -1).flatten(-2)
        return from_levels(codes, self.scale, NF4).reshape(self.shape).to(self.dtype)

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


@exercise(
    "four_bits.module",
    reference=FourBit,
    hints=(
        "Two codes lie in each byte: `self.packed // 16` is the first, `self.packed % 16` the second.",
        "Put them side by side again: `torch.stack([first, second], -1).flatten(-2)`, and you have (blocks, 64) codes.",
        "`from_levels(codes, self.scale, NF4)` gives the blocks: `.reshape(self.shape)`, and `.to(self.dtype)`.",
        "forward is what nn.Linear does with self.weight: `nn.functional.linear(x, self.weight, self.bias)`.",
    ),
)
def _module(cls) -> None:
    """class FourBit(nn.Module): FourBit(weight, bias) holds weight (out, in) in 4 bits, and a bias (out,) or None;
    its property weight is (out, in) again, and forward takes x (..., in) to weight x + bias (..., out)"""
    if not issubclass(cls, nn.Module):
        raise Misconception("FourBit is no nn.Module: write class FourBit(nn.Module)")
    for dtype in (torch.float64, torch.float32):  # a row is two blocks
        given, bias, x = (each.to(dtype) for each in tensors((6, 128), (6,), (2, 3, 128)))
        _check(cls(given, nn.Parameter(bias, requires_grad=False)), given, bias, x)
    without = cls(given, None)
    same(without(x).double(), (x @ without.weight.T).double(), {}, "right with a bias, but not for bias None")


def _check(module: nn.Module, given: Tensor, bias: Tensor, x: Tensor) -> None:
    _expect_weight(module, given)
    weight = module.weight
    x = x.clone().requires_grad_()
    h = untouched(module, (x,))
    if h is None:
        raise NotWritten("weight is right, and forward gives nothing back. Put your line where the ... stands")
    wrong = {
        "the bias is missing: h = W x + bias": x @ weight.T,
        "the bias is taken away: it is added": x @ weight.T - bias,
        "this is x W + bias with another order of rows: the weight is (out, in), so W x is x @ weight.T": x
        @ weight.roll(1, 0).T,
    }
    same(h.double(), (x @ weight.T + bias).double(), {k: v.double() for k, v in wrong.items()})
    if not h.requires_grad:
        raise Misconception("no gradient comes through to x: is there a detach(), a .data or a no_grad in forward?")
    if any(each.shape == given.shape for each in module.parameters()):
        raise Misconception("the weight is an nn.Parameter as well: only its codes and scales are to be kept")
    kept = {**vars(module), **dict(module.named_buffers())}.values()
    held = sum(each.nbytes for each in kept if isinstance(each, Tensor))
    if held > given.nbytes / 2:
        raise Misconception(
            f"it holds {held:,} bytes, and the weight itself had {given.nbytes:,}: unpack it where it is needed, and "
            "keep nothing of it on self"
        )
    if not hasattr(module, "packed"):
        raise Misconception(
            "the buffer `packed` is gone: by it the package knows that such weights are not to be trained"
        )


def _weight(module: nn.Module, given: Tensor) -> object:
    known = getattr(type(module), "weight", None)
    try:  # of the property itself: nn.Module would hide what it lacks behind "no attribute 'weight'"
        return known.fget(module) if isinstance(known, property) else module.weight
    except RuntimeError as error:
        if f"invalid for input of size {given.numel() // 2}" in str(error):
            raise Misconception("half of the weights are missing: are both codes of each byte in it?") from error
        raise


def _expect_weight(module: nn.Module, given: Tensor) -> None:
    weight = _weight(module, given)
    if weight is None:
        raise NotWritten("weight gives nothing yet. Put your lines where the ... stands")
    if callable(weight) and not isinstance(weight, Tensor):
        raise Misconception("weight is a function: @property above it makes it something to be read")
    if not isinstance(weight, Tensor):
        raise Misconception(f"weight is a {type(weight).__name__}, but must be a tensor")
    if weight.numel() == given.numel() // 2:
        raise Misconception(f"weight is {tuple(weight.shape)}: are both codes of each byte in it?")
    shape(weight, given.shape, "a row is a block still, and (out, in) is asked for, as self.shape has it")
    if not weight.is_floating_point():
        raise Misconception("these are still codes: from_levels(codes, self.scale, NF4) makes weights of them")
    right = pack(given, double=False).unpack()
    places, scale = round_to_levels(given.reshape(-1, 64), NF4)
    pairs = places.view(-1, 2).flip(1).view_as(places)  # second and first exchanged
    halves = torch.cat([places[:, 0::2], places[:, 1::2]], -1)
    wrong = {
        "the codes of each byte are exchanged: the first counts sixteens, packed // 16": from_levels(pairs, scale, NF4),
        "all first codes come first, then all second ones: torch.stack(..., -1) puts them side by side": from_levels(
            halves, scale, NF4
        ),
        "the scale is left out: from_levels multiplies by it": NF4[places].to(given),
        "this is the weight as it was given: it must come from the codes": given,
    }
    wrong = {message: value.reshape(given.shape).double() for message, value in wrong.items()}
    if not torch.allclose(weight.double(), right.double(), rtol=1e-4, atol=1e-5):  # float32 in some ways of writing it
        same(weight, right.double(), wrong, "weight is not what the codes stand for")
    if weight.dtype != given.dtype:
        raise Misconception(
            f"weight is {weight.dtype}, and {given.dtype} was given: .to(self.dtype), as the model computes"
        )


def pack_model(model):
    name_of = names(model)
    for target in linear_maps(model):
        model.set_submodule(name_of[target.module], FourBit(target.weight, target.module.bias))
    return model


@exercise(
    "four_bits.model",
    reference=pack_model,
    hints=(
        "For each map two things are to be done: make a FourBit, and put it where target.module stood.",
        "A FourBit needs a weight and a bias: `target.weight` and `target.module.bias`, which may be None.",
        "`model.set_submodule(a name, a module)` puts a module in a place; `name_of[target.module]` is the name.",
    ),
)
def _model(f) -> None:
    """pack_model(model) -> the same model, with a FourBit in the place of each linear map of its blocks"""
    for kind in ("bert", "llama"):
        model, other = tiny_model(kind, 16), tiny_model(kind, 16)
        try:
            _check_packed(f(model), model, other)
        except FrozenInstanceError as error:
            raise Misconception(
                "target tells where a map is, and cannot be changed: the new module goes into the model, by "
                "model.set_submodule(its name, the module)"
            ) from error
        except Misconception as error:
            if kind == "llama":
                raise Misconception(f"right on a BERT, but not on a Llama, which has no biases: {error}") from error
            raise


def _check_packed(given: object, model: nn.Module, before: nn.Module) -> None:
    if given is None:
        raise Misconception(NOTHING)
    place, was = names(before), linear_maps(before)
    at = [(each, model.get_submodule(place[each.module])) for each in was]
    packed = {module for module in model.modules() if hasattr(module, "packed")}
    if not packed:
        raise NotWritten("no FourBit is in the model yet. Put your line where the ... stands")
    if given is not model:
        raise Misconception("another model comes back: change this one in place, and give it back")
    if left := [each for each, now in at if now not in packed]:
        raise Misconception(
            f"the {left[0].role} map ({place[left[0].module]}) is as it was: is only one of the maps packed?"
        )
    if more := packed - {now for _, now in at}:
        raise Misconception(f"{names(model)[more.pop()]} is packed as well: only the linear maps of the blocks are")
    with torch.no_grad():
        for each, now in at:
            lost = each.module.bias is not None and now.bias is None
            if lost or (now.bias is not None and not torch.equal(now.bias, each.module.bias)):
                raise Misconception(f"{place[each.module]} has lost its bias: FourBit(weight, bias)")
            if now.weight.shape == each.weight.shape and (now.weight - each.weight).norm() < 0.2 * each.weight.norm():
                each.weight.copy_(now.weight)
                continue
            raise Misconception(f"{place[each.module]} holds another weight than before: is it the target's own?")
        if not torch.allclose(model(input_ids=IDS).logits, before(input_ids=IDS).logits):
            raise Misconception(
                "the model computes something else than with the rounded weights: what else was changed?"
            )
