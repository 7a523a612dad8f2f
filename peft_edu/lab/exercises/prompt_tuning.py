"""Lesson 04: a prompt in front of the embeddings, what must be as long as it, where it starts, its size, its words."""

from collections import Counter

import torch
from torch import Tensor
from torch.nn.functional import normalize

from peft_edu.lab.exercises.check import (
    NOTHING,
    Misconception,
    exercise,
    expect_number,
    same,
    shape,
    tensors,
    untouched,
)


def prompt_inputs(embeddings, prompt):
    rows = prompt.expand(len(embeddings), -1, -1)
    return torch.cat([rows, embeddings], 1)


@exercise(
    "prompt.inputs",
    reference=prompt_inputs,
    hints=(
        "The result is (b, p + t, d).",
        "Every row gets the same prompt: `prompt.expand(b, -1, -1)`.",
        "In front, so that a decoder's text can see it: `torch.cat([..., ...], 1)`.",
    ),
)
def _prompt_inputs(f) -> None:
    """f(embeddings, prompt) -> (b, p + t, d): embeddings (b, t, d), prompt (p, d), the same for every row"""
    embeddings, prompt = tensors((2, 3, 4), (5, 4))
    try:
        result = untouched(f, (embeddings, prompt))
    except RuntimeError as error:
        if "number of dimensions" not in str(error):
            raise
        raise Misconception(
            "the prompt (p, d) is put beside the texts (b, t, d): show it once for each of the b texts first"
        ) from error
    rows = prompt.expand(2, -1, -1)
    wrong = {"the prompt stands behind the text: a decoder's text would never see it": torch.cat([embeddings, rows], 1)}
    if isinstance(result, torch.Tensor) and result.shape == embeddings.shape:
        raise Misconception("the sequence is as long as before: the prompt is put in front, not added to the text")
    same(result, torch.cat([rows, embeddings], 1), wrong)
    prompt.requires_grad_()
    if not f(embeddings, prompt).requires_grad:
        raise Misconception("no gradient reaches the prompt: is there a detach(), a .data or a torch.tensor(...)?")


def prompt_mask(mask, length):
    return torch.cat([mask.new_ones(len(mask), length), mask], 1)


@exercise(
    "prompt.mask",
    reference=prompt_mask,
    hints=(
        "1 says: may be attended to. 0 says: padding.",
        "Virtual tokens are no padding.",
        "`mask.new_ones(b, length)` has the mask's dtype and device.",
    ),
)
def _prompt_mask(f) -> None:
    """f(mask, length) -> (b, length + t): mask (b, t) of a text, for a text with a prompt in front"""
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    result = untouched(f, (mask,), 3)
    if isinstance(result, Tensor) and result.shape == mask.shape:
        raise Misconception("the mask is as long as before: every position needs an entry, virtual ones too")
    ones, text = torch.ones(2, 3, dtype=torch.float64), mask.double()
    wrong = {
        "the virtual tokens are masked: nobody could attend to them": torch.cat([0 * ones, text], 1),
        "the places of the prompt stand behind the text": torch.cat([text, ones], 1),
        "the prompt gets the text's own first entries: in a row that is padded on the left they are 0": torch.cat(
            [text[:, :3], text], 1
        ),
        "the padding is attended to: the text's own entries stay as they are": torch.ones(2, 7, dtype=torch.float64),
    }
    same(result, torch.cat([ones, text], 1), wrong)
    if result.dtype != mask.dtype:
        raise Misconception(f"the mask came as {mask.dtype}, and is {result.dtype} now: mask.new_ones(...) keeps it")


def prompt_positions(mask):
    return (mask.cumsum(1) - 1).clamp(min=0)


@exercise(
    "prompt.positions",
    reference=prompt_positions,
    hints=(
        "How many ones stand in a row up to here? `mask.cumsum(1)` tells.",
        "The first one has the position 0.",
        "Padding gets any position, as nobody looks at it, but none below 0: `.clamp(min=0)`.",
    ),
)
def _prompt_positions(f) -> None:
    """f(mask) -> (b, n): the position of each entry that is 1, counted from 0 over the ones of its row"""
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0]])
    result = untouched(f, (mask,))
    if result is None:
        raise Misconception(NOTHING)
    if not isinstance(result, Tensor):
        raise Misconception(f"expected a tensor, got {type(result).__name__}")
    shape(result, mask.shape, "a position for every entry of the mask")
    if result.is_floating_point():
        raise Misconception(f"positions are whole numbers, these are {result.dtype}")
    right, seen = prompt_positions(mask), mask.bool()
    if torch.equal(result[seen], right[seen]):
        if result.min() < 0 or result.max() > mask.shape[1] - 1:
            raise Misconception("right where the mask is 1, but padding gets a position that is in no table: clamp it")
        return
    if torch.equal(result[seen], right[seen] + 1):
        raise Misconception("the first position is 0: one too many everywhere")
    if torch.equal(result[seen], torch.arange(6).expand(3, 6)[seen]):
        raise Misconception(
            "the padding is counted: in the second row the text would stand two places further from the prompt"
        )
    raise Misconception(f"for the mask {mask[1].tolist()} the positions are {result[1].tolist()}: count the ones")


def prompt_labels(labels, length):
    return torch.cat([labels.new_full((len(labels), length), -100), labels], 1)


@exercise(
    "prompt.labels",
    reference=prompt_labels,
    hints=(
        "Every position of the logits needs a label.",
        "Nobody is to guess a virtual token.",
        "Cross entropy leaves out -100: `labels.new_full((b, length), -100)`.",
    ),
)
def _prompt_labels(f) -> None:
    """f(labels, length) -> (b, p + t): labels (b, t) of a language model, for a text with a prompt in front"""
    labels = torch.tensor([[4, 5, 6], [7, 8, -100]])
    result = untouched(f, (labels,), 4)
    if isinstance(result, torch.Tensor) and result.shape == labels.shape:
        raise Misconception("the labels are as long as before: every position of the logits needs one")
    out, labels = torch.full((2, 4), -100.0, dtype=torch.float64), labels.double()
    wrong = {
        "the virtual tokens are to be guessed as token 0: -100 leaves them out of the loss": torch.cat(
            [0 * out, labels], 1
        ),
        "the places of the prompt stand behind the text": torch.cat([labels, out], 1),
    }
    same(result, torch.cat([out, labels], 1), wrong)


def prompt_count(length, width, blocks):
    return length * width


@exercise(
    "prompt.count",
    reference=prompt_count,
    hints=("One virtual token is one row of d numbers.", "Where does it go in? Only there is something trained."),
)
def _count(f) -> None:
    """f(length, width, blocks): how many parameters a prompt trains, in front of a model of so many blocks"""
    wrong = {
        5 * 7 * 3: "a prompt stands at the input alone, and not in front of each block: the depth does not matter",
        2 * 5 * 7 * 3: "this is a prefix: keys and values in every block. A prompt stands at the input alone",
        5 + 7: "a virtual token is a row of as many numbers as the model is wide: multiply",
        2 * 5 * 7: "keys and values are made by the frozen model: only the embeddings are trained",
    }
    expect_number(f(5, 7, 3), 35, wrong)
    expect_number(f(20, 128, 4), 2560, {35: "it is always the same number: use what comes in"})


def start_rows(words, ids, length):
    again = [ids[i % len(ids)] for i in range(length)]
    return words[again]


@exercise(
    "prompt.start",
    reference=start_rows,
    hints=(
        "`words[[3, 1, 4]]` gives the rows 3, 1 and 4.",
        "From the beginning again when the ids are used up: `i % len(ids)`.",
    ),
)
def _start_rows(f) -> None:
    """f(words, ids, length) -> (length, d): the rows of words (v, d) that ids names, again and again from the first"""
    (words,) = tensors((9, 4))
    for ids, length in (([2, 5, 7], 3), ((2, 5, 7), 8), ([2, 5, 7], 2), ([4], 3)):
        try:
            result = f(words, ids, length)
        except IndexError as error:
            if "too many indices" not in str(error):
                raise
            raise Misconception(
                f"ids may be a tuple, and words[{ids}] asks for {len(ids)} axes, not for rows: index by a list"
            ) from error
        right = words[[ids[i % len(ids)] for i in range(length)]]
        if isinstance(result, Tensor) and result.shape == right.shape and length > len(ids) > 1:
            blocked = words[list(ids)].repeat_interleave(-(-length // len(ids)), 0)[:length]
            if torch.equal(result, blocked):
                raise Misconception("each word is repeated before the next one: a text is repeated as a whole")
        if isinstance(result, Tensor) and result.ndim == 2 and len(result) != length:
            told = f"{len(ids)} ids and a length of {length}"
            raise Misconception(f"for {told} there are {len(result)} rows: repeat the text, and cut it at the length")
        same(result, right, {"these are the first rows of words: take those that ids names": words[:length]})


def nearest_words(vectors, words):
    return (normalize(vectors, dim=1) @ normalize(words, dim=1).T).argmax(1)


@exercise(
    "prompt.nearest",
    reference=nearest_words,
    hints=(
        "The cosine of two vectors is the product of their directions: both divided by their lengths.",
        "`normalize(x, dim=1)` from torch.nn.functional divides each row by its length.",
        "The product is (p, v): for each virtual token take the word with the largest cosine, `.argmax(1)`.",
    ),
)
def _nearest(f) -> None:
    """f(vectors, words) -> (p,): for each row of vectors (p, d) the number of the row of words (v, d) with the
    largest cosine"""
    words = torch.tensor([[10.0, 10.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.2], [0.0, 0.1, 1.0], [-4.0, 0.0, 0.0]])
    vectors = torch.tensor([[5.0, 1.0, 0.0], [0.0, 0.2, 2.0]])
    words, vectors = words.double(), vectors.double()
    result = f(vectors, words)
    if isinstance(result, (list, tuple)):
        result = torch.tensor([int(each) for each in result])
    wrong = {
        "the longest word wins: divide by the lengths, so that only the direction counts": (vectors @ words.T).argmax(
            1
        ),
        "these are the words that are furthest away": (normalize(vectors) @ normalize(words).T).argmin(1),
    }
    if isinstance(result, Tensor) and result.shape == (5,):
        raise Misconception("there is one answer for each word: it is to be one for each virtual token, argmax(1)")
    same(result, torch.tensor([1.0, 3.0]).double(), {told: each.double() for told, each in wrong.items()})


def majority(answers):
    return [Counter(column).most_common(1)[0][0] for column in zip(*answers, strict=True)]


@exercise(
    "prompt.vote",
    reference=majority,
    hints=(
        "`zip(*answers)` goes through the texts: each time one answer of every voter.",
        "`Counter(column).most_common(1)[0][0]` is the answer that comes most often.",
    ),
)
def _majority(f) -> None:
    """f(answers) -> a list: answers has a list for each voter, with one answer a text; what most say to each text"""
    answers = [["Sad.", "Sad.", "Happy.", "x"], ["Sad.", "Happy.", "Happy.", "x"], ["Happy.", "Happy.", "Sad.", "x"]]
    result = f(answers)
    if result is None:
        raise Misconception(NOTHING)
    result, right = list(result), ["Sad.", "Happy.", "Happy.", "x"]
    if len(result) == len(answers):
        raise Misconception("this asks what each voter says most: ask for each text what most voters say")
    if result != right:
        raise Misconception(f"for {answers} it is {right}, one answer a text, and not {result}")
