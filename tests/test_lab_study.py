"""The stored sweeps: what a lesson shows of them, and how a row becomes a recipe and a run."""

from pathlib import Path

import pandas as pd
import pytest

from peft_edu import LoRA, PrefixTuning, PromptTuning, PTuning, count
from peft_edu.lab import NOTE, averages, backbone, finetune, recipe, results, scores, stored
from peft_edu.lab.measure.cost import readable
from peft_edu.lab.study import run as running
from peft_edu.lab.study import sweep
from peft_edu.lab.study.recipe import Problem, Recipe
from peft_edu.lab.study.results import interval, winners
from peft_edu.lab.study.rows import METHODS, ROWS
from peft_edu.lab.widgets.decision import CLOSE

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COLUMNS = "task backbone method row seed lr steps trainable seconds metric split value".split()


def line(row="full", seed=0, lr=0.1, split="test", value=0.5):
    return dict(zip(COLUMNS, ("t", "b", "M", row, seed, lr, 10, 1, 1.0, "accuracy", split, value), strict=True))


@pytest.fixture
def little(tmp_path, monkeypatch):
    """A stored study of one row: the rate .1 wins on validation, .2 would win on test."""
    lines = [line(lr=0.1, split="validation", value=0.9), line(lr=0.2, split="validation", value=0.8)]
    lines += [line(lr=0.1, value=0.6), line(lr=0.2, value=0.99)]
    (tmp_path / "results").mkdir()
    pd.DataFrame(lines)[COLUMNS].to_csv(tmp_path / "results" / "little.csv", index=False)
    monkeypatch.setenv("PEFT_EDU_DATA", str(tmp_path))


def test_steps_and_rate_are_chosen_on_validation_not_on_test(little):
    assert scores("little", ["full"]) == scores("little", "full") == {"full": [60.0]}
    assert scores("little", {"all of it": "full"}) == {"all of it": [60.0]}
    assert averages({"a\nb": [60.04, 60.2], 5: [1.0]}) == {"a b": 60.1, 5: 1.0}
    assert set(results("little").lr) == {0.1} and set(stored("little").lr) == {0.1, 0.2}


def test_one_lucky_seed_does_not_choose():
    """Nor does it where another row had more seeds."""
    lucky, steady, untried = [0.95, 0.5], [0.9, 0.88], [0.99]
    runs = [
        line(lr=lr, seed=seed, split="validation", value=value)
        for lr, values in {0.1: lucky, 0.2: steady, 0.3: untried}.items()
        for seed, value in enumerate(values)
    ]
    chosen = {"row": "full", "lr": 0.2, "steps": 10}
    assert winners(pd.DataFrame(runs)).to_dict("records") == [chosen]
    runs += [line(row="head", seed=seed, split="validation") for seed in range(5)]
    assert winners(pd.DataFrame(runs)).to_dict("records") == [chosen, {"row": "head", "lr": 0.1, "steps": 10}]


def test_the_interval_is_student_s():
    """By hand: the mean of 1 to 5 is 3, s is sqrt(10 / 4) = 1.5811, and t of 4 degrees of freedom 2.776."""
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3 - 2.776 * 1.5811 / 5**0.5, 3 + 1.9629), abs=1e-3)
    assert interval([93.7, 93.7]) == (93.7, 93.7)
    with pytest.raises(ValueError, match="seeds are 1 numbers: an interval needs 2 to 10"):
        interval([93.7])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rows": ["full", "half"]}, "little has no row 'half'; it has full"),
        ({"split": "unseen"}, "little has no split 'unseen'; it has validation, test"),
        ({"column": "nope"}, "little has no column 'nope'; it has value"),
        ({"column": "seed"}, "little has no column 'seed'; it has value"),
    ],
)
def test_what_is_not_stored_is_named(little, asked, message):
    with pytest.raises(ValueError, match=message):
        scores("little", **{"rows": ["full"], **asked})
    with pytest.raises(ValueError, match="no study 'large'; stored are little"):
        stored("large")


def test_what_is_no_list_of_rows_and_no_dict_of_scores_is_told(little):
    with pytest.raises(TypeError, match="rows is None, but must be a list of names: little has full"):
        scores("little", rows=None)
    with pytest.raises(
        TypeError, match="found is None, but must be a dict: for each row a list of numbers, one a seed"
    ):
        averages(None)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="no recipe for 'LoRA r=3' on 'reviews'; known are from scratch, head only"):
        recipe("reviews", "LoRA r=3")
    with pytest.raises(ValueError, match=r"no recipe for 'full' on \['reviews'\]; known are reviews, tables"):
        recipe(["reviews"], "full")
    with pytest.raises(ValueError, match="no study 'summaries'; known are reviews, tables"):
        finetune("summaries", recipe("reviews", "full"))
    with pytest.raises(TypeError, match=r"chosen is 'full', but must be a Recipe: recipe\('reviews', row\) makes one"):
        finetune("reviews", "full")


def test_a_recipe_is_its_row_with_what_did_best_on_validation(monkeypatch):
    """By hand, from the table, seeds 0 to 2: (.975 + .95 + .9375) / 3 = .954, and .898 at half the rate."""
    assert recipe("reviews", "LoRA r=4") == Recipe(LoRA(4, alpha=8), steps=75, lr=0.02)
    assert all(recipe(study, row).steps for study, rows in ROWS.items() for row in rows)
    monkeypatch.setitem(ROWS["reviews"], "LoRA r=3", ROWS["reviews"]["LoRA r=4"])
    with pytest.raises(ValueError, match="'LoRA r=3' of 'reviews' has no stored run yet: `make study`"):
        recipe("reviews", "LoRA r=3")


def test_a_head_has_its_own_rate_beside_a_method_and_a_decoders_prefix_begins_as_a_note():
    rates = {row: recipe("methods", row).head_lr for row in ("reviews LoRA", "facts LoRA", "reviews P-tuning")}
    assert rates == {"reviews LoRA": 0.01, "facts LoRA": None, "reviews P-tuning": None}
    assert recipe("deep", "owners head only").head_lr is None  # the head is all there is
    words = {row: recipe("methods", row).words for row in ("tables prefix", "reviews prefix", "tables prompt")}
    assert words == {"tables prefix": NOTE, "reviews prefix": (), "tables prompt": ()}


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


def test_a_recipe_may_be_about_another_problem_than_its_study(monkeypatch):
    monkeypatch.setattr(running, "fit", lambda *arguments, **settings: None)
    own = Problem("owners", "tiny-bert", 8)
    run = finetune("reviews", Recipe(PromptTuning(2), steps=1, lr=0.1, problem=own))
    assert run.data.name == "owners" and run.model.config.num_labels == len(run.data.labels)


def test_a_row_says_whether_the_frozen_weights_are_packed(monkeypatch):
    monkeypatch.setattr(running, "fit", lambda *arguments, **settings: None)
    for packed in ("", "nf4"):
        run = finetune("reviews", Recipe(LoRA(2), steps=1, lr=0.1, packed=packed))
        kinds = {getattr(target.module, "kind", "") for target, _ in run.method.updates}
        assert kinds == {packed} and count(run.model).trainable - count(run.model).head == 4 * 2 * 2 * 256


def test_a_method_with_a_template_fills_the_gap_and_another_is_asked_as_people_ask(monkeypatch):
    monkeypatch.setattr(running, "fit", lambda *arguments, **settings: None)
    run = finetune("reviews", Recipe(PTuning("[P] {text} [P] [MASK]"), steps=1, lr=0.1))
    assert run.data.kind == "fill" and run.data.template == "[P] {text} [P] [MASK]"
    assert {row["answer"] for row in run.data.rows("test")} == {"bad", "good"}
    assert finetune("ladder", Recipe(PTuning("[P] {text} [P] [MASK]"), steps=1, lr=0.1)).data.kind == "fill"
    assert finetune("ladder", Recipe(PromptTuning(2), steps=1, lr=0.1)).data.kind == "generate"
    run = finetune("facts", Recipe(PromptTuning(2), steps=1, lr=0.1, relation="employer"))
    assert run.data.template == run.data.templates["employer"][-1]


@pytest.mark.parametrize("study", ROWS)
def test_the_stored_study_is_complete(study):
    runs = stored(study)
    found = set(runs[sweep.KEY].itertuples(index=False, name=None))
    assert found == set(sweep.candidates(study)) | set(sweep.repeats(study, runs))
    about = {name: (running.problem_of(study, row), row) for name, row in ROWS[study].items()}
    told = runs.groupby("row")[["task", "backbone", "method"]].first().T.to_dict("list")
    assert told == {
        name: [problem.task, row.backbone or problem.backbone, type(row.method).__name__]
        for name, (problem, row) in about.items()
    }
    assert set(runs.columns) - {"exact", "name"} == set(COLUMNS) and not runs[COLUMNS].isna().any(axis=None)
    texts = runs[runs.metric == "slots"]
    assert texts.empty or not texts[["exact", "name"]].isna().any(axis=None)


def test_a_stored_row_trained_as_much_as_its_method_trains():
    trained = stored("reviews").groupby("row").trainable.first()
    model, _ = backbone("tiny-bert", head="classify")
    for name, row in ROWS["reviews"].items():
        row.method.attach(model)
        assert count(model).trainable == trained[name], name
        row.method.detach()


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
