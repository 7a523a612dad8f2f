"""The stored sweeps: what a lesson shows of them, and that the recipes hold what validation chose."""

from pathlib import Path

import pandas as pd
import pytest

from peft_edu import PrefixTuning, PromptTuning, PTuning
from peft_edu.lab import averages, finetune, recipe, results, scores, stored
from peft_edu.lab.measure.cost import readable
from peft_edu.lab.study import run as running
from peft_edu.lab.study import sweep
from peft_edu.lab.study.comparison import METHODS
from peft_edu.lab.study.recipe import Setting
from peft_edu.lab.study.results import winners
from peft_edu.lab.study.rows import RECIPES, Recipe
from peft_edu.lab.widgets.decision import CLOSE

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COLUMNS = [
    "task",
    "backbone",
    "method",
    "row",
    "seed",
    "lr",
    "steps",
    "trainable",
    "split",
    "metric",
    "value",
    "seconds",
]


def line(row="full", seed=0, lr=0.1, split="test", value=0.5):
    known = {
        "task": "t",
        "backbone": "b",
        "method": "M",
        "steps": 10,
        "trainable": 1,
        "metric": "accuracy",
        "seconds": 1.0,
    }
    return known | {"row": row, "seed": seed, "lr": lr, "split": split, "value": value}


@pytest.fixture
def little(tmp_path, monkeypatch):
    """A stored study of one row: the rate .1 wins on validation, .2 would win on test."""
    lines = [line(lr=0.1, split="validation", value=0.9), line(lr=0.2, split="validation", value=0.8)]
    lines += [line(lr=0.1, value=0.6), line(lr=0.2, value=0.99)]
    (tmp_path / "results").mkdir()
    pd.DataFrame(lines)[COLUMNS].to_csv(tmp_path / "results" / "little.csv", index=False)
    monkeypatch.setenv("PEFT_EDU_DATA", str(tmp_path))


def test_the_setting_is_chosen_on_validation_not_on_test(little):
    assert scores("little", ["full"]) == {"full": [60.0]}
    assert averages({"a\nb": [60.04, 60.2], 5: [1.0]}) == {"a b": 60.1, 5: 1.0}
    assert set(results("little").lr) == {0.1} and set(stored("little").lr) == {0.1, 0.2}


def test_one_lucky_seed_does_not_choose_a_setting():
    lucky, steady, untried = [0.95, 0.5], [0.9, 0.88], [0.99]
    runs = [
        line(lr=lr, seed=seed, split="validation", value=value)
        for lr, values in {0.1: lucky, 0.2: steady, 0.3: untried}.items()
        for seed, value in enumerate(values)
    ]
    assert winners(pd.DataFrame(runs)).to_dict("records") == [{"row": "full", "lr": 0.2, "steps": 10}]


def test_what_is_not_stored_is_named(little):
    with pytest.raises(ValueError, match="no study 'large'; stored are little"):
        stored("large")
    with pytest.raises(ValueError, match="little has no row 'half'; it has full"):
        scores("little", ["full", "half"])


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="no recipe for 'LoRA r=3' on 'reviews'; known are from scratch, head only"):
        recipe("reviews", "LoRA r=3")
    with pytest.raises(ValueError, match="no study 'summaries'; known are reviews, tables"):
        finetune("summaries", RECIPES["reviews"]["full"])


def test_a_recipe_says_what_a_prefix_starts_from_and_which_rows_it_sees(monkeypatch):
    seen = []
    monkeypatch.setattr(running, "fit", lambda model, batches, **settings: seen.append((batches, settings)))
    chosen = Recipe(PrefixTuning(3, hidden=0), steps=7, lr=0.5, words="Memo. Umbria", limit=5, start_token=False)
    run = finetune("tables", chosen)
    (batches, settings), tokenizer = seen[0], run.tokenizer
    assert run.method.init == tuple(tokenizer("Memo. Umbria", add_special_tokens=False).input_ids)
    assert chosen.method.init == "normal"  # the recipe itself can be used again
    assert len(batches.examples) == 5 and len(batches) == 7 and settings["lr"] == 0.5
    assert all(example["input_ids"][0] != tokenizer.bos_token_id for example in batches.examples)


def test_a_recipe_may_be_about_another_task_than_its_study(monkeypatch):
    monkeypatch.setattr(running, "fit", lambda *arguments, **settings: None)
    own = Setting("owners", "tiny-bert", 8)
    run = finetune("reviews", Recipe(PromptTuning(2), steps=1, lr=0.1, setting=own))
    assert run.data.name == "owners" and run.model.config.num_labels == len(run.data.labels)
    asked = Recipe(
        PTuning("[P] {text} [P] [MASK]"),
        steps=1,
        lr=0.1,
        setting=Setting("reviews", "tiny-bert", 8, answers=("bad", "good")),
    )
    run = finetune("deep", asked)
    assert run.data.kind == "fill" and run.data.template == "[P] {text} [P] [MASK]"


@pytest.mark.parametrize("task", sweep.STUDIES)
def test_the_stored_study_is_complete(task):
    runs = stored(task)
    found = set(runs[sweep.KEY].itertuples(index=False, name=None))
    assert found == set(sweep.candidates(task)) | set(sweep.repeats(task, runs))
    assert set(runs.columns) - {"exact", "name"} == set(COLUMNS) and not runs[COLUMNS].isna().any(axis=None)
    texts = runs[runs.metric == "slots"]
    assert texts.empty or not texts[["exact", "name"]].isna().any(axis=None)


@pytest.mark.parametrize("task", sweep.STUDIES)
def test_recipes_hold_what_validation_chose(task):
    best = results(task).groupby("row")[["lr", "steps"]].first()
    for row, chosen in RECIPES[task].items():
        assert (chosen.lr, chosen.steps) == tuple(best.loc[row]), row


def test_the_readme_tells_what_was_measured():
    """How many tasks a method learns as well as full fine-tuning, and what a hundred of them take on disk."""
    names = {"full fine-tuning": "full", "top 2 blocks": "top 2"}
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in README.splitlines() if " of 9 tasks" in row]
    told = {names.get(row[0], row[0].partition(",")[0]): (row[4], row[5]) for row in cells}
    runs = results("methods")
    means = 100 * runs[runs.split == "test"].groupby(["task", "row"]).value.mean()
    kept = runs.groupby("row").trainable.first()
    tasks = runs.task.unique()

    def near(name, among):
        return sum(means[task, f"{task} {name}"] >= means[task, f"{task} full"] - CLOSE for task in among)

    assert list(told) == list(METHODS)
    for name, (tasks_learned, size) in told.items():
        assert tasks_learned == f"{near(name, tasks)} of 9 tasks", name
        assert size == readable(100 * 4 * kept[f"facts {name}"]), name
    answered = [task for task in tasks if (task, f"{task} P-tuning") in means]
    assert f"on {near('P-tuning', answered)} of the {len(answered)} tasks that one word answers" in README
