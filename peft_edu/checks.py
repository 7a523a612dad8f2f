"""The checks that the fields of all methods share: each error says what arrived and what was expected."""

import math
from collections.abc import Callable

from transformers import PreTrainedTokenizerBase


def whole_number(name: str, value: object, at_least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} is {value!r}, but must be a whole number from {at_least} on")


def number(name: str, value: object, expected: str, fits: Callable[[float], bool]) -> None:
    """`fits` says whether a finite number is allowed, `expected` says the same in words."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not known or not fits(value):
        raise ValueError(f"{name} is {value!r}, but must be {expected}")


def choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, choices))}")


def token_ids(name: str, words: object, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    """The token ids of a text, or those that are given."""
    if isinstance(words, str):
        if tokenizer is None:
            raise ValueError(f"{name} is the text {words!r}, which needs its tokenizer: tokenizer=...")
        words = tokenizer(words, add_special_tokens=False).input_ids
    if not words or not all(isinstance(each, int) for each in words):
        raise ValueError(f"{name} is {words!r}, but must be a text that tokenises to something, or token ids")
    return tuple(words)
