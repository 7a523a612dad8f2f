"""Pretraining: from random weights to a model that knows the world, with the objectives of GPT-2, BERT and T5.

Muon (Jordan et al. 2024) for the matrices inside the blocks and AdamW for the rest took half the tokens of AdamW alone.
A run is resumable: every PROBE_EVERY steps its state goes to the work folder, and the batches depend on the seed alone.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from . import corpus, objectives
from .objectives import Documents
from .probes import probe

PROBE_EVERY = 250
HELD_OUT = 4_096  # the last documents of the corpus are never trained on


@dataclass(frozen=True)
class Recipe:
    family: str  # decides the tokenizer
    mix: str
    build: Callable[[Tokenizer], PreTrainedModel]
    batches: Callable[[Tokenizer, Documents, int], Iterator[dict]]
    loss: Callable[[PreTrainedModel, dict], torch.Tensor]
    steps: int
    muon: dict
    adamw: dict
    warmup: int


def trapezoid(progress: float) -> float:
    """The factor on the rates: 1 for the first half of the steps, then down to 0."""
    return min(1.0, 2 * (1 - progress))


RECIPES = {
    "tiny-gpt2": Recipe(
        "gpt2",
        "decoder",
        objectives.build_gpt2,
        objectives.packed_rows,
        objectives.next_token_loss,
        steps=8000,
        muon={"lr": 0.02},
        adamw={"lr": 4e-3},
        warmup=60,
    ),
    "tiny-bert": Recipe(
        "bert",
        "encoder",
        objectives.build_bert,
        objectives.masked_pairs,
        objectives.masked_and_next_sentence_loss,
        steps=12000,
        muon={"lr": 3e-3, "adjust_lr_fn": "match_rms_adamw"},
        adamw={"lr": 3e-3},
        warmup=150,
    ),
    "tiny-t5": Recipe(
        "t5",
        "decoder",
        objectives.build_t5,
        objectives.spans_and_prefixes,
        objectives.target_loss,
        steps=12000,
        muon={"lr": 3e-3, "adjust_lr_fn": "match_rms_adamw"},
        adamw={"lr": 8e-3},
        warmup=150,
    ),
}
# One recipe in several widths, from a model that learns next to nothing to tiny-gpt2's own width.
WIDTHS = (24, 32, 40, 48, 64, 80, 128)
LADDER = {
    f"ladder-{width}": replace(RECIPES["tiny-gpt2"], build=partial(objectives.build_gpt2, width=width))
    for width in WIDTHS
}

# A recipe that is stopped when its facts are half learned, for lesson 05: name -> recipe and step.
EARLY = {"tiny-bert-2500": ("tiny-bert", 2500)}


def optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, biases, norms and heads."""
    inside = [
        p
        for name, p in model.named_parameters()
        if p.ndim == 2 and re.search(r"\.(h|layer|block)\.\d", name) and "attention_bias" not in name
    ]
    rest = [p for p in model.parameters() if all(p is not q for q in inside)]
    return [
        torch.optim.Muon(inside, weight_decay=0.01, **recipe.muon),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.01, **recipe.adamw),
    ]


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, recipe: Recipe, batches: list[dict]) -> float:
    model.eval()
    loss = sum(recipe.loss(model, batch).item() for batch in batches) / len(batches)
    model.train()
    return loss


def run(
    name: str,
    tokenizer: Tokenizer,
    path: Path,
    work: Path,
    seed: int,
    compiled: bool = False,
    until: int | None = None,
) -> Path:
    """Train a recipe with one seed; returns the folder that holds the model and its log, `probes.csv`.

    An interrupted run goes on where its last state was written. Every state is probed and the log keeps all of it.
    `until`: stop at this step, a multiple of PROBE_EVERY, with the rates of the whole run.
    `compiled`: the loss goes through torch.compile, which halves the time of a small model and needs a C++ compiler.
    """
    recipe, folder = (RECIPES | LADDER)[name], work / f"{name}-seed{seed}"
    if compiled:
        recipe = replace(recipe, loss=torch.compile(recipe.loss))
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = recipe.build(tokenizer).train()
    model.set_attn_implementation("eager")  # on a CPU in bfloat16, SDPA's backward is half of a step
    opts = optimizers(model, recipe)
    rates = [[group["lr"] for group in opt.param_groups] for opt in opts]
    documents = list(corpus.read(path))
    batches = recipe.batches(tokenizer, documents[:-HELD_OUT], seed)
    unseen = list(islice(recipe.batches(tokenizer, documents[-HELD_OUT:], seed=0), 4))
    at = resume(folder / "state.pt", model, opts)
    for _ in range(at["step"]):
        next(batches)
    began, losses = time.perf_counter() - at["seconds"], []
    last = until or recipe.steps
    for step in tqdm(range(at["step"], last), initial=at["step"], total=last, desc=folder.name):
        batch = next(batches)
        factor = min(1.0, (step + 1) / recipe.warmup) * trapezoid(step / recipe.steps)
        losses.append(update(model, recipe, batch, opts, rates, factor))
        at["tokens"] += batch["input_ids"].numel()
        if (step + 1) % PROBE_EVERY == 0 or step + 1 == recipe.steps:
            at |= {"step": step + 1, "seconds": time.perf_counter() - began}
            at["log"].append(
                {
                    "seed": seed,
                    "step": at["step"],
                    "tokens": at["tokens"],
                    "minutes": round(at["seconds"] / 60, 1),
                    "loss": round(sum(losses) / len(losses), 4),
                    "held_out_loss": round(held_out_loss(model, recipe, unseen), 4),
                    **{ability: round(share, 3) for ability, share in probe(model, tokenizer, recipe.mix).items()},
                }
            )
            losses = []
            pd.DataFrame(at["log"]).to_csv(folder / "probes.csv", index=False)
            save(folder / "state.pt", model, opts, at)
    model.save_pretrained(folder)
    return folder


def update(model: PreTrainedModel, recipe: Recipe, batch: dict, opts: list, rates: list, factor: float) -> float:
    """One step of both optimisers at `factor` times their rates; returns the loss."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = recipe.loss(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for opt, base in zip(opts, rates, strict=True):
        for group, rate in zip(opt.param_groups, base, strict=True):
            group["lr"] = rate * factor
        opt.step()
        opt.zero_grad()
    return loss.item()


def save(path: Path, model: PreTrainedModel, opts: list, at: dict) -> None:
    unfinished = path.with_suffix(".part")
    torch.save({"model": model.state_dict(), "optimizers": [opt.state_dict() for opt in opts], "at": at}, unfinished)
    unfinished.rename(path)


def resume(path: Path, model: PreTrainedModel, opts: list) -> dict:
    """Where the run stands: the state on disk, loaded into model and optimisers, or the beginning."""
    if not path.exists():
        return {"step": 0, "seconds": 0.0, "tokens": 0, "log": []}
    state = torch.load(path)
    model.load_state_dict(state["model"])
    for opt, saved in zip(opts, state["optimizers"], strict=True):
        opt.load_state_dict(saved)
    return state["at"]
