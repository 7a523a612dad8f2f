"""Training in several processes: what comes out is what one process makes of the same batches."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import tiny
from launched import CASES, SHARDED, TRAINED, in_float32, preferred, trained

from peft_edu import HeadOnly, attached, load
from peft_edu.lab import backbone

TESTS = Path(__file__).parent
PLAIN = "--num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0".split()


def launch(*words, processes=2, check=True):
    """`--multi_gpu` is how accelerate starts several processes; without a GPU they run on the CPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *PLAIN, "--num_processes", str(processes), *words]
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ["PYTHONPATH"]])
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert not check or run.returncode == 0, run.stderr
    return run


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found."""
    folder = tmp_path_factory.mktemp("launched")
    launch("--multi_gpu", TESTS / "launched.py", folder)
    return [torch.load(folder / str(rank), weights_only=False) for rank in range(2)]


def assert_the_same(one, other, tolerance):
    assert one.keys() == other.keys()
    for name, parameter in one.items():
        assert torch.allclose(parameter, other[name], rtol=0, atol=tolerance), name


@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_two_processes_end_where_one_does(case, both):
    """To 1e-6: transformers computes losses in float32, and Adam divides by the size of small gradients."""
    before, losses, after = trained(*case)
    for found in both:
        assert found[case][1] == pytest.approx(losses, abs=1e-6)
        assert_the_same(found[case][2], after, 1e-6)
    assert_the_same(both[0][case][2], both[1][case][2], 0)
    assert max((after[name] - before[name]).abs().max() for name in after) > 1e-3


@pytest.mark.parametrize("accumulate, name", [(1, "preferred"), (2, "preferred in two batches")])
def test_pairs_are_shared_among_processes(accumulate, name, both, shards):
    losses, after = preferred(accumulate)
    for found in (*both, *shards[1]) if accumulate == 1 else both:
        assert found[name][0] == pytest.approx(losses, abs=1e-6)
        assert_the_same(found[name][1], after, 1e-6)
    assert losses[0] == pytest.approx(math.log(2)) and losses[-1] < losses[0]


def test_it_is_the_same_in_float32(both):
    assert_the_same(both[0]["float32"][2], in_float32()[2], 1e-6)


def test_one_process_shuffles_for_both_and_each_has_dropout_of_its_own(both):
    assert_the_same(both[0]["shuffled"][0], both[1]["shuffled"][0], 0)
    assert both[0]["shuffled"][1] != both[1]["shuffled"][1]


def test_what_goes_on_from_a_checkpoint_ends_the_same_bit_for_bit(both, shards):
    for found in (*both, *shards[1]):
        assert_the_same(*found["resumed"], 0)


@pytest.mark.parametrize("how", ["stopped", "interrupted"])
def test_who_stops_stops_both_after_the_same_step(how, both):
    assert [found[how] for found in both] == [(3, [1, 2, 3]), (3, [])]


@pytest.mark.parametrize(
    "what, sentence",
    [
        ("no batch", "TypeError: batch is a list, but must be of the kind Mapping"),
        ("no number", "FloatingPointError: the loss is nan at step 1: try a lower lr"),
        ("no batches", "ValueError: there are no batches"),
    ],
)
def test_what_is_wrong_ends_both_with_the_same_sentence(what, sentence, both):
    assert [found[what].startswith(sentence) for found in both] == [True, True]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    launch("--use_fsdp", "--fsdp_version", "2", TESTS / "launched.py", folder)
    return folder, [torch.load(folder / str(rank), weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("case", SHARDED, ids=str)
def test_two_processes_with_half_a_model_each_end_where_one_does(case, shards):
    folder, both = shards
    _, losses, after = trained(*case)
    for found in both:
        values, found_losses, logits, back = found[case]
        assert back and found_losses == pytest.approx(losses, abs=1e-6)
        assert_the_same(values, after, 1e-6)
    family, (_, task, batches) = case[0], CASES[case[0]]
    kept = load(tiny(family, task, torch.float64), folder / family)
    assert torch.allclose(kept(**batches[0]).logits, logits, atol=1e-9)


@pytest.mark.thorough
def test_the_command_in_two_processes(tmp_path):
    """It prints once and keeps once, and its result is that of one process."""
    out = tmp_path / "out"
    command = ["-m", "peft_edu.train", "--backbone", "tiny-bert", "--task", "reviews", "--steps", "3", "--log",
               tmp_path / "log", "--save-every", "2", "--out", out, "--method", "HeadOnly"]  # fmt: skip
    run = launch("--multi_gpu", *command)
    assert re.fullmatch(r".* trained.*\nloss .*\nsaved in .*out\ntest accuracy 0\.\d+\n", run.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]
    assert len((tmp_path / "log/history.csv").read_text().splitlines()) == 4
    assert attached(load(backbone("tiny-bert", head="classify", labels=["negative", "positive"])[0], out)) == HeadOnly()


BAD_ROW = """
from launched import *
wrong = batch("classify") | {"labels": torch.tensor([0, 1, 7])}  # which the second process takes
fit(attach("roberta"), [wrong], 3, 0.01)
"""


@pytest.mark.thorough
def test_what_is_wrong_in_one_process_ends_both(tmp_path):
    (tmp_path / "bad.py").write_text(BAD_ROW)
    run = launch("--multi_gpu", tmp_path / "bad.py", check=False)
    assert run.returncode != 0
    assert "RobertaForSequenceClassification cannot take this batch" in run.stderr and "Target 7 is out" in run.stderr


@pytest.mark.thorough
def test_the_precision_that_accelerate_is_asked_for_is_refused(tmp_path):
    (tmp_path / "run.py").write_text("from launched import *\nfit(attach('roberta'), CASES['roberta'][2], 3, 0.01)")
    run = launch("--multi_gpu", "--mixed_precision", "bf16", tmp_path / "run.py", check=False)
    assert run.returncode != 0
    assert "accelerate launch asks for the mixed precision bf16, which fit has not: open the model" in run.stderr
