"""Lesson 03: attention with a prefix, what it costs, and its mask."""

import torch

from peft_edu.lab.exercises.check import Misconception, exercise, expect_number, same, tensors, untouched


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
    }
    expect_number(f(5, 4, 2), 80, wrong)
    expect_number(f(24, 1024, 10), 491_520, {}, "right for 5 layers, but not for GPT-2 medium: the formula is 2 p L d")


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
