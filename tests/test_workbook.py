"""The workbook: copies without outputs, what a learner wrote is never lost, and a memory that takes damage."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from handed_in import SOURCES
from jupyter_client.manager import start_new_kernel
from lab_server import jupyter_lab

from peft_edu.classroom.release import released
from peft_edu.lab import workbook
from peft_edu.lab.figures import progress as shown_progress
from peft_edu.lab.figures.progress import progress
from peft_edu_app import workbook as hands

ROOT = Path(__file__).parents[1]


def write_lesson(path, *sources):
    """As it lies in notebooks/: run, with outputs."""
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    for cell in cells:
        cell.execution_count, cell.metadata["execution"] = 7, {"iopub.status.busy": "now"}
        cell.outputs = [nbformat.v4.new_output("stream", text="the answer")]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {"state": 1}}), path)


def sources(path):
    return [cell.source for cell in nbformat.read(path, 4).cells]


@pytest.fixture
def lessons(tmp_path):
    write_lesson(tmp_path / "notebooks" / "07.ipynb", "1 + 1", "# your line")
    (tmp_path / "notebooks" / "glossary.md").write_text("old")
    return tmp_path / "notebooks"


@pytest.fixture(params=["workbook", "mein Übungsheft 练习"])
def mine(tmp_path, lessons, request):
    place = tmp_path / request.param / "deep"
    assert hands.hand_out(lessons, place) == []
    return place


@pytest.mark.parametrize("exercise", SOURCES)
def test_an_exercise_is_handed_out_as_to_a_class(exercise, tmp_path):
    """By a line of ours and by nbgrader's steps the same: a learner alone needs no nbgrader."""
    hands.hand_out(ROOT / "notebooks", tmp_path)
    copy = nbformat.read(tmp_path / "exercises" / f"{exercise}.ipynb", 4)
    assert [cell.source for cell in copy.cells] == [cell.source for cell in released(SOURCES[exercise]).cells]
    assert not [cell for cell in copy.cells if cell.get("outputs")]
    assert not (tmp_path / "exercises" / "README.md").exists()


def test_a_copy_has_no_outputs_and_the_same_cells(lessons, mine):
    copy = nbformat.read(mine / "07.ipynb", 4)
    assert "the answer" not in (mine / "07.ipynb").read_text() and "widgets" not in copy.metadata
    assert [(cell.outputs, cell.execution_count, cell.metadata) for cell in copy.cells] == [([], None, {})] * 2
    assert [cell.id for cell in copy.cells] == ["cell-0", "cell-1"]
    assert "the answer" in (lessons / "07.ipynb").read_text()
    assert (mine / "glossary.md").read_text() == "old" and (mine / "progress.jsonl").read_bytes() == b""


def test_pictures_come_along_and_what_is_jupyters_own_does_not(lessons, mine):
    for name in ("pictures/block.svg", ".ipynb_checkpoints/07-checkpoint.ipynb", "__pycache__/x.pyc"):
        (lessons / name).parent.mkdir()
        (lessons / name).write_bytes(b"\x89")
    hands.hand_out(lessons, mine)
    assert (mine / "pictures/block.svg").read_bytes() == b"\x89"
    assert {path.name for path in mine.iterdir() if path.is_dir()} == {"pictures"}


def test_a_second_start_changes_nothing(lessons, mine):
    before = {path: path.read_bytes() for path in mine.iterdir()}
    assert hands.hand_out(lessons, mine) == []
    assert {path: path.read_bytes() for path in mine.iterdir()} == before


def test_a_copy_that_was_run_and_not_changed_gives_way_to_a_newer_lesson(lessons, mine):
    write_lesson(mine / "07.ipynb", "1 + 1", "# your line")  # its outputs are those of a run
    hands.hand_out(lessons, mine)
    assert "the answer" in (mine / "07.ipynb").read_text()  # while nothing is newer, they stay
    write_lesson(lessons / "07.ipynb", "2 + 2")
    assert hands.hand_out(lessons, mine) == ["07.ipynb is newer now: you had changed nothing in it."]
    assert sources(mine / "07.ipynb") == ["2 + 2"] and "the answer" not in (mine / "07.ipynb").read_text()


def test_a_copy_that_was_changed_stays_and_each_newer_version_is_laid_beside_it_once(lessons, mine):
    write_lesson(mine / "07.ipynb", "1 + 1", "my answer")
    before = (mine / "07.ipynb").read_bytes()
    assert hands.hand_out(lessons, mine) == []
    for versions, new in enumerate(("2 + 2", "3 + 3"), start=1):
        write_lesson(lessons / "07.ipynb", new)
        (told,) = hands.hand_out(lessons, mine)
        beside = mine / told.partition("beside it: ")[2]
        assert re.fullmatch(r"07 \(new \d{4}-\d\d-\d\d(, 2)?\)\.ipynb", beside.name) and sources(beside) == [new]
        assert hands.hand_out(lessons, mine) == []
        assert len(list(mine.glob("07*"))) == 1 + versions
    assert (mine / "07.ipynb").read_bytes() == before


def test_the_newer_one_taken_over_counts_as_unchanged(lessons, mine):
    write_lesson(mine / "07.ipynb", "my answer")
    write_lesson(lessons / "07.ipynb", "2 + 2")
    hands.hand_out(lessons, mine)
    write_lesson(mine / "07.ipynb", "2 + 2")
    hands.hand_out(lessons, mine)
    write_lesson(lessons / "07.ipynb", "3 + 3")
    assert "newer now" in hands.hand_out(lessons, mine)[0] and sources(mine / "07.ipynb") == ["3 + 3"]


def test_other_files_count_by_their_bytes(lessons, mine):
    (lessons / "glossary.md").write_text("new")
    hands.hand_out(lessons, mine)
    assert (mine / "glossary.md").read_text() == "new"
    (mine / "glossary.md").write_text("my notes")
    (lessons / "glossary.md").write_text("newer")
    hands.hand_out(lessons, mine)
    assert (mine / "glossary.md").read_text() == "my notes" and len(list(mine.glob("glossary (new *).md"))) == 1


def test_a_copy_that_is_deleted_comes_anew(lessons, mine):
    (mine / "07.ipynb").unlink()
    assert hands.hand_out(lessons, mine) == [] and sources(mine / "07.ipynb") == ["1 + 1", "# your line"]


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"07.ipynb": 3}', b"\xff", None])
def test_without_its_note_what_differs_counts_as_changed(lessons, mine, damage):
    (mine / hands.NOTE).unlink() if damage is None else (mine / hands.NOTE).write_bytes(damage)
    write_lesson(mine / "07.ipynb", "my answer")
    assert len(hands.hand_out(lessons, mine)) == 1 and hands.hand_out(lessons, mine) == []
    assert sources(mine / "07.ipynb") == ["my answer"] and len(list(mine.glob("07 (new *"))) == 1
    assert len(list(mine.glob("glossary*"))) == 1


def test_a_damaged_copy_stays_and_a_damaged_lesson_is_left_out(lessons, mine):
    (mine / "07.ipynb").write_text("half a note")
    assert hands.hand_out(lessons, mine) == [] and (mine / "07.ipynb").read_text() == "half a note"
    (lessons / "07.ipynb").write_text("<<<<<<< HEAD")
    (told,) = hands.hand_out(lessons, mine)
    assert "is left out: it is no notebook" in told and (mine / "07.ipynb").read_text() == "half a note"


def test_from_an_installation_that_is_read_only(lessons, tmp_path):
    for path in (*lessons.iterdir(), lessons):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        hands.hand_out(lessons, tmp_path / "mine")
        assert os.stat(tmp_path / "mine" / "07.ipynb").st_mode & 0o200  # a copy can be written
    finally:
        lessons.chmod(0o755)


def test_a_full_disk_leaves_a_copy_as_it_was(lessons, mine, monkeypatch):
    def full(path, content):
        Path.open(path, "w").close()
        raise OSError(28, "No space left on device")

    write_lesson(lessons / "07.ipynb", "2 + 2")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        hands.hand_out(lessons, mine)
    assert sources(mine / "07.ipynb") == ["1 + 1", "# your line"] and not list(mine.glob(".*.part"))


def lab(folder, place, *words):
    """The start until JupyterLab would come: `place` is always one that cannot be."""
    environment = os.environ | {"WORKBOOK": str(place)}
    command = [sys.executable, "-m", "peft_edu_app", "lab", "--lessons", str(folder / "notebooks"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_what_is_in_the_way_is_told_in_a_sentence(lessons, tmp_path):
    (tmp_path / "file").write_text("")
    cases = {
        ("file", "07"): "that is a file",
        ("file/below", "notebooks/07.ipynb"): "cannot be written",
        ("notebooks/mine", "07"): "there the lessons themselves lie",
        ("mine", "08"): "There is no lesson '08' in",
    }
    for (place, lesson), sentence in cases.items():
        run = lab(tmp_path, place, lesson)
        assert run.returncode == 1 and sentence in run.stderr and run.stderr.count("\n") == 1, run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "notebooks"]


def test_a_second_start_tells_of_the_first(lessons, tmp_path, monkeypatch):
    with jupyter_lab(tmp_path, "notebooks/07.ipynb", home=tmp_path / "home") as address:
        monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "home" / "data"))
        run = lab(tmp_path, tmp_path / "workbook", "07", "--no-browser")
        assert (run.returncode, run.stderr, run.stdout.count("\n")) == (0, "", 1)
        place, token = address.split("?")
        assert "is open already" in run.stdout and token in run.stdout
        assert place.rpartition("/")[2] == "07.ipynb" and "/doc/tree/07.ipynb?" in run.stdout


def test_a_lesson_links_to_nothing_that_a_copy_would_not_find():
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(lesson, 4).cells:
            for target in re.findall(r"\]\((?!https?://|#|attachment:)([^)#\s]+)", cell.source):
                if cell.cell_type == "markdown":
                    assert ".." not in target and (lesson.parent / target).exists(), f"{lesson.name}: {target}"


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    monkeypatch.setattr(workbook, "_in_this_kernel", [])
    return tmp_path / workbook.PROGRESS


def test_what_is_kept_comes_back_the_last_first(memory):
    workbook.keep("guess", "How many? 多少?", value=3)
    workbook.keep("guess", "How many? 多少?", value=5)
    workbook.keep("explanation", "Why?", text="two\nlines\u2028and \x85 signs\ud800", odd=Path("x"))
    assert workbook.kept("guess", "How many? 多少?")["value"] == 5 and workbook.kept("exercise", "Why?") is None
    assert len(workbook.everything()) == 3 == memory.read_bytes().count(b"\n")


def test_a_damaged_line_costs_itself_alone(memory):
    workbook.keep("guess", "first")
    with memory.open("ab") as file:
        file.write(b'[1]\n\xff\xfe\n{"kind": 1}\n\n{"kind": "guess", "na')  # the last was cut by a power failure
    workbook.keep("guess", "last")
    assert [entry["name"] for entry in workbook.everything()] == ["first", "last"]


@pytest.mark.parametrize("obstacle", ["a folder", "no folder"])
def test_what_cannot_be_written_is_told_and_kept_for_this_kernel(memory, obstacle, monkeypatch, capsys):
    if obstacle == "a folder":
        memory.mkdir()
    else:
        monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(memory.parent / "gone"))
    workbook.keep("guess", "How many?", value=3)
    assert "This is not kept for tomorrow" in capsys.readouterr().err
    assert workbook.kept("guess", "How many?")["value"] == 3


def test_two_kernels_mix_no_lines(memory):
    code = "from peft_edu.lab import workbook\nfor n in range(300): workbook.keep('guess', f'{n}', text='x' * 9000)"
    writers = [subprocess.Popen([sys.executable, "-c", light(code)]) for _ in range(2)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert len(workbook.everything()) == 600


def light(code):
    """Without the rest of the lab, whose import takes seconds."""
    return code.replace("from peft_edu.lab import workbook", f"import runpy, types; {load()}")


def load():
    path = str(ROOT / "peft_edu" / "lab" / "workbook.py")
    return f"workbook = types.SimpleNamespace(**runpy.run_path({path!r}))"


def test_the_lesson_is_noted_where_jupyterlab_names_it(memory, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/07_lora (new 2026-11-28).ipynb")
    workbook.keep("guess", "How many?")
    assert workbook.kept("guess", "How many?")["lesson"] == "07_lora"


@pytest.fixture
def bundle(monkeypatch):
    shown = []
    monkeypatch.setattr(shown_progress, "display", lambda data, raw: shown.append(data))
    return shown


def test_the_map_without_a_workbook_is_the_same_each_time(bundle, monkeypatch, tmp_path):
    monkeypatch.delenv("PEFT_EDU_WORKBOOK", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workbook, "_in_this_kernel", [])
    progress()
    progress()
    assert bundle[0] == bundle[1] and bundle[0]["text/plain"].startswith("Nothing is here yet. ")


def test_the_map_counts_each_thing_once_and_what_is_solved(bundle, memory, monkeypatch):
    for lesson in ("00_start_here", "07_lora", "07_lora (new 2026-11-28)"):
        write_lesson(memory.parent / f"{lesson}.ipynb", "1")
    monkeypatch.setenv("JPY_SESSION_NAME", "07_lora.ipynb")
    for kind, name in (("guess", "a"), ("guess", "a"), ("guess", "b"), ("explanation", "<c>")):
        workbook.keep(kind, name)
    workbook.keep("exercise", "lora.count", solved=False)
    workbook.keep("exercise", "lora.module", solved=True)
    workbook.keep("exercise", "lora.module", solved=False)
    monkeypatch.delenv("JPY_SESSION_NAME")
    workbook.keep("guess", "in another editor")
    progress()
    first, lora, elsewhere, where = bundle[0]["text/plain"].splitlines()
    assert first == "00 start here: 0 guessed, 0 explained, 0 solved"
    assert lora == "07 lora: 2 guessed, 1 explained, 1 solved"
    assert elsewhere.startswith("elsewhere: 1 guessed") and str(memory) in where
    assert '<a href="07_lora.ipynb">07 lora</a>' in bundle[0]["text/html"]


@pytest.mark.thorough
def test_a_lesson_finds_models_wherever_the_copy_lies(mine):
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(mine))
    try:
        code = "from peft_edu.lab import backbone, task, workbook\nbackbone('tiny-bert'), task('reviews')\n"
        code += "print(workbook.folder())"
        told = []
        reply = client.execute_interactive(code, timeout=120, output_hook=lambda each: told.append(each["content"]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok" and str(mine) in "".join(each.get("text", "") for each in told)
