"""The learner's own code carries a lesson: its core runs on solutions as it runs on stubs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from peft_edu.lab.exercises.check import EXERCISES

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = [
    "01_full_fine_tuning_and_freezing",
    "02_adapters",
    "03_prefix_tuning",
    "04_prompt_tuning",
    "05_p_tuning_v1",
    "06_p_tuning_v2",
    "07_lora",
    "08_choosing_a_method",
    "09_a_real_language_model",
    "10_four_bits",
    "11_weak_supervision",
    "12_preferences",
]  # those that are parted into core and further
FEW_STEPS = """import itertools, peft_edu.train
peft_edu.train.Passes = lambda batches: itertools.islice(batches, 3)  # what is learned is not asked here
"""
CHECKED = re.compile(r'^(\w+) = check\("([\w.]+)", \1\)$', re.MULTILINE)


def core(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    end = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("# Further"))
    notebook.cells = notebook.cells[:end]
    return notebook


def solved(source):
    """The cell with the solution behind the stub, under the learner's name."""

    def written(match):
        exercise = EXERCISES[match[2]]
        return f"{exercise.solution}\n{match[1]} = {exercise.reference.__name__}\n{match[0]}"

    return CHECKED.sub(written, source)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", LESSONS)
def test_a_core_runs_on_what_the_learner_wrote(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    notebook = core(name)
    asked = [match[1] for cell in notebook.cells for match in CHECKED.findall(cell.source)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = solved(cell.source)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FEW_STEPS))
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    said = [
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stdout"
    ]
    assert "".join(said).count("Right. From here on the lesson runs on your") == len(asked) >= 6
    kept = (tmp_path / "progress.jsonl").read_text()
    assert all(f'"name": "{name}", "solved": true' in kept for name in asked)


@pytest.mark.parametrize("name", LESSONS)
def test_each_stub_is_empty_and_its_check_stands_in_the_same_cell(name):
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells:
        for own, exercise in CHECKED.findall(cell.source):
            assert re.search(rf"^(def|class) {own}\b", cell.source, re.MULTILINE), (
                f"{exercise} is checked far from {own}"
            )
            if not exercise.endswith(".hunt"):
                place = re.search(r"^ +\.\.\.( |$)", cell.source, re.MULTILINE)
                assert place, f"{exercise} has no place for the learner's lines"


NOT_INSTALLED = """from peft_edu.lab.models import real
real.installed = lambda name: None"""


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["09_a_real_language_model", "10_four_bits"])
def test_a_lesson_goes_on_without_the_real_models(name, tmp_path, monkeypatch):
    """From top to bottom, with what stands in for them; one line says how to get them."""
    monkeypatch.setenv("PEFT_EDU_WORK", str(tmp_path))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(NOT_INSTALLED))
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    said = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("`make real` in the repository gets it" in text for text in said)
