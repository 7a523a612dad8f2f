"""The wheel: all that a learner needs, in one file, for a machine on which the repository is not."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from lab_server import jupyter_lab

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Its files unpacked, as an installation has them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (path,) = folder.glob("*.whl")
    assert path.stat().st_size < 60e6
    with zipfile.ZipFile(path) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def names(folder):
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if "__pycache__" not in name and ".ipynb_checkpoints" not in name}


def test_it_holds_the_lessons_and_the_data_and_nothing_of_the_workshop(wheel):
    assert names(wheel / "peft_edu" / "bundled" / "notebooks") == names(ROOT / "notebooks")
    data = {name for name in names(ROOT / "data") if not name.startswith("world/")}
    assert names(wheel / "peft_edu" / "bundled" / "data") == data
    assert {path.name for path in wheel.iterdir()} == {"peft_edu", "peft_edu_app", "peft_edu-0.1.0.dist-info"}


@pytest.fixture
def installed(wheel, monkeypatch):
    """In front of the checkout that this Python knows of."""
    monkeypatch.setenv("PYTHONPATH", str(wheel))
    return wheel


def test_it_opens_a_workbook_in_an_empty_folder_with_a_home_that_cannot_be_written(installed, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "/dev/null/nobody")
    empty = tmp_path / "empty"
    empty.mkdir()
    with jupyter_lab(empty, "07", home=tmp_path / "log", kept={}) as address:
        assert "/doc/tree/07_lora.ipynb?" in address
    assert {path.name for path in empty.iterdir()} == {"workbook"}
    copies = {path.relative_to(empty / "workbook").as_posix() for path in empty.rglob("*.ipynb")}
    assert copies == {path.relative_to(ROOT / "notebooks").as_posix() for path in (ROOT / "notebooks").rglob("*.ipynb")}


def test_models_tasks_and_results_are_its_own(installed, tmp_path):
    code = """import peft_edu
from peft_edu.lab import backbone, scores, task
from peft_edu.lab.paths import DATA
backbone("tiny-bert"), task("reviews"), scores("reviews", ["LoRA r=8"])
print(peft_edu.__file__, DATA)"""
    command = [sys.executable, "-P", "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True)
    assert run.stdout.count(str(installed)) == 2
