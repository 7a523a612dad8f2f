"""Instant feedback on what a learner writes: `check` runs it, says what is not right yet, and gives the lesson what it
goes on with; `hint` helps one step at a time.

A check is one function. It runs the learner's function or class on small tensors and raises Misconception with a
sentence that teaches; if it returns, all is right. To add one, write a plain solution, and under it the check with
`@exercise("name", reference=solution, hints=(...))`, in a file of peft_edu/lab/exercises. The check's docstring says
what is asked for; the solution is what a lesson uses until the learner's own is right, and the last of the hints.

The lesson goes on with whatever a check accepts. So it asks at once for all that later cells need: other shapes, plain
numbers, and of what is trained through, the gradient (`same_gradient`).
"""

import dis
import inspect
import numbers
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from textwrap import dedent, fill, indent
from types import FunctionType

import torch
from torch import Tensor

from peft_edu import method
from peft_edu.lab.workbook import keep


class Misconception(Exception):
    """What a learner's code shows that they believe, and why it is otherwise."""


class NotWritten(Misconception):
    """The place for the learner's lines is still empty: no mistake, a beginning."""


@dataclass(frozen=True)
class Feedback:
    """True if the exercise is solved; shows itself as a sentence."""

    right: bool
    message: str
    tried: bool = True  # False where nothing was written yet

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Exercise:
    """What is asked for, how it is checked, a plain solution, and the hints that lead there."""

    test: Callable[[object], None]
    reference: Callable
    hints: tuple[str, ...]
    beside: tuple[Callable, ...] = ()  # what the solution is made of, if it is more than one piece

    @property
    def asked(self) -> str:
        return inspect.cleandoc(self.test.__doc__)

    @property
    def solution(self) -> str:
        return "\n\n".join(dedent(inspect.getsource(part)) for part in (*self.beside, self.reference))


NOTHING = "it gives nothing back: is there a return?"
EXERCISES: dict[str, Exercise] = {}
_hints_given: dict[str, int] = {}  # in this kernel


def exercise(name: str, reference: Callable, hints: tuple[str, ...], beside: tuple[Callable, ...] = ()) -> Callable:
    """Put a check on the list."""

    def register(test: Callable[[object], None]) -> Callable:
        EXERCISES[name] = Exercise(test, reference, hints, beside)
        return test

    return register


def check(name: str, thing: object) -> object:
    """Say whether this is right, and give what the lesson goes on with: the learner's own once it is, else ours.

    >>> lora_count = check("lora.count", lambda into, out, rank: rank * (into + out))
    Right. From here on the lesson runs on your function.
    """
    feedback, reference = checked(name, thing), EXERCISES[name].reference
    print(fill(str(feedback), 100, break_on_hyphens=False))
    if not feedback:
        print("Until then the lesson goes on with the package's own code, and so do the numbers below.")
        print(f'Stuck? In a new cell: from peft_edu.lab import hint; hint("{name}")')
    if feedback.tried:
        keep("exercise", name, solved=feedback.right)
    chosen = thing if feedback.right else reference
    if isinstance(chosen, type) and issubclass(chosen, method.Method):
        method.METHODS[chosen.__name__] = chosen  # the one that files of this lesson mean
    return chosen


def checked(name: str, thing: object) -> Feedback:
    """The verdict of `check` alone: nothing is printed, kept or exchanged."""
    known = _known(name)

    def test() -> None:
        if thing is known.reference:
            raise NotWritten("this is the package's own. Run the cell with yours again, then this one")
        _expect_written(thing, known)
        known.test(thing)

    feedback = judged(test, known.asked)
    return Feedback(True, f"Right. From here on the lesson runs on your {_name(thing)}.") if feedback else feedback


def judged(test: Callable[[], None], asked: str = "") -> Feedback:
    """What a test says that calls a learner's code, in a sentence, whatever that code does."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            test()
    except NotWritten as start:
        return Feedback(False, _sentence(f"Not written yet: {start}"), tried=False)
    except Misconception as error:
        return Feedback(False, _sentence(f"Not yet: {error}"))
    except (Exception, SystemExit) as error:
        then = f" What is asked for: {_sentence(asked)}" if asked else ""
        return Feedback(False, f"Not yet: {_sentence(_stopped(error))}{then}")
    return Feedback(True, "Right.")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def hint(name: str) -> None:
    """Print the next hint of an exercise; the solution is the last."""
    known, given = _known(name), _hints_given.get(name, 0)
    _hints_given[name] = given + 1
    left = len(known.hints) - given
    if left <= 0:
        print(f"The solution of {name}. Read it, hide it, and write it again without looking:\n")
        print(indent(known.solution.rstrip(), "    "))
        return
    then = f"{left - 1} more, then the solution" if left > 1 else "the next one is the solution"
    print(fill(f"Hint {given + 1} of {len(known.hints)}: {known.hints[given]} ({then})", 100, break_on_hyphens=False))


def _known(name: str) -> Exercise:
    if isinstance(name, str) and name in EXERCISES:
        return EXERCISES[name]
    near = get_close_matches(str(name), EXERCISES, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(EXERCISES)}"
    raise ValueError(f"no exercise {name!r}; {meant}")


def _name(thing: object) -> str:
    name = getattr(thing, "__name__", "<")
    return "function" if name.startswith("<") else name


def _expect_written(thing: object, known: Exercise) -> None:
    if isinstance(known.reference, type) and not isinstance(thing, type):
        what = f"a {type(thing).__name__}" if not inspect.isfunction(thing) else "a function"
        raise Misconception(f"a class is asked for, and this is {what}: {known.asked}")
    if not callable(thing):
        raise Misconception(
            f"a function is asked for, and this is a {type(thing).__name__}: give it by its name alone, without "
            f"brackets behind it. It is {known.asked}"
        )
    parts = vars(thing).items() if isinstance(thing, type) else [(_name(thing), thing)]
    for name, part in parts:
        if isinstance(part, FunctionType) and name != "__init__" and _is_empty(part):
            raise NotWritten(f"{name} is still empty. Put your lines where the ... stands")


def _is_empty(function: FunctionType) -> bool:
    """Whether a body holds nothing but `...`, `pass` or a docstring."""
    steps = [step for step in dis.get_instructions(function) if step.opname not in ("RESUME", "NOP", "COPY_FREE_VARS")]
    idle = {"LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    return all(step.opname in idle and step.argval is None for step in steps)


OURS = [str(Path(method.__file__).parent), *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))]


def _stopped(error: BaseException) -> str:
    """An error in the learner's code, with the line of theirs that it came from."""
    what = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.line and not frame.filename.startswith(tuple(OURS))]
    if not theirs:
        return f"your code could not be called as it is meant to be, {what}"
    place = theirs[-1]
    return f'your code stopped in {place.name}, line {place.lineno} of its cell, "{place.line}", with {what}'


def tensors(*shapes) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def untouched(f: Callable, inputs: tuple[Tensor, ...], *rest):
    """What f gives for copies of these inputs, provided that it leaves them as they were."""
    given = [tensor.clone() for tensor in inputs]
    result = f(*given, *rest)
    if any(not torch.equal(tensor, old) for tensor, old in zip(given, inputs, strict=True)):
        raise Misconception("an argument was changed in place (by += or a method that ends in _): make a new tensor")
    return result


def same(result, right: Tensor, wrong: Mapping[str, Tensor], otherwise: str = "the numbers are not those") -> None:
    if result is None:
        raise Misconception(NOTHING)
    if not isinstance(result, Tensor):
        numbers_in = isinstance(result, (list, tuple)) or hasattr(result, "__array__")
        makes = ": torch.tensor(...) makes one of it" if numbers_in else ""
        raise Misconception(f"expected a tensor, got {type(result).__name__}{makes}")
    if result.ndim == right.ndim == 2 and result.shape != right.shape and result.shape == right.T.shape:
        raise Misconception(f"the result is transposed: {tuple(result.shape)} instead of {tuple(right.shape)}")
    shape(result, right.shape, "look at the shapes step by step")
    if torch.allclose(result.double(), right):
        return
    for message, value in wrong.items():
        if torch.allclose(result.double(), value):
            raise Misconception(message)
    at = tuple((~torch.isclose(result.double(), right)).nonzero()[0].tolist())
    where = f"at {list(at)} it" if at else "it"
    raise Misconception(f"{otherwise}; {where} is {result[at]:.4f} instead of {right[at]:.4f}")


def same_gradient(found: Tensor, right: Tensor, of: Sequence[Tensor], missing: str) -> None:
    """The numbers are right: does the whole gradient come back? `missing` is said where none does."""
    if not found.requires_grad:
        raise Misconception(missing)
    ours = torch.autograd.grad(found, of, torch.ones_like(found), allow_unused=True)
    theirs = torch.autograd.grad(right, of, torch.ones_like(right))
    if all(each is None or not each.any() for each in ours):
        raise Misconception(missing)
    if any(mine is None or not torch.allclose(mine, each) for mine, each in zip(ours, theirs, strict=True)):
        raise Misconception(
            "the number is right, but only a part of its gradient comes back: .item(), .tolist() and .detach() cut it"
        )


def shape(tensor, shape, reason: str) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise Misconception(f"expected the shape {tuple(shape)}, got {tuple(tensor.shape)}: {reason}")


def expect_number(result, right: int, wrong: Mapping[int, str], otherwise: str = "") -> None:
    if result is None:
        raise Misconception(NOTHING)
    if isinstance(result, Tensor) and result.numel() == 1:
        result = result.item()
    if not isinstance(result, numbers.Number):  # NumPy's are such numbers too
        raise Misconception(f"expected a number, got {type(result).__name__}: {result!r}")
    if result != right:
        raise Misconception(wrong.get(result) or otherwise or f"expected {right}, got {result}")
