"""Lesson 11, the open task: rules for another task, and a student that must get beyond them."""

import torch

from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.exercises.weak import clauses, judged, opposite
from peft_edu.lab.study.weak import decided, right_answers, score, train
from peft_edu.lab.tasks.task import Task, task
from peft_edu.weak import LabelModel, covered, vote

LEAST, GOOD = 60, 0.9  # labels to train on, right answers on validation
FEW = ("not", "never", "hardly", "far from", "by no means", "anything but")


def main_clause(text):
    return judged(clauses(text)[0], FEW)


def other_clause(text):
    return opposite(text, FEW)


def own_rules():
    return task("restaurants"), [main_clause, other_clause]


@exercise(
    "weak.own",
    reference=own_rules,
    beside=(main_clause, other_clause),
    hints=(
        'Print twenty texts of task("restaurants").rows("train"). Which negations are there?',
        "Your clauses, judged and opposite can serve again, with other negations. A rule is a function of one text.",
        "`def rule(text): return judged(clauses(text)[0], [...])`, and at the end `return data, [rule, another]`",
    ),
)
def _own(f) -> None:
    """own_rules() -> (task, rules): a task of the kind classify with two labels and a validation split, and two rules
    or more; a student that learns from them alone must be right on 90% of validation, or at least more often than they
    are"""
    given = f()
    if not isinstance(given, (tuple, list)) or len(given) != 2 or not isinstance(given[0], Task):
        raise Misconception("return both: a task and a list of rules, as in `return task(...), [rule, another]`")
    data, rules = given
    if data.kind != "classify" or len(data.labels) != 2:
        raise Misconception(f"{data.name} is of the kind {data.kind} with labels {data.labels}: two classes are needed")
    if not isinstance(rules, (tuple, list)) or len(rules) < 2 or not all(map(callable, rules)):
        raise Misconception(f"two rules or more are asked for, functions of a text, and not {rules!r:.60}")
    texts = {split: [row["text"] for row in data.rows(split)] for split in ("train", "validation")}
    labels = torch.tensor([row["label"] for row in data.rows("validation")])
    model = LabelModel()
    believed = model.fit(vote(rules, texts["train"]))
    heard = vote(rules, texts["validation"])
    kept = decided(believed)
    teacher = score(model.probabilities(heard), labels).mean().item()
    print(f"{int(kept.sum())} labels of {len(kept)} texts; the label model alone is right on {teacher:.1%}")
    if kept.sum() < LEAST:
        raise Misconception(f"{int(kept.sum())} labels are too few: at least {LEAST} texts of train must get one")
    said = believed[kept].argmax(1)
    if said.min() == said.max():
        raise Misconception("all labels are of one class: write a rule that votes for the other one, too")
    told = data.with_train([text for text, keep in zip(texts["train"], kept, strict=True) if keep], said)
    student = right_answers(data, *train(told, 0), "validation").mean().item()
    print(f"your student is right on {student:.1%}; on {(~covered(heard)).double().mean():.0%} no rule votes")
    if student <= teacher and student < GOOD:
        more = "look at where they are wrong, and mend them"
        raise Misconception(f"the student is right on {student:.1%}, its rules on {teacher:.1%}: {more}")
