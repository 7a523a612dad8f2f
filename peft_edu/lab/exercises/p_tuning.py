"""Lesson 05: pseudo tokens in their places, and an answer among candidates."""

import torch

from peft_edu.lab.exercises.check import exercise, expect_number, same, tensors, untouched


def put_in(embeddings, ids, pseudo):
    rows = (-1 - ids).clamp(min=0)
    return torch.where((ids < 0)[:, None], pseudo[rows], embeddings)


@exercise(
    "p_tuning.put_in",
    reference=put_in,
    hints=(
        "Row 0 of `pseudo` has the id -1: the row of an id is `-1 - id`.",
        "For ids from 0 on there is no row: clamp, and throw the result away.",
        "`torch.where(condition, one, other)` chooses place by place.",
    ),
)
def _put_in(f) -> None:
    """f(embeddings, ids, pseudo) -> (t, d): embeddings (t, d) of a text, its ids (t), pseudo (n, d) for -1, -2, ..."""
    embeddings, pseudo = tensors((5, 3), (3, 3))
    ids = torch.tensor([7, -2, 9, -1, -3])
    result = untouched(f, (embeddings, ids, pseudo))
    right = embeddings.clone()
    right[[3, 1, 4]] = pseudo
    in_order, reverse = embeddings.clone(), embeddings.clone()
    in_order[[1, 3, 4]] = pseudo
    reverse[[3, 1, 4]] = pseudo[[2, 1, 0]]
    wrong = {
        "the pseudo tokens are put in by their order in the text: the id says which it is, -1 the first": in_order,
        "pseudo[ids] counts from the end: the one with the id -1 is the first, pseudo[0]": reverse,
        "they are added to what was looked up: they stand in its place": right
        + torch.where((ids < 0)[:, None], embeddings, 0),
    }
    same(result, right, wrong)


def answer(logits, candidates):
    place = int(logits[candidates].argmax())
    return candidates[place]


@exercise(
    "p_tuning.answer",
    reference=answer,
    hints=(
        "Only the candidates' logits count.",
        "`logits[candidates].argmax()` is a place in the list.",
        "Look that place up in `candidates`.",
    ),
)
def _answer(f) -> None:
    """f(logits, candidates) -> a token id: logits (v) at the gap, candidates a list of token ids"""
    logits = torch.tensor([0.1, 3.0, 0.5, 2.0, 0.2, 1.0])
    wrong = {
        1: "that token is the likeliest of all, but it is no candidate",
        2: "that is the place of the answer in the list of candidates: give the token's id",
        4: "that is the first candidate, whatever the logits say",
    }
    expect_number(untouched(f, (logits,), [4, 5, 3]), 3, wrong)
