"""The sweeps behind the lessons' figures: every recipe, around its steps and rate, with three seeds.

Each run stores what it reached on validation and on test. What a lesson shows is the setting with the best mean on
validation; that the recipes hold these settings is a test. Interrupted, a study goes on where it stopped.
"""

import platform
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import transformers
from tqdm import tqdm

from peft_edu import count
from peft_edu.lab.recipes import BACKBONES, RECIPES, Recipe, finetune

SEEDS = (0, 1, 2)
RATES = (1 / 3, 1, 3)  # times the recipe's own
STEPS = {"reviews": (1, 2), "tables": (1, 2)}  # times the recipe's own
STUDIES = tuple(RECIPES)
KEY = ["row", "seed", "lr", "steps"]


def grid(task: str) -> list[tuple[str, int, Recipe]]:
    return [
        (row, seed, replace(recipe, lr=float(f"{recipe.lr * rate:.2g}"), steps=recipe.steps * times))
        for row, recipe in RECIPES[task].items()
        for times in STEPS[task]
        for rate in RATES
        for seed in SEEDS
    ]


def one(task: str, row: str, seed: int, recipe: Recipe) -> list[dict]:
    """One run, as a line for each split that it is measured on."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    run = finetune(task, recipe, seed)
    seconds = round(time.perf_counter() - started, 1)
    splits = [split for split in run.data.splits if split != "train"]
    return [
        {
            "task": task,
            "backbone": BACKBONES[task],
            "method": type(recipe.method).__name__,
            "row": row,
            "seed": seed,
            "lr": recipe.lr,
            "steps": recipe.steps,
            "trainable": count(run.model).trainable,
            "split": split,
            "metric": run.data.metric,
            "value": round(run.score(split), 6),
            "seconds": seconds,
        }
        for split in splits
    ]


def run(tasks: list[str], folder: Path, jobs: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        path = folder / f"{task}.csv"
        done = pd.read_csv(path, comment="#") if path.exists() else pd.DataFrame(columns=KEY)
        have = set(done[KEY].itertuples(index=False, name=None))
        todo = [point for point in grid(task) if (point[0], point[1], point[2].lr, point[2].steps) not in have]
        lines = done.to_dict("records")
        with ProcessPoolExecutor(jobs) as pool:
            waiting = [pool.submit(one, task, *point) for point in todo]
            for finished in tqdm(as_completed(waiting), total=len(todo), desc=f"study {task}", unit="run"):
                lines += finished.result()
                write(path, task, lines)


def write(path: Path, task: str, lines: list[dict]) -> None:
    """The whole file, sorted, behind a line that says how it was made."""
    made = (
        f"# python -m data.world study {task}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, float64, 1 thread\n"
    )
    rows = list(RECIPES[task])
    table = pd.DataFrame(lines).sort_values(
        by=[*KEY, "split"], key=lambda c: c.map(rows.index) if c.name == "row" else c
    )
    unfinished = path.with_suffix(".part")
    unfinished.write_text(made + table.to_csv(index=False), encoding="utf-8")
    unfinished.rename(path)
