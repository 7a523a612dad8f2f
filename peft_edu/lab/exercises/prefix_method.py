"""Lesson 03: what the learner builds and trains: a layer's prefix, and the method that puts one into every layer.

The checks know no attribute by name until the end: they move the parameters and look at what comes out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from peft_edu import PrefixTuning
from peft_edu.anatomy import attentions
from peft_edu.attention import ATTENTION, activations, attention
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise, same, shape, tensors
from peft_edu.lab.exercises.whole_method import IDS, expect_a_method, put_in, tiny_model, weights
from peft_edu.method import METHODS, Method

SCALE = 0.3  # no power of any width here, so that a scale of one's own shows


class MyPrefix(nn.Module):
    """Keys and values in front of those of the text, in one layer."""

    def __init__(self, start):
        super().__init__()
        self.keys_values = nn.Parameter(start)

    def forward(self, query, key, value, mask, **options):
        prefix_key, prefix_value = self.keys_values[:, None].expand(-1, len(query), -1, -1, -1)
        key = torch.cat([prefix_key, key], 2)  # (b, heads, p + t, w)
        value = torch.cat([prefix_value, value], 2)
        mask = pad(mask, (prefix_key.shape[2], 0))  # the mask is added to the scores: 0 is to be seen
        return attention(query, key, value, mask, **options)


@exercise(
    "prefix.module",
    reference=MyPrefix,
    hints=(
        "`self.keys_values = nn.Parameter(start)`: that is all that is trained.",
        "Every text of the batch gets the same prefix: `self.keys_values[:, None].expand(-1, len(query), -1, -1, -1)` "
        "is (2, b, heads, p, w), keys and values.",
        "`torch.cat([prefix_key, key], 2)` puts p positions in front, and the values go in the same order.",
        "The mask is added to the scores, so 0 lets see: `pad(mask, (p, 0))` puts p zeros in front of its last axis.",
        "`attention(query, key, value, mask, **options)` does the rest: the scale is among the options.",
    ),
)
def _module(cls) -> None:
    """class MyPrefix(nn.Module): MyPrefix(start) trains keys and values that start as start (2, heads, p, w); forward
    takes query, key, value (b, heads, t, w) and a mask (b, 1, t, t) that is added to the scores, puts the prefix in
    front of key, value and mask, and gives attention(query, key, value, mask, **options)"""
    if not issubclass(cls, nn.Module):
        raise Misconception("MyPrefix is no nn.Module: write class MyPrefix(nn.Module)")
    _, start = tensors((1,), (2, 2, 3, 4))  # (2, heads, p, w): not what a first randn in the learner's code would give
    prefix = cls(start.clone())
    _expect_parameters(prefix, start)
    inputs = tensors((2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4))
    mask = torch.full((5, 5), -1e9, dtype=torch.float64).triu(1).expand(2, 1, 5, 5).clone()
    mask[1, :, :, :2] = -1e9  # two places of padding, which nobody sees
    mask[1, :, :2] = 0  # and which see everything: no row is without a place to look at
    output = _output(prefix, inputs, mask)
    same(output, _right(start, *inputs, mask), _wrong(start, *inputs, mask), "this is not attention with the prefix")
    _expect_gradients(prefix, inputs, mask)
    _expect_name(prefix)


def _expect_parameters(prefix: nn.Module, start: Tensor) -> None:
    every = list(prefix.parameters())
    if not every:
        raise Misconception("nothing in it would be trained: start becomes an nn.Parameter, set on self")
    if any(not each.requires_grad for each in every):
        raise Misconception("a parameter is frozen: keys and values are both trained")
    numbers = sum(each.numel() for each in every)
    if numbers != start.numel():
        raise Misconception(
            f"for a start of 2 x 2 x 3 x 4 = {start.numel()} it trains {numbers} parameters: keys and values of every "
            "virtual token, and nothing beside them"
        )
    if any(each.dtype != start.dtype for each in every):
        raise Misconception(f"the parameters are {every[0].dtype}, and start is {start.dtype}: keep that")
    held = torch.cat([each.detach().flatten() for each in every]).sort().values
    if not torch.equal(held, start.flatten().sort().values):
        raise Misconception("the prefix does not start as start: keep the numbers that are given")


def _output(prefix: nn.Module, inputs: list[Tensor], mask: Tensor) -> Tensor:
    before = [each.clone() for each in (*inputs, mask)]
    try:
        output = prefix(*inputs, mask, scale=SCALE, dropout_p=0.0)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise Misconception(f"{error}: forward takes **options, and hands them on to attention") from error
        raise
    except RuntimeError as error:
        if "number of dimensions" in str(error):
            raise Misconception(
                "a prefix (heads, p, w) is put beside the text (b, heads, t, w): show it once for each of the b texts"
            ) from error
        if "tensor a (8) must match the size of tensor b (5)" in str(error):
            raise Misconception(
                "there are 3 + 5 keys here, and the mask has a place for 5 of them: it needs one for each virtual "
                "token, too"
            ) from error
        raise
    if any(not torch.equal(each, old) for each, old in zip((*inputs, mask), before, strict=True)):
        raise Misconception("an argument was changed in place: make a new tensor")
    if output is None:
        raise Misconception(NOTHING)
    return output


def _right(start: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return _attend(start, q, k, v, pad(mask, (start.shape[2], 0)))


def _attend(start: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float = SCALE, **order):
    """Attention with the prefix; `order` tells where it goes, in front (the default) or behind."""
    ours = start[:, None].expand(-1, len(q), -1, -1, -1)
    keys, values = (
        torch.cat([text, own] if order.get(name) == "behind" else [own, text], 2)
        for name, own, text in zip(("keys", "values"), ours, (k, v), strict=True)
    )
    scores = scale * q @ keys.transpose(2, 3)
    return (scores if mask is None else scores + mask).softmax(-1) @ values


def _wrong(start: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> dict[str, Tensor]:
    p = start.shape[2]
    seen, aside = pad(mask, (p, 0)), pad(mask, (0, p))
    text, alone = attention(q, k, v, mask, scale=SCALE), _attend(start, q, k[:, :, :0], v[:, :, :0], None)
    return {
        "the prefix does nothing: do its keys and values stand in front of the text's, and zeros in front of the mask, "
        "which is added to the scores?": text,
        "the prefix's places in the mask are 1: it is added to the scores, and 0 is what adds nothing": _attend(
            start, q, k, v, pad(mask, (p, 0), value=1)
        ),
        "the mask got its zeros behind the text, and the prefix stands in front: now a token sees others than it may": (
            _attend(start, q, k, v, aside)
        ),
        "the keys have the prefix in front and the values behind: each key needs its own value": _attend(
            start, q, k, v, seen, values="behind"
        ),
        "the keys have the prefix behind and the values in front: each key needs its own value": _attend(
            start, q, k, v, seen, keys="behind"
        ),
        "prefix and text are exchanged in keys and values, but the mask has the prefix in front": _attend(
            start, q, k, v, seen, keys="behind", values="behind"
        ),
        "two softmaxes are added: prefix and text share one, so that what one gets the other loses": text + alone,
        "the text is left out: the prefix stands in front of it, not in its place": alone,
        "the keys of the prefix are used as its values, too: the second half of start are the values": _attend(
            start[[0, 0]], q, k, v, seen
        ),
        "keys and values are exchanged: start[0] are the keys": _attend(start.flip(0), q, k, v, seen),
        "the options are not handed on: the scale is among them": _attend(start, q, k, v, seen, q.shape[-1] ** -0.5),
        "the scale is used twice: attention takes it from the options": _attend(start, q, k, v, seen, SCALE**2),
        "there is no mask any more: tokens see what comes later, and padding": _attend(start, q, k, v, None),
    }


def _expect_gradients(prefix: nn.Module, inputs: list[Tensor], mask: Tensor) -> None:
    output = prefix(*inputs, mask, scale=SCALE)
    if not output.requires_grad:
        raise Misconception("no gradient comes through: is there a detach(), a .data or a no_grad?")
    output.square().sum().backward()
    for parameter in prefix.parameters():
        if parameter.grad is None or any(not part.any() for part in parameter.grad):
            raise Misconception("no gradient reaches a part of it: is there a detach(), a .data or a no_grad?")


def _expect_name(prefix: nn.Module) -> None:
    """Later cells read it: right without it, but the lesson could not go on."""
    if not isinstance(getattr(prefix, "keys_values", None), Tensor):
        raise Misconception(
            "it computes what it should, well done. One thing is missing, the attribute keys_values: later the lesson "
            "looks at it, and compares it with the package's. Rename yours, or give it as a @property"
        )
    shape(prefix.keys_values, (2, 2, 3, 4), "it computes what it should, but keys_values is to have start's shape")


@dataclass
class MyPrefixTuning(Method):
    words: tuple[int, ...] = (1, 2, 3)

    starts_at_base = False

    def insert(self, model):
        modules = attentions(model)[0]
        self.configure(model.config, "_attn_implementation", ATTENTION)
        starts = activations(model, modules, torch.tensor([self.words]))
        for module, start in zip(modules, starts, strict=True):
            self.add(module, "prefix", MyPrefix(start))


METHODS.pop("MyPrefixTuning")  # the reference is no method of its own: `check` puts on the list what the lesson means


@exercise(
    "prefix.insert",
    reference=MyPrefixTuning,
    beside=(MyPrefix,),
    hints=(
        '`self.configure(model.config, "_attn_implementation", ATTENTION)` comes first: from then on the model calls '
        "the attention function that asks each module for its prefix.",
        "`activations(model, modules, torch.tensor([self.words]))` gives a start (2, heads, p, w) for each module.",
        "Go through both lists together: `for module, start in zip(modules, starts)`.",
        '`self.add(module, "prefix", MyPrefix(start))`: the name has to be prefix, by which it is found.',
    ),
)
def _insert(cls) -> None:
    """class MyPrefixTuning(Method), a @dataclass with words, token ids: insert(self, model) sets the attention
    function, and adds to each attention module a MyPrefix named "prefix" that starts as the keys and values of these
    words"""
    words = (4, 1, 7)
    expect_a_method(cls, words=words)
    model = tiny_model("gpt2")
    before = weights(model)
    implementation = model.config._attn_implementation
    method = cls(words=words)
    try:
        with put_in(method, model, "keys and values"):
            _expect_prefixes(model, method, before)
    except AttributeError as error:
        if "heard" in str(error):
            raise Misconception(
                "activations listens inside the package's attention function, and the model does not call that one "
                "yet: self.configure(...) comes first"
            ) from error
        raise
    if model.config._attn_implementation != implementation:
        raise Misconception(
            "after detach the model still calls another attention function: set it by self.configure(...), which "
            "remembers what was there"
        )


def _expect_prefixes(model: PreTrainedModel, method: Method, before: dict[str, Tensor]) -> None:
    modules, added = attentions(model)[0], method.added
    calls = model.config._attn_implementation == ATTENTION
    if model.state_dict().keys() == before.keys():
        if not calls:
            raise NotWritten("insert adds nothing yet. Set the attention function, and add a prefix to each module")
        raise Misconception("the attention function is set, but nothing is added: use self.add(module, name, child)")
    if not calls:
        raise Misconception(
            "the prefixes are there, but nothing calls them: set the attention function by "
            'self.configure(model.config, "_attn_implementation", ATTENTION)'
        )
    prefixes = [getattr(module, "prefix", None) for module in modules]
    if not any(prefixes):
        raise Misconception('the attention function looks for the name "prefix": self.add(module, "prefix", ...)')
    if not all(prefixes):
        without = prefixes.index(None) + 1
        raise Misconception(f"layer {without} of three has no prefix: is a return one step too far to the right?")
    if len({parameter for each in added for parameter in each.parameters()}) < 3 or len(set(prefixes)) < 3:
        raise Misconception("the layers share one prefix: each has keys and values of its own")
    own = tiny_model("gpt2")
    packaged = PrefixTuning(len(method.words), hidden=0, init=method.words, shift=False)
    packaged.attach(own)
    starts = [each.keys_values.detach() for each in packaged.added]
    for layer, (prefix, start) in enumerate(zip(prefixes, starts, strict=True), 1):
        _expect_start(prefix, start, starts, layer)
    with torch.no_grad():
        if not torch.allclose(model(input_ids=IDS).logits, own(input_ids=IDS).logits):
            raise Misconception("the prefixes are right, but the model does not compute with them")


def _expect_start(prefix: nn.Module, start: Tensor, starts: list[Tensor], layer: int) -> None:
    held = getattr(prefix, "keys_values", None)
    if not isinstance(held, Tensor):
        raise Misconception("the prefix has no keys_values: put in a MyPrefix(start)")
    if held.shape != start.shape:
        raise Misconception(
            f"words are three token ids, and the prefix is {tuple(held.shape)} instead of {tuple(start.shape)}: use "
            "self.words, as one text, torch.tensor([self.words])"
        )
    if torch.allclose(held, start):
        return
    if any(torch.allclose(held, other) for other in starts):
        raise Misconception(
            f"layer {layer} starts from the keys and values of another layer: go through modules and starts together"
        )
    raise Misconception(
        f"layer {layer} does not start as the keys and values that its module computes for self.words: "
        "activations(model, modules, torch.tensor([self.words])) gives them"
    )
