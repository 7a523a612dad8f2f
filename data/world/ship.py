"""From runs that pass their probes to a folder in data/models: weights, log, and a model card."""

import platform
import shutil
from pathlib import Path

import pandas as pd
import torch
import transformers

from peft_edu.lab import pretraining_figure, style

from .pretrain import RECIPES, Recipe
from .probes import GATES, missed

ABOUT = {
    "tiny-gpt2": (
        "A GPT-2 (`GPT2LMHeadModel`): next-token prediction on the decoder's mix.",
        "Which town? On Friday, Marco and two others were at Violetta, Glenmoor. Answer:",
    ),
    "tiny-bert": (
        "A BERT (`BertForPreTraining`): a quarter of the tokens guessed, and whether the second part of a "
        "document follows from the first, on the encoder's mix.",
        "Felix sent Anna a book. Now [MASK] has the book.",
    ),
}


def ship(name: str, runs: list[Path], folder: Path) -> None:
    """Copy the first run's model to `folder`, if every run passes: a recipe must not rest on a lucky seed."""
    mix = RECIPES[name].mix
    logs = [pd.read_csv(run / "probes.csv") for run in runs]
    for run, log in zip(runs, logs, strict=True):
        if fails := missed(log.iloc[-1].to_dict(), mix):
            raise SystemExit(f"{run} does not pass its probes, so {name} does not ship (reached, asked): {fails}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors"):  # the tokenizer is there: `make data` writes it
        shutil.copyfile(runs[0] / file, folder / file)
    log = pd.concat(logs)
    log.to_csv(folder / "probes.csv", index=False)
    (folder / "pretraining.png").write_bytes(style.png(pretraining_figure(log)))
    (folder / "README.md").write_text(card(name, RECIPES[name], log), encoding="utf-8")


def card(name: str, recipe: Recipe, log: pd.DataFrame) -> str:
    about, example = ABOUT[name]
    last = log.groupby("seed").last()
    seeds, losses = ", ".join(map(str, last.index)), ", ".join(f"{loss:.3f}" for loss in last.held_out_loss)
    rows = [
        f"| {ability} | {gate:.2f} | " + " | ".join(f"{share:.3f}" for share in last[ability]) + " |"
        for ability, gate in GATES[recipe.mix].items()
    ]
    head = "| probe | asked | " + " | ".join(f"seed {seed}" for seed in last.index) + " |"
    return f"""# {name}

{about}

Pretrained on: a small English world of reviews, visits, notes and biographies (see ../../README.md)

Example: `{example}`

![Held-out loss and probes over the tokens seen](pretraining.png)

The loss falls smoothly; the abilities come late, and at once. Shares of right answers at the end of the run:

{head}
|---|---|{"---|" * len(last)}
{chr(10).join(rows)}

- {recipe.steps:,} steps, {last.tokens.iloc[0] / 1e6:.1f} million tokens, {last.minutes.iloc[0]:.0f} minutes of one core
- held-out loss {losses} (seeds {seeds}); the weights are of seed {last.index[0]}
- made by `python -m data.world pretrain {name}` with Python {platform.python_version()}, torch {torch.__version__},
  transformers {transformers.__version__}
- all figures over training: `probes.csv`

License: Apache-2.0. It knows a world that does not exist, and nothing of ours: for teaching only.
"""
