"""What each process of a launch does, one thing after another: `accelerate launch launched.py FOLDER`.

tests/test_launch.py compares what the processes leave in the folder with what one process makes of the same.
"""

import operator
import os
import signal
import sys
from dataclasses import replace
from functools import partial

import torch
from families import batch, tiny
from test_train import in_parts, language_batch, still
from torch.utils.data import DataLoader

from peft_edu import FullFineTuning, LoRA, PrefixTuning, attached, fit, save, seed, trainable
from peft_edu.preferences import DPO
from peft_edu.train import Checkpoint

WHOLE = [language_batch(7, seed=1), language_batch(4, seed=2), language_batch(1, seed=3)]  # and no row for the second
CASES = {
    "gpt2": (LoRA(rank=4), "language", WHOLE),
    "llama": (LoRA(rank=4, targets=("query", "key", "value", "output")), "language", WHOLE),
    "t5": (PrefixTuning(length=3), "language", WHOLE),
    "bert": (FullFineTuning(), "tag", [batch("tag"), batch("tag", 1)]),  # the pooler has no part in the loss
    "roberta": (LoRA(rank=2), "classify", [batch("classify"), in_parts(batch("classify", 1))[0]]),
}
TRAINED = [(family, accumulate) for family in CASES for accumulate in (1, 2)]
SHARDED = [("gpt2", 1), ("llama", 2), ("t5", 1), ("roberta", 1)]
RANK = int(os.environ.get("RANK", 0))


def attach(family, dtype=torch.float64, start=0):
    method, task, _ = CASES[family]
    model = tiny(family, task, dtype)
    seed(start)
    return replace(method).attach(model)


def trained(family, accumulate=1, dtype=torch.float64, optimizer=torch.optim.AdamW):
    """What a few steps learn, and their losses. The start differs between the processes, of which the first counts."""
    model = still(attach(family, dtype, start=RANK))
    options = {"clip": 0.1, "accumulate": accumulate, "optimizer": optimizer}
    return learned(model), list(fit(model, CASES[family][2], 6, 0.01, **options).loss), learned(model)


def preferred(accumulate=1):
    """The same with pairs, five and then one: what several processes share is the pairs, not their two answers."""
    ids = torch.randint(5, 30, (6, 2, 7), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(7) < 2, -100)
    pairs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    model = still(attach("gpt2", start=RANK))
    batches = [{name: each[rows] for name, each in pairs.items()} for rows in (slice(5), slice(5, 6))]
    history = fit(model, batches, 6, 0.01, clip=0.1, accumulate=accumulate, objective=DPO(beta=0.5))
    return list(history.loss), learned(model)


def learned(model):
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def in_float32():
    """With plain steps: Adam divides by the gradient's size, and makes differences of rounding as large as steps."""
    return trained("roberta", dtype=torch.float32, optimizer=torch.optim.SGD)


def shuffled():
    """Each process has a loader of its own, and chance of its own. What was learned, and what chance gives next."""
    whole = batch("classify")
    rows = [{name: each[i % 3] for name, each in whole.items()} for i in range(8)]
    model = attach("roberta")
    fit(model, DataLoader(rows, batch_size=4, shuffle=True), 4, 0.01)
    return learned(model), torch.rand(3).tolist()


def stopped(by):
    seen = []

    def on_step(step, loss):
        seen.append(step)
        if step == 3:
            return by(RANK)

    return len(fit(attach("roberta"), CASES["roberta"][2], 6, 0.01, on_step=on_step)), seen


def interrupt(_):
    os.kill(os.getpid(), signal.SIGINT)


def resumed(folder):
    """With dropout: which each process draws by itself. Once at a stretch, and once in two."""
    results = []
    for name, stops in (("at a stretch", [None]), ("in two", [2, None])):
        for stop_at in stops:
            model = attach("roberta")
            kept = Checkpoint(f"{folder}/{name}", every=1, resume=True)
            stop = partial(operator.eq, stop_at)
            fit(model, CASES["roberta"][2], 5, 0.01, checkpoint=kept, on_step=lambda step, _, stop=stop: stop(step))
        results.append(learned(model))
    return results


def told(batches):
    try:
        return fit(attach("roberta"), batches, 3, 0.01)
    except (TypeError, ValueError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"


def sharded(family, accumulate, folder):
    """The same, and what it computes, which is kept; and whether all is as before when it is taken off."""
    base = {name: each.clone() for name, each in tiny(family, CASES[family][1], torch.float64).state_dict().items()}
    model = still(attach(family, start=RANK))
    history = fit(model, CASES[family][2], 6, 0.01, clip=0.1, accumulate=accumulate)
    values, logits = learned(model), model(**CASES[family][2][0]).logits.detach()
    if RANK == 0:
        save(model, f"{folder}/{family}")
    state = attached(model).detach().state_dict()
    back = state.keys() == base.keys() and all(torch.equal(state[name], base[name]) for name in base)
    return values, list(history.loss), logits, back


def main(folder):
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        results = {case: sharded(*case, folder) for case in SHARDED}
        results |= {"resumed": resumed(folder), "preferred": preferred()}
    else:
        results = {case: trained(*case) for case in TRAINED}
        nan = [batch("classify") | {"labels": torch.full((3,), -100)}]
        results |= {
            "float32": in_float32(),
            "preferred": preferred(),
            "preferred in two batches": preferred(accumulate=2),
            "shuffled": shuffled(),
            "resumed": resumed(folder),
            "stopped": stopped(lambda rank: True),
            "interrupted": stopped(interrupt),
            "no batch": told([[1, 2]]),
            "no number": told(nan),
            "no batches": told([]),
        }
    torch.save(results, f"{folder}/{RANK}")


if __name__ == "__main__":
    main(sys.argv[1])
