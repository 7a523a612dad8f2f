"""What training takes in memory, foretold from shapes; held against torch's own count of what its allocator gave."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, LlamaConfig

from peft_edu import Adapter, FullFineTuning, LoRA, PrefixTuning, PromptTuning, PTuningV2, TopBlocks, trainable
from peft_edu.lab import backbone, memory_of_training, task, training_memory
from peft_edu.lab.models.real import installed
from peft_edu.quantization import quantize

SMOLLM = "smollm2-135m-instruct"


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


def test_a_task_batch_and_its_head_are_foretold():
    data = task("reviews")
    model, tokenizer = backbone("tiny-bert", **data.head)
    batch = next(iter(data.batches(tokenizer, "train", size=8)))
    foretold = memory_of_training("tiny-bert", PTuningV2(length=4), batch, **data.head)
    model = PTuningV2(length=4).attach(model)
    assert foretold.total - foretold.copies == pytest.approx(allocated(model, batch), rel=0.05)


def test_weights_in_four_bits_are_foretold():
    foretold = memory_of_training("tiny-gpt2", LoRA(), (4, 48), dtype=torch.float32, four_bits=True)
    model = LoRA().attach(quantize(backbone("tiny-gpt2", dtype=torch.float32)[0]))
    assert foretold.total == pytest.approx(allocated(model, padded(4, 48)), rel=0.05)
    assert foretold.weights < memory_of_training("tiny-gpt2", LoRA(), (4, 48), dtype=torch.float32).weights / 2


def test_the_parts_are_those_of_the_model():
    method = FullFineTuning()
    foretold, model = memory_of_training("tiny-gpt2", method), method.attach(backbone("tiny-gpt2")[0])
    held = 8 * model.num_parameters()
    assert foretold.copies == foretold.gradients == held and foretold.moments == 2 * held
    assert held <= foretold.weights < 1.01 * held  # buffers are there as well
    without = memory_of_training("tiny-gpt2")
    assert without.copies == 0 and without.total == foretold.total - held


def test_in_bfloat16_what_is_learned_lies_beside_the_model_in_float32():
    foretold = memory_of_training("tiny-gpt2", FullFineTuning(), dtype=torch.bfloat16)
    numbers = backbone("tiny-gpt2")[0].num_parameters()
    assert foretold.gradients == 4 * numbers and foretold.moments == 8 * numbers
    assert foretold.copies == (2 + 4) * numbers  # as it was, for `detach`, and what AdamW moves


def test_activations_grow_with_the_batch_and_logits_with_the_vocabulary():
    one, two = (memory_of_training("tiny-gpt2", LoRA(), (rows, 64)).activations for rows in (4, 8))
    assert 1.95 < two / one < 2.05
    small, large = (GPT2Config(vocab_size=size, n_embd=64, n_layer=1, n_head=1) for size in (100, 100_000))
    more = memory_of_training(large, None, (2, 64)).total - memory_of_training(small, None, (2, 64)).total
    assert more > 4 * (99_900 * 64 * 4 + 2 * 64 * 99_900)  # weights, gradients, moments; and the logits


def test_a_model_that_no_laptop_holds_is_foretold():
    config = LlamaConfig()  # 7B
    whole, packed = (memory_of_training(config, LoRA(), (1, 512), four_bits=four) for four in (False, True))
    assert whole.total > 25e9 and packed.total < 10e9


def test_nothing_is_left_behind():
    method, state = LoRA(), torch.get_rng_state()
    memory_of_training("tiny-gpt2", method, (2, 8))
    assert torch.equal(torch.get_rng_state(), state)
    method.attach(backbone("tiny-gpt2")[0])  # it is still free


def test_it_is_said_in_words():
    assert repr(memory_of_training("tiny-gpt2", LoRA(rank=4), (8, 64))).endswith("activations: 59.3 MB at once")
    assert training_memory(1000, 10).total == 4120


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"batch": (4, 6400)}, "6400 tokens, but GPT2LMHeadModel has 192 positions"),
        ({"batch": (4, 190), "method": PromptTuning(length=5)}, "do not fit into 192 positions"),
        ({"batch": 4}, "batch is 4, but must be rows and tokens, as in"),
        ({"batch": (0, 4)}, "rows is 0, but must be a whole number from 1 on"),
        ({"batch": {"input_ids": torch.ones(2, 2).long()}}, "the batch holds input_ids, but training needs labels"),
        (
            {"batch": {"labels": torch.ones(2, 2).long()}},
            "GPT2LMHeadModel with LoRA.* cannot take a step.*specify either input_ids",
        ),
        ({"method": LoRA(rank=1000)}, "rank 1000 exceeds 128"),
        ({"method": FullFineTuning(), "four_bits": True}, "trains weights that are packed in 4 bits"),
        ({"four_bits": "yes"}, "four_bits is 'yes', but must be True or False"),
    ],
)
def test_what_cannot_be_foretold_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        memory_of_training("tiny-gpt2", **{"method": LoRA(), "batch": (2, 8), **wrong})


def test_a_class_is_no_method():
    with pytest.raises(TypeError, match=r"must be one such as LoRA\(rank=8\), or None"):
        memory_of_training("tiny-gpt2", LoRA)


MEASURED = """
import torch
from peft_edu import LoRA, fit
from peft_edu.lab import backbone

def kilobytes(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

ids, mask = torch.ones(2, 2, 64).long()
mask[1, 32:] = 0
batch = {"input_ids": ids, "attention_mask": mask, "labels": ids}
small = {name: each[:, :4] for name, each in batch.items()}
fit(LoRA().attach(backbone("tiny-gpt2")[0]), [small], steps=1, lr=1e-3)  # what Python and its libraries take
before = kilobytes("VmRSS")
model, _ = backbone("smollm2-135m-instruct")
model = LoRA().attach(model)
open("/proc/self/clear_refs", "w").write("5")  # the peak is that of training, not of opening
fit(model, [batch], steps=2, lr=1e-3)
print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.thorough
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux tells a process its peak")
def test_foretold_is_what_the_system_gives():
    if installed(SMOLLM) is None:
        pytest.skip("`make real` gets it")
    # With this threshold what is freed goes back to the system, which then counts what is alive.
    settings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", MEASURED], env=settings, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert memory_of_training(SMOLLM, LoRA(), (2, 64)).total == pytest.approx(int(ran.stdout), rel=0.15)
