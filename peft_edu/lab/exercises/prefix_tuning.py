"""Lesson 03: attention with a prefix, its share, its size, its mask beside a cache, and the network that makes it."""

import torch
from torch import nn

from peft_edu.lab.exercises.check import NOTHING, Misconception, exercise, expect_number, same, tensors, untouched


def prefix_attention(q, k, v, prefix_k, prefix_v):
    keys = torch.cat([prefix_k, k])
    values = torch.cat([prefix_v, v])
    return torch.softmax(q @ keys.T / q.shape[-1] ** 0.5, -1) @ values


@exercise(
    "prefix.attention",
    reference=prefix_attention,
    hints=(
        "One softmax over all keys, those of the prefix in front.",
        "The scores are divided by the square root of w, the last size of q.",
        "`torch.cat([prefix_k, k])`, and the values in the same order.",
    ),
)
def _prefix_attention(f) -> None:
    """f(q, k, v, prefix_k, prefix_v) -> (t, w): q, k, v (t, w), prefix_k and prefix_v (p, w); no mask"""
    inputs = q, k, v, prefix_k, prefix_v = tensors((3, 4), (3, 4), (3, 4), (2, 4), (2, 4))

    def attend(keys, values, scale=0.5):
        return torch.softmax(scale * q @ keys.T, -1) @ values

    keys, values = torch.cat([prefix_k, k]), torch.cat([prefix_v, v])
    text, prefix, behind = attend(k, v), attend(prefix_k, prefix_v), torch.cat([v, prefix_v])
    wrong = {
        "the prefix does nothing: its keys and values belong in front of the text's": text,
        "two softmaxes are added: prefix and text share one, so that what one gets the other loses": prefix + text,
        "the text is left out: the prefix stands in front of it, not in its place": prefix,
        "the scores are not divided by the square root of w": attend(keys, values, 1),
        "the scores are divided by w, not by its square root": attend(keys, values, 0.25),
        "the keys have the prefix in front and the values behind: each key needs its own value": attend(keys, behind),
    }
    same(untouched(f, inputs), attend(keys, values), wrong)


def prefix_share(q, k, prefix_k):
    keys = torch.cat([prefix_k, k])
    share = torch.softmax(q @ keys.T / q.shape[-1] ** 0.5, -1)
    return share[:, : len(prefix_k)].sum(-1)


@exercise(
    "prefix.share",
    reference=prefix_share,
    hints=(
        "The same softmax as before, over the keys of the prefix and of the text.",
        "Each row has p + t shares, and they sum to 1. The first p belong to the prefix.",
        "`[:, : len(prefix_k)]`, and the sum over the last axis.",
    ),
)
def _prefix_share(f) -> None:
    """f(q, k, prefix_k) -> (t,): for each query the share of its attention that falls on the prefix"""
    inputs = q, k, prefix_k = tensors((3, 4), (3, 4), (2, 4))

    def shares(keys, scale=0.5):
        return torch.softmax(scale * q @ keys.T, -1)

    right = shares(torch.cat([prefix_k, k]))
    ours = right[:, :2]
    wrong = {
        "this is the share of the text: that of the prefix is 1 minus it": right[:, 2:].sum(-1),
        "this is the mean over the virtual tokens: together they get the sum": ours.mean(-1),
        "this is the share of the first virtual token alone: sum over all p": ours[:, 0],
        "each query's shares sum to 1 here: prefix and text have to be in one softmax": torch.ones(3).double(),
        "the scores are not divided by the square root of w": shares(torch.cat([prefix_k, k]), 1)[:, :2].sum(-1),
        "the scores are divided by w, not by its square root": shares(torch.cat([prefix_k, k]), 0.25)[:, :2].sum(-1),
        "the first p of the shares belong to the text here: the prefix comes in front": right[:, [2, 3]].sum(-1),
    }
    result = untouched(f, inputs)
    if isinstance(result, torch.Tensor) and result.shape == (3, 2):
        raise Misconception("these are the shares of the virtual tokens one by one: sum over them")
    if isinstance(result, torch.Tensor) and result.shape == (2,):
        raise Misconception("this is a sum over the queries: each query has a share of its own, sum over the keys")
    if isinstance(result, torch.Tensor) and result.ndim == 0:
        raise Misconception("this is one number for all queries: each query has a share of its own, sum over the keys")
    same(result, ours.sum(-1), wrong)


def prefix_count(layers, width, length):
    return 2 * length * layers * width


@exercise(
    "prefix.count",
    reference=prefix_count,
    hints=(
        "A key and a value, each as wide as the model.",
        "In every layer.",
        "Length 10 on GPT-2 medium, 24 layers of width 1,024: 491,520.",
    ),
)
def _prefix_count(f) -> None:
    """f(layers, width, length) -> the number of parameters of a prefix, without an MLP"""
    wrong = {
        40: "every layer has keys and values: twice as many",
        16: "this is the prefix of one layer: each layer has one of its own",
        8: "this is a prompt at the input: a prefix has keys and values in every layer",
        160: "length times width squared: a prefix holds vectors, not matrices",
        320: "the width is squared: a prefix holds vectors, not matrices",
    }
    expect_number(f(5, 4, 2), 80, wrong)
    expect_number(f(24, 1024, 10), 491_520, {}, "right for 5 layers, but not for GPT-2 medium: the formula is 2 p L d")


def first_words(ids, length):
    return tuple((ids * length)[:length])


@exercise(
    "prefix.words",
    reference=first_words,
    hints=(
        "Too long: `ids[:length]` cuts a list.",
        "Too short: `ids * 3` is a list three times, one behind the other. How often is always enough?",
        "A method's fields are plain values that stay as they are: give a tuple.",
    ),
)
def _first_words(f) -> None:
    """f(ids, length) -> a tuple of exactly so many token ids: the list ids, cut or repeated from its beginning"""
    ids = [5, 6, 7]
    for length, right in ((2, (5, 6)), (3, (5, 6, 7)), (8, (5, 6, 7, 5, 6, 7, 5, 6)), (1, (5,))):
        result = f(list(ids), length)
        if result is None:
            raise Misconception(NOTHING)
        if isinstance(result, list) and tuple(result) == right:
            raise Misconception("the ids are right, but in a list: give a tuple, tuple(...)")
        if not isinstance(result, tuple):
            raise Misconception(f"expected a tuple, got {type(result).__name__}")
        if length > 3 and result == (5, 6, 7):
            raise Misconception("right when it is cut, but three ids do not become eight: repeat them")
        if length > 3 and len(result) == length and result[3:] == (7,) * 5:
            raise Misconception("the last id is repeated: repeat the whole list from its beginning")
        if result == (5, 6, 7) * length and length > 1:
            raise Misconception(f"repeated, but not cut: {len(result)} ids for length {length}")
        if result != right:
            raise Misconception(f"ids {ids} and length {length} should give {right}, and give {result}")
        if any(type(each) is not int for each in result):
            raise Misconception(f"the ids are right, but {result[0]!r} is no plain number: a method keeps those")


def prefix_mask(mask, length):
    return torch.cat([mask.new_ones(len(mask), length), mask], 1)


@exercise(
    "prefix.mask",
    reference=prefix_mask,
    hints=(
        "There are more positions to see: p + t of them.",
        "Everybody sees the prefix.",
        "`mask.new_ones(len(mask), length)`",
    ),
)
def _prefix_mask(f) -> None:
    """f(mask, length) -> (b, p + t): the mask (b, t) of a batch, 1 for tokens and 0 for padding, with a prefix"""
    (noise,) = tensors((2, 3))
    mask = (noise > 0).long()
    mask[:, 0], mask[1, 2] = 1, 0
    result = untouched(f, (mask,), 4)
    if isinstance(result, torch.Tensor) and result.shape == mask.shape:
        raise Misconception("the mask is as long as before: there are p positions more to see")
    ones, mask = torch.ones(2, 4, dtype=torch.float64), mask.double()
    wrong = {
        "the prefix is masked: nobody would see it": torch.cat([0 * ones, mask], 1),
        "the prefix's ones stand behind the text: it is in front": torch.cat([mask, ones], 1),
        "padding became visible: only the prefix's places are 1": torch.ones(2, 7, dtype=torch.float64),
    }
    same(result, torch.cat([ones, mask], 1), wrong)


def prefix_from_mlp(start, down, up, heads):
    flat = up(down(start).tanh())  # (p, d) -> (p, hidden) -> (p, 2 heads w)
    return flat.view(len(start), 2, heads, -1).permute(1, 2, 0, 3)


@exercise(
    "prefix.mlp",
    reference=prefix_from_mlp,
    hints=(
        "`down` and `up` are linear maps, and tanh stands between them: the result is (p, 2 heads w).",
        "A row holds the keys of all heads, then the values of all heads: `.view(p, 2, heads, -1)` takes it apart.",
        "The axes are now p, 2, heads, w. `permute` puts them into another order: 2, heads, p, w.",
    ),
)
def _prefix_from_mlp(f) -> None:
    """f(start, down, up, heads) -> (2, heads, p, w): start (p, d), down and up linear maps with tanh between them"""
    down, up = nn.Linear(4, 5, dtype=torch.float64), nn.Linear(5, 2 * 3 * 2, dtype=torch.float64)
    (start,) = tensors((7, 4))
    with torch.no_grad():

        def made(flat):
            return flat.view(7, 2, 3, 2).permute(1, 2, 0, 3)

        flat = up(down(start).tanh())
        wrong = {
            "tanh is missing: two linear maps alone are one linear map": made(up(down(start))),
            "tanh comes last here: it stands between down and up": made(up(down(start)).tanh()),
            "tanh comes first here: it stands between down and up": made(up(down(start.tanh()))),
            "the numbers are mixed up: view(2, heads, p, w) cuts across the rows. Take each row apart, then permute": (
                flat.reshape(2, 3, 7, 2)
            ),
            "keys and values are exchanged: the first half of a row are the keys": made(flat).flip(0),
            "heads and width are exchanged: a row is (2, heads, w)": flat.view(7, 2, 2, 3).permute(1, 3, 0, 2),
        }
        result = untouched(f, (start,), down, up, 3)
        if isinstance(result, torch.Tensor) and result.shape == (7, 12):
            raise Misconception("this is still flat, (p, 2 heads w): take the rows apart, into (2, heads, p, w)")
        same(result, made(flat), wrong)
    if not f(start.requires_grad_(True), down, up, 3).requires_grad:
        raise Misconception("no gradient comes through: is there a detach(), a .data or a no_grad?")
