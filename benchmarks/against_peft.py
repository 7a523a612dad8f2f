"""A training step of peft_edu beside HF peft and full fine-tuning: `python benchmarks/against_peft.py [--pairs 20]`.

Random weights in the shapes of GPT-2, BERT, T5 and Llama. With `--models` real ones, beside HF peft alone: SmolLM2-135M
and MiniLM-L6, which `make real` gets, and GPT-2 small's full shape. They take turns step by step, each first as often
as last, on one thread and by the processor's clock: so whatever else the machine does hits all of them alike. What is
compared is the median over the rounds of ours / theirs; the interval holds 95% of the medians of such rounds, drawn
anew from those that were measured. An interval around 1 means that no difference was seen.
T5 has no prefix here: peft's stands in the decoder alone, ours in all three kinds of attention.
"""

import argparse
import gc
import random
import time
from collections.abc import Callable, Iterator
from statistics import median, quantiles

import peft
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from peft_edu import FullFineTuning, LoRA, PrefixTuning, PromptTuning, seed, trainable
from peft_edu.lab import backbone
from peft_edu.method import Method

RANK, ALPHA, LENGTH, VOCABULARY = 8, 16, 20, 8192  # a small one: the methods act in the blocks
TASKS = {"gpt2": "CAUSAL_LM", "bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM", "llama": "CAUSAL_LM"}
MAPS = {"gpt2": ["c_attn"], "bert": ["query", "value"], "t5": ["q", "v"], "llama": ["q_proj", "v_proj"]}
METHODS = ("lora", "prefix", "prompt")
REAL = {"smollm2-135m-instruct": "llama", "minilm-l6": "bert", "gpt2-small": "gpt2"}  # and their families


def base(name: str, width: int, layers: int) -> PreTrainedModel:
    """A real model in float32, or one of this family with heads of 64, as they all have."""
    seed(0)
    if name == "gpt2-small":
        return GPT2LMHeadModel(GPT2Config(use_cache=False))
    if name in REAL:
        model, _ = backbone(name, **({"head": "classify", "labels": 2} if REAL[name] == "bert" else {}))
        model.config.use_cache = False
        return model
    family, heads, seen = name, width // 64, {"use_cache": False, "vocab_size": VOCABULARY}
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=layers, n_head=heads, **seen))
    inside = {"num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * width}
    if family == "bert":
        return BertForSequenceClassification(BertConfig(hidden_size=width, vocab_size=VOCABULARY, **inside))
    if family == "llama":
        return LlamaForCausalLM(
            LlamaConfig(hidden_size=width, num_key_value_heads=max(heads // 4, 1), **inside, **seen)
        )
    sizes = {"d_model": width, "d_ff": 4 * width, "num_layers": layers, "num_heads": heads}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, **seen))


def methods(family: str, name: str) -> tuple[Method, peft.PeftConfig]:
    """The same method, ours and theirs. GPT-2's map is fused: we train two updates in it, peft one over all of it."""
    task = {"task_type": TASKS[family]}
    if name == "lora":
        fused = {"fan_in_fan_out": family == "gpt2"}
        theirs = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MAPS[family], **fused, **task)
        return LoRA(RANK, ALPHA), theirs
    if name == "prefix":
        return PrefixTuning(LENGTH, hidden=0), peft.PrefixTuningConfig(num_virtual_tokens=LENGTH, **task)
    return PromptTuning(LENGTH), peft.PromptTuningConfig(num_virtual_tokens=LENGTH, **task)


def batch(family: str, texts: int, tokens: int) -> dict[str, Tensor]:
    ids = torch.randint(5, 1000, (texts, tokens), generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(texts, dtype=torch.long) if family == "bert" else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def stepper(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Callable[[], float]:
    """A function that takes one training step and returns its seconds."""
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-3)
    model.train()

    def step() -> float:
        start = time.process_time()
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    return step


def rounds(steps: list[Callable[[], float]], count: int) -> list[list[float]]:
    """The seconds of each, round by round, in an order that turns; the first two rounds warm up."""
    seconds = [[] for _ in steps]
    for i in range(count + 2):
        for place in [(i + j) % len(steps) for j in range(len(steps))]:
            seconds[place].append(steps[place]())
    return [each[2:] for each in seconds]


def interval(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """What holds 95% of the medians, were the rounds drawn again."""
    draw = random.Random(0)
    medians = [median(draw.choices(ratios, k=len(ratios))) for _ in range(draws)]
    cuts = quantiles(medians, n=40)
    return cuts[0], cuts[-1]


def table(
    chosen: list[str], names: list[str], width: int, layers: int, inputs: tuple[int, int], pairs: int
) -> Iterator[str]:
    """The comparison in Markdown, row by row as it is measured."""
    yield "| model | method | peft_edu, ms | HF peft, ms | full, ms | peft_edu / HF peft | 95% | peft_edu / full |"
    yield "|---|---|--:|--:|--:|--:|:-:|--:|"
    for model, name in [(model, name) for model in chosen for name in names if (model, name) != ("t5", "prefix")]:
        family = REAL.get(model, model)
        ours, theirs = methods(family, name)
        models = [
            ours.attach(base(model, width, layers)),
            peft.get_peft_model(base(model, width, layers), theirs),
            *(FullFineTuning().attach(base(model, width, layers)) for _ in range(model not in REAL)),
        ]
        mine, peft_s, *full = rounds([stepper(each, batch(family, *inputs)) for each in models], pairs)
        ratios = [a / b for a, b in zip(mine, peft_s, strict=True)]
        low, high = interval(ratios)
        shares = [f"{median(a / b for a, b in zip(mine, each, strict=True)):.2f}" for each in full] or ["-"]
        times = [f"{1000 * median(seconds):.1f}" for seconds in (mine, peft_s, *full)] + ["-"] * (not full)
        cells = (model, name, *times, f"{median(ratios):.3f}", f"{low:.3f} to {high:.3f}", *shares)
        yield f"| {' | '.join(cells)} |"
        del models
        gc.collect()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=[*TASKS, *REAL], default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--pairs", type=int, default=20, help="rounds that are measured")
    parser.add_argument("--texts", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=768, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=4)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shape = f"{chosen.layers} layers of {chosen.width} where not real, {chosen.texts} texts of {chosen.tokens} tokens"
    print(f"torch {torch.__version__}, peft {peft.__version__}, one thread; {shape}, {chosen.pairs} rounds\n")
    inputs = chosen.texts, chosen.tokens
    for line in table(chosen.models, chosen.methods, chosen.width, chosen.layers, inputs, chosen.pairs):
        print(line, flush=True)


if __name__ == "__main__":
    main()
