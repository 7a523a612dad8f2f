"""python -m peft_edu.classroom release | grade: hand exercises out, and mark what comes back."""

import argparse
import os
import sys
from pathlib import Path

import nbformat

from peft_edu.classroom.grade import asked_in, grade, read_source
from peft_edu.classroom.gradebook import identities
from peft_edu.classroom.otter import as_otter
from peft_edu.classroom.release import release
from peft_edu.classroom.report import write_all
from peft_edu.classroom.sandbox import Limits

EXERCISES = Path("notebooks/exercises")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="peft-edu", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="release|grade")
    out = commands.add_parser("release", help="write a zip of students' copies")
    out.add_argument("exercises", nargs="*", help="names, as 07_lora; all, if none is given")
    out.add_argument("--to", type=Path, default=Path("build/exercises.zip"), help="the zip")
    out.add_argument("--otter", type=Path, metavar="FOLDER", help="write there what `otter assign` takes, no zip")
    out.set_defaults(run=_release)
    back = commands.add_parser("grade", help="grade what was handed in")
    back.add_argument("submissions", type=Path, help="a folder of notebooks, a zip of Moodle or Canvas, an exchange")
    back.add_argument("exercise", help="its name, as 07_lora")
    back.add_argument("--to", type=Path, help="where marks and feedback go; if not, beside the submissions")
    back.add_argument("--gradebook", type=Path, help="a CSV exported by Moodle or Canvas: marks.csv gets its columns")
    back.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2)), help="submissions at a time")
    back.add_argument("--same-numbers", action="store_true", help="everybody had the same numbers")
    for name, unit in (("cell", "seconds a cell may run"), ("whole", "seconds a notebook may run"), ("memory", "GiB")):
        back.add_argument(f"--{name}", type=float, default=getattr(Limits, name), help=f"{unit} (%(default)g)")
    back.set_defaults(run=_grade)
    for command in (out, back):
        command.add_argument("--from", dest="source", type=Path, default=EXERCISES, help="the exercises' sources")
    asked = parser.parse_args(arguments)
    try:
        asked.run(asked)
    except (ValueError, ImportError, OSError) as error:
        print(f"peft_edu: {error}", file=sys.stderr)
        return 1
    return 0


def _release(asked: argparse.Namespace) -> None:
    names = asked.exercises or sorted(path.stem for path in asked.source.glob("*.ipynb"))
    paths = [asked.source / f"{name.removesuffix('.ipynb')}.ipynb" for name in names]
    sources = {path: read_source(path) for path in paths}
    if asked.otter:
        asked.otter.mkdir(parents=True, exist_ok=True)
        for path, source in sources.items():
            nbformat.write(as_otter(source, path.stem), asked.otter / path.name)
    else:
        release(paths, asked.to)
    print(f"{asked.otter or asked.to}: {', '.join(path.stem for path in paths)}")


def _grade(asked: argparse.Namespace) -> None:
    exercise = asked.exercise.removesuffix(".ipynb")
    source = read_source(asked.source / f"{exercise}.ipynb")
    known = identities(asked.gradebook) if asked.gradebook else {}
    place = asked.to or asked.submissions.with_name(f"{asked.submissions.stem}-graded") / exercise
    limits = Limits(cell=asked.cell, whole=asked.whole, memory=asked.memory)
    graded, progress = grade(
        source, exercise, asked.submissions, place / "results.json", limits, asked.jobs, not asked.same_numbers
    )
    missing = write_all(graded, [task for task, _ in asked_in(source)], exercise, place, progress, known)
    print(f"{len(graded)} students. Marks: {place / 'marks.csv'}")
    if unread := [each.student for each in graded if not each.marks]:
        print(f"Not graded, see {place / 'notes.csv'}: {', '.join(unread)}.")
    if missing:
        print(f"Not in {asked.gradebook}, or two have the name: {', '.join(missing)}. Fill in their columns by hand.")
    print(f"The class: {place / 'class.html'}. For each student: {place / 'feedback'}")


if __name__ == "__main__":
    sys.exit(main())
