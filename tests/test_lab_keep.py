"""Where a study keeps its runs: whole, behind a line that says how it was made, to be gone on with."""

from csv import QUOTE_NONNUMERIC

import pandas as pd
import pytest

from peft_edu.lab.study.keep import keep, kept
from peft_edu.lab.study.results import lines_of

LINES = [{"run": "a", "seed": 0, "happy": 0.5, "text": "a # b"}, {"run": "a", "seed": 1, "happy": 1.0, "text": "c"}]


def test_what_is_kept_comes_back_behind_the_line_that_says_how_it_was_made(tmp_path):
    path = tmp_path / "study.csv"
    assert kept(path) == []
    keep(path, pd.DataFrame(LINES[:1]), "a.study", "float64")
    keep(path, pd.DataFrame(LINES), "a.study", "float64", quoting=QUOTE_NONNUMERIC)
    assert kept(path) == LINES and [each.name for each in tmp_path.iterdir()] == ["study.csv"]
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# python -m a.study; Python ") and first.endswith(", float64, 1 thread")


def test_who_is_stopped_while_it_is_written_has_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "study.csv"
    keep(path, pd.DataFrame(LINES[1:]), "a.study")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        keep(path, pd.DataFrame(LINES), "a.study")
    assert kept(path) == LINES[1:]


def test_the_lines_of_a_run_are_one_a_seed_and_shares_in_per_cent():
    found = lines_of("a", pd.DataFrame(LINES), ["happy"])
    assert found.happy.to_dict() == {0: 50.0, 1: 100.0} and found.index.name == "seed"
    with pytest.raises(ValueError, match="no run 'b'; there are a"):
        lines_of("b", pd.DataFrame(LINES), ["happy"])
