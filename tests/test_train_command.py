"""python -m peft_edu.train: what it takes, what it keeps, and the one line in which it says what is wrong."""

import re
import subprocess
import sys

import pytest
import torch
from lab_models import VOCABULARY, save_model

from peft_edu import LoRA, attached, load
from peft_edu.lab import backbone
from peft_edu.lab.tasks.encode import Batches
from peft_edu.lab.tasks.task import Task
from peft_edu.storage.folder import place_for
from peft_edu.train.__main__ import field, main


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run it on a tiny model and two words to tell apart; what is given twice, the last one counts."""
    save_model(tmp_path / "model", "bert")
    rows = ["text\tlabel"] + [f"the food was {word}\t{word}" for word in ("good", "bad")] * 10
    (tmp_path / "words.tsv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        given = ["train", "--backbone", "./model", "--task", "words.tsv", "--steps", "2", *arguments]
        monkeypatch.setattr(sys, "argv", given)
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out, re.sub(r".*step/s.*\n?", "", said.err)  # without the bar

    return run


@pytest.fixture
def learned(tmp_path):
    """The method that was saved in "out"."""
    return lambda: attached(load(backbone(tmp_path / "model", head="classify", labels=["bad", "good"])[0], "out"))


def test_it_says_what_it_takes_without_the_lab():
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules)); from peft_edu.train.__main__ import main"
    command = [sys.executable, "-c", f"{code}; sys.argv = ['train', '--help']; main()"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--backbone" in out.stdout and "--task" in out.stdout and "(default: 200)" in out.stdout
    assert "Warning" not in out.stderr
    assert "peft_edu.train" in out.stdout and "peft_edu.lab" not in out.stdout  # so that it says it soon


def test_it_trains_saves_and_measures(command, learned):
    code, out, err = command("--out", "out", "--method", "LoRA", "rank=2", "targets=query,key")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"290 of .* trained.*\nloss 0.*\nsaved in .*/out\ntest accuracy [01]\.\d+\n", out)
    assert learned() == LoRA(rank=2, targets=("query", "key"))


@pytest.mark.parametrize(
    "name, method, metric",
    [
        ("owners", "PTuningV2 length=2", "f1"),
        ("pairs", "HeadOnly", "accuracy"),
        ("facts", "PTuning encoder=mlp", "accuracy"),
        ("facts", "LoRA --template {subject},[MASK]", "accuracy"),
    ],
)
def test_it_knows_every_kind_of_task(name, method, metric, command):
    code, out, err = command("--backbone", "tiny-bert", "--task", name, *f"--method {method}".split())
    assert (code, err) == (0, "")
    assert re.search(rf"test {metric} 0\.\d+", out)


@pytest.mark.parametrize(
    "out, message",
    [
        ("words.tsv/out", "is a file, so there can be no folder .*out: name another"),
        ("words.tsv", "is a file"),
        ("/proc/x", "nothing can be kept in /proc/x"),
        ("", "is where this program works"),
        ("/", "is where this program works"),
        ("x" * 300, "nothing can be kept in .*xxx"),
        ("model", "holds other things"),
    ],
)
def test_a_place_that_keeps_nothing_is_found_out_before_training(out, message, command, monkeypatch):
    monkeypatch.setattr("peft_edu.train.__main__.fit", None)
    code, said, err = command("--out", out)
    assert (code, said) == (2, "")
    assert re.fullmatch(rf"python -m peft_edu.train: error: .*{message}.*\n", err)


def test_a_place_to_save_is_one_whose_folder_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="cannot be written, so nothing can be kept in .*out"):
        place_for(tmp_path / "out", set())  # it can be written, but what replaces it is written beside it


def test_home_is_home(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert command("--out=~/x")[0] == 0
    assert (tmp_path / "home/x/recipe.json").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("splits, measured", [(["train"], "train"), (["train", "validation"], "validation")])
def test_a_task_without_a_test_split_is_measured_where_it_can_be(splits, measured, command, learned, tmp_path):
    (tmp_path / "task").mkdir()
    for split in splits:
        (tmp_path / f"task/{split}.tsv").write_text((tmp_path / "words.tsv").read_text())
    code, out, _ = command("--task", "task", "--out", "out")
    assert code == 0
    assert f"\n{measured} accuracy " in out
    assert learned() == LoRA()


@pytest.mark.parametrize(
    "text, value",
    [
        ("rank=4", 4),
        ("dropout=1e-1", 0.1),
        ("targets=query,value", ("query", "value")),
        ("targets=value,", ("value",)),
        ("layers=0,1", (0, 1)),
        ("layers=none", None),
        ("joint=false", False),
        ("norms=True", True),
        ("norms=no", "no"),  # which the method refuses
        ("targets=query,,value", "query,,value"),  # so does LoRA
        ("init=good,bad", ("good", "bad")),
        ("init=good, or bad", "good, or bad"),
        ("init='good,bad'", "good,bad"),
        ("template=[P],{subject},[MASK]", "[P],{subject},[MASK]"),
        ("template=[P] {subject}, who = [MASK]", "[P] {subject}, who = [MASK]"),
        ("init=", ""),
    ],
)
def test_a_field(text, value):
    assert field(text) == (text.partition("=")[0], value)


THE, FOOD, GOOD, BAD, COMMA = map(VOCABULARY.index, ("the", "food", "good", "bad", ","))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ("PromptTuning; length=3; init=good,bad", ((GOOD,), (BAD,))),  # label words, a position for each
        ("PromptTuning; length=3; init=the food", (THE, FOOD)),
        ("PromptTuning; length=3; init=random", "random"),
        ("PrefixTuning; length=3; hidden=0; init=the food , good", (THE, FOOD, COMMA, GOOD)),
    ],
)
def test_words_are_read_by_the_models_tokenizer(arguments, expected, command, learned):
    assert command("--out", "out", "--method", *arguments.split("; "))[0] == 0
    assert learned().init == expected


def test_long_texts_are_cut_where_a_prompt_needs_the_room(command, tmp_path):
    long = f"{'the food was ' * 20}good\tgood\n" * 10 + f"{'the food was ' * 20}bad\tbad\n" * 10
    (tmp_path / "long.tsv").write_text("text\tlabel\n" + long)
    given = ("--task", "long.tsv", "--method", "PromptTuning", "length=20")
    code, _, err = command(*given)
    assert code == 2 and "prompt of 20 do not fit into 64 positions" in err
    assert command(*given, "--max-tokens", "44")[0] == 0
    assert "max-tokens is 0, but must be a whole number" in command(*given, "--max-tokens", "0")[2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["rank=0"], "the command line does not describe a LoRA: rank is 0"),
        (["targets=query,,value"], "targets is 'query,,value'"),
        (["x=1"], "the command line does not describe a LoRA: .*'x'"),
        (["init=good"], "the command line does not describe a LoRA: .*'init'"),
        (["--method", "Adapter", "norms=no"], "norms is 'no', but must be True or False"),
        (["--method", "Adapter", "blocks=0"], "blocks is 0"),
        (["--method", "PTuning"], "PTuning asks with the template .*words is of the kind classify and has no gap"),
        (["--method", "PTuning", "joint=no"], "joint is 'no'"),
        (["--template", "{text} [MASK]"], "asks with the template '{text} .MASK.', but words is of the kind classify"),
        (["--method", "PTuning", "--template", "{text} [MASK]"], "PTuning has a template of its own: give template="),
        (["--task", "facts"], "asks for a word in the place of .MASK."),
        (["--task", "nope"], "no task 'nope'"),
        (["--backbone", "."], "holds no config.json"),
        (["--lr", "inf"], "lr is inf, but must be a finite number from 0 to 1000"),
        (["--lr", "1e30"], "lr is 1e.30, but must be from 0 to 1000"),
        (["--steps", "0"], "steps is 0"),
        (["--batch-size", "0"], "size"),
        (["--seed", "-1"], "Seed must be between 0"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_kept(arguments, message, command, tmp_path):
    code, _, err = command("--out", "out", *arguments)
    assert code == 2
    assert re.fullmatch(rf"python -m peft_edu.train: error: .*{message}.*\n", err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["rank", "=5", "a b=1"])
def test_what_is_no_field(text, command):
    code, _, err = command(text)
    assert code == 2 and f"{text!r} is not of the form field=value" in err


def test_an_interrupt_keeps_what_was_learned_so_far(command, learned, monkeypatch):
    step = torch.optim.AdamW.step

    def press_stop(optimizer, *rest):
        step(optimizer, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", press_stop)
    code, out, _ = command("--out", "out", "--steps", "50")
    assert code == 0
    assert "saved in" in out and "test accuracy" in out
    assert learned() == LoRA()


@pytest.mark.parametrize("where", [(Task, "batches"), (Batches, "__iter__")])
def test_an_interrupt_before_the_first_step_keeps_nothing(where, command, monkeypatch, tmp_path):
    def press_stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(*where, press_stop)
    code, _, err = command("--out", "out")
    assert code == 130 and err.endswith("interrupted\n")
    assert not (tmp_path / "out").exists()


def test_what_was_saved_outlives_a_failure_to_measure(command, learned, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no memory for it")

    monkeypatch.setattr(Task, "evaluate", fail)
    code, out, err = command("--out", "out")
    assert code == 2 and "no memory for it" in err and "saved in" in out
    assert learned() == LoRA()
