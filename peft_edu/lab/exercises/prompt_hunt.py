"""Lesson 04, the hunt: prompt tuning that trains, but badly. The lesson's cell has three faults that people make, and
none stops with an error: a view that deals the virtual tokens out among the rows of a batch, a mask that grows at the
wrong end, and a start that is sqrt(d) times too long. A measurement shows each of them. Right answers of tiny-gpt2
after 100 steps: 99% and 98% without a fault (seeds 0 and 1); with one of them, in this order, 3% and 18%, 34% and 45%,
83% and 0%; with all three 0% and 0%.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise
from peft_edu.lab.exercises.prompt_method import SoftPrompt, tiny_decoder
from peft_edu.method import METHODS, Method

SENTENCE = torch.tensor([[3, 4, 5, 6, 7]])


@dataclass
class HuntedPrompt(Method):
    length: int = 5

    def insert(self, model):
        stack = model.base_model
        words = stack.get_input_embeddings().weight.detach()
        hunted = SoftPrompt(words[torch.randperm(len(words))[: self.length]])
        self.configure(model.generation_config, "use_cache", False)
        self.add(stack, "hunted", hunted)
        self.hook(stack.register_forward_pre_hook(hunted.splice, with_kwargs=True))
        self.hook(stack.register_forward_hook(hunted.take_out))


METHODS.pop("HuntedPrompt")  # as MyPrompt: `check` puts on the list what the lesson goes on with


@exercise(
    "prompt.hunt",
    reference=HuntedPrompt,
    beside=(SoftPrompt,),
    hints=(
        "Measure before you read. Put one sentence three times into one batch: do the three rows get the same logits?",
        "Now one sentence alone, and the same one with padding (mask 0): are the logits of its words the same?",
        "How long are the virtual tokens before training, and how long are words? `.norm(dim=1).mean()` of each.",
        "One fault lies in __init__, one in how P comes to have a row for each text, one in the mask.",
    ),
)
def _hunt(cls) -> None:
    """class HuntedPrompt(Method), a @dataclass with length: the prompt tuning above, without its faults"""
    if not isinstance(cls, type) or not issubclass(cls, Method):
        raise Misconception("HuntedPrompt is no Method any more: keep HuntedPrompt(Method), and mend what is in it")
    found = [message for fault, message in FAULTS.items() if fault(cls)]
    if found:
        more = f"{len(found)} faults are still in. Measure, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)


def _attached(cls) -> tuple[nn.Module, Tensor]:
    model = tiny_decoder()
    (method := cls(length=3)).attach(model)
    every = [parameter for child in method.added for parameter in child.parameters()]
    if len(every) != 1:
        raise NotWritten("insert adds no prompt. Bring the cell back as it was, and mend one fault at a time")
    return model, every[0]


@torch.no_grad()
def _trained(cls) -> nn.Module:
    """With a prompt as it could be after some steps: other numbers in all places."""
    model, P = _attached(cls)
    P.copy_(torch.randn(P.shape, generator=torch.Generator().manual_seed(0), dtype=P.dtype))
    return model


def _logits(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=mask).logits


@torch.no_grad()
def _rows_differ(cls) -> bool:
    model, ids = _trained(cls), SENTENCE.repeat(4, 1)
    logits = _logits(model, ids, torch.ones_like(ids))
    return not torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-9)


@torch.no_grad()
def _padding_tells(cls) -> bool:
    """One row at a time, so that what the rows do to each other shows elsewhere."""
    model, some = _trained(cls), torch.ones(1, 2, dtype=torch.long)
    alone = _logits(model, SENTENCE, torch.ones_like(SENTENCE))
    for order in ((SENTENCE, some), (some, SENTENCE)):
        mask = torch.cat([torch.ones_like(each) if each is SENTENCE else 0 * each for each in order], 1)
        padded = _logits(model, torch.cat(order, 1), mask)[mask.bool()]
        if padded.shape != alone[0].shape or not torch.allclose(padded, alone[0], atol=1e-9):
            return True
    return False


@torch.no_grad()
def _wrong_size(cls) -> bool:
    """What the stack reads in front of the text, right after attach, beside the words."""
    model, _ = _attached(cls)
    stack, read = model.base_model, {}
    stack.register_forward_pre_hook(lambda _, inputs, named: read.update(named), with_kwargs=True)
    _logits(model, SENTENCE, torch.ones_like(SENTENCE))
    virtual, words = read["inputs_embeds"][0, :3], stack.get_input_embeddings().weight
    return not 0.5 < virtual.norm(dim=1).mean() / words.norm(dim=1).mean() < 2


FAULTS = {
    _rows_differ: "Put one sentence several times into one batch: its rows get different answers. Which virtual tokens "
    "does each row get? A view cuts memory in its own order",
    _padding_tells: "Ask about one sentence alone, and with padding beside it: the answers differ. Who may be attended "
    "to, place by place? The mask has to grow where the text grew",
    _wrong_size: "Before training, compare the length of a virtual token with that of a word, by .norm(): so far away "
    "a step of the same size turns it much less",
}
