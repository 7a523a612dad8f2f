"""What a teacher gets: marks for the learning platform, a feedback page for each student, and one page on the class."""

import base64
import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment
from matplotlib.figure import Figure

from peft_edu.classroom.grade import Graded
from peft_edu.classroom.gradebook import key
from peft_edu.classroom.notebook import in_html
from peft_edu.classroom.numbers import canonical
from peft_edu.classroom.task import Task
from peft_edu.lab.figures import style

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:52em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{padding:.25em .9em .25em 0;text-align:left;vertical-align:top;
border-bottom:1px solid #ddd}.full{color:#176b3a}img{max-width:100%}</style>
<h1>{{ title }}</h1>{% block body %}{% endblock %}</html>"""
FEEDBACK = """{% for note in graded.notes %}<p>{{ note }}</p>{% endfor %}
{% if graded.marks %}<p><b>{{ graded.points.values() | sum }} of {{ tasks | sum(attribute="points") }} points</b></p>
{% for task in tasks %}
<h2>{{ loop.index }} · {{ task.title }} ({{ graded.points[task.name] }} of {{ task.points }})</h2>
{{ numbers(task, graded) | safe }}<ul>
{% for why, points in reasons(graded.marks[task.name]) %}<li>{{ why }} <b>({{ points }})</b></li>
{% else %}<li class="full">All right.</li>{% endfor %}</ul>{% endfor %}{% endif %}"""
CLASS = """<p>{{ class_ | length }} student{{ "s" if class_ | length != 1 }}, of whom {{ marked }} could be graded.
Their mean: {{ "%.1f" | format(mean) }} of {{ worth }} points.</p>
<table><tr><th>student{% for task in tasks %}<th>{{ task.title }} ({{ task.points }}){% endfor %}
<th>of {{ worth }}</tr>{% for each in class_ %}<tr><td>{{ each.student }}{% for task in tasks %}
<td>{{ each.points[task.name] }}{% endfor %}<td><b>{{ each.points.values() | sum if each.marks }}</b></tr>{% endfor %}
</table>
<img alt="{{ alt }}" src="data:image/png;base64,{{ picture }}">
<h2>What was misunderstood</h2><table><tr><th>task<th>what was told<th>students</tr>
{% for task, why, names in misunderstood %}<tr><td>{{ task }}<td>{{ why }}
<td>{{ names | length }}: {{ names | join(", ") }}</tr>{% else %}<tr><td>nothing</tr>{% endfor %}</table>
<h2>Who is stuck</h2>{% if attempts %}<table><tr><th>student<th>task<th>tries so far, not solved</tr>
{% for student, task, n in attempts %}<tr><td>{{ student }}<td>{{ task }}<td>{{ n }}</tr>{% endfor %}</table>
{% else %}<p>{{ "Nobody tried a task three times without solving it." if progress else
"No progress.jsonl was handed in: it lies beside the notebook, in the folder of the zip." }}</p>{% endif %}
{% if guesses %}<h2>What was predicted</h2>{% for question, counts in guesses %}<p>{{ question }}</p><table>
{% for guess, n in counts %}<tr><td>{{ guess }}<td>{{ "■" * n }} {{ n }}</tr>{% endfor %}</table>{% endfor %}{% endif %}
<h2>To look at</h2><ul>{% for each in class_ %}{% for note in each.notes + each.for_teacher %}
<li>{{ each.student }}: {{ note }}</li>
{% endfor %}{% endfor %}</ul>"""
TEMPLATES = Environment(autoescape=True, trim_blocks=True)


def page(body: str, title: str, **facts) -> str:
    whole = PAGE.replace("{% block body %}{% endblock %}", body)
    return TEMPLATES.from_string(whole).render(title=title, reasons=reasons, numbers=numbers, **facts)


def numbers(task: Task, graded: Graded) -> str:
    """What the task asked of this student."""
    return in_html(task, task.numbers_of(graded.counted_as))


def reasons(marks: Sequence) -> list[tuple[str, int]]:
    """Each sentence once, with the points that went for it."""
    lost: Counter = Counter()
    for mark in marks:
        if mark.why:
            lost[mark.why] += mark.worth
    return [(why, -points) for why, points in lost.items()]


def write_all(
    graded: list[Graded],
    tasks: list[Task],
    exercise: str,
    place: Path,
    progress: dict[str, bytes],
    known: dict[str, dict[str, str]],
) -> list[str]:
    """marks.csv, notes.csv, feedback/NAME.html for each student, and class.html. Returns whom the platform does not
    know."""
    (place / "feedback").mkdir(parents=True, exist_ok=True)
    missing = write_marks(graded, tasks, place / "marks.csv", known)
    for each, name in zip(graded, _file_names(graded), strict=True):
        title = f"{exercise}: {each.student}"
        (place / "feedback" / f"{name}.html").write_text(page(FEEDBACK, title, graded=each, tasks=tasks), "utf-8")
    (place / "class.html").write_text(class_page(graded, tasks, exercise, progress), "utf-8")
    return missing


def write_marks(graded: list[Graded], tasks: list[Task], path: Path, known: dict[str, dict[str, str]]) -> list[str]:
    """A line a student and a column a task. `known`: the platform's own columns by name, as `identities` gives them;
    they come first, and Canvas gets what it asks of a gradebook. Returns the students whom the platform does not know.
    """
    first = list(next(iter(known.values()), {"Student": ""}))
    missing = [each.student for each in graded if key(each.student) not in known] if known else []
    canvas = bool(known) and "Student" in first  # it makes an assignment of each column: a total would count twice
    rows = [[*first, *(f"{task.name} (of {task.points})" for task in tasks), *([] if canvas else ["Total"])]]
    if canvas:
        rows.append(["    Points Possible", *[""] * (len(first) - 1), *(task.points for task in tasks)])
    for each in graded:
        who = known.get(key(each.student)) or dict.fromkeys(first, "") | {first[0]: each.student}
        points = [each.points.get(task.name, "") for task in tasks]
        total = [] if canvas else [sum(points) if each.marks else ""]
        rows.append([*(_plain(who[name]) for name in first), *points, *total])
    _write_table(path, rows)
    notes = [[_plain(each.student), _plain(note)] for each in graded for note in each.notes + each.for_teacher]
    _write_table(path.with_name("notes.csv"), [["Student", "Note"], *notes])
    return missing


def _write_table(path: Path, rows: list[list]) -> None:
    with open(path, "w", newline="", encoding="utf-8-sig") as file:  # by the mark at its start Excel knows UTF-8
        csv.writer(file).writerows(rows)


def _plain(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def _file_names(graded: list[Graded]) -> list[str]:
    names: list[str] = []
    for each in graded:
        name = re.sub(r"[^\w -]", "_", each.student).strip()[:80] or "nameless"
        names.append(name if name.casefold() not in {n.casefold() for n in names} else f"{name} {len(names)}")
    return names


def class_page(graded: list[Graded], tasks: list[Task], exercise: str, progress: dict[str, bytes]) -> str:
    marked = [each.points for each in graded if each.marks]
    totals = [sum(points.values()) for points in marked]
    reach = {task.title: 100 * sum(points[task.name] for points in marked) / task.points for task in tasks}
    shares = {title: reached / max(len(marked), 1) for title, reached in reach.items()}
    titles = {task.name: task.title for task in tasks}
    entries = {student: _entries(data) for student, data in progress.items()}
    return page(
        CLASS,
        f"{exercise}: the class",
        class_=graded,
        marked=len(marked),
        mean=sum(totals) / max(len(totals), 1),
        worth=sum(task.points for task in tasks),
        picture=base64.b64encode(style.png(reached(shares))).decode(),
        alt="Of the points of each task the class reached: " + ", ".join(f"{k} {v:.0f}%" for k, v in shares.items()),
        tasks=tasks,
        misunderstood=misunderstood(graded, titles),
        attempts=[(student, titles.get(task, task), n) for student, task, n in stuck(entries)],
        guesses=guesses(entries),
        progress=progress,
    )


def misunderstood(graded: list[Graded], titles: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """Task, sentence and students, the most frequent first; sentences that differ in numbers alone are one. What is
    empty or stopped with an error is no misunderstanding."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    told: dict[tuple[str, str], str] = {}
    for each in graded:
        for task, marks in each.marks.items():
            for why, _ in reasons(marks):
                if not why.startswith("Not yet: ") or " stopped " in why:
                    continue
                alike = task, re.sub(r"[\d.,]+", "#", why)
                told.setdefault(alike, why)
                found[alike].append(each.student)
    ordered = sorted(found.items(), key=lambda pair: -len(pair[1]))
    return [(titles[task], told[task, why].removeprefix("Not yet: "), names) for (task, why), names in ordered]


def _entries(data: bytes) -> list[dict]:
    entries = []
    for line in data.decode("utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            entries.append({"kind": entry["kind"], "name": entry["name"]} | entry)
        except (ValueError, KeyError, TypeError):
            continue  # half a line, as after a crash
    return entries


def stuck(entries: dict[str, list[dict]], tries: int = 3) -> list[tuple[str, str, int]]:
    """Who tried a task this often without solving it, the most tries first."""
    found = []
    for student, each in entries.items():
        counts: Counter = Counter()
        for entry in each:
            if entry["kind"] in ("task", "exercise"):
                solved = entry.get("solved") or (entry.get("of") and entry.get("points") == entry.get("of"))
                counts[entry["name"]] = 0 if solved else counts[entry["name"]] + 1
        found += [(student, task, n) for task, n in counts.items() if n >= tries]
    return sorted(found, key=lambda each: -each[2])


def guesses(entries: dict[str, list[dict]]) -> list[tuple[str, list[tuple[str, int]]]]:
    """For each question what the class predicted, the last guess of each student."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for student, each in entries.items():
        for entry in each:
            if entry["kind"] == "guess" and "value" in entry:
                said[str(entry["name"])][canonical(student)] = str(entry["value"])
    return [(question, Counter(by.values()).most_common()) for question, by in said.items()]


@style.styled
def reached(shares: dict[str, float]) -> Figure:
    """Of each task, how much of its points the class has."""
    figure, (axes,) = style.panels("What the class reached")
    axes.barh(list(shares), list(shares.values()), color=style.TRAINED, height=0.6)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="of the points of a task, %")
    return figure
