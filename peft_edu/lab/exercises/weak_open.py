"""Lesson 11, the open task: rules for another task, and a student that must get beyond them."""

import random
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.exercises.weak import clauses, judged, opposite
from peft_edu.lab.study.weak import decided, right_answers, score, texts_of, train
from peft_edu.lab.tasks.task import Task, task
from peft_edu.weak import ABSTAIN, LabelModel, covered, vote

LEAST, GOOD = 60, 0.9  # labels to train on, right answers on validation


def own_rules():
    few = ["not", "never", "hardly", "far from", "by no means", "anything but"]

    def main_clause(text):
        return judged(clauses(text)[0], few)

    def other_clause(text):
        return opposite(text, few)

    return task("restaurants"), [main_clause, other_clause]


@exercise(
    "weak.own",
    reference=own_rules,
    hints=(
        'Print twenty texts of task("restaurants").rows("train"). Which negations are there?',
        "Your clauses, judged and opposite can serve again, with other negations. A rule is a function of one text.",
        "`def rule(text): return judged(clauses(text)[0], [...])`, and at the end `return data, [rule, another]`",
    ),
)
def _own(f) -> None:
    """own_rules() -> (task, rules): a task of the kind classify with two labels and a validation split, not the
    lesson's own, and two rules or more that read any text. On validation a student that learns from them alone must be
    better than always saying the commoner label, by more than chance gives (the lower end of a 95% interval); and right
    on 90%, or better than its rules by more than chance"""
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
    if len(set(texts["validation"]) & set(texts_of("validation"))) > len(labels) / 2:
        raise Misconception("these are the sentences of the lesson, for which it has rules. Take another task")
    _expect_readers(rules, texts)
    votes, heard = vote(rules, texts["train"]), vote(rules, texts["validation"])
    model = LabelModel()
    believed = model.fit(votes)
    kept = decided(believed)
    teacher = score(model.probabilities(heard), labels)
    print(f"{int(kept.sum())} labels of {len(kept)} texts; the label model alone is right on {teacher.mean():.1%}")
    _expect_labels(votes, kept)
    said = believed[kept].argmax(1)
    if said.min() == said.max():
        raise Misconception("all labels are of one class: write a rule that votes for the other one, too")
    told = data.with_train([text for text, keep in zip(texts["train"], kept, strict=True) if keep], said)
    student = right_answers(data, *train(told, 0), "validation")
    print(f"your student is right on {student.mean():.1%}; on {(~covered(heard)).double().mean():.0%} no rule votes")
    common = labels.bincount(minlength=2).max().item() / len(labels)
    if (low := at_least(student)) <= common:
        raise Misconception(
            f"that may be chance: on {len(labels)} texts {student.mean():.1%} means at least {low:.1%} (95%), and the "
            f"commoner label is right on {common:.1%}. Look at where the rules are wrong, and mend them"
        )
    if at_least(student - teacher) <= 0 and student.mean() < GOOD:
        more = "within what chance gives. Look at where the rules are wrong, and mend them"
        raise Misconception(f"the student is right on {student.mean():.1%}, its rules on {teacher.mean():.1%}: {more}")


def at_least(each: Tensor) -> float:
    """Where the mean of these begins, with 95%."""
    return (each.mean() - 1.96 * each.std() / len(each) ** 0.5).item()


def _expect_readers(rules: Sequence[Callable], texts: dict[str, list[str]]) -> None:
    """Rules must read. Who knows the labels of sentences by heart falls silent when one word is another one."""
    new = reworded(texts["validation"], set().union(*texts.values()))
    if not new:  # texts of one word
        return
    votes = (vote(rules, texts["train"] + texts["validation"]) != ABSTAIN).double().mean(0).tolist()
    for i, (rule, before) in enumerate(zip(rules, votes, strict=True), 1):
        after = sum(_votes(rule, text) for text in new) / len(new)
        if before > 0.05 and after < before / 20:
            raise Misconception(
                f"rule {i} votes on {before:.0%} of the texts. If one word of a text is exchanged, it votes on "
                f"{after:.0%}: it knows texts by heart. A rule reads a text that it has never met"
            )


def _votes(rule: Callable[[str], int], text: str) -> bool:
    try:
        return rule(text) != ABSTAIN
    except Exception:  # a text that is none any more, or that is missing in a list
        return False


def reworded(texts: Sequence[str], known: set[str]) -> list[str]:
    """These texts with one word of each exchanged for a word of another: what stands in no split."""
    draw, words = random.Random(0), re.findall(r"\w+", " ".join(texts))
    found = []
    for text in texts:
        if places := list(re.finditer(r"\w+", text)):
            place = draw.choice(places)
            found.append(text[: place.start()] + draw.choice(words) + text[place.end() :])
    return [text for text in found if text not in known]


def _expect_labels(votes: Tensor, kept: Tensor) -> None:
    """Enough texts must have a vote, and votes that tell the classes apart."""
    voted, labels = int(covered(votes).sum()), int(kept.sum())
    if labels < LEAST <= voted:
        raise Misconception(
            f"{voted} texts have a vote, and {labels} a label. Your rules say the same in both classes, so the label "
            "model believes one half. Write one that votes for the one class where it sees it, and else abstains"
        )
    if labels < LEAST:
        raise Misconception(f"{labels} labels are too few: at least {LEAST} texts of train must get one")
