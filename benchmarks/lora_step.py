"""A training step of LoRA, peft_edu beside HF peft: `python benchmarks/lora_step.py [--pairs 20]`.

GPT-2 small's shape, random weights. Two comparisons: on maps that are modules of their own, where both train the same
parameters; and the paper's query and value, where HF peft puts one update over all of GPT-2's fused c_attn instead.
The two take turns step by step, so that whatever else the machine does hits both alike; medians are compared.
"""

import argparse
import time
from statistics import median

import peft
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from peft_edu import LoRA, seed, trainable

RANK, ALPHA = 8, 16
COMPARISONS = {  # roles of ours, modules of HF peft's
    "output, up and down": (("output", "up", "down"), ["c_proj", "c_fc"]),
    "query and value (HF peft: c_attn)": (("query", "value"), ["c_attn"]),
}


def base():
    seed(0)
    return GPT2LMHeadModel(GPT2Config(use_cache=False))


def ours(roles):
    return LoRA(rank=RANK, alpha=ALPHA, targets=roles).attach(base())


def theirs(modules):
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=modules, fan_in_fan_out=True)
    return peft.get_peft_model(base(), config)


def stepper(model, tokens):
    """A function that takes one training step and returns its seconds."""
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-3)
    model.train()

    def step():
        start = time.perf_counter()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    return step


def compare(name, roles, modules, tokens, pairs):
    models = {"peft_edu": ours(roles), "HF peft": theirs(modules)}
    steps = {library: stepper(model, tokens) for library, model in models.items()}
    seconds = {library: [] for library in models}
    for pair in range(pairs + 2):  # the first two warm up
        for library in reversed(steps) if pair % 2 else steps:
            seconds[library].append(steps[library]())
    mine, other = (times[2:] for times in seconds.values())
    ratio = median(a / b for a, b in zip(mine, other, strict=True))
    print(f"\n{name}, rank {RANK}, {tokens.shape[0]} texts of {tokens.shape[1]} tokens, {pairs} pairs of steps")
    for library, model in models.items():
        trained = sum(parameter.numel() for parameter in trainable(model).values())
        print(f"  {library:9} {1000 * median(seconds[library][2:]):7.1f} ms   {trained:,} trained parameters")
    print(f"  peft_edu / HF peft: {ratio:.3f}, the median over the pairs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=20)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, peft {peft.__version__}, {torch.get_num_threads()} thread(s)")
    tokens = torch.randint(50_257, (2, 64), generator=torch.Generator().manual_seed(0))
    for name, (roles, modules) in COMPARISONS.items():
        compare(name, roles, modules, tokens, arguments.pairs)
