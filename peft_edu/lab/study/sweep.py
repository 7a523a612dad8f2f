"""The sweeps behind the lessons' figures: every recipe, its steps and rate chosen on validation, on 3 or 5 seeds.

First every candidate is run with the first seed; then the two that did best on validation with the other seeds, so that
no setting is chosen for one lucky seed. All runs are stored with what they reached on every split. Interrupted, a study
goes on where it stopped.
"""

import argparse
import re
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from peft_edu import count
from peft_edu.lab.paths import data_path
from peft_edu.lab.study.keep import keep
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.results import TRAINING
from peft_edu.lab.study.rows import ROWS
from peft_edu.lab.study.run import Run, finetune, problem_of

SEEDS = (0, 1, 2, 3, 4)  # the first three, but all of them for a row on which a lesson's title rests:
TITLED = {
    "reviews": [row for row in ROWS["reviews"] if row != "from scratch"],
    "aspects": ["LoRA r=1", "LoRA r=4", "LoRA r=16", "adapter m=1", "adapter m=16"],
    **{study: list(ROWS[study]) for study in ("four_bits", "minilm", "smollm2")},
}
FORMATS = {"minilm": "float32", "smollm2": "float32"}
FINALISTS = {"deep": 1, "aspects": 1, "minilm": 1, "smollm2": 1}  # how many of a row get the other seeds, if not 2
QUICK = re.compile(r"w(64|80|128)-seed\d (full|p=20|p=100)$")  # on the larger rungs these arrive within 100 steps
FACT_RATES = dict.fromkeys(("lstm", "mlp", "in front"), (1e-3, 3e-3)) | {"none": (1e-2, 1e-1), "joint": (3e-4, 1e-3)}
STEPS = {"pairs": 1500, "facts": 40, "owners": 300, "aspects": 600}  # of all rows of a task, if not 150
REAL_STEPS = {"minilm": 100, "smollm2": 30}  # of all rows of a study: what two cores allow
EACH = {  # three rates for each method, around what earlier studies chose
    "FullFineTuning": ((3e-4, 5e-4, 1e-3), ()),
    "TopBlocks": ((5e-4, 1e-3, 3e-3), ()),
    "BitFit": ((3e-3, 1e-2, 3e-2), ()),
    "Adapter": ((1e-3, 3e-3, 1e-2), ()),
    "LoRA": ((1e-3, 3e-3, 1e-2), ()),
    "PTuningV2": ((1e-2, 3e-2, 0.1), ()),
    "PromptTuning": ((1e-2, 3e-2, 0.1), ()),
}
GRIDS = {  # for a row, or for all rows of a method: its rates, and its steps, if not those of its task
    "reviews": {
        "from scratch": ((1e-3, 2e-3, 3e-3), (150, 600)),
        "FullFineTuning": ((1e-3, 2e-3, 3e-3), (75,)),
        "TopBlocks": ((1e-3, 2e-3, 3e-3), (75,)),
        "HeadOnly": ((1e-2, 3e-2, 1e-1), (150, 600)),
        "BitFit": ((3e-3, 1e-2, 3e-2), (150, 600)),
        "LoRA": ((3e-3, 5e-3, 1e-2, 2e-2), (75, 150)),
        "Adapter": ((1e-3, 3e-3, 1e-2), (150,)),
        "adapter m=16": ((1e-3, 3e-3, 1e-2), (75, 150)),
        "norms only": ((1e-2, 3e-2, 1e-1), (150,)),
    },
    "tables": {
        "from scratch": ((1e-3, 2e-3), (300,)),
        "FullFineTuning": ((1e-3, 2e-3), (75, 150)),
        "LoRA": ((1e-2, 2e-2, 4e-2), (75, 150)),
        **{f"prefix p={p}": ((0.1, 0.3, 0.6), ()) for p in (1, 2, 5, 10, 20)},
        "prefix p=20, MLP": ((5e-3, 1e-2), (300,)),
        **{row: ((0.1, 0.3), (300,)) for row in ROWS["tables"] if "2x" in row or row.endswith("random")},
        **{f"full, n={n}": ((5e-4, 1e-3), (75,)) for n in (25, 100)},
        "PrefixTuning": ((0.1, 0.3), ()),
        "PromptTuning": ((0.1, 0.3), ()),
    },
    "ladder": {
        row: ((1e-3, 3e-3) if row.endswith("full") else (0.1, 0.3), (100,) if QUICK.match(row) else (100, 400))
        for row in ROWS["ladder"]
    },
    "deep": {
        "HeadOnly": ((1e-2, 3e-2), ()),
        "FullFineTuning": ((5e-4, 1e-3), ()),
        "PTuningV2": ((3e-2, 0.1), ()),
        "PromptTuning": ((3e-2, 0.1), ()),
        **{f"{name} MLP": ((3e-3, 1e-2), ()) for name in ("reviews", "topics")},
    },
    "aspects": {
        "HeadOnly": ((1e-2, 3e-2), (300,)),
        "FullFineTuning": ((5e-4, 1e-3), ()),
        "LoRA": ((3e-3,), ()),  # what `methods` chose of three for r=8
        "Adapter": ((1e-3,), ()),  # and for m=16
        "PTuningV2": ((0.1,), (1200,)),
        "PromptTuning": ((3e-2, 0.1), (1200,)),
    },
    "methods": {
        **EACH,
        "PrefixTuning": ((3e-2, 0.1, 0.3), ()),
        **{f"{name} prompt": ((3e-2, 0.1, 0.3), ()) for name in ("tables", "summaries", "restaurants")},
        "PTuning": ((3e-4, 1e-3, 3e-3), ()),
    },
    "four_bits": {  # what LoRA has beside the weights as they are
        "reviews QLoRA r=4": ((3e-3, 5e-3, 1e-2, 2e-2), (75, 150)),
        "aspects QLoRA r=4": ((3e-3,), ()),
    },
    "minilm": {
        "FullFineTuning": ((5e-5, 1e-4, 3e-4), ()),
        "TopBlocks": ((3e-4, 1e-3, 3e-3), ()),
        "BitFit": ((3e-3, 1e-2, 3e-2), ()),
        "Adapter": ((1e-3, 3e-3, 1e-2), ()),
        "LoRA": ((1e-3, 3e-3, 1e-2), ()),
        "PTuningV2": ((1e-2, 3e-2, 0.1), ()),
        "PromptTuning": ((3e-2, 0.1, 0.3), ()),
    },
    "smollm2": {
        "FullFineTuning": ((3e-5, 1e-4), ()),
        "TopBlocks": ((3e-4, 1e-3), ()),
        "Adapter": ((1e-3, 3e-3), ()),
        "visits LoRA": ((1e-3, 2e-3), ()),
        "LoRA": ((2e-3,), ()),
        "PrefixTuning": ((1e-2, 3e-2), ()),
        "PromptTuning": ((3e-2, 0.1), ()),
    },
    "rates": {row: ((float(row.rpartition(" at ")[2]),), ()) for row in ROWS["rates"]},
    "few": EACH,
    "facts": {row: (FACT_RATES[row.partition(" ")[2].removesuffix(", n=5")], (20, 40)) for row in ROWS["facts"]},
}
KEY = ["row", "seed", "lr", "steps"]
Point = tuple[str, int, float, int]


def candidates(study: str) -> list[Point]:
    grids = GRIDS[study]
    found = []
    for name, row in ROWS[study].items():
        rates, steps = grids.get(name) or grids[type(row.method).__name__]
        steps = steps or (REAL_STEPS.get(study) or STEPS.get(problem_of(study, row).task, 150),)
        found += [(name, SEEDS[0], *chosen) for chosen in product(rates, steps)]
    return found


def repeats(study: str, runs: pd.DataFrame) -> list[Point]:
    """The finalists of each row, with the seeds that they have not had."""
    first = runs[(runs.split == "validation") & (runs.seed == SEEDS[0])]
    ranked = first.sort_values("value", ascending=False, kind="stable")
    finalists = ranked.groupby("row", sort=False).head(FINALISTS.get(study, 2))[["row", *TRAINING]]
    seeds = {row: SEEDS[1 : 5 if row in TITLED.get(study, ()) else 3] for row in finalists.row}
    return [(row, seed, lr, steps) for row, lr, steps in finalists.itertuples(index=False) for seed in seeds[row]]


def one(study: str, row: str, seed: int, lr: float, steps: int) -> list[dict]:
    """One run, as a line for each split that it is measured on."""
    torch.set_num_threads(1)
    recipe = Recipe(**vars(ROWS[study][row]), lr=lr, steps=steps)
    problem = problem_of(study, recipe)
    started = time.perf_counter()
    run = finetune(study, recipe, seed)
    known = {
        "task": problem.task,
        "backbone": recipe.backbone or problem.backbone,
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
    return [known | {"split": split} | measured(run, split) for split in splits]


def measured(run: Run, split: str) -> dict[str, float]:
    """`value` is the task's metric. Where facts become a text, also its exact matches, and how many names are right."""
    found = run.evaluate(split)
    numbers = {"value": found[run.data.metric]}
    if run.data.metric == "slots":
        numbers |= {"exact": found["exact"], "name": found["by slot"]["name"]}
    return {key: round(number, 6) for key, number in numbers.items()}


def run(studies: list[str], folder: Path, jobs: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for study in studies:
        path = folder / f"{study}.csv"
        complete(path, study, candidates(study), jobs)
        complete(path, study, repeats(study, pd.read_csv(path, comment="#")), jobs)


def complete(path: Path, study: str, points: list[Point], jobs: int) -> None:
    """Run what is not yet in the file, and write the file after each run."""
    done = pd.read_csv(path, comment="#") if path.exists() else pd.DataFrame(columns=KEY)
    have = set(done[KEY].itertuples(index=False, name=None))
    lines = done.to_dict("records")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:  # a fork would inherit torch's threads
        waiting = [pool.submit(one, study, *point) for point in points if point not in have]
        for finished in tqdm(as_completed(waiting), total=len(waiting), desc=f"study {study}", unit="run"):
            lines += finished.result()
            write(path, study, lines)


def write(path: Path, study: str, lines: list[dict]) -> None:
    """The whole file, sorted, behind a line that says how it was made."""
    rows = list(ROWS[study])
    table = pd.DataFrame(lines).sort_values(
        by=[*KEY, "split"], key=lambda column: column.map(rows.index) if column.name == "row" else column
    )
    keep(path, table, f"peft_edu.lab.study.sweep {study}", FORMATS.get(study, "float64"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m peft_edu.lab.study.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *ROWS], default=[], metavar="study", help="default: all")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    run(arguments.names or list(ROWS), data_path("results"), arguments.jobs)


if __name__ == "__main__":
    main()
