"""python -m peft_edu.train: what it takes, what it keeps, and the one line in which it says what is wrong."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from lab_models import VOCABULARY, save_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from peft_edu import LoRA, attached, load
from peft_edu.lab import backbone, task
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
        return (
            code,
            said.out,
            re.sub(r".*(step/s|, on cpu$).*\n?", "", said.err, flags=re.MULTILINE),
        )  # no bar, no backbone

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


def test_columns_of_other_names_are_said_and_shown(command, tmp_path):
    rows = (tmp_path / "words.tsv").read_text().replace("text\tlabel", "body\tmark", 1)
    (tmp_path / "words.tsv").write_text(rows)
    code, out, err = command()
    assert code == 2 and "in the command --column text=body" in err
    code, out, err = command("--column", "text=body", "--column", "label=mark")
    assert (code, err) == (0, "") and "columns: text is 'body', label is 'mark'" in out
    assert "'text' is not of the form text=body" in command("--column", "text")[2]
    assert "invalid choice: 'SeveralLoRAs'" in command("--method", "SeveralLoRAs")[2]


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
    "backbone, objective, metric",
    [
        ("tiny-gpt2", "dpo --beta 0.3", "accuracy"),
        ("tiny-gpt2", "reward", "accuracy"),
        ("tiny-bert", "reward", "accuracy"),
        ("tiny-gpt2", "supervised", "exact"),
    ],
)
def test_it_learns_from_preferences(backbone, objective, metric, command):
    given = f"--backbone {backbone} --task happy --batch-size 4 --objective {objective}"
    code, out, err = command(*given.split())
    assert (code, err) == (0, "")
    assert re.search(rf"test {metric} [01]\.\d+", out)


def test_the_policy_that_was_saved_prefers_what_it_learned(command):
    given = (
        "--backbone tiny-gpt2 --task happy --batch-size 8 --objective dpo --beta 0.3 --steps 15 --lr 0.003 --out out"
    )
    _, out, _ = command(*given.split())
    model, tokenizer = backbone("tiny-gpt2")
    found = task("happy").evaluate(load(model, "out"), tokenizer)["accuracy"]
    assert found > 0.65 and f"test accuracy {found:.3f}" in out


def test_another_beta_is_another_run(command, monkeypatch):
    given = "--backbone tiny-gpt2 --task happy --batch-size 4 --objective dpo --out out --save-every 1".split()
    with monkeypatch.context() as patched:
        patched.setattr("peft_edu.train.__main__.save", lambda *_: pytest.fail("full"))
        with pytest.raises(pytest.fail.Exception, match="full"):
            command(*given, "--beta", "0.3")
    code, _, err = command(*given, "--beta", "0.1", "--resume")
    assert code == 2 and "DPO(beta=0.3)" in err and "DPO(beta=0.1)" in err


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
        (["--task", "happy"], "happy holds preferences: --objective dpo, reward, or supervised for the chosen"),
        (["--task", "unlabelled"], "unlabelled has no labels to train on: write rules for it"),
        (["--objective", "dpo"], "--objective dpo learns from prompt, chosen and rejected; words is to classify"),
        (["--objective", "reward"], "--objective reward learns from prompt"),
        (["--task", "happy", "--objective", "reward", "--beta", "1"], "--beta is a setting of --objective dpo"),
        (["--task", "happy", "--objective", "dpo", "--beta", "-1"], "beta is -1.0, but must be above 0"),
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


BROKEN = [safetensors.torch.save({"x": torch.zeros(1)}, {"run": run}) for run in ("{", "{}", "[]")]


class TestWhatIsKeptOnTheWay:
    def test_a_stopped_run_goes_on_to_the_same_result(self, command, monkeypatch, tmp_path):
        given = ("--steps", "7", "--save-every", "2", "--log", "log", "--method", "LoRA", "rank=2", "dropout=0.2")
        assert command("--out", "never-stopped", *given)[0] == 0
        shutil.rmtree("log")
        step, taken = torch.optim.AdamW.step, []

        def killed(optimizer, *rest):
            taken.append(step(optimizer, *rest))
            if len(taken) == 5:
                raise ValueError("killed")

        with monkeypatch.context() as patched:
            patched.setattr(torch.optim.AdamW, "step", killed)
            assert command("--out", "out", *given)[0] == 2
        assert not Path("out").exists() and Path("out.checkpoint").is_file()
        assert read("log").step.tolist() == [1, 2, 3, 4, 5]
        code, _, err = command("--out", "out", *given)
        assert code == 2 and "out.checkpoint holds a run up to step 4: resume it, or delete the file" in err
        code, _, err = command("--out", "out", "--resume", *given)
        assert (code, err) == (0, "")
        assert Path("out/learned.safetensors").read_bytes() == Path("never-stopped/learned.safetensors").read_bytes()
        assert read("log").step.tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert not Path("out.checkpoint").exists()  # what is finished needs none

    def test_the_first_start_may_be_a_resumption_too(self, command):
        code, out, _ = command("--out", "out", "--save-every", "1", "--resume")
        assert code == 0 and "there is no" in out and "saved in" in out

    @pytest.mark.parametrize(
        "changed, told",
        [
            (["--lr", "0.1"], "lr 0.001, not 0.1"),
            (["--steps", "9"], "steps 8, not 9"),
            (["--seed", "1"], "seed 0, not 1"),
            (["--accumulate", "2"], "accumulate 1, not 2"),
            (["--batch-size", "3"], "batch-size 32, not 3"),
            (["--method", "HeadOnly"], r"method LoRA\(.*\), not HeadOnly\(\), learned 1,058 .*"),
            (["rank=3"], r"method LoRA\(rank=8, .*\), not LoRA\(rank=3, .*\), learned .*"),
            (["--task", "again.tsv"], "task words.tsv, not again.tsv"),
            (["--dtype", "bfloat16", "--lr", "1"], "dtype None, not bfloat16, lr 0.001, not 1.0"),
            ([], "rows [0-9a-f]+, not [0-9a-f]+"),  # somebody wrote other ones into the file
        ],
    )
    def test_another_run_is_not_gone_on_with(self, changed, told, command):
        given = ("--out", "out", "--steps", "8", "--save-every", "1")
        Path("again.tsv").write_text(Path("words.tsv").read_text())
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("peft_edu.train.__main__.save", None)
            assert command(*given)[0] == 2
        if not changed:
            Path("words.tsv").write_text(Path("words.tsv").read_text().replace("food", "cook"))
        before = Path("out.checkpoint").read_bytes()
        code, _, err = command(*given, "--resume", *changed)
        assert code == 2 and re.search(rf"out.checkpoint holds a run with {told}: give it the same, or begin", err)
        assert err.count("\n") == 1 and Path("out.checkpoint").read_bytes() == before

    @pytest.mark.parametrize("content", [b"", b"abc", *BROKEN])
    def test_what_is_no_checkpoint(self, content, command):
        Path("out.checkpoint").write_bytes(content)
        code, _, err = command("--out", "out", "--resume")
        assert code == 2 and "out.checkpoint is no checkpoint of a run, or damaged" in err and err.count("\n") == 1

    def test_where_the_checkpoint_lies(self, command):
        for given in (["--resume"], ["--save-every", "2"]):
            code, _, err = command(*given)
            assert code == 2 and "--save-every and --resume need --out" in err
        assert "every is 0, but must be a whole number" in command("--out", "out", "--save-every", "0")[2]

    def test_the_history_of_another_run_is_not_written_over(self, command):
        assert command("--log", "log")[0] == 0
        before = Path("log/history.csv").read_bytes()
        code, _, err = command("--log", "log")
        assert code == 2 and "log/history.csv is the history of a run: name another folder" in err
        assert Path("log/history.csv").read_bytes() == before

    def test_tensorboard_shows_the_history(self, command):
        assert command("--log", "log", "--steps", "4")[0] == 0
        events = EventAccumulator("log").Reload()
        for name in ("loss", "lr"):
            assert [each.step for each in events.Scalars(name)] == [1, 2, 3, 4]
            assert [each.value for each in events.Scalars(name)] == pytest.approx(read("log")[name].tolist())

    def test_without_tensorboard_there_is_the_table_and_a_sentence(self, command, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        code, _, err = command("--log", "log")
        assert code == 0 and "TensorBoard is not installed (pip install 'peft-edu[log]')" in err
        assert read("log").step.tolist() == [1, 2] and len(list(Path("log").iterdir())) == 1


def read(folder):
    return pd.read_csv(Path(folder, "history.csv"))


def test_small_batches_are_accumulated_to_a_large_one(command):
    losses = []
    for size, accumulate in (("4", "1"), ("1", "4")):
        assert command("--batch-size", size, "--accumulate", accumulate, "--log", size, "--method", "HeadOnly")[0] == 0
        losses.append(read(size).loss)
    assert losses[0].iloc[0] == pytest.approx(losses[1].iloc[0], abs=0.05)  # dropout draws batch by batch


def test_a_model_in_bfloat16(command, learned):
    assert command("--out", "out", "--dtype", "bfloat16")[0] == 0
    assert learned() == LoRA()
    assert {each.dtype for each in safetensors.torch.load_file("out/learned.safetensors").values()} == {torch.bfloat16}


def test_a_dry_run_counts_and_trains_nothing(command, monkeypatch):
    monkeypatch.setattr("peft_edu.train.__main__.fit", None)
    code, out, err = command("--dry-run", "--out", "out", "--save-every", "2", "--log", "log")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"1,058 of 7,346 .* trained.*\n.* weights, .* gradients, .* moments, .* at once\n", out)
    assert not Path("out").exists() and not Path("log").exists()


def test_a_dry_run_of_preferences_counts_both_answers(command):
    found = {}
    for objective in ("supervised", "dpo"):
        given = f"--backbone tiny-gpt2 --task happy --objective {objective} --dry-run"
        _, out, _ = command(*given.split())
        found[objective] = float(re.search(r"([\d.]+) MB activations", out)[1])
    assert 1.5 < found["dpo"] / found["supervised"] < 2.5


@pytest.mark.thorough
def test_a_run_that_was_killed_twenty_times_ends_as_if_never(tmp_path):
    save_model(tmp_path / "model", "bert")
    rows = ["text\tlabel"] + [f"the food was {word}\t{word}" for word in ("good", "bad")] * 10
    (tmp_path / "words.tsv").write_text("\n".join(rows))
    command = [sys.executable, Path(__file__).with_name("killed.py"), tmp_path, "20"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr + (tmp_path / "said.txt").read_text()[-2000:]
    never, killed = (read(tmp_path / f"{name}-log") for name in ("never", "killed"))
    assert never.step.tolist() == list(range(1, 101))
    assert never.drop(columns="seconds").equals(killed.drop(columns="seconds"))
    learned = [(tmp_path / name / "learned.safetensors").read_bytes() for name in ("never", "killed")]
    assert learned[0] == learned[1]
    assert len({line for line in (tmp_path / "said.txt").read_text().splitlines() if "accuracy" in line}) == 1
