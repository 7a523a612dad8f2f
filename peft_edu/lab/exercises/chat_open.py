"""Lesson 09, the open task: a table of one's own becomes conversations."""

import csv
import tempfile
from pathlib import Path

from peft_edu.lab.exercises.check import NOTHING, Misconception, exercise
from peft_edu.lab.tasks.task import Task, task

DEPARTMENTS = {"kitchen": "the soup was cold", "service": "nobody came to our table", "cellar": "the wine was warm"}


def own_conversations(path):
    data = task(path, columns={"prompt": "complaint", "completion": "department"})
    question = "Which department must hear this? Answer kitchen, service or cellar.\n\n{}"
    return data.as_chat(lambda row: question.format(row["source"]), lambda row: row["target"])


@exercise(
    "chat.own",
    reference=own_conversations,
    hints=(
        '`task(path, columns={"prompt": "complaint", "completion": "department"})` reads the file as conversations.',
        "`data.as_chat(question, answer)` makes new ones: two functions of a row, each gives a text.",
        'A row that was read has the question as row["source"] and the answer as row["target"].',
    ),
)
def _own(f) -> None:
    """f(path) -> a Task of the kind chat from a CSV with the columns complaint and department: each question holds the
    complaint and says what is asked, and the answer is the department alone"""
    rows = [(f"On day {day} {said}.", name) for day in range(1, 21) for name, said in DEPARTMENTS.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "complaints.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("complaint", "department"), *rows])
        data = f(str(path))
    if data is None:
        raise Misconception(NOTHING)
    if not isinstance(data, Task):
        raise Misconception(f"expected a Task, got {type(data).__name__}: task(path, ...) makes one")
    if data.kind != "chat":
        raise Misconception(f"the task is of the kind {data.kind}: as_chat makes conversations of its rows")
    made = [row for rows in data.splits.values() for row in rows]
    if len(made) != len(rows):
        raise Misconception(f"the file has {len(rows)} rows, and the task {len(made)}")
    answers = dict(rows)
    for row in made:
        complaint = next((text for text in answers if text in row["source"]), None)
        if complaint is None:
            raise Misconception(f"the question {row['source']!r:.80} does not hold the complaint")
        if row["target"] != answers[complaint]:
            raise Misconception(f"to {complaint!r} the answer is {answers[complaint]!r}, and not {row['target']!r:.60}")
        if row["source"].strip() == complaint:
            raise Misconception("the question is the complaint alone: say what is asked, or the model must guess it")
