"""The stored sweeps: what a lesson shows of them."""

import pandas as pd
import pytest

from peft_edu.lab import recipe, results, scores, stored

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
    assert set(results("little").lr) == {0.1} and set(stored("little").lr) == {0.1, 0.2}


def test_what_is_not_stored_is_named(little):
    with pytest.raises(ValueError, match="no study 'large'; stored are little"):
        stored("large")
    with pytest.raises(ValueError, match="little has no row 'half'; it has full"):
        scores("little", ["full", "half"])


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="no recipe for 'LoRA r=3' on 'reviews'; known are from scratch, head only"):
        recipe("reviews", "LoRA r=3")
