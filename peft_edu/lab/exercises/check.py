"""Instant feedback on an exercise: `check("lora.forward", f)` runs a learner's function and says what it got wrong.

A check is one function. It calls f on small tensors and raises Misconception with a sentence that teaches; if it
returns, f is right. To add one, write it under `@exercise("name")` in a file of peft_edu/lab/exercises: its docstring
says what f takes and gives.
"""

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EXERCISES: dict[str, Callable[[Callable], None]] = {}


class Misconception(Exception):
    """What a learner's function shows that they believe, and why it is otherwise."""


@dataclass(frozen=True)
class Feedback:
    """True if the exercise is solved; shows itself as a sentence."""

    right: bool
    message: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.message


def exercise(name: str) -> Callable:
    def register(test: Callable[[Callable], None]) -> Callable:
        EXERCISES[name] = test
        return test

    return register


def check(name: str, f: Callable) -> Feedback:
    """Run the check of an exercise on a learner's function."""
    if not isinstance(name, str) or name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    test = EXERCISES[name]
    if not callable(f):
        raise TypeError(f"{name} checks a function, got {type(f).__name__}. It is {test.__doc__}")
    try:
        test(f)
    except Misconception as error:
        return Feedback(False, f"Not yet: {error}")
    except (Exception, SystemExit) as error:
        stopped = f"your function stopped with {type(error).__name__}: {error}"
        return Feedback(False, f"Not yet: {stopped}. It is {test.__doc__}")
    return Feedback(True, f"Right: {name} does what it should.")


def tensors(*shapes) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def untouched(f: Callable, inputs: tuple[Tensor, ...], *rest):
    """What f gives for these inputs, provided that it leaves them as they were."""
    before = [tensor.clone() for tensor in inputs]
    result = f(*inputs, *rest)
    if any(not torch.equal(tensor, old) for tensor, old in zip(inputs, before, strict=True)):
        raise Misconception("an argument was changed in place (by += or a method that ends in _): make a new tensor")
    return result


def same(result, right: Tensor, wrong: Mapping[str, Tensor], otherwise: str = "the numbers are not those") -> None:
    if result is None:
        raise Misconception("the function gives nothing back: is there a return?")
    if not isinstance(result, Tensor):
        raise Misconception(f"expected a tensor, got {type(result).__name__}")
    if result.ndim == right.ndim == 2 and result.shape != right.shape and result.shape == right.T.shape:
        raise Misconception(f"the result is transposed: {tuple(result.shape)} instead of {tuple(right.shape)}")
    shape(result, right.shape, "look at the shapes step by step")
    if torch.allclose(result.double(), right):
        return
    for message, value in wrong.items():
        if torch.allclose(result.double(), value):
            raise Misconception(message)
    at = tuple((~torch.isclose(result.double(), right)).nonzero()[0].tolist())
    raise Misconception(f"{otherwise}; at {list(at)} it is {result[at]:.4f} instead of {right[at]:.4f}")


def shape(tensor, shape, reason: str) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise Misconception(f"expected the shape {tuple(shape)}, got {tuple(tensor.shape)}: {reason}")


def expect_number(result, right: int, wrong: Mapping[int, str], otherwise: str = "") -> None:
    if result is None:
        raise Misconception("the function gives nothing back: is there a return?")
    if isinstance(result, Tensor) and result.numel() == 1:
        result = result.item()
    if not isinstance(result, numbers.Number):  # NumPy's are such numbers too
        raise Misconception(f"expected a number, got {type(result).__name__}: {result!r}")
    if result != right:
        raise Misconception(wrong.get(result) or otherwise or f"expected {right}, got {result}")
