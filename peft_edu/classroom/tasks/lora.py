"""Exercise 07: LoRA's sizes, its layer, its place in a model, a figure, a hunt, and the smallest rank that does it."""

from math import sqrt
from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from peft_edu import LoRA, count
from peft_edu.anatomy import linear_maps
from peft_edu.classroom.figure import Bars, floor
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.problems import SIDE, changed_map, least_losses
from peft_edu.classroom.smallest import expect_measured, expect_smallest
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, same
from peft_edu.lab.exercises.whole_method import expect_a_method, put_in, tiny_model
from peft_edu.method import Method

# How much LoRA trains, and what that takes -----------------------------------------------------------------------

MAPS = (("query", "value"), ("query", "key", "value", "output"))


def _model(draw: Random) -> dict:
    return {
        "blocks": draw.randint(7, 39),
        "width": 64 * draw.randint(5, 31),
        "maps": draw.choice(MAPS),
        "rank": draw.choice((3, 5, 6, 7, 9, 10, 12)),
    }


def _trained(n: SimpleNamespace) -> int:
    return n.blocks * len(n.maps) * n.rank * 2 * n.width


def _parameters(answer: object, n: SimpleNamespace) -> None:
    right, maps = _trained(n), len(n.maps)
    wrong = {
        "this is the size of the frozen maps: A and B are thin": n.blocks * maps * n.width**2,
        "this is r times the size of the maps: A is (r, in), B is (out, r)": right * n.width / 2,
        "only A is counted, or only B: both are trained": right / 2,
        "the blocks are left out: each has its own A and B": right / n.blocks,
        "a block has more than one such map": right / maps,
        "the rank is left out: A has r rows, B has r columns": right / n.rank,
        "the frozen maps are counted as well": right + n.blocks * maps * n.width**2,
    }
    otherwise = "count A and B of one map first, then the maps of a block, then the blocks"
    expect(item(answer, "parameters"), right, wrong, otherwise)


def _share(answer: object, n: SimpleNamespace) -> None:
    right = 200 * n.rank / n.width
    wrong = {
        "this is a fraction: the answer is asked for in per cent": right / 100,
        "this is upside down: how many per cent of the frozen maps is what is trained?": 1e4 / right,
        "only A, or only B, is set against the maps": right / 2,
        "the trained ones are counted on both sides: set them against the frozen maps alone": 100
        * right
        / (100 + right),
    }
    how = "trained parameters / parameters of those frozen maps, times 100"
    expect(item(answer, "share"), right, wrong, how, 0.001)


def _moments(answer: object, n: SimpleNamespace) -> None:
    """Of the student's own number of parameters, right or not: one mistake costs once."""
    parameters = plain_number(item(answer, "parameters"), "parameters")
    right = 8 * parameters / 1e6
    wrong = {
        "AdamW keeps two numbers for each parameter, two moments": right / 2,
        "this counts numbers, not bytes: float32 takes 4": right / 4,
        "the weights and the gradients are counted as well: the moments alone are asked for": 2 * right,
        "1 MB is 1,000,000 bytes here": 8 * parameters / 2**20,
        "this is in bytes": right * 1e6,
    }
    how = "two moments for each of your `parameters`, 4 bytes each, in MB"
    expect(item(answer, "moments"), right, wrong, how, 0.01)


SIZES = Task(
    "lora.sizes",
    "How much is trained?",
    _model,
    {_parameters: 2, _share: 1, _moments: 1},
    (
        "A is (r, in) and B is (out, r). How many numbers is that for one map?",
        "The blocks and the maps appear above and below in the share: they cancel.",
        "AdamW keeps a mean and a mean square for each number that it trains.",
    ),
    stars=1,
    minutes=8,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# The layer -------------------------------------------------------------------------------------------------------

RULES = {"alpha / r": lambda alpha, rank: alpha / rank, "alpha / sqrt(r)": lambda alpha, rank: alpha / sqrt(rank)}


def _layer(draw: Random) -> dict:
    return {
        "rule": draw.choice(list(RULES)),
        "out": draw.randint(6, 12),
        "into": draw.randint(13, 19),
        "rank": draw.choice((2, 3, 5)),
        "alpha": draw.choice((6, 7, 11, 13)),
    }


def _made(cls: object, n: SimpleNamespace, filled: bool = True) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A layer, its frozen W, its A and its B, by their shapes; `filled` with other numbers than zero."""
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise Misconception("a class is asked for, class LoRALayer(nn.Module)")
    layer = cls(_linear(n), n.rank, n.alpha)
    own = {p for p in layer.parameters() if p.shape != (n.out, n.into) and p.ndim == 2}
    A, B = (next((p for p in own if p.shape == each), None) for each in ((n.rank, n.into), (n.out, n.rank)))
    if not own:
        raise NotWritten("the layer has no parameters yet: A and B are each an nn.Parameter")
    if A is None or B is None:
        found = ", ".join(str(tuple(p.shape)) for p in own)
        raise Misconception(f"A is (r, in) and B is (out, r), each an nn.Parameter; found were {found}")
    if filled:
        with torch.no_grad():
            for p in (A, B):
                p.copy_(torch.randn(p.shape, dtype=p.dtype))
    return layer, _linear(n).weight, A, B


def _linear(n: SimpleNamespace) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Linear(n.into, n.out, bias=False, dtype=torch.float64)


def _input(n: SimpleNamespace) -> Tensor:
    return torch.randn(2, 4, n.into, dtype=torch.float64)


def _starts(cls: object, n: SimpleNamespace) -> None:
    layer, W, A, B = _made(cls, n, filled=False)
    x = _input(n)
    if not A.any() and not B.any():
        raise Misconception("A and B are both zero: each one's gradient has the other as a factor, so neither moves")
    if B.any():
        raise Misconception("B is not zero: training would start away from the pretrained layer")
    if torch.linalg.matrix_rank(A.double()) < n.rank:
        raise Misconception("the rows of A are alike at the start: they would stay alike, and the rank would be 1")
    same(layer(x), x @ W.T, {}, "with B = 0 the layer does not give what the linear map gives")


def _given(layer: nn.Module, x: Tensor) -> Tensor:
    out = layer(x)
    if not isinstance(out, Tensor):
        raise Misconception(NOTHING if out is None else f"forward gives a tensor, got {type(out).__name__}")
    return out


def _forward(cls: object, n: SimpleNamespace) -> None:
    """At the student's own sizes, and at others."""
    _forward_of(cls, n)
    _forward_of(cls, SimpleNamespace(**vars(n) | {"rank": n.rank + 1, "alpha": n.alpha + 2, "into": n.into + 1}))


def _forward_of(cls: object, n: SimpleNamespace) -> None:
    layer, W, A, B = _made(cls, n)
    x = _input(n)
    update = x @ A.T @ B.T
    scale = RULES[n.rule](n.alpha, n.rank)
    other = next(rule for rule in RULES if rule != n.rule)
    wrong = {
        f"you wrote {other}, and your rule is {n.rule}": x @ W.T + RULES[other](n.alpha, n.rank) * update,
        f"the scale is left out: your rule is {n.rule}": x @ W.T + update,
        f"the update is scaled by alpha alone: your rule is {n.rule}": x @ W.T + n.alpha * update,
        "W x is missing: the frozen map still does its work": scale * update,
        "W x is scaled as well: the scale belongs to the update": scale * (x @ W.T + update),
        "A and B do nothing in forward": x @ W.T,
    }
    with torch.no_grad():
        same(layer(x), x @ W.T + scale * update, wrong)


def _trains(cls: object, n: SimpleNamespace) -> None:
    layer, _, A, B = _made(cls, n)
    x = _input(n).requires_grad_()
    _given(layer, x).square().sum().backward()
    if any(p.requires_grad for p in layer.parameters() if p.shape == (n.out, n.into)):
        raise Misconception("the frozen W would be trained as well: requires_grad_(False)")
    if any(p.requires_grad for p in layer.parameters() if p is not A and p is not B):
        raise Misconception("more than A and B is trained")
    if A.grad is None or B.grad is None or not A.grad.any() or not B.grad.any():
        raise Misconception("no gradient reaches A or B: is there a detach, a .data or a no_grad in forward?")
    if x.grad is None or not x.grad.any():
        raise Misconception("no gradient reaches x: the layers below could not be trained")


def _merges(cls: object, n: SimpleNamespace) -> None:
    """By the layer's own forward, so that a wrong scale is told there alone."""
    layer, W, _, _ = _made(cls, n)
    trained = sum(p.requires_grad for p in layer.parameters())
    x, eye = _input(n), torch.eye(n.into, dtype=torch.float64)
    for name in ("merge", "unmerge"):
        if not hasattr(layer, name):
            raise NotWritten(f"{name} is not written yet")
    before, right = _given(layer, x).detach(), layer(eye).T.detach()
    layer.merge()
    if all(torch.allclose(each, W) for each in _weights(layer, W)):
        raise Misconception("after merge() the weight W is what it was: the update is to be added to it")
    if not any(torch.allclose(each, right) for each in _weights(layer, W)):
        raise Misconception("the merged weight is not what forward makes of x: W plus the scaled update")
    twice = "after merge() the layer gives another output, as if the update were added twice"
    same(layer(x).detach(), before, {}, twice)
    layer.unmerge()
    if not any(torch.allclose(each, W) for each in _weights(layer, W)):
        raise Misconception("after unmerge() the weight is not what it was before")
    if sum(p.requires_grad for p in layer.parameters()) > trained:
        raise Misconception("after merge() the weight is trained: it has to stay frozen")
    again = "after unmerge() the output is another one: forward has to add the update again"
    same(layer(x).detach(), before, {}, again)


def _weights(layer: nn.Module, W: Tensor) -> list[Tensor]:
    """All parameters of the shape of W: a layer may keep the old one beside the merged one."""
    found = [p.detach() for p in layer.parameters() if p.shape == W.shape]
    if not found:
        raise Misconception("the frozen weight is no parameter of the layer any more")
    return found


LAYER = Task(
    "lora.layer",
    "The layer",
    _layer,
    {_starts: 2, _forward: 2, _trains: 1, _merges: 3},
    (
        "`linear.weight.new_zeros(out, rank)` has the dtype of the weight: everything here is float64.",
        "A flag, `self.merged`, tells forward whether the weight holds the update already.",
        "To change a weight in place write it under `torch.no_grad()`.",
    ),
    stars=2,
    minutes=20,
    errors={
        "a leaf Variable that requires grad is being used": "put `with torch.no_grad():` around the in-place change",
        "expected m1 and m2 to have the same dtype": "make A and B from the weight: weight.new_empty(...)",
        "cannot assign": "an nn.Parameter is not replaced by a plain tensor: change it in place, under no_grad",
    },
)

# Its place in a model ---------------------------------------------------------------------------------------------

PAIRS = (("query", "key"), ("key", "value"))  # GPT-2 keeps both of a pair in one module


def _pair(draw: Random) -> dict:
    first, second = draw.choice(PAIRS)
    return {"first": first, "second": second, "rank": draw.choice((2, 3, 5))}


def _put(cls: object, n: SimpleNamespace, family: str):
    expect_a_method(cls, rank=n.rank)
    model, method = tiny_model(family), cls(rank=n.rank)
    return model, method


def _at_its_maps(cls: object, n: SimpleNamespace) -> None:
    for family in ("bert", "gpt2"):
        model, method = _put(cls, n, family)
        method.attach(model)
        if not method.added:
            raise NotWritten("insert adds nothing yet")
        wanted = linear_maps(model, (n.first, n.second))
        maps = {id(each.module): each for each in wanted}
        holders = {
            id(module) for module in model.modules() if any(child in method.added for child in module.children())
        }
        if holders != set(maps):
            roles = [each.role for each in linear_maps(model) if id(each.module) in holders]
            found = ", ".join(dict.fromkeys(roles)) or "other modules"
            raise Misconception(f"the updates stand beside {found}: asked for are {n.first} and {n.second}")
        right = sum(n.rank * sum(each.weight.shape) for each in wanted)
        own = count(model).trainable - count(model).head
        if own != right:
            raise Misconception(
                f"{own} parameters are added to a {family}, rank {n.rank}: a map gets r (in + out). Is self.rank used?"
            )


IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 1, 2]])


@torch.no_grad()
def _adds(cls: object, n: SimpleNamespace) -> None:
    """With other numbers in A and B the logits are those that the package's LoRA gives with the same numbers."""
    for family in ("bert", "gpt2"):
        model, method = _put(cls, n, family)
        base = model(input_ids=IDS).logits
        method.attach(model)
        if not method.added:
            raise NotWritten("insert adds nothing yet")
        if not torch.allclose(model(input_ids=IDS).logits, base):
            raise Misconception("right after attach the model answers otherwise: B starts at zero")
        for child in method.added:
            for parameter in child.parameters():
                parameter.copy_(torch.randn(parameter.shape))
        logits = model(input_ids=IDS).logits
        if torch.allclose(logits, base):
            raise Misconception("with other numbers in A and B the model answers as before: nothing adds the update")
        if not any(torch.allclose(logits, _by_the_package(model, method, n, turned)) for turned in (False, True)):
            raise Misconception(
                f"in a {family} the two maps do not each get what their own A and B make of their own input: which "
                "update does each hook call, and to which part of the output is it added?"
            )


def _by_the_package(model, method: Method, n: SimpleNamespace, turned: bool) -> Tensor:
    """Where one module holds both maps, the first of the updates there may be either map's."""
    reference = tiny_model(model.config.model_type)
    ours = LoRA(n.rank, n.rank, targets=(n.first, n.second))
    ours.attach(reference)
    for target, (_, update) in zip(linear_maps(model, (n.first, n.second)), ours.updates, strict=True):
        there = [child for child in target.module.children() if child in method.added]
        if not there:
            raise Misconception(f"nothing stands beside {target.role}")
        own = there[(target.role == n.second) ^ turned] if len(there) > 1 else there[0]
        for p in own.parameters():
            (update.A if p.shape == update.A.shape else update.B).copy_(p)
    return reference(input_ids=IDS).logits


def _leaves(cls: object, n: SimpleNamespace) -> None:
    model, method = _put(cls, n, "bert")
    with put_in(method, model, "A and B"):
        if not method.added:
            raise NotWritten("insert adds nothing yet")


PLACE = Task(
    "lora.place",
    "Its place in a model",
    _pair,
    {_at_its_maps: 2, _adds: 3, _leaves: 1},
    (
        "The forward hook gets (module, inputs, output) and gives back a new output.",
        "Name each child by its role: two updates may stand at one module. In each hook keep the update it is for.",
        "A hook that is made in a loop finds the last update of all: make it in a function of its own, or use partial.",
    ),
    stars=3,
    minutes=25,
    errors={
        "The size of tensor a": "the update of a part of GPT-2's c_attn is narrower than the output: add it to its rows"
    },
)

# A figure ----------------------------------------------------------------------------------------------------------

FIGURE = floor(
    "lora.figure",
    Bars(
        "reviews",
        {
            "LoRA query r=16": "query, r = 16",
            "LoRA key r=16": "key, r = 16",
            "LoRA value r=16": "value, r = 16",
            "LoRA output r=16": "output, r = 16",
            "LoRA r=8": "query, value, r = 8",
            "LoRA all four r=4": "all four, r = 4",
        },
        "LoRA on reviews, tiny-bert: which maps?",
        lowest=70,
    ),
)

# A hunt ------------------------------------------------------------------------------------------------------------

CODE = """\
class LoRALinear(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        out, into = linear.weight.shape
        self.A = nn.Parameter(torch.randn(rank, into) / into**0.5)
        self.B = nn.Parameter(torch.zeros(out, rank))
        self.scale = alpha / rank

    def forward(self, x):
        update = x @ self.A.T @ self.B.T
        return self.linear(x) + self.scale * update

    @torch.no_grad()
    def merged(self):
        return self.linear.weight + self.scale * self.B @ self.A"""
FREEZE = "self.linear = linear.requires_grad_(False)"
START_A = "self.A = nn.Parameter(torch.randn(rank, into) / into**0.5)"
START_B = "self.B = nn.Parameter(torch.zeros(out, rank))"
SCALE, UPDATE = "self.scale = alpha / rank", "update = x @ self.A.T @ self.B.T"
ADD, MERGED = "return self.linear(x) + self.scale * update", "return self.linear.weight + self.scale * self.B @ self.A"
MOVES = "Train one step with a large learning rate, and look at linear.weight before and after"
ALIKE = "Train some steps and count the directions of B @ A: torch.linalg.svdvals"
FIRST = "Before training, compare what the layer gives with what the linear map gives"
TWICE = "Give A and B other numbers, double alpha, and look at what is added to the linear map's output"
DEPTH = "Put the layer on another one that is trained, too: does a gradient reach that one?"
OPEN = "Give A and B other numbers. Is x @ merged().T what forward gives?"
FAULTS = (
    Fault(FREEZE, "self.linear = linear.requires_grad_(True)", MOVES),
    Fault(FREEZE, "self.linear = linear", MOVES),
    Fault(START_A, "self.A = nn.Parameter(torch.ones(rank, into) / into**0.5)", ALIKE),
    Fault(START_A, "self.A = nn.Parameter(torch.randn(1, into).repeat(rank, 1) / 4)", ALIKE),
    Fault(START_B, "self.B = nn.Parameter(torch.randn(out, rank) / rank)", FIRST),
    Fault(START_B, "self.B = nn.Parameter(torch.full((out, rank), 0.01))", FIRST),
    Fault(SCALE, "self.scale = rank / alpha", TWICE),
    Fault(SCALE, "self.scale = 1 / rank", TWICE),
    Fault(UPDATE, "update = x.detach() @ self.A.T @ self.B.T", DEPTH),
    Fault(ADD, "return self.linear(x).detach() + self.scale * update", DEPTH),
    Fault(MERGED, "return self.linear.weight + self.B @ self.A", OPEN),
    Fault(MERGED, "return self.scale * self.B @ self.A", OPEN),
)


def _works(found: dict) -> None:
    cls = found["LoRALinear"]
    for alpha in (6, 12):
        _works_at(cls, nn.Linear(5, 4, bias=False), alpha)


def _works_at(cls, linear: nn.Linear, alpha: float) -> None:
    layer = cls(linear, 3, alpha)
    W, x = linear.weight.detach().clone(), torch.randn(6, 5)
    if linear.weight.requires_grad:
        raise Misconception("the linear map would be trained")
    if not layer.A.any() or torch.linalg.matrix_rank(layer.A.detach()) < 3:
        raise Misconception("the rows of A do not start apart")
    if not torch.allclose(layer(x), x @ W.T, atol=1e-5):
        raise Misconception("before training the layer does not give what the linear map gives")
    with torch.no_grad():
        layer.B.normal_()
    right = x @ W.T + alpha / 3 * x @ layer.A.T @ layer.B.T
    if not torch.allclose(layer(x), right, atol=1e-4):
        raise Misconception("with other numbers in A and B forward does not give W x + (alpha / r) B A x")
    if not torch.allclose(x @ layer.merged().T, right, atol=1e-4):
        raise Misconception("merged() is not the weight that gives the same")
    x.requires_grad_()
    layer(x).sum().backward()
    whole = (W + alpha / 3 * layer.B.detach() @ layer.A.detach()).sum(0).expand_as(x)
    if x.grad is None or not torch.allclose(x.grad, whole, atol=1e-4):
        raise Misconception("the gradient that reaches x is not that of W x + (alpha / r) B A x")
    if layer.A.grad is None or layer.B.grad is None:
        raise Misconception("no gradient reaches A or B")


LISTING = Listing(CODE, FAULTS, _works, {"torch": torch, "nn": nn})
HUNT = LISTING.task(
    "lora.hunt",
    (
        "What can be measured: what is trained, how it starts, its scale, its gradients, what merged() gives.",
        "Measure one at a time: a fault in one line may hide another.",
        "Compare each line with what it is to do. Which of your measurements would notice if it did not?",
    ),
)


# The smallest rank -------------------------------------------------------------------------------------------------


def _change(draw: Random) -> dict:
    return {"data_seed": draw.randrange(10**6), "true_rank": draw.randint(3, 9)}


def _smallest(answer: object, n: SimpleNamespace) -> None:
    expect_smallest(answer, "rank", n.true_rank)


def _measured(answer: object, n: SimpleNamespace) -> None:
    x, y, W, goal = changed_map(n)
    expect_measured(answer, "rank", least_losses(x, y, W).tolist(), goal, slack=3)


def _cost(answer: object, n: SimpleNamespace) -> None:
    rank = plain_number(item(answer, "rank"), "rank")
    wrong = {"only A is counted, or only B": rank * SIDE, "this is the size of W": SIDE**2}
    expect(item(answer, "parameters"), 2 * rank * SIDE, wrong, f"A (r, in) and B (out, r), both {SIDE} wide")


SMALLEST = Task(
    "lora.smallest",
    "The smallest rank",
    _change,
    {_smallest: 2, _measured: 2, _cost: 1},
    (
        "Adam, learning rate 0.05, 500 steps over all of x: a second. The loss is (y - ...).square().mean().",
        "Try 1, 2, 4, 8, ... first, then the ranks between the last that failed and the first that did it.",
        "The loss of a rank that is too small stops falling, however long you train.",
    ),
    stars=2,
    minutes=20,
    errors={"expected m1 and m2 to have the same dtype": "all is float64: torch.zeros(..., dtype=torch.float64)"},
    shown=(),
    hidden=("true_rank",),
)

put_on_the_list(SIZES, LAYER, PLACE, FIGURE, HUNT, SMALLEST)
