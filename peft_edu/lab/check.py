"""Instant feedback on an exercise: `check("lora.forward", f)` runs a learner's function and says what it got wrong.

A check is one function. It calls f on small tensors and raises Misconception with a sentence that teaches; if it
returns, f is right. To add one, write it under `@exercise("name")`: its docstring says what f takes and gives.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

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
    if name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    test = EXERCISES[name]
    if not callable(f):
        raise TypeError(f"{name} checks a function, got {type(f).__name__}. It is {test.__doc__}")
    try:
        test(f)
    except Misconception as error:
        return Feedback(False, f"Not yet: {error}")
    except Exception as error:
        return Feedback(
            False, f"Not yet: your function stopped with {type(error).__name__}: {error}. It is {test.__doc__}"
        )
    return Feedback(True, f"Right: {name} does what it should.")


@exercise("lora.forward")
def _lora_forward(f) -> None:
    """f(x, W, A, B, alpha) -> h: x (t, in), W (out, in), A (r, in), B (out, r), h (t, out)"""
    x, W, A, B = _tensors((4, 5), (3, 5), (2, 5), (3, 2))
    base, update = x @ W.T, x @ A.T @ B.T
    wrong = {
        "alpha / r is left out: the update B A x is scaled, so that alpha keeps its meaning when r changes": base
        + update,
        "the update is scaled by alpha, not by alpha / r": base + 5 * update,
        "alpha / r is rounded down by //: it is a division with a remainder": base + 2 * update,
        "the scale is upside down: it is alpha / r": base + 2 / 5 * update,
        "W x is missing: the frozen weight still does its work, LoRA adds to it": 2.5 * update,
        "A and B do nothing here: add (alpha / r) B A x": base,
        "W is scaled as well: alpha / r belongs to the update alone": 2.5 * (base + update),
    }
    inputs = x, W, A, B
    _same(_untouched(f, inputs, 5), base + 2.5 * update, wrong)
    (batch,) = _tensors((2, 4, 5))
    otherwise = "it works for x (t, in), but not for a batch (b, t, in): transpose A and B, not x"
    try:
        result = f(batch, W, A, B, 5)
    except Exception as error:
        raise Misconception(otherwise) from error
    _same(result, batch @ W.T + 2.5 * batch @ A.T @ B.T, {}, otherwise)


@exercise("lora.init")
def _lora_init(f) -> None:
    """f(out_features, in_features, rank) -> (A, B): A (rank, in_features), B (out_features, rank)"""
    pair = f(6, 5, 3)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise Misconception(f"expected the pair A, B, got {type(pair).__name__}")
    A, B = pair
    if not isinstance(A, Tensor) or not isinstance(B, Tensor):
        raise Misconception(f"expected two tensors, got {type(A).__name__} and {type(B).__name__}")
    if A.shape == (6, 3) and B.shape == (3, 5):
        raise Misconception("A and B are exchanged: A reads x first, so it is (rank, in)")
    _shape(A, (3, 5), "A is (rank, in): it takes x down to r numbers")
    _shape(B, (6, 3), "B is (out, rank): it brings the r numbers up again")
    if not A.any() and not B.any():
        raise Misconception(
            "A and B are both zero: then each one's gradient is a product with the other, zero for ever"
        )
    if not A.any():
        raise Misconception("this starts as the base model, too, but in LoRA it is B that is zero and A that is random")
    if B.any():
        raise Misconception("B is not zero: training would start away from the pretrained model, by a random B A")
    if torch.linalg.matrix_rank(A.double()) < 3:
        raise Misconception("the rows of A are alike: they would get the same gradient, and the rank would stay at 1")


@exercise("lora.count")
def _lora_count(f) -> None:
    """f(in_features, out_features, rank) -> the number of parameters that LoRA trains for one matrix"""
    wrong = {
        60: "this is the size of W, which stays frozen",
        120: "r times the size of W: but A and B are thin, (r, in) and (out, r)",
        24: "this counts A twice: B is as long as the output, (out, r)",
        40: "this counts B twice: A is as wide as the input, (r, in)",
        92: "the frozen W is counted as well: only A and B are trained",
        16: "the rank is left out: A has r rows and B has r columns",
        12: "only A is counted: B is trained as well",
        20: "only B is counted: A is trained as well",
    }
    _number(f(6, 10, 2), 32, wrong)
    _number(
        f(7, 7, 3), 42, {}, "right for 6 -> 10 at rank 2, but not for 7 -> 7 at rank 3: the formula is r (in + out)"
    )


@exercise("lora.merge")
def _lora_merge(f) -> None:
    """f(W, A, B, alpha) -> the merged weight (out, in): W (out, in), A (r, in), B (out, r)"""
    W, A, B = _tensors((3, 5), (2, 5), (3, 2))
    wrong = {
        "alpha / r is left out: then merged and unmerged outputs differ": W + B @ A,
        "the update is scaled by alpha, not by alpha / r": W + 5 * B @ A,
        "alpha / r is rounded down by //: it is a division with a remainder": W + 2 * B @ A,
        "this is the update alone: the merged weight is W plus it": 2.5 * B @ A,
        "the update is taken away: this is how to unmerge": W - 2.5 * B @ A,
        "W comes back as it was: add (alpha / r) B A": W,
    }
    _same(_untouched(f, (W, A, B), 5), W + 2.5 * B @ A, wrong)


@exercise("freezing.count")
def _freezing_count(f) -> None:
    """f(model) -> the number of trained parameters of a PyTorch module"""
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "block": nn.Linear(4, 4), "head": nn.Linear(4, 7, bias=False)})
    model["head"].weight = model["embed"].weight
    model["block"].weight.requires_grad_(False)
    wrong = {
        48: "this counts the frozen ones as well: look at requires_grad",
        16: "these are the frozen ones",
        60: "head and embedding share one matrix here, and it is counted twice: model.parameters() gives it once",
        76: "head and embedding share one matrix here, and it is counted twice, and the frozen ones with it",
        2: "this counts tensors: each holds p.numel() parameters",
        3: "this counts tensors, the frozen ones as well: each holds p.numel() parameters",
    }
    _number(f(model), 32, wrong)


@exercise("freezing.top_blocks")
def _freezing_top_blocks(f) -> None:
    """f(model, n) freezes a BertForSequenceClassification, but for its last n blocks and its classifier"""
    for n in (2, 0, 3):
        model = _small_bert()
        f(model, n)
        trained = [any(p.requires_grad for p in block.parameters()) for block in model.bert.encoder.layer]
        if all(p.requires_grad for p in model.parameters()):
            raise Misconception("nothing is frozen: set requires_grad to False for all first, then to True for some")
        if not all(p.requires_grad for p in model.classifier.parameters()):
            raise Misconception("the classifier is frozen, or a part of it, and it starts from random numbers")
        if n == 0 and all(trained):
            raise Misconception("n = 0 trains every block: in Python blocks[-0:] is the whole list")
        if n == 2 and trained == [True, True, False]:
            raise Misconception("these are the first n blocks, at the bottom: the top ones are at the end of the list")
        if trained != [i >= 3 - n for i in range(3)]:
            raise Misconception(f"of 3 blocks, n = {n} trained {_numbers(trained)} (counted from 1)")
        if any(p.requires_grad for p in model.bert.embeddings.parameters()):
            raise Misconception("the embeddings are trained: they lie below the first block")
        if any(p.requires_grad for p in model.bert.pooler.parameters()):
            raise Misconception(
                "the pooler is trained: it belongs to the pretrained model, and only the classifier is new"
            )
        partly = [p for block in model.bert.encoder.layer[3 - n :] for p in block.parameters() if not p.requires_grad]
        if partly:
            raise Misconception("a top block is trained in part only: all of its parameters are")


def _tensors(*shapes) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _small_bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8)
    )


def _untouched(f: Callable, inputs: tuple[Tensor, ...], alpha: float):
    """What f gives for these inputs, provided that it leaves them as they were."""
    before = [tensor.clone() for tensor in inputs]
    result = f(*inputs, alpha)
    if any(not torch.equal(tensor, old) for tensor, old in zip(inputs, before, strict=True)):
        raise Misconception("an argument was changed in place (by += or a method that ends in _): make a new tensor")
    return result


def _same(result, right: Tensor, wrong: Mapping[str, Tensor], otherwise: str = "the numbers are not those") -> None:
    if result is None:
        raise Misconception("the function gives nothing back: is there a return?")
    if not isinstance(result, Tensor):
        raise Misconception(f"expected a tensor, got {type(result).__name__}")
    if result.ndim == right.ndim == 2 and result.shape != right.shape and result.shape == right.T.shape:
        raise Misconception(f"the result is transposed: {tuple(result.shape)} instead of {tuple(right.shape)}")
    _shape(result, right.shape, "look at the shapes step by step")
    if torch.allclose(result.double(), right):
        return
    for message, value in wrong.items():
        if torch.allclose(result.double(), value):
            raise Misconception(message)
    raise Misconception(f"{otherwise}; the first is {result.flatten()[0]:.4f} instead of {right.flatten()[0]:.4f}")


def _shape(tensor, shape, reason: str) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise Misconception(f"expected the shape {tuple(shape)}, got {tuple(tensor.shape)}: {reason}")


def _number(result, right: int, wrong: Mapping[int, str], otherwise: str = "") -> None:
    if result is None:
        raise Misconception("the function gives nothing back: is there a return?")
    if not isinstance(result, int | float):
        raise Misconception(f"expected a number, got {type(result).__name__}: {result!r}")
    if result != right:
        raise Misconception(wrong.get(result) or otherwise or f"expected {right}, got {result}")


def _numbers(trained: list[bool]) -> str:
    return "block " + ", ".join(str(i) for i, on in enumerate(trained, start=1) if on) if any(trained) else "none"
