"""What training takes in memory, foretold from shapes; held against torch's own count of what its allocator gave."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from peft_edu import Adapter, FullFineTuning, LoRA, PrefixTuning, PromptTuning, TopBlocks, trainable
from peft_edu.lab import backbone, memory_of_training


def allocated(model, batch) -> int:
    """The most bytes there are at once in a training step after the first, by the profiler."""
    learned = list(trainable(model).values())
    optimizer = torch.optim.AdamW(learned)
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    model.train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    moments = [each for state in optimizer.state.values() for each in state.values()]
    return most + sum(each.nbytes for each in (*model.parameters(), *model.buffers(), *moments))


def padded(rows, tokens):
    ids = torch.ones(rows, tokens, dtype=torch.long)
    mask = ids.clone()
    mask[1:, tokens // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


@pytest.mark.parametrize(
    "name, method",
    [
        ("tiny-gpt2", LoRA()),
        ("tiny-gpt2", FullFineTuning()),
        ("tiny-bert", TopBlocks(1)),
        ("tiny-bert", PrefixTuning(length=5, hidden=16)),
        ("tiny-t5", PromptTuning(length=5)),
        ("tiny-t5", Adapter()),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_foretold_is_what_the_allocator_gives(name, method):
    foretold = memory_of_training(name, method, batch=(4, 48))
    model = method.attach(backbone(name)[0])
    assert foretold.total - foretold.copies == pytest.approx(allocated(model, padded(4, 48)), rel=0.05)
