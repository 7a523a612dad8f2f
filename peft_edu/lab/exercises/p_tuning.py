"""Lesson 05: functions: pseudo tokens in their places, an answer among candidates, and what the encoder trains."""

import torch
from torch import Tensor, nn

from peft_edu.lab.exercises.check import (
    NOTHING,
    Misconception,
    exercise,
    expect_number,
    same,
    same_gradient,
    tensors,
    untouched,
)
from peft_edu.p_tuning import ENCODERS

MASK = 4  # in the small texts of the checks


def put_in(embeddings, ids, pseudo):
    rows = (-1 - ids).clamp(min=0)
    return torch.where((ids < 0)[..., None], pseudo[rows], embeddings)


@exercise(
    "p_tuning.put_in",
    reference=put_in,
    hints=(
        "Row 0 of `pseudo` has the id -1: the row of an id is `-1 - id`.",
        "For ids from 0 on there is no row: clamp, and throw the result away.",
        "`torch.where(condition, one, other)` chooses place by place. `condition[..., None]` adds an axis at the end.",
    ),
)
def _put_in(f) -> None:
    """f(embeddings, ids, pseudo) -> (..., t, d): embeddings (..., t, d) of texts, their ids (..., t), and pseudo
    (n, d), whose rows stand where the ids are -1, -2, ..."""
    embeddings, pseudo = tensors((5, 3), (3, 3))
    ids = torch.tensor([7, -2, 0, -1, -3])
    result = untouched(f, (embeddings, ids, pseudo))
    right = embeddings.clone()
    right[[3, 1, 4]] = pseudo
    in_order, reverse, zero, first = (embeddings.clone() for _ in range(4))
    in_order[[1, 3, 4]] = pseudo
    reverse[[3, 1, 4]] = pseudo[[2, 1, 0]]
    zero[[3, 1, 4, 2]] = pseudo[[0, 1, 2, 0]]
    first[[3, 1, 4]] = pseudo[0]
    wrong = {
        "the pseudo tokens are put in by their order in the text: the id says which it is, -1 the first": in_order,
        "pseudo[ids] counts from the end: the one with the id -1 is the first, pseudo[0]": reverse,
        "id 0 is a word, too: pseudo tokens have ids below 0": zero,
        "every pseudo token gets the first row: the id -2 means pseudo[1]": first,
        "they are added to what was looked up: they stand in its place": right
        + torch.where((ids < 0)[:, None], embeddings, 0),
        "nothing was put in: the rows with an id below 0 become rows of pseudo": embeddings,
    }
    same(result, right, wrong)
    texts, many = torch.stack([embeddings, 2 * embeddings]), torch.stack([ids, ids.flip(0)])
    expected = texts.clone()
    expected[0, [3, 1, 4]], expected[1, [1, 3, 0]] = pseudo, pseudo
    otherwise = "right for one text (t, d), but not for a batch (b, t, d): use [..., None] for the new axis"
    try:
        result = untouched(f, (texts, many, pseudo))
    except Exception as error:
        raise Misconception(otherwise) from error
    same(result, expected, {}, otherwise)
    embeddings.requires_grad_(), pseudo.requires_grad_()
    same_gradient(
        f(embeddings, ids, pseudo),
        put_in(embeddings, ids, pseudo),
        [embeddings, pseudo],
        "the numbers are right, but no gradient comes back, so no pseudo token learns: .tolist(), .item() and a new "
        "torch.tensor(...) cut it",
    )


def answer(logits, ids, mask, candidates):
    at_gap = logits[ids == mask]
    places = at_gap[:, candidates].argmax(-1)
    return torch.tensor(candidates)[places]


@exercise(
    "p_tuning.answer",
    reference=answer,
    hints=(
        "`logits[ids == mask]` are the logits at the gaps, (b, v): one row a text.",
        "Only the candidates' logits count: `[:, candidates]`, and then argmax gives a place in that list.",
        "Look the places up: `torch.tensor(candidates)[places]`.",
    ),
)
def _answer(f) -> None:
    """f(logits, ids, mask, candidates) -> for each text the token id of its answer, (b): logits (b, t, v) at all
    places, ids (b, t), mask the id of [MASK], which each text has once, candidates a list of token ids"""
    logits, candidates = tensors((2, 3, 9))[0], [7, 5, 8]
    ids = torch.tensor([[2, MASK, 6], [2, 6, MASK]])
    right, elsewhere = {(0, 1): 5, (1, 2): 8}, {(0, 0): 7, (1, 0): 5, (0, 2): 8, (1, 1): 7}
    for place, token in (right | elsewhere).items():
        logits[place][token] = 9
    for place in right:
        logits[place][1] = 20
    wrong = {
        (1, 1): "that token is the likeliest of all, but it is no candidate",
        (1, 2): "these are places in the list of candidates: give the tokens' ids",
        (7, 7): "these are the first candidate, whatever the logits say",
        (7, 5): "this reads the first place of the text, [CLS]: the answer stands at the gap",
        (8, 8): "this reads the last place of the text: the answer stands at the gap, wherever that is",
        (5, 7): "the gap's place in the first text is used for all: each text has its own",
    }
    result = untouched(f, (logits, ids), MASK, list(candidates))
    if result is None:
        raise Misconception(NOTHING)
    if isinstance(result, Tensor) and result.ndim > 1:
        raise Misconception(f"expected one id a text, (2), got {tuple(result.shape)}: argmax over the last axis")
    try:
        given = tuple(int(each) for each in result)
    except TypeError as error:
        raise Misconception(f"expected one id a text, got {result!r}: there are two texts in the batch") from error
    if given != (5, 8):
        at = f"expected the tokens (5, 8) for the two texts, got {given}"
        if not set(given) <= set(candidates):
            at += f". An answer is one of the candidates' ids, here {candidates}, and each text has its own gap"
        raise Misconception(wrong.get(given, at))
    one = tuple(int(each) for each in f(logits[1:], ids[1:], MASK, [1, 8]))
    if one != (1,):
        raise Misconception("right for two texts, but not for one with other candidates: which of them are allowed?")


def encoder_count(n, d):
    h = d // 2
    one_way = 4 * (h * d + h * h + 2 * h)
    lstm = 2 * 2 * one_way
    mlp = 2 * (d * d + d)
    return n * d + lstm + mlp


@exercise(
    "p_tuning.count",
    reference=encoder_count,
    hints=(
        "Three parts: what goes in, (n, d); the LSTM; the MLP with its two maps d -> d, each with a bias.",
        "An LSTM has four gates. Each reads d numbers of its input and h = d // 2 of its own state, and gives h: "
        "4 (h d + h h + 2 h), as PyTorch has two biases.",
        "That is one direction of one layer: there are two of each. The second layer reads h + h = d numbers.",
    ),
)
def _count(f) -> None:
    """f(n, d) -> the number of parameters that n pseudo tokens of width d train, with their encoder"""

    def parts(d: int) -> tuple[int, int]:
        lstm = nn.LSTM(d, d // 2, num_layers=2, bidirectional=True)
        every = sum(each.numel() for each in ENCODERS["lstm"](d).parameters())
        own = sum(each.numel() for each in lstm.parameters())
        return own, every - own

    n, d, h = 5, 8, 4
    lstm, mlp = parts(d)
    one_way = lstm // 4
    wrong = {
        lstm + mlp: "x is left out: what goes into the encoder is trained, too, n d parameters",
        n * d + lstm: "the MLP is left out",
        n * d + mlp: "the LSTM is left out",
        n * d: "this is x alone: the LSTM and the MLP are trained as well",
        n * d + one_way + mlp: "one direction of one layer: the LSTM has two directions and two layers",
        n * d + 2 * one_way + mlp: "half of the LSTM: two directions and two layers are four times 4 (h d + h h + 2 h)",
        n * d + lstm - 4 * 4 * h + mlp: "PyTorch's LSTM has two biases a gate, one for the input and one for its state",
        n * d + lstm - 2 * 4 * 4 * h + mlp: "the LSTM's biases are left out",
        n * d + lstm + mlp - 2 * d: "the MLP's biases are left out",
        n * d + lstm + mlp // 2: "the MLP has two maps",
        n * d + lstm // 4 + mlp: "the LSTM has four gates, two directions and two layers",
        n * (lstm + mlp): "the encoder is there once, and not once for each pseudo token",
    }
    result = f(n, d)
    right = n * d + lstm + mlp
    expect_number(result, right, wrong, f"for 5 pseudo tokens of width 8 it is {right}, yours gives {result}")
    more = sum(parts(12)) + 2 * 12
    expect_number(f(2, 12), more, {}, "right for 5 pseudo tokens of width 8, but not for 2 of width 12")
