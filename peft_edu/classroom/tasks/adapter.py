"""Exercise 02: adapters' sizes, the bottleneck, its place in a model, a figure, a hunt, and the smallest bottleneck."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, relu, silu

from peft_edu import count
from peft_edu.anatomy import blocks, head_parameters, sublayer_outputs
from peft_edu.classroom.figure import Bars, apart
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.problems import SIDE, changed_output, least_misses
from peft_edu.classroom.smallest import expect_measured, expect_smallest
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab.exercises.adapter_method import Place, listen
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, same, untouched
from peft_edu.lab.exercises.whole_method import expect_a_method, put_in, tiny_model

# How much adapters train, and what that takes ----------------------------------------------------------------------

PLACES = {"houlsby": 2, "pfeiffer": 1}  # adapters in a block


def _model(draw: Random) -> dict:
    n = {
        "blocks": draw.randint(7, 39),
        "width": 64 * draw.randint(5, 31),
        "placement": draw.choice(list(PLACES)),
        "bottleneck": draw.choice((12, 20, 24, 40, 48, 56)),
    }
    widest = draw.choice((15, 18, 30, 33, 60, 70))
    of_one = _one(n["width"], widest) + draw.randrange(n["width"], 2 * n["width"])
    return n | {"budget": n["blocks"] * PLACES[n["placement"]] * of_one}


def _one(width: int, bottleneck: int) -> int:
    return 2 * width * bottleneck + bottleneck + width


def _adapters(n: SimpleNamespace) -> int:
    return n.blocks * PLACES[n.placement]


def _biases(n: SimpleNamespace) -> int:
    return _adapters(n) * (n.bottleneck + n.width)


def _norms(n: SimpleNamespace) -> int:
    return (2 * n.blocks + 1) * 2 * n.width


def _parameters(answer: object, n: SimpleNamespace) -> None:
    one, other = _one(n.width, n.bottleneck), 3 - PLACES[n.placement]
    right = _adapters(n) * one
    wrong = {
        "the two biases are left out: W_down has one and W_up has one": right - _biases(n),
        "the bias of W_up is left out: it is as long as what W_up gives": right - _adapters(n) * n.width,
        "the bias of W_down is left out: it is as long as what W_down gives": right - _adapters(n) * n.bottleneck,
        "only one of the two maps is counted: it goes down and up again": right - _adapters(n) * n.width * n.bottleneck,
        f"how many adapters has a block with n.placement = {n.placement!r}?": n.blocks * other * one,
        "this is one adapter": one,
        "these are the adapters of one block": right / n.blocks,
        "the LayerNorms are counted as well: they are asked for in the share": right + _norms(n),
    }
    otherwise = "count one adapter first, its two maps and two biases, then those of a block, then the blocks"
    expect(plain_number(item(answer, "adapters"), "adapters"), right, wrong, otherwise)


def _share(answer: object, n: SimpleNamespace) -> None:
    adapters, norms, maps = _adapters(n) * _one(n.width, n.bottleneck), _norms(n), n.blocks * 12 * n.width**2
    right = 100 * (adapters + norms) / maps
    wrong = {
        "this is a fraction: the answer is asked for in per cent": right / 100,
        "the LayerNorms are left out: they are trained as well": 100 * adapters / maps,
        "the biases of the adapters are left out": right - 100 * _biases(n) / maps,
        "the LayerNorm over the embeddings is left out": right - 100 * 2 * n.width / maps,
        "a LayerNorm has a scale and a shift, so twice the width": 100 * (adapters + norms / 2) / maps,
        "this is upside down: how many per cent of the frozen maps is what is trained?": 1e4 / right,
        "the trained ones stand on both sides: set them against the frozen maps alone": 100 * right / (100 + right),
    }
    otherwise = "adapters and LayerNorms together, over 12 width² for each block, times 100"
    expect(plain_number(item(answer, "share"), "share"), right, wrong, otherwise, 1e-3)


def _memory(answer: object, n: SimpleNamespace) -> None:
    trained = _adapters(n) * _one(n.width, n.bottleneck) + _norms(n)
    right = 12 * trained / 1e6
    wrong = {
        "12 bytes a number: a gradient and two moments, and here is one of these left out": 8 * trained / 1e6,
        "only the gradients are counted, or one of two moments": 4 * trained / 1e6,
        "the weights are counted as well: gradients and moments are asked for": 16 * trained / 1e6,
        "this counts numbers, not bytes: float32 takes 4": 3 * trained / 1e6,
        "the LayerNorms are left out: they have gradients and moments, too": 12 * (trained - _norms(n)) / 1e6,
        "the biases of the adapters are left out": 12 * (trained - _biases(n)) / 1e6,
        "1 MB is 1,000,000 bytes here": 12 * trained / 2**20,
        "this is in bytes": right * 1e6,
        "frozen weights have no gradients and no moments": 12 * (trained + n.blocks * 12 * n.width**2) / 1e6,
    }
    otherwise = "a gradient and two moments, 4 bytes each, for all that is trained, in MB"
    expect(plain_number(item(answer, "memory"), "memory"), right, wrong, otherwise, 1e-3)


def _widest(answer: object, n: SimpleNamespace) -> None:
    given = plain_number(item(answer, "widest"), "widest")
    right = (n.budget // _adapters(n) - n.width) // (2 * n.width + 1)
    if given != given // 1:
        raise Misconception("widest: a bottleneck is a whole number")
    cost = _adapters(n) * _one(n.width, given)
    expect(given, right, {}, "that costs more than the budget" if cost > n.budget else "a wider one can be paid, too")


SIZES = Task(
    "adapter.sizes",
    "How much is trained?",
    _model,
    {_parameters: 2, _share: 1, _memory: 1, _widest: 1},
    (
        "W_down is (m, d) and W_up is (d, m). Each has a bias, as long as what it gives.",
        "Two LayerNorms a block and one over the embeddings, each with a scale and a shift of d numbers.",
        "For the widest write the cost with m in it, set it to the budget, and solve for m. Then round down.",
    ),
    stars=1,
    minutes=12,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# The bottleneck ----------------------------------------------------------------------------------------------------

ACTIVATIONS = {"relu": relu, "silu": silu, "tanh": torch.tanh}
READS = {"x": lambda x: x, "layer_norm(x)": lambda x: layer_norm(x, x.shape[-1:])}


def _bottleneck(draw: Random) -> dict:
    return {
        "activation": draw.choice(list(ACTIVATIONS)),
        "reads": draw.choice(list(READS)),
        "scale": draw.choice((0.25, 0.5, 2, 4)),
        "width": draw.randint(9, 15),
        "bottleneck": draw.choice((3, 4, 5)),
    }


@dataclass
class Made:
    """A student's bottleneck, and its parameters by their shapes."""

    adapter: nn.Module
    x: Tensor
    down: Tensor
    up: Tensor
    b_down: Tensor
    b_up: Tensor

    def fill(self) -> "Made":
        """Other numbers, as after many steps."""
        with torch.no_grad():
            for parameter in self.adapter.parameters():
                parameter.normal_()
        return self


def _made(cls: object, width: int, m: int) -> Made:
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise Misconception("a class is asked for, class OwnBottleneck(nn.Module)")
    adapter = cls(width, m)
    every = list(adapter.parameters())
    if not every:
        raise NotWritten("the bottleneck has no parameters yet: W_down, W_up and their biases are trained")
    found = {tuple(p.shape): p for p in every}
    wanted = [(m, width), (width, m), (m,), (width,)]
    if sorted(map(tuple, (p.shape for p in every))) != sorted(wanted):
        shapes = ", ".join(str(tuple(p.shape)) for p in every)
        raise Misconception(
            f"width {width}, bottleneck {m}: two maps and their biases are asked for, no more; found: {shapes}"
        )
    if wrong := {p.dtype for p in every} - {torch.float64}:
        raise Misconception(f"a parameter is {wrong.pop()}, and everything here is float64: dtype=torch.float64")
    return Made(adapter, torch.randn(2, 4, width, dtype=torch.float64), *(found[shape] for shape in wanted))


def _starts(cls: object, n: SimpleNamespace) -> None:
    made = _made(cls, n.width, n.bottleneck)
    given, x = _given(made), made.x
    if given.shape == x.shape and (given - x).norm() > 0.01 * x.norm():
        if given.norm() < 0.01 * x.norm():
            raise Misconception("at the start nothing comes through: x goes around the bottleneck")
        raise Misconception("at the start it changes x by more than a hundredth: W_up, or both maps, begin near zero")
    _backward(given)
    if not any(p.grad is not None and p.grad.any() for p in (made.down, made.up)):
        raise Misconception(
            "neither map can begin to move, as if both were zero: each one's gradient has the other in it"
        )
    inner = torch.cat([made.down, made.up.T, made.b_down[:, None]], 1).detach()
    if len(inner.unique(dim=0)) < n.bottleneck:
        raise Misconception("some inner numbers start alike, and would stay alike, as if m were smaller")


def _given(made: Made) -> Tensor:
    given = untouched(made.adapter, (made.x,))
    if given is None:
        raise Misconception(NOTHING)
    if not isinstance(given, Tensor):
        raise Misconception(f"forward gives a {type(given).__name__}, but must give a tensor")
    return given


def _backward(given: Tensor) -> None:
    if not given.requires_grad:
        raise Misconception("no gradient reaches what is in it: is there a detach, a .data or a no_grad in forward?")
    given.square().sum().backward()


def _forward(cls: object, n: SimpleNamespace) -> None:
    for width, m in ((n.width, n.bottleneck), (n.width + 4, n.bottleneck + 1)):
        made = _made(cls, width, m).fill()
        with torch.no_grad():
            same(_given(made), _adapted(made, n, n.activation), _misread(made, n), "it is not what the formula gives")


def _adapted(made: Made, n: SimpleNamespace, activation: str, reads: str = "", scale: float = 0) -> Tensor:
    inner = ACTIVATIONS[activation](READS[reads or n.reads](made.x) @ made.down.T + made.b_down)
    return made.x + (scale or n.scale) * (inner @ made.up.T + made.b_up)


def _misread(made: Made, n: SimpleNamespace) -> dict[str, Tensor]:
    x, right, f = made.x, _adapted(made, n, n.activation), ACTIVATIONS[n.activation]
    read = READS[n.reads](x)
    below = read @ made.down.T + made.b_down
    (other,) = READS.keys() - {n.reads}
    wrong = {
        "x is missing: it goes around the bottleneck": right - x,
        f"the scale is left out: n.scale is {n.scale}": _adapted(made, n, n.activation, scale=1),
        "x is scaled as well: the scale belongs to what is added": n.scale * (_adapted(made, n, n.activation, scale=1)),
        "b_up is not scaled: the scale stands before all that is added": x + n.scale * f(below) @ made.up.T + made.b_up,
        f"the bottleneck reads {other} here, and n.reads is {n.reads}": _adapted(made, n, n.activation, other),
        "x itself goes around, not its normalised form": right - x + READS["layer_norm(x)"](x),
        "the nonlinearity is missing between the maps": x + n.scale * (below @ made.up.T + made.b_up),
        "the nonlinearity belongs between the maps, not behind them": x + n.scale * f(below @ made.up.T + made.b_up),
        "b_down is left out": x + n.scale * (f(read @ made.down.T) @ made.up.T + made.b_up),
        "b_up is left out": right - n.scale * made.b_up,
        "gelu is the paper's; n.activation is another": x + n.scale * (gelu(below) @ made.up.T + made.b_up),
    }
    others = {f"this is {each}, and n.activation is {n.activation}": _adapted(made, n, each) for each in ACTIVATIONS}
    return wrong | others


def _learns(cls: object, n: SimpleNamespace) -> None:
    made = _made(cls, n.width, n.bottleneck).fill()
    x = made.x.requires_grad_()
    _backward(_given(made))
    if any(p.grad is None or not p.grad.any() for p in made.adapter.parameters()):
        raise Misconception(
            "a map or a bias gets no gradient: is it frozen, or is there a detach or no_grad in forward?"
        )
    (slope,) = torch.autograd.grad(made.adapter(x).sum(), x)
    with torch.no_grad():  # the same from two points, which no detach can hide
        rise = (made.adapter(x + 1e-6) - made.adapter(x - 1e-6)).sum() / 2e-6
    if not torch.isclose(slope.sum(), rise, rtol=1e-3, atol=1e-4):
        raise Misconception("the gradient that reaches x is not the whole one: is x detached on one of its two ways?")


BOTTLENECK = Task(
    "adapter.bottleneck",
    "The bottleneck",
    _bottleneck,
    {_starts: 2, _forward: 3, _learns: 1},
    (
        "Two nn.Linear with dtype=torch.float64 bring their biases along. What do they do to x before any training?",
        "nn.init.zeros_(linear.weight) sets a weight to 0. Its bias is a parameter, too. May both weights be 0?",
        "layer_norm(x, x.shape[-1:]) brings the last axis to mean 0 and size 1. It has no parameters here.",
    ),
    stars=2,
    minutes=20,
    errors={
        "mat1 and mat2 must have the same dtype": "nn.Linear(..., dtype=torch.float64)",
        "mat1 and mat2 shapes cannot be multiplied": "nn.Linear(a, b) takes a numbers to b: down first, then up",
        "a leaf Variable that requires grad is being used": "do not change x in place: return x + ...",
        "cannot assign module before Module.__init__() call": "the first line of __init__ is super().__init__()",
    },
)

# Its place in a model ----------------------------------------------------------------------------------------------

SUBLAYERS = ("attention", "the feed-forward network")
CHOSEN = {
    "all but the lowest": slice(1, None),
    "all but the top one": slice(None, -1),
    "every second, the lowest first": slice(None, None, 2),
}
DEPTHS = {"bert": 4, "gpt2": 5}


def _place(draw: Random) -> dict:
    return {"behind": draw.choice(SUBLAYERS), "in_blocks": draw.choice(list(CHOSEN)), "bottleneck": draw.choice((2, 3))}


def _put(cls: object, n: SimpleNamespace, family: str, strength: float = 0.5):
    """A model with the method, other numbers in what was added, and what became of each sub-layer's output."""
    expect_a_method(cls, bottleneck=n.bottleneck, strength=strength)
    model, method = tiny_model(family, blocks=DEPTHS[family]), cls(bottleneck=n.bottleneck, strength=strength)
    method.attach(model)
    if not method.added:
        raise NotWritten("insert adds nothing yet")
    with torch.no_grad():
        for child in method.added:
            for parameter in child.parameters():
                parameter.normal_()
    return model, method, listen(model)[1]


def _at_its_places(cls: object, n: SimpleNamespace) -> None:
    for family, depth in DEPTHS.items():
        model, _, heard = _put(cls, n, family)
        found = {each.name for each in heard if not torch.equal(each.gave, each.seen)}
        chosen = range(1, depth + 1)[CHOSEN[n.in_blocks]]
        right = {f"{n.behind} of block {number}" for number in chosen}
        if not found:
            raise Misconception("nothing that a sub-layer gives is changed: is a hook there, and does it return?")
        if found != right:
            raise Misconception(
                f"in a {family} of {depth} blocks the output is changed of {_listed(found)}: yours are behind "
                f"{n.behind}, in {n.in_blocks}"
            )
        own = count(model).trainable - count(model).head
        if own != len(right) * _one(8, n.bottleneck):
            raise Misconception(
                f"{own} parameters are trained beside the head of a {family} of width 8: an adapter for each place has "
                "2 m d + m + d. Is self.bottleneck used, is one shared, or something else trained?"
            )


def _listed(names: set[str]) -> str:
    by_kind = {kind: sorted(name.split()[-1] for name in names if name.startswith(kind)) for kind in SUBLAYERS}
    return " and ".join(f"{kind} ({', '.join(numbers)})" for kind, numbers in by_kind.items() if numbers)


@torch.no_grad()
def _gives(cls: object, n: SimpleNamespace) -> None:
    """What is seen of a place is output + strength (A(output) - output), with an adapter of its own."""
    for family, strength in product(DEPTHS, (0.5, 2)):
        _, method, heard = _put(cls, n, family, strength)
        adapters, used = list(dict.fromkeys(part for child in method.added for part in child.modules())), []
        for each in heard:
            if each.in_place:
                raise Misconception("an output is changed in place (by +=): return a new tensor")
            if torch.equal(each.gave, each.seen):
                continue
            own = [adapter for adapter in adapters if _same_as(adapter, each, strength)]
            if not own and any(_same_as(adapter, each, strength) for adapter in used):
                raise Misconception("two places use one adapter: is it shared, or the last one of a loop in all hooks?")
            if not own:
                raise Misconception(_told(adapters, each, strength))
            adapters.remove(own[0])
            used.append(own[0])
    _, _, heard = _put(cls, n, "bert", strength=0)
    if any(not torch.allclose(each.gave, each.seen) for each in heard):
        raise Misconception("with strength 0 the model does not answer as the pretrained one")


def _same_as(adapter: nn.Module, place: Place, strength: float, more: float = 0) -> bool:
    """output + strength (A(output) - output), and `more` times the output."""
    try:
        moved = adapter(place.gave) - place.gave
        return torch.allclose(place.seen, place.gave + strength * moved + more * place.gave)
    except Exception:  # a part of an adapter, that takes another width
        return False


def _told(adapters: list[nn.Module], place: Place, strength: float) -> str:
    wrong = {
        "the strength does nothing: does the hook use it, and is it self.strength?": (1, 0),
        "the strength scales what goes around as well: it is for what is added": (strength, strength - 1),
        "the output is added once more: A(output) holds it already": (strength, strength),
    }
    for sentence, (factor, more) in wrong.items():
        if any(_same_as(adapter, place, factor, more) for adapter in adapters):
            return sentence
    return f"what comes from {place.name} is not output + strength (A(output) - output) with an adapter of its own"


def _leaves(cls: object, n: SimpleNamespace) -> None:
    expect_a_method(cls, bottleneck=n.bottleneck, strength=1.0)
    method = cls(bottleneck=n.bottleneck, strength=1.0)
    with put_in(method, tiny_model("bert"), "the adapters"):
        if not method.added:
            raise NotWritten("insert adds nothing yet")


PLACE = Task(
    "adapter.place",
    "Its place in a model",
    _place,
    {_at_its_places: 3, _gives: 2, _leaves: 1},
    (
        "blocks(model) is a list, and sublayer_outputs(model, block) a list of two: attention, then feed-forward.",
        "What the adapter adds is adapter(output) - output. Turn that alone.",
        "A hook gets (module, inputs, output). A function made in a loop finds the last adapter of all: make it in a "
        "function of its own, or use partial.",
    ),
    stars=3,
    minutes=25,
    errors={"expected a transformers model": "attach and detach take the model; in insert it is the argument model"},
)

# A figure ----------------------------------------------------------------------------------------------------------

FIGURE = apart(
    "adapter.figure",
    Bars(
        "reviews",
        {f"adapter m={m}": f"m = {m}" for m in (1, 4, 16, 64)}
        | {
            "adapter m=16, Pfeiffer": "m = 16, Pfeiffer",
            "adapter m=16, norms frozen": "m = 16, norms frozen",
            "norms only": "norms alone",
            "top 1": "top block",
            "top 2": "top two blocks",
        },
        "Adapters and what else is trained: reviews",
        lowest=80,
    ),
)

# A hunt ------------------------------------------------------------------------------------------------------------

CODE = """\
class Adapter(nn.Module):
    def __init__(self, width, bottleneck, std):
        super().__init__()
        self.down = nn.Linear(width, bottleneck, dtype=torch.float64)
        self.up = nn.Linear(bottleneck, width, dtype=torch.float64)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(self, x):
        inner = gelu(self.down(x))
        return x + self.up(inner)

def attach(model, bottleneck, std=1e-3):
    model.base_model.requires_grad_(False)
    adapters = nn.ModuleList()
    for block in blocks(model):
        for place in sublayer_outputs(model, block):
            adapters.append(Adapter(model.config.hidden_size, bottleneck, std))
            hook = partial(lambda own, module, inputs, output: own(output), adapters[-1])
            place.register_forward_hook(hook)
    return adapters"""
DRAWN, BIAS = "nn.init.normal_(linear.weight, std=std)", "nn.init.zeros_(linear.bias)"
INNER, AROUND = "inner = gelu(self.down(x))", "return x + self.up(inner)"
FROZEN, EACH_BLOCK = "model.base_model.requires_grad_(False)", "for block in blocks(model):"
EACH_PLACE = "for place in sublayer_outputs(model, block):"
NEW = "adapters.append(Adapter(model.config.hidden_size, bottleneck, std))"
HOOK = "hook = partial(lambda own, module, inputs, output: own(output), adapters[-1])"
START = "Make one Adapter with std=0.001: how far is what it gives from x, and what are its numbers like?"
UNITS = "Make one Adapter, and print down.weight and up.weight: can the inner numbers come to differ?"
ODD = "Give an Adapter other numbers: a linear map moves x and -x by opposite amounts. Does this one?"
AWAY = "Set every number of an Adapter to zero: what should come out, and what does?"
WAYS = "Give an Adapter other numbers. Is the gradient that reaches x the slope that you measure between two points?"
WHAT = "Which of model.named_parameters() have requires_grad after attach, and which should have it?"
HOW_MANY = "Count the adapters and their numbers, and compare with two a block of 2 m d + m + d"
OWN = "Give one adapter after the other other numbers: does each of them change the logits?"
ZERO = "Set every number of every adapter to zero, and compare the logits with those before attach"
FAULTS = (
    Fault(DRAWN, "nn.init.normal_(linear.weight)", START),
    Fault(DRAWN, "nn.init.constant_(linear.weight, std)", UNITS),
    Fault(DRAWN, "nn.init.zeros_(linear.weight)", UNITS),
    Fault(BIAS, "nn.init.ones_(linear.bias)", START),
    Fault(INNER, "inner = self.down(x)", ODD),
    Fault(INNER, "inner = gelu(self.down(x.detach()))", WAYS),
    Fault(AROUND, "return self.up(inner)", AWAY),
    Fault(AROUND, "return x.detach() + self.up(inner)", WAYS),
    Fault(AROUND, "return 2 * x + self.up(inner)", AWAY),
    Fault(FROZEN, "model.requires_grad_(False)", WHAT),
    Fault(FROZEN, "model.base_model.eval()", WHAT),
    Fault(EACH_BLOCK, "for block in blocks(model)[1:]:", HOW_MANY),
    Fault(EACH_PLACE, "for place in sublayer_outputs(model, block)[1:]:", HOW_MANY),
    Fault(NEW, "adapters.append(Adapter(model.config.hidden_size, bottleneck // 2, std))", HOW_MANY),
    Fault(HOOK, "hook = partial(lambda own, module, inputs, output: own(output), adapters[0])", OWN),
    Fault(HOOK, "hook = lambda module, inputs, output: adapters[-1](output)", OWN),
    Fault(HOOK, "hook = partial(lambda own, module, inputs, output: output + own(output), adapters[-1])", ZERO),
)


def _works(found: dict) -> None:
    _one_works(found["Adapter"])
    model = tiny_model("bert")
    adapters, heads = found["attach"](model, 4), head_parameters(model)
    if any(p.requires_grad for p in model.parameters() if p not in heads):
        raise Misconception("the pretrained model would be trained")
    if not all(p.requires_grad for p in heads):
        raise Misconception("the task head would not be trained")
    if [sum(p.numel() for p in each.parameters()) for each in adapters] != 6 * [_one(8, 4)]:
        raise Misconception("a model of three blocks does not get six adapters of 2 m d + m + d")
    with torch.no_grad():
        for p in adapters.parameters():
            p.normal_()
    places = zip(listen(model)[1], adapters, strict=True)
    if any(not torch.allclose(each.seen, adapter(each.gave)) for each, adapter in places):
        raise Misconception("what comes from a place is not its output, sent through an adapter of its own")


def _one_works(cls) -> None:
    for std in (1e-3, 0.1):
        adapter = cls(60, 40, std)
        if any(bias.any() for bias in (adapter.down.bias, adapter.up.bias)):
            raise Misconception("a bias does not start at zero")
        if any(not 0.5 * std < linear.weight.std() < 1.5 * std for linear in (adapter.down, adapter.up)):
            raise Misconception("the weights do not start with the deviation std")
    x = torch.randn(5, 60, dtype=torch.float64, requires_grad=True)
    right = x + gelu(x @ adapter.down.weight.T) @ adapter.up.weight.T
    if not torch.allclose(adapter(x), right):
        raise Misconception("forward does not give x + W_up gelu(W_down x + b_down) + b_up")
    slopes = [torch.autograd.grad(each.sum(), x, allow_unused=True)[0] for each in (adapter(x), right)]
    if slopes[0] is None or not torch.allclose(*slopes):
        raise Misconception("the gradient that reaches x is not the whole one")


LISTING = Listing(
    CODE,
    FAULTS,
    _works,
    dict(torch=torch, nn=nn, gelu=gelu, partial=partial, blocks=blocks, sublayer_outputs=sublayer_outputs),
)
HUNT = LISTING.task(
    "adapter.hunt",
    (
        "What can be measured: how an adapter starts, what it gives, its gradients, what is trained, how many.",
        "First look at one Adapter alone, then at attach. A fault in one may hide one in the other.",
        "Set numbers to zero and see whether x comes out; set them to others and see whether something changes.",
    ),
    errors={"has no attribute 'base_model'": "attach needs a transformers model: backbone('tiny-bert', ...)[0] is one"},
)


# The smallest bottleneck -------------------------------------------------------------------------------------------


def _change(draw: Random) -> dict:
    return {"data_seed": draw.randrange(10**6), "true_bottleneck": draw.randint(2, 7)}


def _smallest(answer: object, n: SimpleNamespace) -> None:
    expect_smallest(answer, "bottleneck", n.true_bottleneck)


def _measured(answer: object, n: SimpleNamespace) -> None:
    h, y, goal = changed_output(n)
    expect_measured(answer, "bottleneck", least_misses(h, y).tolist(), goal, slack=2.2)


def _cost(answer: object, n: SimpleNamespace) -> None:
    m = plain_number(item(answer, "bottleneck"), "bottleneck")
    wrong = {
        "the biases are left out": 2 * m * SIDE,
        "only one of the two maps is counted": m * SIDE + m + SIDE,
        "one of the two biases is left out": 2 * m * SIDE + m,
    }
    expect(item(answer, "parameters"), _one(SIDE, m), wrong, f"two maps between {SIDE} and m, and two biases")


SMALLEST = Task(
    "adapter.smallest",
    "The smallest bottleneck",
    _change,
    {_smallest: 2, _measured: 2, _cost: 1},
    (
        "Adam, learning rate 0.03, 300 steps over all of h, both maps from a deviation of 0.1: a second or two.",
        "Try 1, 2, 4, 8 first, then those between the last that failed and the first that did it.",
        "Does the loss still fall at the end? Then it is no measurement yet: give it more steps.",
    ),
    stars=2,
    minutes=20,
    errors={"mat1 and mat2 must have the same dtype": "all is float64: nn.Linear(..., dtype=torch.float64)"},
    shown=(),
    hidden=("true_bottleneck",),
)

put_on_the_list(SIZES, BOTTLENECK, PLACE, FIGURE, HUNT, SMALLEST)
