"""Lesson 01, the hunt: a training of the top two blocks that runs, and whose loss falls, but that does badly.

The lesson's cell has three faults that people make, and none stops with an error: the bottom blocks are trained, every
step sees the first batch, and the attention mask is left out. On the validation split of `reviews` (75 steps at 0.002,
seeds 0 and 1): none 97.0 and 95.0, the bottom 81.2 and 81.5, the first batch 60.0 and 70.5, no mask 53.0 and 64.7, all
three 46.8 and 49.2. With all three the training loss ends at 0.001.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise
from peft_edu.lab.exercises.freezing_method import LR, batches, plain_model, state, training_step


def hunted(model, batches, lr):
    model.requires_grad_(False)
    for part in (*model.bert.encoder.layer[-2:], model.classifier):
        part.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / len(batches))
        losses.append(training_step(model, batch, optimizer))
    return losses


@exercise(
    "freezing.hunt",
    reference=hunted,
    beside=(training_step,),
    hints=(
        "Measure before you read. Which tensors have moved? Compare each with what it was, as in section 5.",
        'Print `batch["labels"].tolist()` in each step: with each step there should be other sentences.',
        'Look at a batch: `batch.keys()`, and `batch["attention_mask"]` beside `batch["input_ids"]`.',
        "One fault lies in what is frozen, one in which sentences are seen, one in what the model is told of them.",
    ),
)
def _hunt(f) -> None:
    """f(model, batches, lr) -> the losses: trains the top two blocks and the task head of a BERT classifier"""
    heard = listen(f)
    if not heard.steps:
        raise NotWritten("it makes no step. Bring the cell back as it was, and mend one fault at a time")
    found = [message for fault, message in FAULTS.items() if fault(heard)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)
    if heard.wrong:
        raise Misconception(heard.wrong)


@dataclass
class Heard:
    """What a training did, step by step."""

    steps: int = 0
    given: list[dict[str, Tensor]] = field(default_factory=list)  # to the model, in each forward pass
    moved: frozenset[str] = frozenset()  # the names of the parameters that are not what they were
    wrong: str = ""  # what was right in the cell, and is not any more


def listen(f: Callable) -> Heard:
    """Train a tiny model by f, and keep what its optimiser and its forward passes are given."""
    model, every, heard = plain_model(), padded(batches(4)), Heard()
    before = state(model)

    def forward(module: nn.Module, inputs: tuple, named: dict) -> None:
        positions = dict(zip(("input_ids", "attention_mask"), inputs, strict=False))
        heard.given.append(positions | named)

    def step(*_) -> None:
        heard.steps += 1

    handles = [model.register_forward_pre_hook(forward, with_kwargs=True), register_optimizer_step_pre_hook(step)]
    try:
        losses = f(model, every, LR)
    finally:
        for handle in handles:
            handle.remove()
    heard.moved = frozenset(name for name, p in model.named_parameters() if not torch.equal(p, before[name]))
    heard.wrong = _no_fault_but_wrong(heard, losses, len(every))
    return heard


def padded(every: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """With a mask, as the batches of a task have one: the last token of the second text is none."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    return [batch | {"attention_mask": mask} for batch in every]


def _no_fault_but_wrong(heard: Heard, losses: object, steps: int) -> str:
    if losses is None or not hasattr(losses, "__len__") or len(losses) != steps or heard.steps != steps:
        return "there is one step and one loss for each batch: that was right before"
    if not any(name.startswith("classifier") for name in heard.moved):
        return "the task head is frozen, and it knows nothing: that was right before"
    return ""


def _not_the_top(heard: Heard) -> bool:
    """Of three blocks the last two are trained, and nothing below."""
    below = [name for name in heard.moved if "embeddings" in name or "pooler" in name or "layer.0." in name]
    return bool(below) or not all(any(f"layer.{i}." in name for name in heard.moved) for i in (1, 2))


def _few_texts(heard: Heard) -> bool:
    """There are as many batches as steps, and each is another one."""
    return len({tuple(given["input_ids"].flatten().tolist()) for given in heard.given}) < heard.steps


def _no_mask(heard: Heard) -> bool:
    return any(given.get("attention_mask") is None or bool(given["attention_mask"].all()) for given in heard.given)


FAULTS = {
    _not_the_top: "Compare every tensor with what it was before the training, as in section 5: is what moved the top "
    "of the model, and only that? The first block is the one next to the text",
    _few_texts: "The loss falls to nothing, and new sentences are answered badly. How many different sentences has it "
    "seen? Print the labels of the batch in each step",
    _no_mask: "Give the model a short sentence alone, and then with a long one, as the loop does: the logits "
    "differ. Which tensor of a batch says where each sentence ends?",
}
