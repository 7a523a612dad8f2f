"""From runs that pass their probes to a folder in data/models: weights, log, and a model card."""

import platform
import shutil
from pathlib import Path

import pandas as pd
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForPreTraining, PreTrainedTokenizerBase

from peft_edu.lab import pretraining_figure
from peft_edu.lab.figures import style
from peft_edu.lab.figures.pretraining import NOT_PROBES

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
    "tiny-t5": (
        "A T5 (`T5ForConditionalGeneration`): half of the batches fill in spans, half go on with a text that is cut "
        "anywhere, on the decoder's mix.",
        "Which town? On Friday, Marco and two others were at Violetta, Glenmoor. Answer:",
    ),
}


def ship(name: str, runs: list[Path], folder: Path) -> None:
    """Copy the first run's model to `folder`, if every run passes: a recipe must not rest on a lucky seed."""
    logs = [pd.read_csv(run / "probes.csv") for run in runs]
    for run, log in zip(runs, logs, strict=True):
        if fails := missed(log.iloc[-1].to_dict(), name):
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
        for ability, gate in GATES[name].items()
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


def ship_rung(name: str, runs: list[Path], tokenizer: PreTrainedTokenizerBase, ladder: Path) -> None:
    """Every run's model to a folder of its own in `ladder`, and its log into the ladder's one log.

    No probe is asked of them: what a size can do and what it cannot is what they are there to show.
    """
    width, logs = int(name.removeprefix("ladder-")), []
    for run in runs:
        model, log = AutoModelForCausalLM.from_pretrained(run), pd.read_csv(run / "probes.csv")
        log.insert(0, "width", width)
        log.insert(1, "parameters", model.num_parameters())
        logs.append(log)
        rung = ladder / f"w{width}-seed{log.seed.iloc[0]}"
        model.save_pretrained(rung)
        tokenizer.save_pretrained(rung)
    written = ladder / "rungs.csv"
    if written.exists():
        before = pd.read_csv(written)
        again = (before.width == width) & before.seed.isin([log.seed.iloc[0] for log in logs])
        logs.append(before[~again])
    log = pd.concat(logs).sort_values(["width", "seed", "step"])
    log.to_csv(written, index=False)
    (ladder / "README.md").write_text(ladder_card(log), encoding="utf-8")


def ladder_card(log: pd.DataFrame) -> str:
    ends = log.groupby(["width", "seed"], as_index=False).last()
    probes = list(GATES["tiny-gpt2"])
    rows = [
        f"| `ladder/w{end['width']}-seed{end['seed']}` | {end['parameters']:,} | {end['held_out_loss']:.3f} | "
        + " | ".join(f"{end[probe]:.2f}" for probe in probes)
        + " |"
        for end in ends.to_dict("records")
    ]
    recipes = " ".join(f"ladder-{width}" for width in ends.width.unique())
    return f"""# The ladder: one recipe in {ends.width.nunique()} sizes

GPT-2s of 4 blocks, pretrained as tiny-gpt2 is, on the same {ends.tokens.iloc[0] / 1e6:.1f} million tokens; they differ
in their width alone. The smallest learns next to nothing of what the probes ask, the largest is as wide as tiny-gpt2.
Lesson 04 asks on them what prompt tuning needs: size, or the abilities that come with size?

| model | parameters | held-out loss | {" | ".join(probes)} |
|---|---|---|{"---|" * len(probes)}
{chr(10).join(rows)}

- made by `python -m data.world pretrain {recipes} --compile`
  with torch {torch.__version__}, transformers {transformers.__version__}
- tiny-gpt2 was made by the same recipe: its weights stand here as `w128-seed0`
- shares of right answers at the end; all figures over training: `rungs.csv`

License: Apache-2.0. They know a world that does not exist, and nothing of ours: for teaching only.
"""


def ship_early(name: str, run: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A recipe's model before it was done, with what it could do then. No probe is asked of it."""
    last = pd.read_csv(run / "probes.csv").iloc[-1]
    AutoModelForPreTraining.from_pretrained(run).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shares = ", ".join(f"{ability} {last[ability]:.2f}" for ability in probes_of(last))
    card = f"""# {name}

An early state of the pretraining of `{name.rpartition("-")[0]}` (seed {last.seed:.0f}): {last.step:,.0f} steps,
{last.tokens / 1e6:.1f} million tokens. Its facts are half learned, which is what lesson 05 needs it for.

Pretrained on: a small English world of reviews, visits, notes and biographies (see ../../../README.md)

- shares of right answers: {shares}; held-out loss {last.held_out_loss:.3f}
- made by `python -m data.world pretrain {name} --compile` with torch {torch.__version__}, transformers
  {transformers.__version__}

License: Apache-2.0. It knows a world that does not exist, and nothing of ours: for teaching only.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")


def probes_of(log: pd.Series) -> list[str]:
    return [name for name in log.index if name not in NOT_PROBES]
