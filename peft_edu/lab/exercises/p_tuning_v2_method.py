"""Lesson 06: what the learner builds and trains: a table of prompts and its split, the attention that has a prompt in
front, the method that gives each layer its own, the count, the choice of layers, and the MLP that may make the table.

The checks know no attribute by name: they move the parameters and look at what comes out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from peft_edu.anatomy import attentions, key_value_shape, positions
from peft_edu.attention import ATTENTION, attention
from peft_edu.checks import whole_number
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise, expect_number, tensors, untouched
from peft_edu.lab.exercises.whole_method import IDS, expect_a_method, put_in, tiny_model
from peft_edu.method import METHODS, Method
from peft_edu.p_tuning_v2 import PTuningV2


def deep_count(length, layers, width, labels):
    return length * layers * 2 * width + labels * (width + 1)


@exercise(
    "p_tuning_v2.count",
    reference=deep_count,
    hints=(
        "Each position has a key and a value in every layer, each as wide as the model.",
        "The task head is a linear map: a row of `width` weights and one bias for each label.",
        "Two terms: the prompts, and the head.",
    ),
)
def _count(f) -> None:
    """f(length, layers, width, labels) -> the number of parameters that P-tuning v2 trains: the prompts, and a linear
    task head with its biases"""
    wrong = {
        250: "this is the prompts without the task head: a linear map to the labels, with biases",
        250 + 15: "the head's biases are left out: one for each label",
        125 + 18: "every layer has keys and values: the prompts are twice as many",
        50 + 18: "these are the prompts of one layer: each layer has its own",
        25 + 18: "this is a prompt at the input: a deep one has keys and values in every layer",
        18: "this is the task head alone",
        250 + 30: "the head has one bias for each label, and not one for each label and feature",
    }
    result = f(5, 5, 5, 3)
    told = f"5 positions in 5 layers of width 5, and a head of 3 labels, have 268 parameters; yours gives {result}"
    expect_number(result, 268, wrong, told)
    otherwise = "right for 5 layers of width 5, but not for 2 positions in 4 layers of width 128: 2,048 and the head"
    expect_number(f(2, 4, 128, 3), 2_048 + 387, {2_048: "the task head is left out"}, otherwise)


def split_table(table, layers, heads):
    parts = table.unflatten(1, (layers, 2, heads, -1))  # (p, layers, 2, heads, w)
    return parts.permute(1, 2, 3, 0, 4)  # (layers, 2, heads, p, w)


@exercise(
    "p_tuning_v2.split",
    reference=split_table,
    hints=(
        "A row is a position. Inside a row: layer by layer, first the key and then the value, head by head.",
        "`table.unflatten(1, (layers, 2, heads, -1))` opens a row: (p, layers, 2, heads, w).",
        "`permute` puts the axes into another order. The positions are now axis 0, and have to become axis 3.",
    ),
)
def _split(f) -> None:
    """f(table, layers, heads) -> the prompts, (2, heads, p, w) for each layer: table (p, layers * 2 * heads * w); a row
    is a position and holds, layer by layer, the key and then the value, head by head"""
    table = torch.arange(3 * 4 * 2 * 2 * 5, dtype=torch.float64).view(3, 80)
    right = split_table(table, 4, 2)
    parts = _layers_of(untouched(f, (table,), 4, 2), right)
    for message, wrong in _wrong_splits(table).items():
        if torch.equal(parts, wrong):
            raise Misconception(message)
    if not torch.equal(parts, right):
        at = tuple((parts != right).nonzero()[0].tolist())
        raise Misconception(
            f"layer {at[0]}, {'value' if at[1] else 'key'}, head {at[2]}, position {at[3]}, number {at[4]}: it should "
            f"be number {int(right[at]) % 80} of row {int(right[at]) // 80} of the table, and is "
            f"number {int(parts[at]) % 80} of row {int(parts[at]) // 80}"
        )
    trained = table.clone().requires_grad_()
    if not all(part.requires_grad for part in f(trained, 4, 2)):
        raise Misconception("no gradient reaches the table: is there a detach(), a .data or a tolist()?")
    other = torch.randn(2, 3 * 2 * 4 * 1, dtype=torch.float64)
    if not torch.equal(_layers_of(f(other, 3, 4), split_table(other, 3, 4)), split_table(other, 3, 4)):
        raise Misconception("right for 4 layers with 2 heads, but not for 3 layers with 4: use layers and heads")


def _layers_of(result: object, right: Tensor) -> Tensor:
    if result is None:
        raise Misconception(NOTHING)
    try:
        parts = list(result)
    except TypeError as error:
        raise Misconception(f"expected the prompts layer by layer, got {type(result).__name__}") from error
    if len(parts) != len(right):
        raise Misconception(f"expected a part for each of {len(right)} layers, got {len(parts)}")
    if any(not isinstance(part, Tensor) for part in parts):
        raise Misconception(f"expected a tensor for each layer, got {type(parts[0]).__name__}")
    if parts[0].shape != right[0].shape:
        wanted, got = tuple(right[0].shape), tuple(parts[0].shape)
        why = "positions and heads are exchanged" if got == (2, wanted[2], wanted[1], wanted[3]) else "(2, heads, p, w)"
        raise Misconception(f"expected the shape {wanted} for each layer, got {got}: {why}")
    return torch.stack(parts)


def _wrong_splits(table: Tensor) -> dict[str, Tensor]:
    opened = table.view(3, 4, 2, 2, 5)
    return {
        "the numbers are only cut into pieces of the right shape: a row of the table is one position, so its numbers "
        "have to go to all layers. Open the row first, and move the positions then": table.reshape(4, 2, 2, 3, 5),
        "the layers come in reversed order": split_table(table, 4, 2).flip(0),
        "keys and values are exchanged: in a row the key comes first": split_table(table, 4, 2).flip(1),
        "a row is read as all keys and then all values: it goes layer by layer, a key and a value each": (
            table.view(3, 2, 4, 2, 5).permute(2, 1, 3, 0, 4)
        ),
        "each head's numbers are read with a stride: in a row one head comes after the other": (
            table.view(3, 4, 2, 5, 2).permute(1, 2, 4, 0, 3)
        ),
        "every layer gets the first layer's numbers": opened[:, [0, 0, 0, 0]].permute(1, 2, 3, 0, 4),
    }


class DeepPrompt(nn.Module):
    """The trained keys and values of one layer, in front of those of the text."""

    def __init__(self, keys_values):  # (2, heads, p, w)
        super().__init__()
        self.keys_values = nn.Parameter(keys_values.clone())

    def forward(self, query, key, value, mask, **options):  # each (b, heads, t, w)
        prompt_key, prompt_value = self.keys_values.unsqueeze(1).expand(-1, len(key), -1, -1, -1)
        key, value = torch.cat([prompt_key, key], 2), torch.cat([prompt_value, value], 2)
        if mask is not None:
            mask = pad(mask, (prompt_key.shape[2], 0))
        return attention(query, key, value, mask, **options)


@exercise(
    "p_tuning_v2.prompt",
    reference=DeepPrompt,
    hints=(
        "`self.keys_values = nn.Parameter(keys_values.clone())` is all that is trained: [0] the keys, [1] the values.",
        "Every row of the batch gets the same prompt: `self.keys_values[0].expand(len(key), -1, -1, -1)` is "
        "(b, heads, p, w). `torch.cat([..., key], 2)` puts it in front.",
        "The mask is added to the scores: 0 is seen. `pad(mask, (p, 0))` puts p columns of 0 in front; it may be None.",
    ),
)
def _prompt(cls) -> None:
    """class DeepPrompt(nn.Module): DeepPrompt(keys_values) holds (2, heads, p, w), trained; forward(query, key, value,
    mask, **options) gives attention(...) with the prompt's keys and values in front of the text's, and p columns of 0
    in front of the mask, if there is one"""
    if not issubclass(cls, nn.Module):
        raise Misconception("DeepPrompt is no nn.Module: write class DeepPrompt(nn.Module)")
    start, query, key, value = tensors((2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4))
    prompt = cls(start.clone())
    _expect_parameters(prompt, start)
    hides = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    hides[1, :, :, 3:] = torch.finfo(torch.float64).min
    for mask in (None, hides):
        _expect_attention(prompt, start, query, key, value, mask)
    given = prompt(query, key, value, hides, scale=0.5)
    if torch.allclose(given, prompt(query, key, value, hides, scale=2.0)):
        raise Misconception("the options are not handed on: attention(query, key, value, mask, **options)")
    given.square().sum().backward()
    grads = [parameter.grad for parameter in prompt.parameters()]
    if any(grad is None or not grad.any() for grad in grads) or not _both_learn(grads, start):
        raise Misconception("no gradient reaches the keys, or the values: is there a detach(), a .data or a no_grad?")
    few = tensors((2, 1, 3, 4), (2, 4, 5, 4), (2, 1, 5, 4), (2, 1, 5, 4))
    _expect_attention(cls(few[0].clone()), *few, None)


def _expect_parameters(prompt: nn.Module, start: Tensor) -> None:
    parameters = list(prompt.parameters())
    if not parameters:
        raise Misconception("nothing in it would be trained: the keys and values are an nn.Parameter, set on self")
    if any(not each.requires_grad for each in parameters):
        raise Misconception("a parameter is frozen: the prompt is all that is trained here")
    numbers = sum(each.numel() for each in parameters)
    if numbers == start.numel() // 2:
        raise Misconception("half of the numbers are trained: keys and values are both parameters")
    if numbers != start.numel():
        raise Misconception(f"{numbers} parameters are trained, and keys_values has {start.numel()}")


def _both_learn(grads: list[Tensor], start: Tensor) -> bool:
    return len(grads) > 1 or grads[0].shape != start.shape or all(grads[0][i].any() for i in (0, 1))


@torch.no_grad()
def _expect_attention(prompt: nn.Module, start: Tensor, query, key, value, mask) -> None:
    try:
        given = untouched(prompt, (query, key, value), mask)
    except RuntimeError as error:
        if mask is not None:
            raise Misconception(
                "right without a mask, but with one the shapes do not fit: there are p + t keys now, so the mask needs "
                f"p columns more, in front ({error})"
            ) from error
        raise
    except (TypeError, AttributeError) as error:
        if mask is None:
            raise Misconception(f"mask may be None, where no text is padded ({error})") from error
        raise
    if given is None:
        raise Misconception(NOTHING)
    if not isinstance(given, Tensor):
        raise Misconception(f"forward gives a {type(given).__name__}, but must give what attention(...) gives")
    keys, values = (start[i].expand(len(key), -1, -1, -1) for i in (0, 1))

    def attend(first=keys, second=values, mask=mask, sides=(start.shape[2], 0)):
        wide = mask if mask is None else pad(mask, sides)
        return attention(query, torch.cat([first, key], 2), torch.cat([second, value], 2), wide)

    if given.shape == query.shape and torch.allclose(given, attend(), rtol=1e-6, atol=1e-9):
        return
    p = start.shape[2]
    wrong = {
        "the prompt does nothing: its keys and values belong before the text's": attention(query, key, value, mask),
        "keys and values of the prompt are exchanged": attend(values, keys),
        "the prompt's keys stand for its values as well": attend(keys, keys),
        "the prompt's values stand for its keys as well": attend(values, values),
        "the mask is left out: the padding of shorter texts is seen": attend(mask=None),
    }
    if mask is not None:  # without one the prompt was seen: so it is the mask that hides it now
        wrong = {
            "the mask grew at the wrong end: the prompt stands in front, so its columns do, too. As it is, the text's "
            "own last words are hidden, and padding is seen": attend(sides=(0, p)),
            "the mask hides the prompt: what is added to the scores has to be 0 there": attention(
                query, key, value, mask
            ),
        } | wrong
    for message, result in wrong.items():
        if given.shape == result.shape and torch.allclose(given, result, rtol=1e-6, atol=1e-9):
            raise Misconception(message)
    if given.shape != query.shape:
        raise Misconception(f"expected the shape {tuple(query.shape)}, got {tuple(given.shape)}: as many as queries")
    where = "with a mask" if mask is not None else "without a mask"
    raise Misconception(f"{where} the result is not attention over the prompt and the text")


def start_positions_at(length, model):
    """A hook by which the positions of the text start at `length`, as in the authors' code and in HF peft.

    >>> start_positions_at(8, backbone("tiny-bert")[0]).remove()
    """
    whole_number("length", length)
    return positions(model).register_forward_pre_hook(PTuningV2(length)._shift, with_kwargs=True)


@dataclass
class MyPTuningV2(Method):
    length: int = 8
    layers: tuple[int, ...] | None = None

    def insert(self, model):
        (modules,), (heads, width) = attentions(model), key_value_shape(model)
        chosen = range(len(modules)) if self.layers is None else self.layers
        table = torch.randn(self.length, len(chosen) * 2 * heads * width)
        self.configure(model.config, "_attn_implementation", ATTENTION)
        self.hook(start_positions_at(self.length, model))
        for layer, keys_values in zip(chosen, split_table(table, len(chosen), heads), strict=True):
            self.add(modules[layer], "prefix", DeepPrompt(keys_values))


METHODS.pop("MyPTuningV2")  # `check` puts on the list what a lesson goes on with: for others a file's is the learner's


@exercise(
    "p_tuning_v2.insert",
    reference=MyPTuningV2,
    hints=(
        "Draw the table: `torch.randn(self.length, len(chosen) * 2 * heads * width)`.",
        "`split_table(table, len(chosen), heads)` gives a prompt for each chosen layer. `zip(chosen, ...)` goes "
        "through both.",
        'For each: `self.add(modules[layer], "prefix", DeepPrompt(keys_values))`. The name matters: attention asks its '
        "module for a child that is called prefix.",
    ),
)
def _insert(cls) -> None:
    """class MyPTuningV2(Method), a @dataclass with length and layers (None: all): insert(self, model) puts a DeepPrompt
    as "prefix" into the attention of each of these layers, by self.add, and sets the attention by self.configure"""
    expect_a_method(cls, length=3, layers=None)
    for kind in ("bert", "llama"):
        try:
            expect_in_place(cls(length=3), kind)
            expect_in_place(cls(length=3, layers=(2, 0)), kind)
        except NotWritten:
            raise
        except (Misconception, RuntimeError) as error:
            if kind == "bert":
                raise
            raise Misconception(
                f"right on a BERT, but not on a Llama, where queries share keys: ask key_value_shape(model) for "
                f"the heads and their width ({error})"
            ) from error


def expect_in_place(method: Method, kind: str) -> None:
    """A method of length 3 gives each of its layers a prompt, the model answers by them, and detach takes all back."""
    model, layers = tiny_model(kind), getattr(method, "layers", None)
    was, config = model.config._attn_implementation, model.config
    with _asked_for(f"layers={layers}" if layers else ""), put_in(method, model, "the prompts"):
        _expect_prompts(method, model, layers, config._attn_implementation != was)
        _expect_its_answers(method, model, layers)
    if config._attn_implementation != was:
        raise Misconception(
            "after detach the model still attends in another way: set it by self.configure(model.config, ...)"
        )


@contextmanager
def _asked_for(what: str) -> Iterator[None]:
    """What was asked for, before the misconception."""
    try:
        yield
    except NotWritten:
        raise
    except Misconception as error:
        raise Misconception(f"with {what}: {error}" if what else str(error)) from error


def _expect_prompts(method: Method, model: PreTrainedModel, layers: tuple[int, ...] | None, configured: bool) -> None:
    (modules,), (heads, width) = attentions(model), key_value_shape(model)
    wanted = sorted(range(len(modules)) if layers is None else layers)
    if not method.added:
        raise NotWritten("insert adds nothing yet. Draw a table, split it, and add a DeepPrompt to each layer")
    found = [i for i, module in enumerate(modules) if "prefix" in module._modules]
    if not found:
        raise Misconception(
            "something is added, but no attention module has a child called prefix: the function that transformers "
            'calls asks for that name, self.add(modules[layer], "prefix", ...)'
        )
    if not configured:
        raise Misconception(
            "the prompts are there, but nobody calls them: "
            'self.configure(model.config, "_attn_implementation", ATTENTION) names the function that does'
        )
    if found != wanted:
        if layers is not None and len(found) == len(modules):
            raise Misconception("all layers have a prompt: self.layers says which ones are to have one")
        if layers is not None and found == list(range(len(wanted))):
            raise Misconception(
                f"layers {wanted} are asked for, and {found} have a prompt: `chosen` has the layers' numbers"
            )
        if found == [0]:
            raise Misconception("only the first layer has a prompt: is a return one step too far to the right?")
        raise Misconception(f"layers {wanted} are to have a prompt, counted from 0, and {found} have one")
    prompts = [modules[i].prefix for i in wanted]
    parameters = [parameter for prompt in prompts for parameter in prompt.parameters()]
    if len(set(prompts)) < len(prompts) or len({each.data_ptr() for each in parameters}) < len(parameters):
        raise Misconception("layers share one prompt: each has keys and values of its own")
    each = 2 * 3 * heads * width
    if (numbers := sum(parameter.numel() for parameter in prompts[0].parameters())) != each:
        raise Misconception(
            f"with length=3 and {heads} heads of width {width} a layer trains {numbers} parameters, and not {each}: "
            "is a number written down that self.length or key_value_shape(model) should give?"
        )
    starts = [torch.cat([parameter.detach().flatten() for parameter in prompt.parameters()]) for prompt in prompts]
    if any(torch.equal(starts[0], other) for other in starts[1:]):
        raise Misconception("all layers start from the same numbers: split_table gives each layer its own")


@torch.no_grad()
def _expect_its_answers(method: Method, model: PreTrainedModel, layers: tuple[int, ...] | None) -> None:
    """The answers of the package's method with the same keys and values, with the text's positions moved or not."""
    chosen = range(len(attentions(model)[0])) if layers is None else layers
    held = [list(attentions(model)[0][i].prefix.parameters()) for i in chosen]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    given = model(input_ids=IDS, attention_mask=mask).logits
    if any(len(parameters) != 1 for parameters in held):
        return  # a style of its own: that each is a right DeepPrompt was checked before
    answers = []
    for shift in (False, True):
        other = tiny_model(model.config.model_type)
        package = PTuningV2(length=3, layers=tuple(chosen), shift=shift)
        package.attach(other)
        for prefix, (parameter,) in zip(package.added, held, strict=True):
            prefix.keys_values.copy_(parameter)
        answers.append(other(input_ids=IDS, attention_mask=mask).logits)
    if not any(torch.allclose(given, answer, rtol=1e-6, atol=1e-9) for answer in answers):
        raise Misconception(
            "the prompts are in place, but the model does not answer as it should with their keys and values: is "
            "something hooked or changed beside them?"
        )


def top_layers(n, depth):
    return tuple(range(depth - n, depth))


@exercise(
    "p_tuning_v2.top",
    reference=top_layers,
    hints=(
        "Layers are counted from 0 at the bottom. The topmost of `depth` layers is depth - 1.",
        "`range(first, last + 1)`: where does it begin, if n layers are wanted?",
        "`tuple(range(...))`",
    ),
)
def _top(f) -> None:
    """f(n, depth) -> the numbers of the top n of `depth` layers, counted from 0 at the bottom: a tuple"""
    result = f(2, 5)
    if result is None:
        raise Misconception(NOTHING)
    if isinstance(result, (range, list)):
        raise Misconception(f"expected a tuple, got a {type(result).__name__}: a recipe is saved, so tuple(...)")
    if not isinstance(result, tuple):
        raise Misconception(f"expected a tuple of numbers, got {type(result).__name__}")
    wrong = {
        (0, 1): "these are the bottom two: counting begins at the input",
        (4, 5): "this counts from 1: the topmost of five layers is layer 4",
        (3,): "range ends before its last number",
        (2, 3): "range ends before its last number, and the topmost is missing",
    }
    for n, depth in ((2, 5), (1, 4), (4, 4)):
        got, right = f(n, depth), tuple(range(depth - n, depth))
        if sorted(got) != list(right):
            otherwise = f"the top {n} of {depth} layers are {right}, yours gives {got}"
            raise Misconception(wrong.get(got, otherwise) if n == 2 else otherwise)


class TableMaker(nn.Module):
    """A table (p, columns) that an MLP makes while it is trained."""

    def __init__(self, length, width, hidden, columns):
        super().__init__()
        self.start = nn.Parameter(torch.randn(length, width))
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, columns)

    def forward(self):  # -> (p, columns)
        return self.up(self.down(self.start).tanh())


@exercise(
    "p_tuning_v2.mlp",
    reference=TableMaker,
    hints=(
        "Three parts: random numbers (length, width), a linear map to hidden, one from hidden to columns.",
        "Between the two maps stands a tanh. Without it two linear maps are one.",
        "forward takes nothing: the input is the module's own, and is trained as well.",
    ),
)
def _mlp(cls) -> None:
    """class TableMaker(nn.Module): TableMaker(length, width, hidden, columns) makes a table (length, columns) from
    trained numbers (length, width), by a linear map to hidden, tanh, and a linear map to columns"""
    if not issubclass(cls, nn.Module):
        raise Misconception("TableMaker is no nn.Module: write class TableMaker(nn.Module)")
    maker = cls(4, 6, 3, 10)
    table = maker()
    if table is None:
        raise Misconception(NOTHING)
    if not isinstance(table, Tensor) or table.shape != (4, 10):
        raise Misconception(f"expected a table (4, 10), got {tuple(getattr(table, 'shape', [type(table).__name__]))}")
    shapes = {tuple(parameter.shape) for parameter in maker.parameters()}
    if (4, 6) not in shapes and (6, 4) not in shapes:
        raise Misconception("what the MLP starts from is no nn.Parameter of (length, width): it is trained as well")
    numbers, right = sum(parameter.numel() for parameter in maker.parameters()), 24 + 6 * 3 + 3 + 3 * 10 + 10
    if numbers != right:
        raise Misconception(f"it trains {numbers} parameters, and not {right}: (4, 6), then 6 -> 3 -> 10 with biases")
    table.square().sum().backward()
    if any(parameter.grad is None or not parameter.grad.any() for parameter in maker.parameters()):
        raise Misconception("a part gets no gradient: is it used in forward?")
    if not _bends(maker):
        raise Misconception("a tanh is missing between the two maps: without it they are one linear map")


@torch.no_grad()
def _bends(maker: nn.Module) -> bool:
    """Whether the table does not go on growing in a straight line with what it starts from, and levels off as tanh."""
    start = next(p for p in maker.parameters() if tuple(p.shape) in ((4, 6), (6, 4)))
    was, tables = start.clone(), []
    for factor in (0, 1e3, 2e3):
        start.copy_(factor * was)
        tables.append(maker())
    start.copy_(was)
    nothing, far, farther = tables
    return torch.allclose(far, farther, rtol=1e-3, atol=1e-4) and not torch.allclose(far, nothing, atol=1e-4)
