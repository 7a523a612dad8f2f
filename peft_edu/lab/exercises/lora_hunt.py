"""Lesson 07, the hunt: a LoRA that trains, but badly. The lesson's cell has three faults that people make, and none
stops with an error: A's rows start alike, dropout is awake in eval(), and all hooks, made in a loop, add the last
update. A measurement shows each of them. On `reviews` (r = 4, seed 0) each costs 4 to 9 points, all three 28.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from peft_edu.anatomy import linear_maps
from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise
from peft_edu.lab.exercises.lora_method import LowRank, listen
from peft_edu.lab.exercises.whole_method import IDS, tiny_model
from peft_edu.method import METHODS, Method


def add_hunted(module, inputs, output):
    return output + module.hunted(inputs[0])


@dataclass
class HuntedLoRA(Method):
    rank: int = 4
    alpha: float = 8

    def insert(self, model):
        for target in linear_maps(model, ("query", "value")):
            self.add(target.module, "hunted", LowRank(target.weight, self.rank, self.alpha))
            self.hook(target.module.register_forward_hook(add_hunted))


METHODS.pop("HuntedLoRA")  # as MyLoRA: `check` puts on the list what the lesson goes on with


@exercise(
    "lora.hunt",
    reference=HuntedLoRA,
    beside=(LowRank, add_hunted),
    hints=(
        "Measure before you read. Ask the trained model the same sentence twice, in eval(): are the logits the same?",
        "`torch.linalg.svdvals(update.B @ update.A)` of a trained update: how many directions? It may have r.",
        "Which B have moved after some steps? `update.B.abs().max()` for each update in `method.added`.",
        "One fault lies in how A starts, one in forward, one in what each hook finds when it is called.",
    ),
)
def _hunt(cls) -> None:
    """class HuntedLoRA(Method), a @dataclass with rank and alpha: the LoRA above, without its faults"""
    if not issubclass(cls, Method):
        raise Misconception("HuntedLoRA is no Method any more: keep class HuntedLoRA(Method), and mend what is in it")
    found = [message for fault, message in FAULTS.items() if fault(cls)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)


def _attached(cls, rank: int = 3) -> tuple[nn.Module, Method]:
    model = tiny_model("bert")
    method = cls(rank=rank, alpha=6)
    method.attach(model)
    if not method.added:
        raise NotWritten("insert adds nothing. Bring the cell back as it was, and mend one fault at a time")
    return model, method


@torch.no_grad()
def _filled(cls) -> tuple[nn.Module, Method]:
    """With A and B as they could be after some steps: other numbers in all places."""
    model, method = _attached(cls)
    draw = torch.Generator().manual_seed(0)
    for update in method.added:
        for parameter in update.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return model.eval(), method


@torch.no_grad()
def _answers_change(cls) -> bool:
    model, _ = _filled(cls)
    return not torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)


@torch.no_grad()
def _few_directions(cls) -> bool:
    """Rows that start alike get the same gradient wherever the columns of B do, from zero on."""
    _, method = _attached(cls)
    starts = [p for update in method.added for p in update.parameters() if p.ndim == 2 and p.any()]
    return not starts or any(torch.linalg.matrix_rank(each) < min(each.shape) for each in starts)


@torch.no_grad()
def _not_its_own(cls) -> bool:
    """A map gets what no update makes of its input, or what another map's makes. Dropout is put to sleep for this."""
    model, method = _filled(cls)
    with WithoutDropout():
        _, heard = listen(model)
        maps = [each for each in heard if each.role != "key"]
        near = [[update for update in method.added if _close(update, each.read, each.changed)] for each in maps]
    return not all(near) or len({updates[0] for updates in near}) < len(maps)


def _close(update: nn.Module, read: Tensor, changed: Tensor) -> bool:
    return torch.allclose(update(read), changed, rtol=1e-6, atol=1e-9)


class WithoutDropout(TorchFunctionMode):
    """Every dropout lets all through, so that one fault does not hide another."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function in (torch.nn.functional.dropout, torch.dropout):
            return arguments[0]
        return function(*arguments, **(options or {}))


FAULTS = {
    _answers_change: "Ask the model the same sentence twice, in eval(): the answers differ. Something random is still "
    "awake when the model is to answer",
    _few_directions: "Train some steps and look at torch.linalg.svdvals(B @ A): one direction, where there could be r. "
    "What is alike at the start learns alike",
    _not_its_own: "Train some steps and look at every B: which of them have moved? Each map is to get what its own "
    "update makes of its own input, inputs[0]. Which update does each hook call?",
}
