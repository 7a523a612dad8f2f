"""That the benchmarks run, on the smallest of models. Their times depend on the machine, and are compared nowhere."""

import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from against_peft import interval, main, rounds  # noqa: E402


@pytest.fixture
def threads():
    """The benchmark takes one thread for itself."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_table_with_a_row_for_each_method(capsys, threads):
    main("--models bert --pairs 2 --texts 2 --tokens 8 --width 64 --layers 1".split())
    heading, line, *rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert "peft_edu / HF peft" in heading and set(line) <= set("|-:")
    assert [row.split(" | ")[:2] for row in rows] == [["| bert", name] for name in ("lora", "prefix", "prompt")]
    assert all(len(re.findall(r"\d+\.\d+", row)) == 7 for row in rows)


def test_each_takes_its_turn_at_each_place():
    order = []
    steps = [lambda name=name: order.append(name) or len(order) for name in "abc"]
    assert [len(seconds) for seconds in rounds(steps, 4)] == [4, 4, 4]  # two rounds more warm up
    assert "".join(order) == "abcbcacab" * 2


def test_the_interval_holds_the_median_and_tells_noise_from_a_difference():
    low, high = interval([0.9, 1.0, 1.1] * 10)
    assert 0.9 <= low <= 1.0 <= high <= 1.1
    assert interval([1.2] * 10) == (1.2, 1.2)
