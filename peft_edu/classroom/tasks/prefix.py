"""Exercise 03: a prefix's sizes, attention with it, the MLP that makes it, a figure, a hunt, and the shortest one."""

from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from peft_edu import PrefixTuning
from peft_edu.classroom.figure import Bars, floor
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.problems import HEAD, hidden_prefix, least_losses_by_length
from peft_edu.classroom.smallest import expect_measured, expect_smallest
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab.exercises.check import Misconception, NotWritten, same, shape

# What a prefix holds, what makes it, and what a cache takes ---------------------------------------------------------


def _model(draw: Random) -> dict:
    kv_heads = draw.choice((2, 4, 6, 8))
    return {
        "layers": draw.randint(11, 47),
        "heads": kv_heads * draw.choice((2, 3, 5)),
        "kv_heads": kv_heads,
        "head_width": draw.choice((32, 48, 64, 80, 96)),
        "length": draw.choice((7, 9, 12, 15, 25, 30)),
        "hidden": draw.choice((160, 256, 320, 512, 800)),
        "texts": draw.randint(3, 19),
        "tokens": draw.randint(210, 890),
        "bytes": draw.choice((2, 4)),
    }


def _kept_numbers(n: SimpleNamespace) -> int:
    return 2 * n.length * n.layers * n.kv_heads * n.head_width


def _kept(answer: object, n: SimpleNamespace) -> None:
    right = _kept_numbers(n)
    wrong = {
        "this has a key and a value for each query head: several queries share one key": right * n.heads // n.kv_heads,
        "keys or values are left out: a prefix holds both": right / 2,
        "this is the prefix of one layer: each has its own": right / n.layers,
        "this is one virtual token: a prefix has `length` of them": right / n.length,
        "this is one head's: each head has its own keys and values": right / n.kv_heads,
        "this is what is trained: when training is over, the MLP is thrown away": _trained_numbers(n),
    }
    expect(item(answer, "kept"), right, wrong, "count the numbers of one virtual token in one layer first")


def _trained_numbers(n: SimpleNamespace) -> int:
    d, row = n.heads * n.head_width, 2 * n.kv_heads * n.head_width
    return n.length * d + (d + 1) * n.hidden + n.layers * (n.hidden + 1) * row


def _trained(answer: object, n: SimpleNamespace) -> None:
    right, d, row = _trained_numbers(n), n.heads * n.head_width, 2 * n.kv_heads * n.head_width
    wrong = {
        "the prefix is counted as well: the MLP makes it, so it has no parameters of its own": right + _kept_numbers(n),
        "what the MLP starts from is left out: `length` rows as wide as the model are trained, too": right
        - n.length * d,
        "the biases are left out: each linear map has one for each number that it gives": right
        - n.hidden
        - n.layers * row,
        "the last map is counted once: each layer has its own": right - (n.layers - 1) * (n.hidden + 1) * row,
        "the first map is counted for each layer: all layers share it": right + (n.layers - 1) * (d + 1) * n.hidden,
        "the last maps give keys and values for each query head: several queries share one key": n.length * d
        + (d + 1) * n.hidden
        + n.layers * (n.hidden + 1) * 2 * d,
        "this is what is left when training is over: the MLP is trained, and thrown away then": _kept_numbers(n),
        "the last maps give a key and a value, twice as many numbers": right - n.layers * (n.hidden + 1) * row // 2,
    }
    expect(item(answer, "trained"), right, wrong, "the rows, then the first map, then the maps of all layers")


def _cache(answer: object, n: SimpleNamespace) -> None:
    one = 2 * n.layers * n.kv_heads * n.head_width * n.bytes / 1e6  # MB of a position
    right = one * n.texts * (n.length + n.tokens)
    wrong = {
        "the virtual tokens are left out: they stand in the cache, too": one * n.texts * n.tokens,
        "the prefix is counted once: here the cache holds it for each text": one * (n.length + n.texts * n.tokens),
        "this is the cache of one text": right / n.texts,
        "this is the prefix alone: the text's keys and values stand in the cache as well": one * n.texts * n.length,
        "keys or values are left out": right / 2,
        "this counts numbers, not bytes": right / n.bytes,
        "1 MB is 1,000,000 bytes here": right * 1e6 / 2**20,
        "this is in bytes": right * 1e6,
        "this has a key and a value for each query head: several queries share one key": right * n.heads / n.kv_heads,
    }
    expect(item(answer, "cache"), right, wrong, "how many bytes has one position of one text, in all layers?", 0.005)


SIZES = Task(
    "prefix.sizes",
    "How much is kept, how much is trained?",
    _model,
    {_kept: 1, _trained: 2, _cache: 2},
    (
        "A virtual token has a key and a value for each of `kv_heads` heads, in each layer.",
        "Count the MLP as it is used: rows (length, d), a map to `hidden`, then for each layer a map to its row.",
        "A cache has `length + tokens` positions for each text. What does one position take?",
    ),
    stars=1,
    minutes=12,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# Attention with a prefix ---------------------------------------------------------------------------------------------


def _head(draw: Random) -> dict:
    return {
        "heads": draw.choice((2, 3)),
        "head_width": draw.choice((4, 5, 6)),
        "length": draw.choice((2, 3, 4, 5)),
        "reach": draw.choice((2, 3, 4)),
    }


def _made(cls: object, n: SimpleNamespace) -> tuple[nn.Module, list[nn.Linear]]:
    """A layer with a prefix of other numbers, and its four maps."""
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise Misconception("a class is asked for, class PrefixAttention(nn.Module)")
    d = n.heads * n.head_width
    maps = [nn.Linear(d, d, dtype=torch.float64) for _ in range(4)]
    layer = cls(*maps, n.heads, n.length)
    own = getattr(layer, "keys_values", None)
    if own is None and not list(layer.parameters()):
        raise NotWritten("the layer has no parameters yet: keys_values is an nn.Parameter")
    if not isinstance(own, nn.Parameter):
        raise Misconception("the prefix is asked for as self.keys_values, an nn.Parameter")
    shape(own, (2, n.heads, n.length, n.head_width), "keys and values, and for each head p rows of its width")
    with torch.no_grad():
        own.copy_(torch.randn(own.shape))
    return layer, maps


def _given(layer: nn.Module, x: Tensor, keep: Tensor) -> Tensor:
    own_x, own_keep = x.clone(), keep.clone()
    out = layer(own_x, own_keep)
    if out is None:
        raise NotWritten("forward gives nothing yet")
    if not torch.equal(x, own_x) or not torch.equal(keep, own_keep):
        raise Misconception("x or keep is changed in place: make a new tensor")
    if not isinstance(out, Tensor):
        raise Misconception(f"forward is to give a tensor, and gives a {type(out).__name__}")
    shape(out, x.shape, "forward takes x (b, t, d) to as many numbers")
    if not torch.isfinite(out).all():
        raise Misconception("there are NaN in what forward gives: does a row of the mask hide everything?")
    if torch.is_grad_enabled() and not out.requires_grad:
        raise Misconception("no gradient comes through: is there a detach, a .data or a no_grad in forward?")
    return out


def _felt(layer: nn.Module, n: SimpleNamespace, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens (t, t), and which virtual tokens (t, p), each token's output changes with."""
    x = torch.randn(*keep.shape, n.heads * n.head_width, dtype=torch.float64, requires_grad=True)
    out, weights = _given(layer, x, keep), torch.randn(n.heads * n.head_width, dtype=torch.float64)
    tokens, virtual = [], []
    for i in range(keep.shape[1]):
        wanted = [x, layer.keys_values]
        of_x, of_own = torch.autograd.grad((out[0, i] * weights).sum(), wanted, retain_graph=True, allow_unused=True)
        tokens.append(torch.zeros(keep.shape[1]) if of_x is None else of_x[0].abs().sum(-1))
        virtual.append(torch.zeros(n.length) if of_own is None else of_own.abs().sum((0, 1, 3)))
    return torch.stack(tokens) > 1e-12, torch.stack(virtual) > 1e-12


def _whole(n: SimpleNamespace) -> Tensor:
    return torch.ones(1, n.reach + 3, dtype=torch.long)


def _padded(n: SimpleNamespace) -> Tensor:
    return pad(torch.ones(1, n.reach + 2, dtype=torch.long), (2, 0))


def _all_trained(cls: object, n: SimpleNamespace) -> None:
    layer, maps = _made(cls, n)
    numbers = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    if any(p.requires_grad for each in maps for p in each.parameters()):
        raise Misconception("the maps would be trained as well: requires_grad_(False)")
    if numbers != layer.keys_values.numel():
        raise Misconception(f"{numbers} parameters are trained, and keys_values has {layer.keys_values.numel()}")
    x = torch.randn(2, 5, n.heads * n.head_width, dtype=torch.float64, requires_grad=True)
    _given(layer, x, torch.ones(2, 5, dtype=torch.long)).square().sum().backward()
    grad = layer.keys_values.grad
    if grad is None or not grad.any(-1).all():
        raise Misconception("a gradient is missing for some keys or values: is there a detach, a .data or a no_grad?")
    if x.grad is None or not x.grad.any():
        raise Misconception("no gradient reaches x: the layers below could not be trained")


def _prefix_seen(cls: object, n: SimpleNamespace) -> None:
    """Far from it, and beside padding, too."""
    layer, _ = _made(cls, n)
    for keep in (_whole(n), _padded(n)):
        _, virtual = _felt(layer, n, keep)
        for i, sees in enumerate(virtual.tolist()):
            if keep[0, i] and not all(sees):
                gone = sees.index(False)
                raise Misconception(f"token {i} does not see virtual token {gone}: all of them are for everybody")


def _not_ahead(cls: object, n: SimpleNamespace) -> None:
    tokens, _ = _felt(_made(cls, n)[0], n, _whole(n))
    for i, j in tokens.nonzero().tolist():
        if j > i:
            raise Misconception(f"token {i} sees token {j}, which comes later")
    _expect_near(tokens, range(1, len(tokens)))


def _expect_near(tokens: Tensor, places: range) -> None:
    """So that a mask which hides all of the text is told in each part of it."""
    for i in places:
        if not tokens[i, i - 1]:
            raise Misconception(f"token {i} does not see token {i - 1}, the one right before it")


def _within_reach(cls: object, n: SimpleNamespace) -> None:
    tokens, _ = _felt(_made(cls, n)[0], n, _whole(n))
    back = [[i - j for j in range(i + 1) if tokens[i, j]] for i in range(len(tokens))]
    far, wanted = max(max(each, default=0) for each in back), n.reach - 1
    if far > wanted:
        more = "the token itself is one of n.reach" if far == n.reach else "n.reach says how many tokens it may see"
        raise Misconception(f"a token sees what stands {far} places before it: {more}")
    if far < wanted:
        raise Misconception(f"nobody sees farther back than {far}: with the token itself it should be n.reach")
    _expect_near(tokens, range(1, len(tokens)))


def _padding_hidden(cls: object, n: SimpleNamespace) -> None:
    tokens, _ = _felt(_made(cls, n)[0], n, _padded(n))
    for i in range(2, len(tokens)):
        if tokens[i, :2].any():
            raise Misconception(f"padding comes first, and token {i} sees it: keep is 0 there")
    _expect_near(tokens, range(3, len(tokens)))


def _attends(cls: object, n: SimpleNamespace) -> None:
    """Two tokens, so that neither reach nor padding count; what a wrong mask does is told in the other parts."""
    layer, maps = _made(cls, n)
    x = torch.randn(3, 2, n.heads * n.head_width, dtype=torch.float64)
    with torch.no_grad():
        given = _given(layer, x, torch.ones(3, 2, dtype=torch.long)).double()
        if torch.allclose(given, _attention(layer, maps, x, ahead=True)):
            return
        same(given, _attention(layer, maps, x), _wrong(layer, maps, x, n), "this is not attention with the prefix")


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (b, t, d) -> (b, heads, t, w)


def _attention(
    layer, maps, x, ahead=False, scale=None, split=_split, own=None, behind=False, text=True, merged=True, front=True
):
    """Attention with the prefix; the options are what people do otherwise."""
    own = layer.keys_values if own is None else own
    q, k, v = (split(each(x), own.shape[1]) for each in maps[:3])
    prefix_k, prefix_v = own[:, None].expand(-1, len(x), -1, -1, -1)
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
    seen = pad(seen if ahead else seen.tril(), (own.shape[2], 0) if front else (0, own.shape[2]), value=True)
    if not text:
        k, v, seen = k[:, :, :0], v[:, :, :0], seen[:, : own.shape[2]]
    keys, values = torch.cat([prefix_k, k], 2), torch.cat([v, prefix_v] if behind else [prefix_v, v], 2)
    scores = q @ keys.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    head = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values
    return maps[3](head.transpose(1, 2).flatten(2) if merged else head.reshape(x.shape))


def _wrong(layer: nn.Module, maps: list[nn.Linear], x: Tensor, n: SimpleNamespace) -> dict[str, Tensor]:
    def other(**how) -> Tensor:
        return _attention(layer, maps, x, **how)

    own, last = layer.keys_values, nn.Linear(1, 1)
    last.weight, last.bias = nn.Parameter(torch.eye(x.shape[-1], dtype=x.dtype)), None
    text, alone = other(own=own[:, :, :0]), other(text=False)
    turned = x.shape[-1] // n.heads
    return {
        "the prefix does nothing: its keys and values stand in front of the text's": text,
        "the text is left out: the prefix stands in front of it": alone,
        "the keys have the prefix in front and the values behind: each key needs its own value": other(behind=True),
        "the mask has the prefix's columns behind those of the text, and the keys stand in front": other(front=False),
        "keys and values of the prefix are exchanged: the first half of keys_values are keys": other(own=own.flip(0)),
        "the keys of the prefix are used as its values, too": other(own=own[[0, 0]]),
        "the scores are not divided by the square root of a head's width": other(scale=1),
        "the scores are divided by the square root of d: each head is only w = d / heads wide": other(
            scale=x.shape[-1] ** -0.5
        ),
        "the scores are divided by w, not by its square root": other(scale=1 / n.head_width),
        "the heads' numbers are mixed up: d holds head after head, view(b, t, heads, w), then transpose": other(
            split=lambda y, heads: y.reshape(len(y), heads, -1, turned)
        ),
        "the heads are put together in another order: transpose(1, 2) before you flatten": other(merged=False),
        "the output map is missing": _attention(layer, [*maps[:3], last], x),
        "two softmaxes are added: prefix and text share one": text + alone - maps[3].bias,
    }


ATTENTION = Task(
    "prefix.attention",
    "Attention with a prefix",
    _head,
    {_all_trained: 1, _prefix_seen: 1, _not_ahead: 1, _within_reach: 1, _padding_hidden: 1, _attends: 3},
    (
        "x.unflatten(-1, (heads, w)).transpose(1, 2) is (b, heads, t, w); the prefix is expanded to (b, heads, p, w).",
        "Make the text's mask first, (b, t, t): with places = torch.arange(t), places[:, None] - places says how far "
        "back a token stands. Then pad(mask, (p, 0), value=True) adds the prefix's columns.",
        "scores.masked_fill(~seen[:, None], -torch.inf) before the softmax hides what is not to be seen.",
    ),
    stars=2,
    minutes=25,
    errors={
        "must match the size of tensor": "write the shape behind each line: the mask is (b, 1, t, p + t), and scores "
        "are (b, heads, t, p + t)",
        "expected m1 and m2 to have the same dtype": "all is float64: torch.randn(..., dtype=query.weight.dtype)",
    },
)

# The MLP that makes a prefix, and goes away --------------------------------------------------------------------------

BENDS = {"torch.tanh": torch.tanh, "torch.sigmoid": torch.sigmoid, "torch.relu": torch.relu}
BY_KIND, BY_HEAD = "the keys of all heads, then the values of all heads", "head by head: its key, then its value"


def _network(draw: Random) -> dict:
    heads, width = draw.choice(((2, 3), (2, 5), (3, 2), (3, 4)))
    return {
        "activation": draw.choice(list(BENDS)),
        "row": draw.choice((BY_KIND, BY_HEAD)),
        "layers": draw.choice((4, 5)),
        "heads": heads,
        "head_width": width,
        "length": draw.choice((6, 7, 8)),
        "hidden": draw.choice((9, 10, 11)),
    }


def _network_made(cls: object, n: SimpleNamespace) -> tuple[nn.Module, Tensor]:
    """A module, and what it gives."""
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise Misconception("a class is asked for, class PrefixMLP(nn.Module)")
    made = cls(n.layers, n.heads, n.head_width, n.length, n.hidden)
    return made, _prefixes_of(made, n)


def _prefixes_of(made: nn.Module, n: SimpleNamespace) -> Tensor:
    given = made()
    if given is None:
        raise NotWritten("forward gives nothing yet")
    if not isinstance(given, Tensor):
        raise Misconception(f"forward gives a {type(given).__name__}: torch.stack makes one tensor of a list")
    shape(given, (n.layers, 2, n.heads, n.length, n.head_width), "that is (layers, 2, heads, p, w)")
    return given


def _arranged(rows: Tensor, row: str, n: SimpleNamespace) -> Tensor:
    """(layers, p, 2 heads w) -> (layers, 2, heads, p, w)"""
    if row == BY_KIND:
        return rows.unflatten(-1, (2, n.heads, -1)).permute(0, 2, 3, 1, 4)
    return rows.unflatten(-1, (n.heads, 2, -1)).permute(0, 3, 2, 1, 4)


@torch.no_grad()
def _makes(cls: object, n: SimpleNamespace) -> None:
    made, given = _network_made(cls, n)
    if any(getattr(made, name, None) is None for name in ("start", "down", "up")):
        raise Misconception("start, down and up are gone: the __init__ stays as it was given")

    def rows(bend, start=lambda x: x, end=lambda x: x) -> Tensor:
        return torch.stack([end(up(bend(made.down(start(made.start))))) for up in made.up])

    bend = BENDS[n.activation]
    other = BY_HEAD if n.row == BY_KIND else BY_KIND
    right, flat = _arranged(rows(bend), n.row, n), rows(bend)
    wrong = {
        f"a row is read as another student's: n.row is {n.row!r}": _arranged(flat, other, n),
        "the numbers are mixed up: open each row first, and move the axis of p then": flat.reshape(given.shape),
        f"{n.activation} is missing: two linear maps alone are one": _arranged(rows(lambda x: x), n.row, n),
        f"{n.activation} comes last: it stands between down and up": _arranged(rows(lambda x: x, end=bend), n.row, n),
        f"{n.activation} comes first: it stands between down and up": _arranged(rows(lambda x: x, bend), n.row, n),
        "all layers have the same prefix: each has its own map in up": right[:1].expand_as(right),
        "the layers come in reversed order": right.flip(0),
        "keys and values are exchanged": right.flip(1),
    }
    for name, each in BENDS.items():
        wrong[f"{name} stands between the maps, and n.activation is {n.activation}"] = _arranged(rows(each), n.row, n)
    same(given, right, wrong)


def _finished(cls: object, n: SimpleNamespace) -> tuple[nn.Module, Tensor]:
    """A module after finish, and what it gave before."""
    made, given = _network_made(cls, n)
    before = [(name, id(p)) for name, p in made.named_parameters()], sorted(vars(made))
    made.finish()
    if before == ([(name, id(p)) for name, p in made.named_parameters()], sorted(vars(made))):
        raise NotWritten("finish does nothing yet")
    return made, given.detach().clone()


def _stays(cls: object, n: SimpleNamespace) -> None:
    made, before = _finished(cls, n)
    same(_prefixes_of(made, n).detach(), before, {}, "after finish() forward gives another prefix than before")


def _gone(cls: object, n: SimpleNamespace) -> None:
    made, before = _finished(cls, n)
    if (held := sum(p.numel() for p in made.state_dict().values())) != before.numel():
        more = "is the MLP still in it?" if held > before.numel() else "is the prefix an nn.Parameter?"
        raise Misconception(
            f"after finish() the module holds {held} numbers, and keys and values are {before.numel()}: {more}"
        )
    if any(isinstance(module, nn.Linear) for module in made.modules()):
        raise Misconception("after finish() a linear map is still in the module: del self.down, for example")


def _goes_on(cls: object, n: SimpleNamespace) -> None:
    """One step moves every key and value by itself, as no MLP would."""
    made, _ = _finished(cls, n)
    trained = [p for p in made.parameters() if p.requires_grad]
    if not trained:
        raise Misconception("after finish() nothing is trained any more: keep the prefix as an nn.Parameter")
    before = _prefixes_of(made, n)
    if not before.requires_grad:
        raise Misconception("after finish() no gradient reaches the prefix: what does forward give back?")
    right = before.detach() - 1
    before.sum().backward()
    with torch.no_grad():
        for p in trained:
            p -= p.grad if p.grad is not None else 0
    same(_prefixes_of(made, n).detach(), right, {}, "a step after finish() does not move each number")


FINISH = Task(
    "prefix.finish",
    "The MLP, and that it goes away",
    _network,
    {_makes: 2, _stays: 1, _gone: 1, _goes_on: 1},
    (
        "torch.stack([up(...) for up in self.up]) is (layers, p, 2 heads w). Which three axes hide in the last one?",
        "unflatten(-1, (..., ..., -1)) opens the rows, permute brings the axes into order.",
        "finish: compute the prefix once, delete the three parts with del, and keep an nn.Parameter. forward asks "
        "which of the two there is, with hasattr for example.",
    ),
    stars=2,
    minutes=15,
    errors={
        "cannot assign": "self.start is a parameter: del self.start first, or use another name for what is kept",
        "object has no attribute": "after finish the MLP is gone: forward has to give what was kept",
    },
)

# A figure ----------------------------------------------------------------------------------------------------------

FIGURE = floor(
    "prefix.figure",
    Bars(
        "tables",
        {
            "prefix p=2, 2x": "length 2, from words",
            "prefix p=5, 2x": "length 5, from words",
            "prefix p=10, 2x": "length 10, from words",
            "prefix p=20, 2x": "length 20, from words",
            "prefix p=20, random": "length 20, normal",
            "prefix p=20, MLP": "length 20, MLP",
            "prompt p=20, 2x": "prompt of 20, at the input",
        },
        "Facts of unseen venues after 300 steps",
        score="facts told, %",
        split="unseen",
    ),
)

# A hunt ------------------------------------------------------------------------------------------------------------

CODE = """\
class CachedPrefix(nn.Module):
    def __init__(self, model, length, hidden):
        super().__init__()
        self.model = model.requires_grad_(False)
        d, self.layers, self.heads = model.config.n_embd, model.config.n_layer, model.config.n_head
        self.start = nn.Parameter(torch.randn(length, d))
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, self.layers * 2 * d))

    def keys_values(self):  # -> (layers, 2, heads, p, w)
        rows = self.mlp(self.start)
        return rows.unflatten(1, (self.layers, 2, self.heads, -1)).permute(1, 2, 3, 0, 4)

    def forward(self, ids, mask):  # (b, t) both; mask: 1 for a token, 0 for padding
        (b, _), p, cache = ids.shape, len(self.start), DynamicCache()
        for layer, (keys, values) in enumerate(self.keys_values()):
            cache.update(keys.expand(b, -1, -1, -1), values.expand(b, -1, -1, -1), layer)
        mask = torch.cat([mask.new_ones(b, p), mask], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, p:]
        return self.model(ids, attention_mask=mask, position_ids=places, past_key_values=cache).logits"""
FREEZE, START = "self.model = model.requires_grad_(False)", "self.start = nn.Parameter(torch.randn(length, d))"
MLP = "self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, self.layers * 2 * d))"
ROWS = "rows = self.mlp(self.start)"
OPEN = "return rows.unflatten(1, (self.layers, 2, self.heads, -1)).permute(1, 2, 3, 0, 4)"
UPDATE = "cache.update(keys.expand(b, -1, -1, -1), values.expand(b, -1, -1, -1), layer)"
MASK, PLACES = "mask = torch.cat([mask.new_ones(b, p), mask], 1)", "places = (mask.cumsum(1) - 1).clamp(min=0)[:, p:]"
MOVES = "Look at the gradient of each parameter after one backward: which should have one, and which should not?"
ALIKE = "Compare the virtual tokens in keys_values() with each other, before training and after some steps"
STRAIGHT = "Multiply start by 1000: behind a tanh in the middle keys_values() stay small, and are not all 1 or -1"
MIXED = "Change one row of start. Which virtual tokens change in keys_values()?"
HELD = "Put keys_values() into the package's PrefixTuning(hidden=0), and compare the logits of a text without padding"
PADDING = "Ask a text alone, and again with two places of padding on its left: its logits must stay what they were"
FAULTS = (
    Fault(FREEZE, "self.model = model", MOVES),
    Fault(FREEZE, "self.model = model.requires_grad_(True)", MOVES),
    Fault(START, "self.start = nn.Parameter(torch.zeros(length, d))", ALIKE),
    Fault(START, "self.start = nn.Parameter(torch.randn(1, d).repeat(length, 1))", ALIKE),
    Fault(MLP, MLP.replace("nn.Tanh(), ", ""), STRAIGHT),
    Fault(MLP, MLP.replace("nn.Tanh(), ", "").replace(" * d))", " * d), nn.Tanh())"), STRAIGHT),
    Fault(ROWS, "rows = self.mlp(self.start.detach())", MOVES),
    Fault(OPEN, "return rows.view(self.layers, 2, self.heads, len(self.start), -1)", MIXED),
    Fault(UPDATE, UPDATE.replace("values.expand", "keys.expand"), HELD),
    Fault(UPDATE, UPDATE.replace("keys.expand", "keys.detach().expand"), MOVES),
    Fault(MASK, "mask = torch.cat([mask, mask.new_ones(b, p)], 1)", PADDING),
    Fault(MASK, "mask = torch.cat([mask.new_zeros(b, p), mask], 1)", HELD),
    Fault(PLACES, "places = torch.arange(p, p + ids.shape[1])[None]", PADDING),
    Fault(PLACES, "places = (mask.cumsum(1) - 1).clamp(min=0)[:, :-p]", HELD),
)
IDS = torch.tensor([[0, 0, 3, 4, 5], [6, 7, 8, 1, 2]])
LEFT = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


def _gpt() -> PreTrainedModel:
    sizes = {"vocab_size": 9, "n_embd": 8, "n_layer": 3, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes)).eval()


def _works(found: dict) -> None:
    prefix = found["CachedPrefix"](_gpt(), 4, 5)
    if any(p.requires_grad for p in prefix.model.parameters()):
        raise Misconception("the model would be trained")
    if not isinstance(prefix.start, nn.Parameter) or not prefix.start.requires_grad:
        raise Misconception("start would not be trained")
    if torch.pdist(prefix.start.detach()).min() < 0.01:
        raise Misconception("the virtual tokens start alike, and would stay alike")
    with torch.no_grad():
        down, up = (each for each in prefix.mlp.modules() if isinstance(each, nn.Linear))
        rows = up(down(prefix.start).tanh())
        if not torch.allclose(prefix.mlp(prefix.start), rows, atol=1e-5):
            raise Misconception("the MLP is not a linear map, tanh, a linear map")
        right = rows.unflatten(1, (3, 2, 2, -1)).permute(1, 2, 3, 0, 4)
        if not torch.allclose(prefix.keys_values(), right, atol=1e-5):
            raise Misconception("keys_values() does not take a row of the MLP's apart for one virtual token")
    logits = prefix(IDS, LEFT)
    if not torch.allclose(logits[LEFT == 1], _by_the_package(right)[LEFT == 1], atol=1e-4):
        raise Misconception("the logits are not those of a model with this prefix, whose text starts at position p")
    logits[LEFT == 1].square().sum().backward()
    trained = [prefix.start.grad, down.weight.grad, up.weight.grad]
    if any(grad is None or not grad.any(1).all() for grad in trained):
        raise Misconception("a part of start or of the MLP gets no gradient")


@torch.no_grad()
def _by_the_package(keys_values: Tensor) -> Tensor:
    model, method = _gpt(), PrefixTuning(keys_values.shape[3], hidden=0)
    method.attach(model)
    for prefix, each in zip(method.added, keys_values, strict=True):
        prefix.keys_values.copy_(each)
    return model(IDS, attention_mask=LEFT, position_ids=(LEFT.cumsum(1) - 1).clamp(min=0)).logits


LISTING = Listing(CODE, FAULTS, _works, {"torch": torch, "nn": nn, "DynamicCache": DynamicCache})
HUNT = LISTING.task(
    "prefix.hunt",
    (
        "What can be measured: gradients, how it starts, the MLP, which row goes where, the logits with padding.",
        "Measure one at a time: a fault in one line may hide another.",
        "Compare each line with what it is to do. Which of your measurements would notice if it did not?",
    ),
)


# The shortest prefix -------------------------------------------------------------------------------------------------

LONGEST = 12


def _hidden(draw: Random) -> dict:
    return {"data_seed": draw.randrange(10**6), "true_length": draw.randint(3, 7)}


def _shortest(answer: object, n: SimpleNamespace) -> None:
    expect_smallest(answer, "length", n.true_length)


def _measured(answer: object, n: SimpleNamespace) -> None:
    *_, y, goal = hidden_prefix(n)
    least = least_losses_by_length(y).tolist()
    expect_measured(answer, "length", least + [0.0] * (LONGEST - len(least)), goal, slack=5)


def _cost(answer: object, n: SimpleNamespace) -> None:
    length = plain_number(item(answer, "length"), "length")
    wrong = {
        "only the keys are counted, or only the values": length * HEAD,
        "this is the size of the text's keys and values: those of the prefix are trained": 2 * 6 * HEAD,
    }
    expect(item(answer, "parameters"), 2 * length * HEAD, wrong, f"keys and values (p, w), both {HEAD} wide")


SHORTEST = Task(
    "prefix.shortest",
    "The shortest prefix",
    _hidden,
    {_shortest: 2, _measured: 2, _cost: 1},
    (
        "Adam, learning rate 0.1, 300 steps over all of q, keys and values from torch.randn: half a second a length.",
        "Try 1, 2, 4, 8 first, then the lengths between the last that failed and the first that did it.",
        "The loss of a prefix that is too short stops falling, however long you train.",
    ),
    stars=2,
    minutes=20,
    errors={"expected m1 and m2 to have the same dtype": "all is float64: torch.randn(..., dtype=torch.float64)"},
    shown=(),
    hidden=("true_length",),
)

put_on_the_list(SIZES, ATTENTION, FINISH, FIGURE, HUNT, SHORTEST)
