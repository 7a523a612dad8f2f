"""Lesson 07: what the learner builds and trains: the update LowRank, its hook, and the method that puts both in place.

The checks know no attribute by name: they move the parameters and look at what comes out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, linear_maps
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise, shape, tensors, untouched
from peft_edu.lab.exercises.lora import ALPHA, WRONG_SCALES
from peft_edu.lab.exercises.whole_method import IDS, ask_hook, expect_a_method, put_in, tiny_model, weights
from peft_edu.method import METHODS, Method


class LowRank(nn.Module):
    """(alpha / r) B A x, to be added to W x."""

    def __init__(self, weight, rank, alpha):
        super().__init__()
        out_features, in_features = weight.shape
        self.A = nn.Parameter(weight.new_empty(rank, in_features).uniform_(-1, 1) / in_features**0.5)
        self.B = nn.Parameter(weight.new_zeros(out_features, rank))
        self.scale = alpha / rank

    def forward(self, x):  # (..., in) -> (..., r) -> (..., out)
        return self.scale * (x @ self.A.T @ self.B.T)


@exercise(
    "lora.module",
    reference=LowRank,
    hints=(
        "A is (rank, in) and random, B is (out, rank) and zero. What is trained is an nn.Parameter.",
        "`weight.new_empty(rank, in)` and `weight.new_zeros(out, rank)` have the weight's dtype and device.",
        "x holds rows: `x @ self.A.T` is (..., r). Scale by alpha / rank.",
    ),
)
def _module(cls) -> None:
    """class LowRank(nn.Module): LowRank(weight, rank, alpha) holds A (rank, in), random, B (out, rank), zero,
    and scale; forward takes x (..., in) to the update (alpha / rank) B A x (..., out)"""
    if not issubclass(cls, nn.Module):
        raise Misconception("LowRank is no nn.Module: write class LowRank(nn.Module)")
    for dtype in (torch.float64, torch.float32):
        weight = nn.Linear(5, 3, bias=False, dtype=dtype).weight.requires_grad_(False)
        _check_module(cls, weight, tensors((4, 5))[0].to(dtype))
    meta = cls(torch.empty(3, 5, device="meta"), 2, ALPHA)
    if any(not each.is_meta for each in meta.parameters()):
        raise Misconception(
            "A or B is not on the device of weight, so a weight on a GPU would fail: "
            "weight.new_empty(...) makes a tensor on weight's device"
        )
    _expect_names(cls(weight, 2, ALPHA))


def _check_module(cls, weight: Tensor, x: Tensor) -> None:
    before = weight.clone()
    update = cls(weight, 2, ALPHA)
    A, B = _factors(update, weight, rank=2)
    if any(each.dtype != weight.dtype for each in (A, B)):
        raise Misconception(
            f"A or B is {A.dtype if A.dtype != weight.dtype else B.dtype}, and weight is {weight.dtype}: "
            "weight.new_empty(...) makes a tensor of weight's dtype"
        )
    if not A.any() and not B.any():
        raise Misconception("A and B are both zero: A is to start at random. The next cells show what it is good for")
    if torch.linalg.matrix_rank(A.double()) < min(A.shape) and A.any():
        raise Misconception("the rows of A are alike: they would get the same gradient, and the rank would stay at 1")
    start = untouched(update, (x,))
    _expect_output(start, (4, 3))
    if torch.allclose(start, x @ weight.T):
        raise Misconception("W x is in the output: give the update alone, the hook adds it to W x")
    if start.any() and not B.any():
        raise Misconception("B is zero, and still something comes out: only (alpha / r) B A x is asked for")
    if not A.any():
        raise Misconception("this starts as the base model, too, but in LoRA it is B that is zero and A that is random")
    if start.any():
        raise Misconception("it does not start at zero: B is zero, so that training begins at the pretrained model")
    with torch.no_grad():
        for factor in (A, B):  # as after some steps
            factor.normal_()
    change = (B @ A) if A.shape == (2, 5) else (A @ B).T
    _expect_scaled(update(x), x @ change.T, x @ weight.T)
    for shorter in (x[0], x.reshape(2, 2, 5)):
        try:
            fits = torch.allclose(update(shorter), (ALPHA / 2 * shorter @ change.T).to(x), rtol=1e-4, atol=1e-5)
        except Exception as error:
            raise Misconception(
                f"right for x (t, in), but it stops for x {tuple(shorter.shape)}: x is (..., in), any number of axes"
            ) from error
        if not fits:
            raise Misconception(f"right for x (t, in), but not for x {tuple(shorter.shape)}: x is (..., in)")
    output = update(x)
    if not output.requires_grad:
        raise Misconception("no gradient comes through: is there a detach(), a .data or a no_grad?")
    output.square().sum().backward()
    for letter, factor in (("A", A), ("B", B)):
        if factor.grad is None or not factor.grad.any():
            raise Misconception(f"no gradient reaches {letter}: is there a detach(), a .data or a no_grad?")
    if not torch.equal(weight, before):
        raise Misconception("weight itself is changed: it stays as it is, and the update stands beside it")


def _factors(update: nn.Module, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The parameters that read and write, whatever they are called: each shape here is of one of them alone."""
    out, into = weight.shape
    every = list(update.parameters())
    if any(each is weight or each.shape == weight.shape for each in every):
        raise Misconception("a parameter is as large as W: only A (rank, in) and B (out, rank) are trained")
    if not every:
        raise Misconception("nothing in it would be trained: A and B are each an nn.Parameter, set on self")
    if any(not each.requires_grad for each in every):
        raise Misconception("a parameter is frozen: A and B are both trained")
    numbers = sum(each.numel() for each in every)
    if any(each.ndim == 1 for each in every):
        raise Misconception("there is a bias in it: LoRA's two maps have none (nn.Linear(..., bias=False))")
    A = [each for each in every if each.shape in ((rank, into), (into, rank))]
    B = [each for each in every if each.shape in ((rank, out), (out, rank))]
    if len(A) != 1 or len(B) != 1 or len(every) != 2:
        shapes = ", ".join(str(tuple(each.shape)) for each in every)
        missing = "" if A and B else f": {'A' if not A else 'B'} is missing, or is no nn.Parameter"
        wanted = f"A ({rank}, {into}) and B ({out}, {rank}), {rank * (into + out)} parameters"
        raise Misconception(
            f"for W {tuple(weight.shape)} and rank {rank} expected {wanted}, got {shapes}, {numbers}{missing}"
        )
    return A[0], B[0]


def _expect_output(output: object, wanted: tuple[int, ...]) -> None:
    if output is None:
        raise Misconception(NOTHING)
    if not isinstance(output, Tensor):
        raise Misconception(f"forward gives a {type(output).__name__}, but must give a tensor")
    shape(output, wanted, "x is (..., in), the update is (..., out)")


def _expect_scaled(output: Tensor, unscaled: Tensor, base: Tensor, alpha: float = ALPHA, rank: int = 2) -> None:
    def equal(other: Tensor) -> bool:
        return torch.allclose(output, other.to(output), rtol=1e-4, atol=1e-5)

    if equal(alpha / rank * unscaled):
        return
    if equal(alpha / rank * unscaled + base):
        raise Misconception("W x is in the output: give the update alone, the hook adds it to W x")
    for message, scale in WRONG_SCALES.items():
        if equal(scale * unscaled):
            raise Misconception(message)
    raise Misconception("with A and B given, the output is not (alpha / r) B A x: is there something more in it?")


def _expect_names(update: nn.Module) -> None:
    """Later cells read these: right without them, but the lesson could not go on."""
    use = {
        "A": "later the lesson compares the directions that two runs read",
        "B": "later the lesson fills B, to compare with the package",
        "scale": "merging and the dials need it",
    }
    for name, reason in use.items():
        if not hasattr(update, name):
            raise Misconception(
                f"it computes what it should, well done. One thing is missing, the attribute {name}: {reason}. "
                f"Rename yours, or give it as a @property"
            )
        if name != "scale" and not isinstance(getattr(update, name), Tensor):
            kind = type(getattr(update, name)).__name__
            raise Misconception(
                f"it computes what it should, well done. But {name} is a {kind}, and {reason}, as a matrix: "
                f"give your {kind} another name, and {name} as a @property that returns its weight"
            )
    for name, wanted in (("A", (2, 5)), ("B", (3, 2))):
        shape(getattr(update, name), wanted, f"it computes what it should, but {name} is transposed for later cells")


def add_my_lora(module, inputs, output):
    return output + module.my_lora(inputs[0])


@exercise(
    "lora.hook",
    reference=add_my_lora,
    hints=(
        "PyTorch calls it after the module has run. What it returns takes the place of the output.",
        "inputs is a tuple: x is `inputs[0]`.",
        "Add with +, which makes a new tensor; += would change one that others may have kept.",
    ),
)
def _hook(f) -> None:
    """f(module, inputs, output) -> the output plus module.my_lora(x), as a new tensor; inputs is the tuple (x,)"""
    torch.manual_seed(1)
    module = nn.Linear(4, 4, dtype=torch.float64)
    module.my_lora = nn.Linear(4, 4, bias=False, dtype=torch.float64)
    (x,) = tensors((2, 3, 4))
    before = module(x).detach()
    update = module.my_lora(x)
    wrong = {
        "the output comes back as it was: add module.my_lora(x) to it": before,
        "this is the update alone: a hook's result takes the place of the output, so add it to the output": update,
        "my_lora reads the output here: it stands beside the map, and reads what the map reads, inputs[0]": before
        + module.my_lora(before),
        "the update is added twice": before + 2 * update,
        "my_lora is taken away: it is added": before - update,
        "my_lora replaces x: the output of the map, plus the update of x": before + x,
    }
    ask_hook(f, module, x, before + update, wrong, "my_lora")


@dataclass
class MyLoRA(Method):
    rank: int = 8
    alpha: float = 16

    def insert(self, model):
        for target in linear_maps(model, ("query", "value")):
            self.add(target.module, "my_lora", LowRank(target.weight, self.rank, self.alpha))
            self.hook(target.module.register_forward_hook(add_my_lora))


METHODS.pop("MyLoRA")  # `check` puts on the list what the lesson goes on with: the learner's, or this one


@exercise(
    "lora.insert",
    reference=MyLoRA,
    hints=(
        "Two lines a target: put an update beside it, and hook it.",
        "`self.add(target.module, a name, an update)` makes the update a child of the map: trained, and saved.",
        "`self.hook(target.module.register_forward_hook(your_hook))` lets detach take the hook off again.",
        "The update is LowRank(target.weight, self.rank, self.alpha).",
    ),
)
def _insert(cls) -> None:
    """class MyLoRA(Method), a @dataclass with rank and alpha: insert(self, model) puts a LowRank beside each query and
    value map of every block, by self.add and self.hook"""
    expect_a_method(cls, rank=2, alpha=ALPHA)
    try:
        _check_insert(cls, tiny_model("bert"))
    except AttributeError as error:
        if "attribute 'my_lora'" not in str(error):
            raise
        raise Misconception(
            "the hook looks for module.my_lora, and nothing of this name is there: "
            'self.add(target.module, "my_lora", ...)'
        ) from error
    try:
        _check_insert(cls, tiny_model("llama"))
    except Misconception as error:
        raise Misconception(f"right on a BERT, but not on a Llama, whose value maps are narrower: {error}") from error
    except RuntimeError as error:
        raise Misconception(
            f"right on a BERT, but on a Llama, where a value map is 4 x 8, the shapes do not fit ({error}): "
            "weight is (out, in)"
        ) from error


@dataclass
class Heard:
    """What one linear map read and gave in a forward pass, and whether what it gave was changed in place."""

    place: str
    role: str
    read: Tensor
    changed: Tensor  # by how much the output differs from W x + b
    in_place: bool = False


def listen(model: PreTrainedModel) -> tuple[Tensor, list[Heard]]:
    """The logits of a model, and what each of its query, key and value maps did."""
    raw, heard, handles = {}, [], []
    where = {module: f"block {i}" for i, block in enumerate(blocks(model), 1) for module in block.modules()}
    for target in linear_maps(model, ("query", "key", "value")):
        module = target.module

        def after(module, inputs, output, target=target):
            plain = linear(inputs[0], target.weight, module.bias)
            first = next(iter(raw.get(module, ())), None)
            in_place = first is not None and not torch.allclose(first, plain)
            heard.append(Heard(where[module], target.role, inputs[0], output - plain, in_place))

        handles.append(
            module.register_forward_hook(lambda module, _, output: raw.update({module: [output]}), prepend=True)
        )
        handles.append(module.register_forward_hook(after))
    try:
        with torch.no_grad():
            return model(input_ids=IDS).logits, heard
    finally:
        for handle in handles:
            handle.remove()


def _check_insert(cls, model: PreTrainedModel) -> None:
    before = weights(model)
    with torch.no_grad():
        base = model(input_ids=IDS).logits
    with put_in(method := cls(rank=2, alpha=ALPHA), model, "A and B"):
        hooks = [hook for module in model.modules() for hook in module._forward_hooks]
        if model.state_dict().keys() == before.keys():
            if not hooks:
                raise NotWritten("insert adds nothing yet. Put a LowRank beside each target.module, and hook it")
            raise Misconception("it is hooked, but not added: without self.add nothing of it is trained or saved")
        _check_updates(model, method, base, before)


def _check_updates(model, method: Method, base: Tensor, before: dict[str, Tensor]) -> None:
    updates = [child for child in method.added if any(True for _ in child.parameters())]
    logits, _ = listen(model)
    if not torch.allclose(logits, base, rtol=0, atol=1e-9):
        raise Misconception("the model computes something else right after attach: with B = 0 it starts at the base")
    with torch.no_grad():
        for i, parameter in enumerate(_parameters(updates)):
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            )
    _, heard = listen(model)
    if any(each.in_place for each in heard):
        raise Misconception("an output is changed in place (by +=): return a new tensor, output + the update")
    _expect_places(heard)
    _expect_own_updates([each for each in heard if each.role != "key"], updates)


def _parameters(updates: list[nn.Module]) -> Iterator[nn.Parameter]:
    return iter(dict.fromkeys(parameter for child in updates for parameter in child.parameters()))


def _expect_places(heard: list[Heard]) -> None:
    """Every query and value map is changed, and no key map."""
    acts = {(each.place, each.role): bool(each.changed.abs().max() > 1e-9) for each in heard}
    roles = {role for (_, role), on in acts.items() if on}
    places = {place for (place, _), on in acts.items() if on}
    if not roles:
        raise Misconception("the updates are there, but nothing calls them: the hook is forgotten, or adds nothing")
    if "key" in roles:
        missing = "" if "value" in roles else ", and the value map of none"
        raise Misconception(f"a key map is changed{missing}: LoRA stands beside query and value")
    if len(roles) == 1:
        raise Misconception(f"only {roles.pop()} maps are changed: query and value both get an update")
    if len(places) < len({place for place, _ in acts}):
        raise Misconception(f"only {', '.join(sorted(places))} of three is changed: every block gets its updates")
    if lacks := [f"the {role} map of {place}" for (place, role), on in acts.items() if not on and role != "key"]:
        raise Misconception(f"{lacks[0]} is not changed: is a return one step too far to the right?")


@torch.no_grad()
def _expect_own_updates(heard: list[Heard], updates: list[nn.Module]) -> None:
    """Each map gets the output of an update of its own, once, scaled by alpha / r."""
    used = []
    for each in heard:
        near = [update for update in updates if _gives(update, each.read, each.changed)]
        if not near:
            twice = [update for update in updates if _gives(update, each.read, each.changed / 2)]
            if twice:
                raise Misconception("each update is added twice: is the hook registered twice?")
            output = each.changed
            raise Misconception(
                f"what is added to the {each.role} map of {each.place} is not what one update makes of the map's "
                f"input (by up to {output.abs().max():.2g}): does it read inputs[0], and is the result added to output?"
            )
        used.append(near[0])
    if len(set(used)) < len(used):
        if used[0] is updates[-1] and len(set(used)) == 1:
            raise Misconception(
                "all maps use the last update: a function made in a loop looks its names up when it is called, and by "
                "then the loop is over. Let the hook find the update on its module"
            )
        raise Misconception("two maps share one update: each needs an A and a B of its own")
    for each, update in zip(heard, used, strict=True):
        matrices = [parameter for parameter in update.parameters() if parameter.ndim == 2]
        wide = each.read.shape[-1] + each.changed.shape[-1]
        numbers = sum(parameter.numel() for parameter in matrices)
        if numbers == ALPHA * wide:
            raise Misconception("rank and alpha are exchanged: LowRank(weight, rank, alpha)")
        if numbers != 2 * wide:
            raise Misconception(
                f"MyLoRA(rank=2) trains {numbers} parameters beside a map, and not {2 * wide}: use self.rank"
            )
        A, B = (getattr(update, name, None) for name in "AB")
        plain = isinstance(A, Tensor) and isinstance(B, Tensor)
        if plain and not torch.allclose(each.changed, ALPHA / 2 * each.read @ A.T @ B.T):
            raise Misconception("the update is not scaled by self.alpha / self.rank: is alpha handed on?")


def _gives(update: nn.Module, read: Tensor, changed: Tensor) -> bool:
    try:
        given = update(read)
    except Exception:
        return False
    return given.shape == changed.shape and torch.allclose(given, changed, rtol=1e-6, atol=1e-9)
