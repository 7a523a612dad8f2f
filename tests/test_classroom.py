"""Exercises: numbers of one's own, marks with their reasons, and grading that survives what students do."""

import json
import os
import re
import sys
import zipfile
from pathlib import PurePosixPath

import nbformat
import pytest
from handed_in import EXERCISES as FOLDER
from handed_in import SOURCES, edited, only, points, shortened, solved
from misconceptions import PLANTED

from peft_edu.classroom import sandbox
from peft_edu.classroom.__main__ import main
from peft_edu.classroom.grade import Graded, asked_in
from peft_edu.classroom.gradebook import identities
from peft_edu.classroom.notebook import NoPoint, part
from peft_edu.classroom.numbers import EVERYBODY, canonical
from peft_edu.classroom.release import STUB, release, released
from peft_edu.classroom.report import write_marks
from peft_edu.classroom.restore import known_cells, marked, restored
from peft_edu.classroom.sandbox import Limits
from peft_edu.classroom.submissions import student_of
from peft_edu.classroom.task import COPIED, TASKS, Mark

EXERCISES = list(SOURCES)
LIMITS = Limits(cell=60, whole=240)


def run(notebook, exercise, student="Ada Lovelace", classmates=(), limits=LIMITS):
    return sandbox.run(restored(notebook, SOURCES[exercise]), student, list(classmates), limits)


def full(exercise):
    return {task.name: task.points for task, _ in asked_in(SOURCES[exercise])}


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("student", ["Ada Lovelace", "李雷", "7731"])
def test_the_solution_gets_every_point_for_everybody(exercise, student):
    outcome = run(solved(exercise, student), exercise, student)
    assert points(outcome) == full(exercise), outcome
    assert not outcome.notes and not outcome.stopped


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_released_copy_runs_as_it_is_and_gets_nothing(exercise):
    """Only the graded cells fail, and each task says that nothing is written."""
    outcome = run(released(SOURCES[exercise]), exercise, "somebody")
    assert points(outcome) == dict.fromkeys(full(exercise), 0)
    assert not outcome.notes and not outcome.stopped
    told = [mark.why for marks in outcome.marks.values() for mark in marks]
    assert all("Not written yet" in why for why in told), told


@pytest.mark.parametrize(
    ("exercise", "planted"),
    [(name, each) for name, every in PLANTED.items() for each in every],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]}: {value[4]}",
)
def test_a_planted_misconception_is_named_and_costs_points(exercise, planted):
    cell, old, new, left, told = planted
    cells = only(restored(edited(exercise, cell, old, new), SOURCES[exercise]), cell)
    outcome = sandbox.run(cells, "Ada Lovelace", [], LIMITS)
    ((task, marks),) = outcome.marks.items()
    assert told in " ".join(mark.why for mark in marks), marks
    assert points(outcome) == left and left[task] < TASKS[task].points


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_misconception_costs_points_in_its_own_task_alone(exercise):
    """The first of each task that has one, all in one notebook: what is left in each is what is left by itself."""
    first = {}
    for cell, old, new, left, _ in PLANTED[exercise]:
        first.setdefault(cell, (old, new, left))
    notebook, expected = solved(exercise), full(exercise)
    for each in notebook.cells:
        if each.id in first:
            old, new, left = first[each.id]
            each.source, expected = each.source.replace(old, new), expected | left
    assert points(run(notebook, exercise)) == expected


def test_each_exercise_has_six_misconceptions_that_are_planted():
    assert PLANTED.keys() == SOURCES.keys() and all(len(every) >= 6 for every in PLANTED.values())


@pytest.mark.parametrize("exercise", EXERCISES)
def test_two_students_have_different_numbers_and_one_has_always_the_same(exercise):
    for task, _ in asked_in(SOURCES[exercise]):
        drawn = [task.numbers_of(name) for name in ("Ada", "Bo", "Cy", "Di", "Ed")]
        assert sum(each != drawn[0] for each in drawn) >= 3, task.name
        assert task.numbers_of("Li, Ánna") == task.numbers_of("ánna_li")


def test_a_copied_answer_is_told_to_be_somebody_elses():
    copied = next(cell.source for cell in solved("07_lora").cells if cell.id == "lora-sizes")
    numbers = vars(TASKS["lora.sizes"].numbers_of("Bo"))
    answer = "from types import SimpleNamespace\nn1 = SimpleNamespace(**" + repr(numbers) + ")\n" + copied
    outcome = run(solved("07_lora", lora_sizes=answer), "07_lora", classmates=["Cy", "Bo"])
    assert {mark.why for mark in outcome.marks["lora.sizes"]} == {f"Not yet: {COPIED}."}
    alone = run(solved("07_lora", lora_sizes=answer), "07_lora", classmates=["Cy"])
    assert COPIED not in str(alone.marks["lora.sizes"]) and points(alone)["lora.sizes"] == 1


def test_a_notebook_whose_time_is_over_is_told_and_ends_nobody_elses():
    outcome = run(SHORT, "07_lora", limits=Limits(whole=0))
    assert not outcome.marks and "before a cell was run" in outcome.notes[0]


def test_part_of_the_points_is_for_part_of_the_answer():
    outcome = run(solved("07_lora", lora_layer="1 / 0", lora_hunt="raise SystemExit"), "07_lora")
    assert points(outcome) == {
        task: worth for task, worth in full("07_lora").items() if task[5:] not in ("layer", "hunt")
    }
    assert "ZeroDivisionError" in outcome.stopped["lora-layer"] and outcome.stopped["lora-hunt"].startswith(
        "SystemExit"
    )


BAD = {  # what a cell does: the sentence in its notes
    "while True: pass": "longer than 12 seconds",
    "import os; os._exit(7)": "ended Python (exit code 7)",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "the system ended it",
    "import ctypes; ctypes.string_at(0)": "SIGSEGV",
}
STOPS = {  # what a cell does: the error that ends it, and it alone
    "while True: print('x' * 1000)": "prints without end",
    "x = bytearray(64 * 2**30)": "MemoryError",
    "import sys; sys.exit()": "SystemExit",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "import a_module_that_nobody_has": "ModuleNotFoundError",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9', timeout=2)": "URLError",
    "input('name?')": "EOFError",
    "def broken(:": "SyntaxError",
}


SHORT = shortened(solved("07_lora"))
SHORT_FULL = {"lora.sizes": 4, "lora.layer": 8, "lora.figure": 3}


@pytest.mark.parametrize("code", BAD)
def test_a_cell_that_ends_python_is_left_out_and_the_others_are_graded(code):
    cells = restored(shortened(solved("07_lora", lora_sizes=code)), SHORT)
    outcome = sandbox.run(cells, "Ada Lovelace", [], Limits(cell=12))
    assert {"lora.sizes": 0} | points(outcome) == SHORT_FULL | {"lora.sizes": 0}
    assert BAD[code] in outcome.stopped["lora-sizes"] and "was left out" in outcome.notes[0]


@pytest.mark.parametrize("code", STOPS)
def test_a_cell_that_fails_costs_its_own_points_alone(code):
    outcome = sandbox.run(restored(shortened(solved("07_lora", lora_sizes=code)), SHORT), "Ada Lovelace", [], LIMITS)
    assert {"lora.sizes": 0} | points(outcome) == SHORT_FULL | {"lora.sizes": 0}
    assert STOPS[code] in outcome.stopped["lora-sizes"] and not outcome.notes


def changed(change):
    notebook = shortened(solved("07_lora"))
    change(notebook.cells)
    return notebook


def cell(cells, name):
    return next(each for each in cells if each.id == name)


def doubled(cells, name):
    copy = nbformat.from_dict(cell(cells, name))
    copy["id"] = "a-copy"
    cells.append(copy)


def graded_says(cells):
    cell(cells, "lora-figure-points").source = "4"
    cell(cells, "lora-layer").source = "def graded(name, answer): return 8\nLoRALayer = None"


CHANGES = {
    "graded cells deleted": (lambda cells: cells.remove(cell(cells, "lora-figure-points")), {}),
    "given cells deleted": (lambda cells: cells.remove(cell(cells, "lora-figure-ask")), {}),
    "setup deleted": (lambda cells: cells.remove(cell(cells, "setup")), {}),
    "graded cells doubled": (lambda cells: doubled(cells, "lora-figure-points"), {}),
    "an answer twice": (lambda cells: doubled(cells, "lora-sizes"), {}),
    "another order": (lambda cells: cells.append(cells.pop(cells.index(cell(cells, "lora-sizes")))), {}),
    "graded cells edited": (graded_says, {"lora.layer": 0}),
    "an answer deleted": (lambda cells: cells.remove(cell(cells, "lora-sizes")), {"lora.sizes": 0}),
    "an answer as text": (lambda cells: cell(cells, "lora-sizes").update(cell_type="markdown"), {"lora.sizes": 0}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_cells_that_a_student_changed_are_restored(name):
    change, lost = CHANGES[name]
    outcome = sandbox.run(restored(changed(change), SHORT), "Ada Lovelace", [], LIMITS)
    assert dict.fromkeys(SHORT_FULL, 0) | points(outcome) == SHORT_FULL | lost, outcome


def test_a_bare_check_in_a_graded_cell_would_be_all_points():
    """nbgrader gives a cell without error and without a number all points: graded cells must be `graded`, which
    asserts. The mistake is planted here and found."""

    def unsafe(notebook):
        return [each.id for each in known_cells(notebook) if each.kind == "graded" and not each.task]

    for notebook in SOURCES.values():
        assert not unsafe(notebook)
    planted = solved("07_lora", lora_sizes_points='check("lora.sizes", sizes)')
    assert unsafe(planted) == ["lora-sizes-points"]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_source_says_the_points_that_its_tasks_give(exercise):
    worth = {each.id: each.metadata.nbgrader.points for each in SOURCES[exercise].cells if marked(each).get("grade")}
    tasks = {each.id: TASKS[each.task] for each in known_cells(SOURCES[exercise]) if each.kind == "graded"}
    assert worth == {name: task.points for name, task in tasks.items()} and 4 <= len(tasks) <= 7
    text = SOURCES[exercise].cells[0].source
    minutes = sum(task.minutes for task in tasks.values())
    assert f"{sum(worth.values())} points" in text and abs(int(re.search(r"(\d+) minutes", text)[1]) - minutes) <= 10
    assert all(len(task.hints) == 3 and task.errors for task in tasks.values())


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_released_copy_holds_no_line_of_a_solution(exercise, tmp_path):
    lines = set()
    for each in SOURCES[exercise].cells:
        for solution in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", each.source, re.DOTALL):
            lines |= {line.strip() for line in solution.splitlines() if len(line.strip()) > 12}
    kept = "\n".join(each.source for each in SOURCES[exercise].cells)
    kept = re.sub(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", "", kept, flags=re.DOTALL)
    text = "\n".join(each.source for each in released(SOURCES[exercise]).cells)
    assert lines and not [line for line in lines if line in text and line not in kept]
    for marker in ("SOLUTION", "HIDDEN TESTS", "Hint 1"):
        assert marker not in text
    assert [task.hints[0] in text for task, _ in asked_in(SOURCES[exercise])] == [False] * len(full(exercise))


def test_releasing_twice_leaves_no_difference(tmp_path):
    assert main(["release", "--to", str(tmp_path / "one.zip")]) == 0
    again = release([FOLDER / f"{name}.ipynb" for name in EXERCISES], tmp_path / "two.zip")
    assert again.read_bytes() == (tmp_path / "one.zip").read_bytes()
    assert zipfile.ZipFile(again).namelist() == [*(f"{name}.ipynb" for name in EXERCISES), "progress.jsonl"]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_otter_gets_a_test_for_each_part_of_a_task(exercise, tmp_path):
    """That `otter assign` and `otter run` give the same points was tried by hand (version 7.0: all, none, part)."""
    assert main(["release", exercise, "--otter", str(tmp_path)]) == 0
    cells = nbformat.read(tmp_path / f"{exercise}.ipynb", 4).cells
    worth = [int(each) for cell in cells for each in re.findall(r"TEST CONFIG\npoints: (\d+)", cell.source)]
    assert worth == [points for task, _ in asked_in(SOURCES[exercise]) for points in task.parts.values()]
    raw = [cell.source.splitlines()[0] for cell in cells if cell.cell_type == "raw"]
    around = [
        "# BEGIN QUESTION",
        "# BEGIN SOLUTION",
        "# END SOLUTION",
        "# BEGIN TESTS",
        "# END TESTS",
        "# END QUESTION",
    ]
    assert raw == ["# ASSIGNMENT CONFIG", *around * len(full(exercise))]
    assert not [cell for cell in cells if "graded(" in cell.source and cell.cell_type == "code"]


def test_a_part_that_is_not_right_raises_its_sentence():
    numbers = TASKS["lora.sizes"].numbers_of(EVERYBODY)
    answer = {
        "parameters": numbers.blocks * len(numbers.maps) * numbers.rank * 2 * numbers.width,
        "share": 1,
        "moments": 1,
    }
    part("lora.sizes", answer, 0)
    with pytest.raises(NoPoint, match="trained parameters / parameters of those"):
        part("lora.sizes", answer, 1)


@pytest.mark.parametrize(
    ("path", "student"),
    [
        ("Anna Li.ipynb", "Anna Li"),
        ("Anna Li/07_lora.ipynb", "Anna Li"),
        ("07_lora_çağ yı (1).ipynb", "çağ yı"),
        ("Anna Li_1234_assignsubmission_file_/07_lora.ipynb", "Anna Li"),
        ("Anna Li_1234_assignsubmission_file_07_lora.ipynb", "Anna Li"),
        ("lianna_LATE_12345_678901_07_lora-2.ipynb", "lianna"),
        ("submitted/anna/07_lora/07_lora.ipynb", "anna"),
        ("anna+07_lora+2026-11-29 10:00:00 UTC+abc/07_lora.ipynb", "anna"),
        ("07_lora.ipynb", ""),
        ("07_lora-Copy1.ipynb", ""),
        ("Anna/07_lora_final.ipynb", "Anna"),
    ],
)
def test_whose_a_file_is(path, student):
    assert student_of(PurePosixPath(path), "07_lora") == student


def test_a_name_counts_however_it_is_written():
    assert canonical("Li, Ánna") == canonical("A\u0301NNA li") == canonical("ánna_li")
    assert canonical("Anna Li") != canonical("Anna Lu")
    assert canonical("Mina Öz") == canonical("oz, mina")


def hand_in(folder, name, notebook):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook if isinstance(notebook, str) else nbformat.writes(notebook), encoding="utf-8")
    return path


@pytest.mark.timeout(600)
def test_a_class_is_graded_in_one_run_and_a_second_run_grades_what_is_new(tmp_path, capsys):
    """Every mark as planted: all kinds of submissions in one folder, each told for that student."""
    folder = tmp_path / "handed in"
    hand_in(folder, "Anna Li.ipynb", solved("07_lora", "Anna Li"))
    hand_in(folder, "Çağ Yı_77_assignsubmission_file/07_lora.ipynb", solved("07_lora", "çağ", lora_hunt="mended = {}"))
    hand_in(folder, "stub.ipynb", released(SOURCES["07_lora"]))
    hand_in(folder, "=cmd.ipynb", '{"cells": [')
    hand_in(folder, "other.ipynb", nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]))
    hand_in(folder, "Bo/07_lora.ipynb", solved("07_lora", "Anna Li"))
    hand_in(folder, "07_lora.ipynb", solved("07_lora", "Dee"))
    peeked = "from peft_edu.classroom.tasks.lora import CODE\nsizes = None"
    hand_in(folder, "nick.ipynb", solved("07_lora", "Nicholas", lora_sizes=peeked))
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 and then nothing")
    kernel = solved("07_lora", "R fan")
    kernel.metadata.kernelspec = {"name": "ir", "display_name": "R", "language": "R"}
    hand_in(folder, "R fan.ipynb", kernel)
    guess = {"kind": "guess", "name": "How many?", "value": 3}
    tries = [{"kind": "task", "name": "lora.hunt", "points": 2, "of": 7}] * 4
    hand_in(folder, "Bo.jsonl", "\n".join(map(json.dumps, [guess, *tries])) + "\n{half")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    to = tmp_path / "graded"
    arguments = ["grade", str(folder), "07_lora", "--to", str(to), "--jobs", "2"]
    assert main(arguments) == 0
    table = (to / "marks.csv").read_text(encoding="utf-8-sig").splitlines()
    marks = {line.split(",")[0]: line.split(",")[1:8] for line in table[1:]}
    text = (to / "notes.csv").read_text(encoding="utf-8-sig")
    all_points = [str(n) for n in full("07_lora").values()]
    assert marks["Anna Li"][:6] == marks["R fan"][:6] == marks["Dee"][:6] == all_points
    assert marks["nick"][:6] == ["0", *all_points[1:]]
    assert marks["Çağ Yı"][:6] == [*all_points[:4], "0", all_points[5]]
    assert marks["stub"] == ["0"] * 7
    assert marks["'=cmd"] == marks["other"] == marks["broken"] == [""] * 7
    assert "Not graded, see" in capsys.readouterr().out
    assert "no notebook that can be read" in text and "the notebook of another lesson" in text
    assert "stands the name 'Anna Li', and it was handed in by 'Bo': Bo's numbers were taken" in text
    assert "handed in by 'nick': Nicholas's numbers were taken" in text
    assert text.count("A cell reads classroom.tasks, where the answers are") == 1
    page = (to / "class.html").read_text(encoding="utf-8")
    assert (
        "word for word" in page
        and "<td>Bo<td>Hunt<td>4" in page
        and "How many?" in page
        and "10 students, of whom 7 could be graded" in page
    )
    assert not [each for each in (to / "feedback").iterdir() if "word for word" in each.read_text(encoding="utf-8")]
    feedback = (to / "feedback" / "Çağ Yı.html").read_text(encoding="utf-8")
    assert "5 · Hunt (0 of 7)" in feedback and "All right." in feedback
    blocks = TASKS["lora.sizes"].numbers_of("çağ").blocks
    assert f"<code>blocks</code> = <b>{blocks}</b>" in feedback and "class LoRALinear(nn.Module)" in feedback
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    capsys.readouterr()
    hand_in(folder, "new.ipynb", released(SOURCES["07_lora"]))
    assert main(arguments) == 0
    assert "1/1" in capsys.readouterr().err
    assert len((to / "marks.csv").read_text(encoding="utf-8-sig").splitlines()) == len(table) + 1


CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,Essay (12)
    Points Possible,,,,,10
"Li, Anna",11,s1,anna@x,A,7
"Öz, Mina",12,s2,mina@x,A,
"Doe, Jo",13,s3,jo1@x,A,
"Jo, Doe",14,s4,jo2@x,B,
"""
MOODLE = "First name,Last name,ID number,Email address\nAnna,Li,0011,anna@x\nMina,Öz,0012,mina@x\n"


@pytest.mark.parametrize(
    ("gradebook", "first"), [(CANVAS, '"Li, Anna",11,s1,anna@x,A,'), (MOODLE, "Anna,Li,0011,anna@x,")]
)
def test_marks_get_the_columns_by_which_the_platform_knows_its_students(gradebook, first, tmp_path):
    (tmp_path / "book.csv").write_text(gradebook, encoding="utf-8")
    graded = [
        Graded(name, name, "", {"lora.sizes": [Mark(2, 4)]}, [], []) for name in ("lianna", "Mina Oz", "jo doe", "Cy")
    ]
    missing = write_marks(graded, [TASKS["lora.sizes"]], tmp_path / "m.csv", identities(tmp_path / "book.csv"))
    header, *worth, anna, _, _, cy = (tmp_path / "m.csv").read_text(encoding="utf-8-sig").splitlines()
    assert worth == (["    Points Possible,,,,,4"] if gradebook == CANVAS else [])
    assert anna == first + ("2" if gradebook == CANVAS else "2,2")
    assert missing == ["jo doe", "Cy"] and cy.startswith("Cy,,")
    assert header.startswith(gradebook.partition("\n")[0].removesuffix(",Essay (12)") + ",lora.sizes (of 4)")


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("exercise", EXERCISES)
def test_thirty_students_get_the_marks_that_were_planted(exercise, tmp_path):
    """Each with a misconception or two; those that show in everybody's numbers."""
    planted = [each for each in PLANTED[exercise] if not each[0].endswith("-figure")]  # there it is right for some
    expected = {}
    for i in range(30):
        name, notebook = f"student {i:02}", solved(exercise, f"student {i:02}")
        worth = full(exercise)
        for cell, old, new, left, _ in {each[0]: each for each in planted[i % len(planted) :: 7]}.values():
            (found,) = [each for each in notebook.cells if each.id == cell]
            found.source, worth = found.source.replace(old, new), worth | left
        hand_in(tmp_path / "in", f"{name}.ipynb", notebook)
        expected[name] = [str(points) for points in worth.values()]
    assert main(["grade", str(tmp_path / "in"), exercise, "--to", str(tmp_path), "--jobs", "2"]) == 0
    lines = (tmp_path / "marks.csv").read_text(encoding="utf-8-sig").splitlines()[1:]
    assert {line.split(",")[0]: line.split(",")[1 : 1 + len(full(exercise))] for line in lines} == expected


def test_the_newest_of_two_submissions_counts(tmp_path):
    from peft_edu.classroom.submissions import collect

    with zipfile.ZipFile(tmp_path / "moodle.zip", "w") as packed:
        for year, code in ((2025, "old"), (2026, "new")):
            info = zipfile.ZipInfo(f"Anna Li_{year}_assignsubmission_file/x.ipynb", (year, 1, 2, 3, 4, 6))
            packed.writestr(info, nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])))
    (found,), _ = collect(tmp_path / "moodle.zip", "07_lora")
    assert (
        found.student == "Anna Li" and found.notebook().cells[0].source == "new" and "is newer than" in found.notes[0]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grade", "nowhere", "07_lora"], "there is no nowhere: give a folder"),
        (["grade", "README.md", "07_lora"], "is no zip and no folder"),
        (["grade", "tests/golden", "07_lora"], "there is no notebook"),
        (["grade", "tests", "99_none"], "there is no exercise 99_none; there are"),
        (["grade", "tests", "07_lora", "--gradebook", "data/papers.csv"], "a gradebook has Student (Canvas), or"),
        (["release", "99_none"], "there is no exercise 99_none; there are"),
    ],
)
def test_what_cannot_be_graded_is_told_in_a_line(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_nbgrader_itself_gives_the_same_points(tmp_path, monkeypatch):
    """Released by `nbgrader generate_assignment` and graded by `nbgrader autograde`: all, none, and the right part."""
    from nbgrader.api import Gradebook
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    handed_in = {
        "all": solved("07_lora"),
        "none": released(SOURCES["07_lora"]),
        "part": edited("07_lora", "lora-layer", "h if self.merged else h + self.scale", "h + self.scale"),
    }
    hand_in(tmp_path / "source" / "07_lora", "07_lora.ipynb", SOURCES["07_lora"])
    for student, notebook in handed_in.items():
        hand_in(tmp_path / "submitted" / student / "07_lora", "07_lora.ipynb", notebook)
    programs = os.path.dirname(sys.executable)  # nbgrader calls one that is installed beside it
    monkeypatch.setenv("PATH", programs + os.pathsep + os.environ["PATH"])
    config = Config()
    config.CourseDirectory.root = str(tmp_path)
    config.ClearSolutions.code_stub = STUB
    api = NbGraderAPI(config=config)
    assert api.generate_assignment("07_lora")["success"]
    for student in handed_in:
        done = api.autograde("07_lora", student)
        assert done["success"], done["log"]
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        got = {name: book.find_submission("07_lora", name).score for name in handed_in}
    whole = sum(full("07_lora").values())
    assert got == {"all": whole, "none": 0, "part": whole - 3}
