"""Pretraining: from random weights to a model that knows the world, with GPT-2's and BERT's own objectives.

Muon (Jordan et al. 2024) for the matrices inside the blocks and AdamW for the rest took half the tokens of AdamW alone.
A run is resumable: every PROBE_EVERY steps its state goes to the work folder, and the batches depend on the seed alone.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import BertConfig, BertForPreTraining, GPT2Config, GPT2LMHeadModel, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from . import corpus
from .probes import probe

PROBE_EVERY = 250
HELD_OUT = 4_096  # the last documents of the corpus are never trained on
POSITIONS = 192


@dataclass(frozen=True)
class Recipe:
    mix: str
    build: Callable[[Tokenizer], PreTrainedModel]
    batches: Callable[[Tokenizer, list[tuple[str, str]], int], Iterator[dict]]
    loss: Callable[[PreTrainedModel, dict], torch.Tensor]
    steps: int
    muon: dict
    adamw: dict
    schedule: Callable[[float], float]  # progress in [0, 1) -> factor on the rates
    warmup: int


# ------------------------------------------------------------------------------------------------------------ GPT-2
def build_gpt2(tokenizer: Tokenizer, width: int = 128, layers: int = 4, heads: int = 4) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=POSITIONS,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def packed_rows(tokenizer: Tokenizer, documents: list[tuple[str, str]], seed: int, size: int = 12) -> Iterator[dict]:
    """Documents end to end, cut into rows of POSITIONS tokens, in another order in each epoch."""
    encoded = tokenizer([text for _, text in documents]).input_ids
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(encoded), generator=generator)
        stream = torch.tensor([token for index in order for token in encoded[index]])
        rows = stream[: len(stream) // POSITIONS * POSITIONS].view(-1, POSITIONS)
        yield from ({"input_ids": rows[i : i + size]} for i in range(0, len(rows) - size + 1, size))


def next_token_loss(model: PreTrainedModel, batch: dict) -> torch.Tensor:
    logits = model(batch["input_ids"]).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), batch["input_ids"][:, 1:].flatten())


# ------------------------------------------------------------------------------------------------------------- BERT
def build_bert(tokenizer: Tokenizer, width: int = 128, layers: int = 4, heads: int = 4) -> BertForPreTraining:
    """The position table starts as sinusoids (Vaswani et al. 2017): neighbours look alike from the beginning."""
    model = BertForPreTraining(
        BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=POSITIONS,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    angles = torch.arange(POSITIONS)[:, None] / 1000 ** torch.linspace(0, 1, width // 2)
    model.bert.embeddings.position_embeddings.weight.data = 0.02 * torch.cat([angles.sin(), angles.cos()], dim=1)
    return model


def segments(documents: list[tuple[str, str]], r: Random) -> list[tuple[str, int]]:
    """(text, label). A fifth of the documents are cut in two at a [SEP], and half of these get another second part.

    Label 0: it follows, 1: it does not (BERT's next sentence prediction), -100: a whole document. With two thirds
    cut, one document in three has a wrong second part; runs like that did not find roles (data/README.md).
    """
    cut: list[tuple[str, str, str]] = []
    for kind, text in documents:
        sentences = re.split(r"(?<=[.!?]) ", text)
        middle = r.randint(1, len(sentences) - 1) if len(sentences) > 1 and r.random() < 0.2 else len(sentences)
        cut.append((kind, " ".join(sentences[:middle]), " ".join(sentences[middle:])))
    others: dict[str, list[str]] = {}
    for kind, _, second in cut:
        others.setdefault(kind, []).extend([second] if second else [])
    parts = []
    for kind, first, second in cut:
        label = r.randint(0, 1) if second else -100
        second = r.choice(others[kind]) if label == 1 else second
        parts.append((f"{first} [SEP] {second}" if second else first, label))
    return parts


def masked_pairs(tokenizer: Tokenizer, documents: list[tuple[str, str]], seed: int, size: int = 64) -> Iterator[dict]:
    """Batches of documents of similar length, in another order in each epoch."""
    r, generator = Random(seed), torch.Generator().manual_seed(seed)
    while True:
        documents = r.sample(documents, len(documents))
        for start in range(0, len(documents) - size * 32 + 1, size * 32):
            parts = sorted(segments(documents[start : start + size * 32], r), key=lambda part: len(part[0]))
            for i in r.sample(range(0, len(parts), size), 32):
                texts, follows = zip(*parts[i : i + size], strict=True)
                yield masked(tokenizer, texts, follows, generator, r)


def masked(tokenizer: Tokenizer, texts: Sequence[str], follows: Sequence[int], generator, r: Random) -> dict:
    """A quarter of the tokens are to be guessed: 80% of them masked, 10% replaced, 10% as they are."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    ids, special = batch["input_ids"], torch.tensor(tokenizer.all_special_ids)
    end = ids == tokenizer.sep_token_id
    second_part = ((end.cumsum(1) - end.long()).clamp(max=1)) * batch["attention_mask"]
    guessed = (torch.rand(ids.shape, generator=generator) < 0.25) & ~torch.isin(ids, special)
    labels = ids.masked_fill(~guessed, -100)
    dice = torch.rand(ids.shape, generator=generator)
    ids[guessed & (dice < 0.8)] = tokenizer.mask_token_id
    swapped = guessed & (dice >= 0.9)
    ids[swapped] = torch.randint(len(special), len(tokenizer), (int(swapped.sum()),), generator=generator)
    # Texts are shorter than the position table. Some batches start further right: late positions need training too.
    shift = r.randint(0, POSITIONS - ids.shape[1]) if r.random() < 0.05 else 0
    return {
        "input_ids": ids,
        "attention_mask": batch["attention_mask"],
        "token_type_ids": second_part,
        "position_ids": torch.arange(shift, shift + ids.shape[1])[None],
        "labels": labels,
        "next_sentence_label": torch.tensor(follows),
    }


def masked_and_next_sentence_loss(model: PreTrainedModel, batch: dict) -> torch.Tensor:
    hidden, pooled = model.bert(**{k: v for k, v in batch.items() if "label" not in k}).to_tuple()
    guessed = batch["labels"] != -100
    words, follows = model.cls(hidden[guessed], pooled)  # only the guessed tokens go through the vocabulary
    loss = cross_entropy(words.float(), batch["labels"][guessed])
    if (batch["next_sentence_label"] != -100).any():
        loss = loss + cross_entropy(follows.float(), batch["next_sentence_label"])
    return loss


def trapezoid(progress: float) -> float:
    return min(1.0, 2 * (1 - progress))


RECIPES = {
    "tiny-gpt2": Recipe(
        "decoder",
        build_gpt2,
        packed_rows,
        next_token_loss,
        steps=8000,
        muon={"lr": 0.02},
        adamw={"lr": 4e-3},
        schedule=trapezoid,
        warmup=60,
    ),
    "tiny-bert": Recipe(
        "encoder",
        build_bert,
        masked_pairs,
        masked_and_next_sentence_loss,
        steps=12000,
        muon={"lr": 3e-3, "adjust_lr_fn": "match_rms_adamw"},
        adamw={"lr": 3e-3},
        schedule=trapezoid,
        warmup=150,
    ),
}


def optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings, biases, norms and heads."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and re.search(r"\.(h|layer)\.\d", name)]
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


def run(name: str, tokenizer: Tokenizer, path: Path, work: Path, seed: int) -> Path:
    """Train a recipe with one seed; returns the folder that holds the model and its log, `probes.csv`.

    An interrupted run goes on where its last state was written. Every state is probed and the log keeps all of it.
    """
    recipe, folder = RECIPES[name], work / f"{name}-seed{seed}"
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
    for step in tqdm(range(at["step"], recipe.steps), initial=at["step"], total=recipe.steps, desc=folder.name):
        batch = next(batches)
        factor = min(1.0, (step + 1) / recipe.warmup) * recipe.schedule(step / recipe.steps)
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
