"""Lesson 01: what the learner builds and trains: a training step, the loop around it, and two methods that freeze.

The checks know no line of it: they look at which weights move, by how much, and what comes back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, head_parameters
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise
from peft_edu.lab.exercises.whole_method import IDS, expect_a_method, put_in, tiny_model
from peft_edu.method import METHODS, Method

Losses = list[float]
LR = 0.05


def training_step(model, batch, optimizer):
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def my_fit(model, batches, lr):
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(learned, lr=lr), []
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / len(batches))
        losses.append(training_step(model, batch, optimizer))
    model.eval()
    return losses


def plain_model(dropout: float = 0.0) -> PreTrainedModel:
    """A tiny BERT with a classifier. Without dropout a training gives the same numbers each time."""
    model = tiny_model("bert")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def batches(number: int) -> list[dict[str, Tensor]]:
    """Other texts and other labels in each."""
    every = (torch.tensor([[0, 1], [1, 1], [1, 0], [0, 0]][i % 4]) for i in range(number))
    return [{"input_ids": IDS.roll(i, 1).flip(i % 2), "labels": labels} for i, labels in enumerate(every)]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def alike(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.allclose(tensor, two[name], rtol=1e-6, atol=1e-9) for name, tensor in one.items())


class Spied(torch.optim.SGD):
    """Steps by the gradient itself, and keeps the order of what is asked of it."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=LR)
        self.asked: list[str] = []

    def step(self, closure=None):
        self.asked.append("step")
        return super().step(closure)


def _gradient(model: nn.Module, batch: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The loss of a batch and its gradients, with nothing left behind."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = model(**batch).loss
    found = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    pairs = zip(learned, found, strict=True)
    return loss.item(), {name: each for name, each in pairs if each is not None}


def _stepped(weights: dict[str, Tensor], gradient: dict[str, Tensor], times: float = 1) -> dict[str, Tensor]:
    return {name: w - times * LR * gradient.get(name, torch.zeros_like(w)) for name, w in weights.items()}


@exercise(
    "freezing.step",
    reference=training_step,
    hints=(
        "Forward: `model(**batch)` gives an output that has a `.loss`, because the batch has labels.",
        "`loss.backward()` adds a gradient to every trained parameter; `optimizer.step()` moves them by it.",
        "The next batch needs fresh gradients: `optimizer.zero_grad()`. `loss.item()` is the loss as a plain number.",
    ),
)
def _step(f) -> None:
    """f(model, batch, optimizer) -> the loss of this batch, a plain number; the optimizer has made one step"""
    model = plain_model()
    optimizer = Spied(model.parameters())
    first, then = batches(2)
    start, (loss, gradient) = state(model), _gradient(model, first)
    backward: list[bool] = []
    model.classifier.weight.register_hook(lambda _: backward.append(True))
    given = f(model, first, optimizer)
    _expect_moved(model, optimizer, backward, start, gradient)
    _expect_loss(given, loss, _gradient(model, first)[0])
    reached, (_, next_gradient) = state(model), _gradient(model, then)
    f(model, then, optimizer)
    both = {name: each + gradient[name] for name, each in next_gradient.items()}
    if alike(state(model), _stepped(reached, both)):
        raise Misconception(
            "the second step still holds the gradient of the first: backward() adds to what is there. "
            "optimizer.zero_grad() sets it to zero"
        )
    if not alike(state(model), _stepped(reached, next_gradient)):
        raise Misconception("the first step is right, but the second does not follow the gradient of its own batch")


def _expect_moved(model, optimizer: Spied, backward: list[bool], start: dict[str, Tensor], gradient) -> None:
    """One step along the gradient of the batch. `backward`: whether there was one."""
    now = state(model)
    if alike(now, start):
        if not optimizer.asked and not backward:
            raise Misconception(
                "nothing has moved: after the forward pass come loss.backward(), which makes gradients, and "
                "optimizer.step(), which uses them"
            )
        if not optimizer.asked:
            raise Misconception("nothing has moved: the gradients are there, and optimizer.step() is missing")
        raise Misconception(
            "step() found no gradient: it comes after loss.backward(), and zero_grad() does not stand between the two"
        )
    if alike(now, _stepped(start, gradient, 2)):
        raise Misconception("the parameters moved twice as far as they should: is step() or backward() there twice?")
    if alike(now, _stepped(start, gradient, -1)):
        raise Misconception("the loss goes up: step() already moves against the gradient, so leave its sign as it is")
    if not alike(now, _stepped(start, gradient)):
        raise Misconception("the parameters did not move along the gradient of this batch's loss: model(**batch).loss")


def _expect_loss(given: object, right: float, after: float) -> None:
    if given is None:
        raise Misconception(NOTHING)
    if isinstance(given, Tensor):
        raise Misconception(
            "the loss comes back as a tensor, and all that forward computed stays in memory with it: give loss.item()"
        )
    if not isinstance(given, Real):
        raise Misconception(f"expected the loss as a number, got {type(given).__name__}")
    if abs(given - after) < 1e-9:
        raise Misconception("this is the loss after the step: the forward pass before it has the loss already")
    if abs(given - right) > 1e-6:
        raise Misconception(f"the loss of this batch is {right:.4f}, yours gives {given:.4f}")


def _trained(fault: str = "") -> tuple[Losses, dict[str, Tensor]]:
    """The losses and the weights of a small training, with one fault or none."""
    model, every = _part_frozen(), batches(4)
    named = dict(model.named_parameters())
    learned = [p for p in named.values() if fault == "all" or p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(True)
    kinds = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}
    rate = 1e-3 if fault == "default" else LR

    def make():
        return kinds.get(fault, torch.optim.AdamW)(learned, lr=rate)

    optimizer, losses = make(), []
    for step, batch in enumerate(every):
        optimizer = make() if fault == "anew" else optimizer
        left = {"constant": 1, "too soon": 1 - (step + 1) / 4, "rising": (step + 1) / 4}.get(fault, 1 - step / 4)
        for group in optimizer.param_groups:
            group["lr"] = left * (group["lr"] if fault == "product" else rate)
        loss = model(**(every[0] if fault == "one batch" else batch)).loss
        loss.backward()
        optimizer.step()
        if fault != "sum":
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses, state(model)


def _part_frozen() -> PreTrainedModel:
    """The top block and the head are trained, as after TopBlocks(1)."""
    model = plain_model().requires_grad_(False)
    for part in (model.bert.encoder.layer[-1], model.classifier):
        part.requires_grad_(True)
    return model


WRONG = {
    "constant": "the learning rate stays as it is: at step i of n, counted from 0, it is lr (1 - i / n)",
    "too soon": "the last step has a learning rate of 0 and does nothing: count the steps from 0, lr (1 - i / n)",
    "product": "each step makes the learning rate of the step before smaller: take lr itself times (1 - i / n)",
    "rising": "the learning rate rises: it starts at lr and falls, lr (1 - i / n)",
    "default": "lr is not used: this is AdamW's own default of 0.001",
    "SGD": "this is plain gradient descent: take torch.optim.AdamW",
    "Adam": "this is Adam: AdamW also decays the weights a little",
    "anew": "each step makes a new optimiser, and its moments start from zero: make it once, before the loop",
    "one batch": "all steps see the first batch: each takes the next one",
    "sum": "gradients are never set to zero: each step also takes those of all batches before it",
    "all": "frozen parameters have moved: train those with requires_grad, and leave the others as they are",
}


@exercise(
    "freezing.fit",
    reference=my_fit,
    beside=(training_step,),
    hints=(
        "Before the loop: `torch.optim.AdamW(what is trained, lr=lr)`, an empty list, and `model.train()`.",
        "`for step, batch in enumerate(batches)` counts from 0. Each round appends what training_step gives.",
        'Before each step: `for group in optimizer.param_groups: group["lr"] = lr * (1 - step / len(batches))`.',
        "After the loop `model.eval()`, so that dropout is off when the model is scored.",
    ),
)
def _fit(f) -> None:
    """f(model, batches, lr) -> the losses, one for each step: AdamW on what is trained, one step for each batch, the
    learning rate of step i of n, counted from 0, is lr (1 - i / n); train() before the loop, eval() after it"""
    model, every = _part_frozen(), batches(4)
    model.eval()
    with modes_of(model) as modes:
        given = f(model, every, LR)
    losses = _as_losses(given, len(every))
    right, weights = _trained()
    if not _close(losses, right) or not alike(state(model), weights):
        _name_the_fault(losses, state(model), right)
    if not all(modes):
        raise Misconception("the model is in eval() while it trains, so dropout is off: model.train() before the loop")
    if model.training:
        raise Misconception(
            "the model is left in train(), so dropout is on when it is scored: model.eval() after the loop"
        )


@contextmanager
def modes_of(model: nn.Module) -> Iterator[list[bool]]:
    """Whether the model was in train() at each forward pass."""
    modes: list[bool] = []
    handle = model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    try:
        yield modes
    finally:
        handle.remove()


def _as_losses(given: object, steps: int) -> Losses:
    if given is None:
        raise Misconception(NOTHING)
    if isinstance(given, Real):
        raise Misconception("one number comes back: collect the loss of each step in a list")
    losses = [float(each) for each in given]
    if len(losses) == 1 < steps:
        raise Misconception("it ends after the first step: is the return one step too far to the right?")
    if len(losses) != steps:
        raise Misconception(f"{steps} batches gave {len(losses)} losses: each batch makes one step, and gives one loss")
    return losses


def _close(one: Losses, two: Losses) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(one, two, strict=True))


def _name_the_fault(losses: Losses, weights: dict[str, Tensor], right: Losses) -> None:
    for fault, message in WRONG.items():
        other, moved = _trained(fault)
        if _close(losses, other) and alike(weights, moved):
            raise Misconception(message)
    if alike(weights, state(_part_frozen())):
        raise Misconception("no weight has moved: does the optimiser hold the parameters? Does each batch make a step?")
    at = next((i for i, (a, b) in enumerate(zip(losses, right, strict=True)) if abs(a - b) > 1e-6), len(right) - 1)
    raise Misconception(
        f"up to loss {at + 1} of {len(right)} all is as it should be, and then {losses[at]:.4f} comes in the place of "
        f"{right[at]:.4f}: look at what the step before did"
        if at
        else f"the first loss is {losses[0]:.4f} instead of {right[0]:.4f}: it is that of the model as it comes"
    )


@dataclass
class MyTopBlocks(Method):
    n: int = 1

    def insert(self, model):
        every = blocks(model)
        for block in every[len(every) - self.n :]:
            self.unfreeze(block)


METHODS.pop("MyTopBlocks")  # `check` puts on the list what the lesson goes on with: the learner's, or this one


@exercise(
    "freezing.insert",
    reference=MyTopBlocks,
    hints=(
        "When insert is called, all is frozen, and the task head comes by itself. What is left is to unfreeze blocks.",
        "`blocks(model)` is a list from the bottom up: the last n stand at its end.",
        "In Python `every[-0:]` is the whole list. `every[len(every) - n :]` is right for n = 0 as well.",
        "`self.unfreeze(block)` for each of them.",
    ),
)
def _insert(cls) -> None:
    """class MyTopBlocks(Method), a @dataclass with n: insert(self, model) unfreezes the last n of blocks(model)"""
    expect_a_method(cls, n=2)
    for kind, n in (("bert", 2), ("bert", 1), ("bert", 3), ("bert", 0), ("llama", 1)):
        model = tiny_model(kind)
        every = blocks(model)
        right = {p for block in every[len(every) - n :] for p in block.parameters()}
        with _unfrozen(cls(n=n), model, "the top blocks") as trained:
            if n and not trained:
                raise NotWritten("insert unfreezes nothing yet. self.unfreeze(block) for each of the last n blocks")
            if trained != right:
                _name_the_blocks(model, trained, n)


@contextmanager
def _unfrozen(method: Method, model: PreTrainedModel, what: str) -> Iterator[set[nn.Parameter]]:
    """What a method trains beside the head. All of it is moved, so that detach has something to bring back."""
    with put_in(method, model, what, unfrozen=True):
        heads = head_parameters(model)
        trained = {p for p in model.parameters() if p.requires_grad and p not in heads}
        if trained - method.own:
            raise Misconception(
                "requires_grad is set by hand: self.unfreeze(part) also keeps what the part was, for detach"
            )
        with torch.no_grad():
            for parameter in trained:
                parameter.add_(1)
        yield trained


def _name_the_blocks(model: PreTrainedModel, trained: set[nn.Parameter], n: int) -> None:
    every = blocks(model)
    some = [any(p in trained for p in block.parameters()) for block in every]
    rest = trained - {p for block in every for p in block.parameters()}
    if rest and all(some):
        raise Misconception(f"n = {n} trains the whole model: unfreeze single blocks, not the model")
    if rest:
        name = next(name for name, p in model.named_parameters() if p in rest)
        raise Misconception(f"{name} is trained, and lies in no block: unfreeze the last n blocks alone")
    if n == 0:
        raise Misconception("n = 0 trains every block: in Python every[-0:] is the whole list")
    if some == [i < n for i in range(len(every))]:
        raise Misconception("these are the first n blocks, at the bottom: the top ones stand at the end of the list")
    if some == [i >= len(every) - n for i in range(len(every))]:
        raise Misconception("a top block is trained in part only: all of its parameters are")
    numbers = ", ".join(str(i) for i, on in enumerate(some, 1) if on)
    raise Misconception(f"of {len(every)} blocks, n = {n} trains block {numbers} (counted from 1, from the bottom)")


@dataclass
class MyBitFit(Method):
    def insert(self, model):
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                self.unfreeze(parameter)


METHODS.pop("MyBitFit")


@exercise(
    "freezing.bitfit",
    reference=MyBitFit,
    hints=(
        "`model.named_parameters()` gives pairs of a name and a parameter.",
        'The name of a bias ends in "bias", wherever it is: in a linear map and in a LayerNorm.',
        "`self.unfreeze(parameter)` takes a single parameter as well as a module.",
    ),
)
def _bitfit(cls) -> None:
    """class MyBitFit(Method), a @dataclass: insert(self, model) unfreezes every bias"""
    expect_a_method(cls)
    model = tiny_model("bert")
    heads = head_parameters(model)
    named = {name: p for name, p in model.named_parameters() if p not in heads}
    right = {p for name, p in named.items() if name.endswith("bias")}
    with _unfrozen(cls(), model, "the biases") as trained:
        if not trained:
            raise NotWritten("insert unfreezes nothing yet. self.unfreeze(parameter) for each bias")
        if trained == {p for name, p in named.items() if name.endswith("weight")}:
            raise Misconception("these are the weights: BitFit trains the biases")
        if more := [name for name, p in named.items() if p in trained - right]:
            raise Misconception(f"{more[0]} is trained, and is no bias: unfreeze the parameter, not its module")
        missing = [name for name, p in named.items() if p in right - trained]
        if missing and all("LayerNorm" in name for name in missing):
            raise Misconception("the biases of the LayerNorms are missing: BitFit trains them too")
        if missing:
            raise Misconception(f"{missing[0]} stays frozen: every bias is trained, {len(missing)} are missing")
