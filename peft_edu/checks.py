"""The checks that the fields of all methods share: each error says what arrived and what was expected."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALWAYS_FITS = 10_000_000  # so many numbers a method may add to any model, a toy of fewer included


def whole_number(name: str, value: object, at_least: int = 1) -> None:
    if not _is_whole(value) or value < at_least:
        raise ValueError(f"{name} is {value!r}, but must be a whole number from {at_least} on")


def number(name: str, value: object, expected: str, fits: Callable[[float], bool]) -> None:
    """`fits` says whether a finite number is allowed, `expected` says the same in words."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not known or not fits(value):
        raise ValueError(f"{name} is {value!r}, but must be {'' if known else 'a finite number '}{expected}")


def yes_or_no(name: str, value: object) -> None:
    if not isinstance(value, bool):  # the text "no" counts as true in Python
        raise ValueError(f"{name} is {value!r}, but must be True or False")


def choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, choices))}")


def list_of_texts(name: str, value: object) -> None:
    if isinstance(value, str) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{name} is {value!r:.60}, but must be a list of texts: [row['text'] for row in rows]")


def as_numbers(given: object, dtype: torch.dtype | None = None) -> Tensor:
    """As a tensor on the CPU; an empty one where these are no numbers, or not all of them."""
    try:
        return torch.as_tensor(given, dtype=dtype, device="cpu")
    except (TypeError, ValueError, RuntimeError):  # names, None, rows of different lengths
        return torch.empty(0)


def indices(name: str, value: object, count: float = math.inf, owner: str = "") -> tuple[int, ...] | None:
    """Which of the `count` things that the owner has, each named once; None for all."""
    if value is None:
        return None
    if not isinstance(value, (tuple, list, range)) or not all(map(_is_whole, value)):
        raise ValueError(f"{name} is {value!r}, but must be whole numbers, as in (0, 1), or None for all")
    if twice := [index for i, index in enumerate(value) if index in value[:i]]:
        raise ValueError(f"{name} names {twice[0]} twice")
    if owner and (wrong := [index for index in value if not 0 <= index < count]):
        raise ValueError(f"{name} names {wrong[0]}, but {owner} has the {name} 0 to {count - 1}")
    return tuple(value)


def token_ids(name: str, words: object, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    """The token ids of a text, or those that are given."""
    if isinstance(words, str):
        if not callable(tokenizer):
            raise ValueError(f"{name} is the text {words!r}, which needs its tokenizer: tokenizer=...")
        words = tokenizer(words, add_special_tokens=False).input_ids
    if not isinstance(words, (tuple, list)) or not words or not all(_is_whole(each) and each >= 0 for each in words):
        raise ValueError(f"{name} is {words!r}, but must be a text that tokenises to something, or token ids")
    return tuple(words)


def in_vocabulary(name: str, words: tuple, model: PreTrainedModel) -> None:
    """`words`: token ids, or tuples of such."""
    largest = max(max(each) if isinstance(each, tuple) else each for each in words)
    if largest >= (size := len(model.get_input_embeddings().weight)):
        raise ValueError(f"{name} names the token {largest}, but the vocabulary ends at {size - 1}")


def affordable(fields: str, numbers: int, model: PreTrainedModel) -> None:
    """Before memory is taken: what a method adds is smaller than the model, or small anyway."""
    own = sum(parameter.numel() for parameter in model.parameters())
    if numbers > max(own, ALWAYS_FITS):
        raise ValueError(f"{fields} would add {numbers:,} numbers to {type(model).__name__}, which has {own:,} itself")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
