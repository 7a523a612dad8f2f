"""Lesson 02: what the learner builds and trains: the bottleneck, its hook, and the method that puts them in series.

The checks know no attribute by name: they move the parameters and look at what comes out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, head_parameters, norms, sublayer_outputs
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise, shape, tensors, untouched
from peft_edu.lab.exercises.whole_method import IDS, ask_hook, expect_a_method, put_in, tiny_model
from peft_edu.method import METHODS, Method


class MyBottleneck(nn.Module):
    """x + W_up gelu(W_down x + b_down) + b_up"""

    def __init__(self, width, bottleneck, std=1e-3):
        super().__init__()
        self.down = nn.Linear(width, bottleneck, dtype=torch.float64)
        self.up = nn.Linear(bottleneck, width, dtype=torch.float64)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(linear.bias)

    def forward(self, x):
        inner = gelu(self.down(x))  # (..., d) -> (..., m)
        return x + self.up(inner)  # -> (..., d)


@exercise(
    "adapter.module",
    reference=MyBottleneck,
    hints=(
        "`nn.Linear(width, bottleneck, dtype=torch.float64)` is W_down with b_down. What goes back up?",
        "`nn.init.normal_(linear.weight, std=std)` draws a weight, `nn.init.zeros_(linear.bias)` makes a bias 0.",
        "The solution cuts the tails at two deviations, as the authors' code does (trunc_normal_). Both are right.",
        "Down, then gelu, then up. What if both maps were zero? Then x must come out.",
    ),
)
def _module(cls) -> None:
    """class MyBottleneck(nn.Module): MyBottleneck(width, bottleneck, std) holds two nn.Linear, down and up, whose
    weights are drawn with the deviation std and whose biases are 0; forward takes x (..., width) to
    x + up(gelu(down(x)))"""
    if not issubclass(cls, nn.Module):
        raise Misconception("MyBottleneck is no nn.Module: write class MyBottleneck(nn.Module)")
    (x,) = tensors((4, 5))
    adapter = cls(5, 2, 1e-3)
    matrices, biases = _parts(adapter)
    _expect_start(adapter, matrices, biases, x)
    with torch.no_grad():
        for parameter in adapter.parameters():  # as after many steps
            parameter.normal_()
    _expect_bottleneck(adapter, matrices, biases, x)
    _expect_learning(adapter, x)
    _expect_deviation(cls)
    _expect_names(adapter)


def _parts(adapter: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The two matrices and the two biases of width 5 and bottleneck 2, the one with the longer side last first."""
    every = list(adapter.parameters())
    if not every:
        raise Misconception("nothing in it would be trained: set two nn.Linear on self, down and up")
    if any(not each.requires_grad for each in every):
        raise Misconception("a parameter is frozen: both maps are trained, with their biases")
    if any(each.dtype != torch.float64 for each in every):
        raise Misconception(
            f"a parameter is {next(each.dtype for each in every if each.dtype != torch.float64)}, and the models of "
            "this course compute in float64: nn.Linear(..., dtype=torch.float64)"
        )
    found = sorted(tuple(each.shape) for each in every)
    shapes = ", ".join(map(str, found))
    if found == [(2, 5), (5, 2)]:
        raise Misconception("the biases are missing: b_down has m numbers, b_up has d")
    if (5, 5) in found:
        raise Misconception("there is a matrix of d by d: both maps have the bottleneck m at one side")
    if found != [(2,), (2, 5), (5,), (5, 2)]:
        raise Misconception(
            f"for width 5 and bottleneck 2 expected two matrices, (2, 5) and (5, 2), and their biases of 2 and of 5 "
            f"numbers, got {shapes}"
        )
    by_shape = {tuple(each.shape): each for each in every}
    return [by_shape[2, 5], by_shape[5, 2]], [by_shape[2,], by_shape[5,]]


def _expect_start(adapter: nn.Module, matrices: list[Tensor], biases: list[Tensor], x: Tensor) -> None:
    if any(bias.any() for bias in biases):
        raise Misconception("a bias does not start at 0: set both to 0 (nn.Linear draws its own at random)")
    if not any(matrix.any() for matrix in matrices):
        raise Misconception("both maps start at zero: each one's gradient is a product with the other, zero for ever")
    if not all(matrix.any() for matrix in matrices):
        raise Misconception(
            "one map starts at zero. That is a start at the identity, and it can learn; here draw both with the "
            "deviation std, as the paper does: later cells turn std up"
        )
    if any(torch.linalg.matrix_rank(matrix) < 2 for matrix in matrices):
        raise Misconception("the m inner numbers are made or used alike: they would get the same gradient for ever")
    output = _output(adapter, x)
    if (output - x).norm() < 0.01 * x.norm():
        return
    if output.norm() < 0.01 * x.norm():
        raise Misconception("x is missing: without the way around the bottleneck nothing comes through at the start")
    if (output - 2 * x).norm() < 0.01 * x.norm():
        raise Misconception("x is added twice: with both maps near zero x itself must come out")
    raise Misconception(
        f"with std = 0.001 x is changed by {(output - x).norm() / x.norm():.2g} of its size: are both weights drawn "
        "with std? nn.Linear has drawn its own start already, and it is far larger"
    )


def _output(adapter: nn.Module, x: Tensor) -> Tensor:
    output = untouched(adapter, (x,))
    if output is None:
        raise Misconception(NOTHING)
    if not isinstance(output, Tensor):
        raise Misconception(f"forward gives a {type(output).__name__}, but must give a tensor")
    shape(output, x.shape, "what comes out is as wide as x")
    return output


def _expect_bottleneck(adapter: nn.Module, matrices: list[Tensor], biases: list[Tensor], x: Tensor) -> None:
    first, second = matrices
    b_down, b_up = biases
    output = _output(adapter, x)
    if not torch.equal(output, adapter(x)):
        raise Misconception("asked twice it gives two answers: there is something random in forward")
    ways = [(first, second), (second.T, first.T)]  # a matrix that is no nn.Linear's may be stored the other way round
    if any(torch.allclose(output, x + gelu(x @ W.T + b_down) @ V.T + b_up) for W, V in ways):
        return
    for W, V in ways:
        inner = x @ W.T + b_down
        added = gelu(inner) @ V.T + b_up
        tanh = gelu(inner, approximate="tanh") @ V.T + b_up
        wrong = {
            "x is missing: the way around the bottleneck is what makes the start harmless": added,
            "x is added twice": 2 * x + added,
            "the nonlinearity is missing: two linear maps in a row are one, of low rank": x + inner @ V.T + b_up,
            "this is ReLU: the adapter of this lesson has GELU between its maps": x + relu(inner) @ V.T + b_up,
            "this is SiLU: the adapter of this lesson has GELU between its maps": x + silu(inner) @ V.T + b_up,
            "this is GELU's tanh approximation (GPT-2's): the adapter of this lesson has GELU itself": x + tanh,
            "GELU comes after W_up here: it belongs between the two maps": x + gelu(inner @ V.T + b_up),
            "b_up is left out": x + gelu(inner) @ V.T,
            "b_down is left out": x + gelu(x @ W.T) @ V.T + b_up,
            "GELU is put on the sum: x goes around it as it is": gelu(x + inner @ V.T + b_up),
            "x goes through GELU as well: it is added as it is": gelu(x) + added,
        }
        for message, value in wrong.items():
            if torch.allclose(output, value.detach()):
                raise Misconception(message)
    raise Misconception("with both maps given, the output is not x + W_up gelu(W_down x + b_down) + b_up")


def _expect_learning(adapter: nn.Module, x: Tensor) -> None:
    for other in (x[0], x.reshape(2, 2, 5)):
        try:
            fits = torch.allclose(adapter(other), adapter(x).reshape(4, 5)[: len(other.reshape(-1, 5))].view_as(other))
        except Exception as error:
            raise Misconception(
                f"right for x (t, d), but it stops for {tuple(other.shape)}: x is (..., d), any number of axes"
            ) from error
        if not fits:
            raise Misconception(f"right for x (t, d), but not for x {tuple(other.shape)}: x is (..., d)")
    reads = x.clone().requires_grad_()
    adapter(reads).square().sum().backward()
    if any(parameter.grad is None or not parameter.grad.any() for parameter in adapter.parameters()):
        raise Misconception("no gradient reaches one of the maps: is there a detach(), a .data or a no_grad?")
    adapter.zero_grad()
    (slope,) = torch.autograd.grad(adapter(reads).sum(), reads)
    with torch.no_grad():  # the same from two points, which no detach() can hide
        rise = (adapter(x + 1e-6) - adapter(x - 1e-6)).sum() / 2e-6
    if not torch.isclose(slope.sum(), rise, rtol=1e-4):
        raise Misconception("the gradient does not go through all of it: is there a detach() on the way around?")


def _expect_deviation(cls) -> None:
    for std in (0.5, 0.05):
        for matrix in (each for each in cls(60, 40, std).parameters() if each.ndim == 2):
            found = matrix.std().item()
            if not 0.5 * std < found < 1.5 * std:
                raise Misconception(
                    f"with std = {std} a weight has a deviation of {found:.2g}: draw both with std, the third argument"
                )


def _expect_names(adapter: nn.Module) -> None:
    """Later cells read these: right without them, but the lesson could not go on."""
    for name, wanted in (("down", (2, 5)), ("up", (5, 2))):
        part = getattr(adapter, name, None)
        if not isinstance(part, nn.Linear) or tuple(part.weight.shape) != wanted:
            raise Misconception(
                f"it computes what it should, well done. One thing is missing, an nn.Linear named self.{name}: later "
                "the lesson takes the two maps out by these names, and compares them with the package's"
            )


def through_my_adapter(module, inputs, output):
    return module.my_adapter(output)


@exercise(
    "adapter.hook",
    reference=through_my_adapter,
    hints=(
        "PyTorch calls it after the module has run. What it returns takes the place of the output.",
        "The adapter stands behind the module: it reads what the module gives.",
        "The way around the bottleneck is inside of the adapter already.",
    ),
)
def _hook(f) -> None:
    """f(module, inputs, output) -> the output, sent through module.my_adapter"""
    torch.manual_seed(1)
    module = nn.Linear(4, 4, dtype=torch.float64)
    module.my_adapter = nn.Linear(4, 4, dtype=torch.float64)
    (x,) = tensors((2, 3, 4))
    before = module(x).detach()
    right = module.my_adapter(before)
    wrong = {
        "the output comes back as it was: send it through module.my_adapter": before,
        "the output is added once more: the way around, x + ..., is inside of the adapter already": before + right,
        "my_adapter reads the module's input here: it stands behind the module, and reads its output": (
            module.my_adapter(x)
        ),
        "my_adapter reads the module's input, and stands beside the module: that is LoRA's place": (
            before + module.my_adapter(x)
        ),
        "the output goes through my_adapter twice": module.my_adapter(right),
    }
    ask_hook(f, module, x, right, wrong, "my_adapter")


@dataclass
class MyAdapter(Method):
    bottleneck: int = 16
    std: float = 1e-3

    def insert(self, model):
        for norm in norms(model):
            self.unfreeze(norm)
        for block in blocks(model):
            for place in sublayer_outputs(model, block):
                self.add(place, "my_adapter", MyBottleneck(model.config.hidden_size, self.bottleneck, self.std))
                self.hook(place.register_forward_hook(through_my_adapter))


METHODS.pop("MyAdapter")  # `check` puts on the list what the lesson goes on with: the learner's, or this one


@exercise(
    "adapter.insert",
    reference=MyAdapter,
    hints=(
        "`for norm in norms(model)` goes through the LayerNorms. `self.unfreeze(norm)` trains one of them.",
        "`sublayer_outputs(model, block)` gives two places in a block. Each gets an adapter of its own.",
        "`self.add(place, a name, an adapter)` makes it a child of the place: trained, and saved.",
        "`self.hook(place.register_forward_hook(your_hook))` lets detach take the hook off again.",
    ),
)
def _insert(cls) -> None:
    """class MyAdapter(Method), a @dataclass with bottleneck and std: insert(self, model) trains every LayerNorm, by
    self.unfreeze, and puts a bottleneck behind each of the sublayer_outputs of every block, by self.add and self.hook
    """
    expect_a_method(cls, bottleneck=2, std=1e-3)
    _check_insert(cls, tiny_model("bert"))
    try:
        _check_insert(cls, tiny_model("llama"))
    except Misconception as error:
        raise Misconception(f"right on a BERT, but not on a Llama, whose parts have other names: {error}") from error
    except AttributeError as error:
        raise Misconception(
            f"right on a BERT, but a Llama's parts have other names ({error}): blocks, norms and sublayer_outputs find "
            "them in both"
        ) from error


@dataclass
class Place:
    """What a sub-layer gave in a forward pass, and what the rest of the model saw of it."""

    name: str
    gave: Tensor
    seen: Tensor
    in_place: bool


def listen(model: PreTrainedModel) -> tuple[Tensor, list[Place]]:
    """The logits of a model, and what became of the output of each sub-layer."""
    gave, heard, handles = {}, [], []
    for number, block in enumerate(blocks(model), 1):
        for module, kind in zip(sublayer_outputs(model, block), ("attention", "the feed-forward network"), strict=True):

            def before(module, _, output):
                gave[module] = output, output.clone()

            def after(module, _, output, name=f"{kind} of block {number}"):
                raw, copy = gave[module]
                heard.append(Place(name, copy, output, not torch.equal(raw, copy)))

            handles.append(module.register_forward_hook(before, prepend=True))
            handles.append(module.register_forward_hook(after))
    try:
        with torch.no_grad():
            return model(input_ids=IDS).logits, heard
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _at_its_width(model: PreTrainedModel) -> Iterator[None]:
    """A width that is written down as a number fits the lesson's model alone."""
    try:
        yield
    except RuntimeError as error:
        if "shapes cannot be multiplied" not in str(error):
            raise
        wide = model.config.hidden_size
        raise Misconception(
            f"in a model of width {wide} the shapes do not fit ({error}): take the width from model.config.hidden_size"
        ) from error


def _check_insert(cls, model: PreTrainedModel) -> None:
    with torch.no_grad():
        base = model(input_ids=IDS).logits
    every = dict(model.named_parameters())
    with _at_its_width(model), put_in(method := cls(bottleneck=2, std=1e-3), model, "the adapters", unfrozen=True):
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        if not method.added and not hooked:
            raise NotWritten("insert adds no adapter yet. Put one behind each of the sublayer_outputs, and hook it")
        if not method.added:
            raise Misconception(
                "a hook is there, but no adapter was added: without self.add nothing of it is trained or saved"
            )
        _expect_norms(method, model, every)
        _expect_adapters(method, model, base)


def _expect_norms(method: Method, model: PreTrainedModel, every: dict[str, nn.Parameter]) -> None:
    """Of the model's own all LayerNorms are trained, and nothing else."""
    wanted = {parameter for norm in norms(model) for parameter in norm.parameters()}
    heads = head_parameters(model)
    trained = {name: p for name, p in every.items() if p.requires_grad and p not in heads}
    if other := [name for name, p in trained.items() if p not in wanted]:
        raise Misconception(f"{other[0]} is trained: of the model's own only LayerNorms and the task head are trained")
    if not trained:
        raise Misconception("the LayerNorms stay frozen: this method trains them as well, by self.unfreeze(norm)")
    if left := [name for name, p in every.items() if p in wanted and not p.requires_grad]:
        raise Misconception(f"{left[0]} stays frozen: norms(model) gives all of them, that of the embeddings as well")
    if any(p not in method.own for p in trained.values()):
        raise Misconception(
            "a LayerNorm is set to be trained by hand: self.unfreeze(norm) also remembers what it was, for detach"
        )


def _expect_adapters(method: Method, model: PreTrainedModel, base: Tensor) -> None:
    adapters = _adapters(method)
    logits, _ = listen(model)
    if not torch.allclose(logits, base, rtol=0, atol=1e-2):
        raise Misconception(
            "right after attach the model gives other answers. Is the output added twice? Does the adapter get "
            "self.std?"
        )
    _fill(adapters)
    _, heard = listen(model)
    if any(each.in_place for each in heard):
        raise Misconception("an output is changed in place (by +=): return a new tensor")
    _expect_places(heard, moved=not torch.allclose(_logits(model), base, rtol=0, atol=1e-6))
    _expect_own(heard, adapters)
    _expect_fields(type(method))


def _adapters(method: Method) -> list[nn.Module]:
    """What was added, or what is inside of it."""
    return list(dict.fromkeys(part for child in method.added for part in child.modules()))


@torch.no_grad()
def _fill(adapters: list[nn.Module]) -> None:
    """Other numbers in all places, as after some steps."""
    draw = torch.Generator().manual_seed(0)
    for parameter in _parameters(adapters):
        parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))


def _parameters(adapters: list[nn.Module]) -> Iterator[nn.Parameter]:
    return iter(dict.fromkeys(parameter for adapter in adapters for parameter in adapter.parameters()))


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    return model(input_ids=IDS).logits


def _expect_places(heard: list[Place], moved: bool) -> None:
    """Every sub-layer's output is changed."""
    on = [not torch.equal(each.gave, each.seen) for each in heard]
    if all(on):
        return
    if not any(on) and not moved:
        raise Misconception("the adapters are there, but nothing calls them: the hook is forgotten")
    if not any(on):
        raise Misconception(
            "the adapters stand somewhere else: they belong behind each of sublayer_outputs(model, block), before the "
            "residual sum and the LayerNorm"
        )
    if all(on[1::2]) and not any(on[::2]):
        raise Misconception("only the feed-forward networks have an adapter: attention gets one, too")
    if all(on[::2]) and not any(on[1::2]):
        raise Misconception("only attention has an adapter: the feed-forward network gets one, too")
    some = next(each.name for each, is_on in zip(heard, on, strict=True) if not is_on)
    raise Misconception(f"{some} has no adapter: every block gets two. Does a return or a break come too early?")


@torch.no_grad()
def _expect_own(heard: list[Place], adapters: list[nn.Module]) -> None:
    """Each output goes once through an adapter of its own."""
    used = []
    for each in heard:
        found = [adapter for adapter in adapters if _gives(adapter, each.gave, each.seen)]
        if not found:
            if any(_gives(adapter, each.gave, each.seen - each.gave) for adapter in adapters):
                raise Misconception("the output is added once more: the adapter gives x + ... already")
            raise Misconception(
                f"what comes from {each.name} is not its output, sent once through one adapter: is the hook "
                "registered twice, or does it read inputs?"
            )
        used.append(found[0])
    if len(set(used)) == len(used):
        return
    if len(set(used)) > 1:
        raise Misconception("two places share one adapter: make one for each place")
    if sum(any(True for _ in adapter.parameters(recurse=False)) for adapter in adapters) > 2:
        raise Misconception(
            "all places use the last adapter: a function made in a loop looks its names up when it is called, and by "
            "then the loop is over. Let the hook find the adapter on its module"
        )
    raise Misconception("all places share one adapter: make a new one inside of the inner loop")


def _gives(adapter: nn.Module, read: Tensor, given: Tensor) -> bool:
    try:
        result = adapter(read)
    except Exception:
        return False
    return isinstance(result, Tensor) and result.shape == given.shape and torch.allclose(result, given)


def _expect_fields(cls) -> None:
    """The fields reach the adapters."""
    method = cls(bottleneck=3, std=1e-3)
    method.attach(tiny_model("bert"))
    sizes = {min(p.shape) for p in _parameters(_adapters(method)) if p.ndim == 2}
    if sizes != {3}:
        raise Misconception(f"MyAdapter(bottleneck=3) makes bottlenecks of {min(sizes)}: use self.bottleneck")
    moved = {}
    for std in (1e-3, 1.0):
        torch.manual_seed(0)
        method = cls(bottleneck=3, std=std)
        method.attach(tiny_model("bert"))
        moved[std] = max(p.abs().max().item() for p in _parameters(_adapters(method)))
    if moved[1.0] < 100 * moved[1e-3]:
        raise Misconception("MyAdapter(std=1) starts as MyAdapter(std=0.001) does: give self.std to the adapter")
