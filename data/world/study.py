"""The sweeps behind the lessons' figures: every recipe, its steps and rate chosen on validation, with three seeds.

First every candidate is run with the first seed; then the one that did best on validation with the other seeds. All
runs are stored with what they reached on every split. Interrupted, a study goes on where it stopped.
"""

import platform
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
import transformers
from tqdm import tqdm

from peft_edu import count
from peft_edu.lab.recipes import BACKBONES, RECIPES, Recipe, finetune
from peft_edu.lab.results import winners

SEEDS = (0, 1, 2)
RATES = {
    "FullFineTuning": (3e-4, 1e-3, 3e-3),
    "TopBlocks": (3e-4, 1e-3, 3e-3),
    "HeadOnly": (1e-2, 3e-2, 1e-1),
    "BitFit": (3e-3, 1e-2, 3e-2),
    "LoRA": (3e-3, 1e-2, 3e-2),
}
STEPS = (150, 300)
LONG = {"from scratch": (300, 1200), "head only": (300, 1200)}
STUDIES = tuple(RECIPES)
KEY = ["row", "seed", "lr", "steps"]
Point = tuple[str, int, float, int]


def candidates(task: str) -> list[Point]:
    return [
        (row, SEEDS[0], lr, steps)
        for row, recipe in RECIPES[task].items()
        for lr, steps in product(RATES[type(recipe.method).__name__], LONG.get(row, STEPS))
    ]


def repeats(runs: pd.DataFrame) -> list[Point]:
    return [(best.row, seed, best.lr, best.steps) for best in winners(runs).itertuples() for seed in SEEDS[1:]]


def one(task: str, row: str, seed: int, lr: float, steps: int) -> list[dict]:
    """One run, as a line for each split that it is measured on."""
    torch.set_num_threads(1)
    recipe: Recipe = replace(RECIPES[task][row], lr=lr, steps=steps)
    started = time.perf_counter()
    run = finetune(task, recipe, seed)
    known = {
        "task": task,
        "backbone": BACKBONES[task],
        "method": type(recipe.method).__name__,
        "row": row,
        "seed": seed,
        "lr": lr,
        "steps": steps,
        "trainable": count(run.model).trainable,
        "seconds": round(time.perf_counter() - started, 1),
        "metric": run.data.metric,
    }
    splits = [split for split in run.data.splits if split != "train"]
    return [known | {"split": split, "value": round(run.score(split), 6)} for split in splits]


def run(tasks: list[str], folder: Path, jobs: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        path = folder / f"{task}.csv"
        complete(path, task, candidates(task), jobs)
        complete(path, task, repeats(pd.read_csv(path, comment="#")), jobs)


def complete(path: Path, task: str, points: list[Point], jobs: int) -> None:
    """Run what is not yet in the file, and write the file after each run."""
    done = pd.read_csv(path, comment="#") if path.exists() else pd.DataFrame(columns=KEY)
    have = set(done[KEY].itertuples(index=False, name=None))
    lines = done.to_dict("records")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:  # a fork would inherit torch's threads
        waiting = [pool.submit(one, task, *point) for point in points if point not in have]
        for finished in tqdm(as_completed(waiting), total=len(waiting), desc=f"study {task}", unit="run"):
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
        by=[*KEY, "split"], key=lambda column: column.map(rows.index) if column.name == "row" else column
    )
    unfinished = path.with_suffix(".part")
    unfinished.write_text(made + table.to_csv(index=False), encoding="utf-8")
    unfinished.rename(path)
