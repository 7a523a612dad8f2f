"""The benchmark of the sliders, run as its docstring says; two moves tell that it runs, not how fast it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "slider_latency.py"


@pytest.mark.thorough
def test_the_slider_benchmark_runs():
    small = ["--lesson", "card", "--card", "The card", "--slider", "rank", "--moves", "2"]
    ran = subprocess.run([sys.executable, SCRIPT, *small], capture_output=True, text=True, timeout=240)
    if "no Chromium starts" in ran.stderr:
        pytest.skip(ran.stderr.strip())
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"card: 2 moves, median \d+\.\d{3} s, nine in ten within \d+\.\d{3} s\n", ran.stdout)
