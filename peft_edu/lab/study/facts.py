"""The runs of lesson 05: three relations with three splits of the people each, learned and written by hand."""

from dataclasses import replace

from peft_edu.lab.study.results import scores
from peft_edu.lab.tasks.task import task

RELATIONS = ("birthplace", "employer", "language")
EVERYBODY = 44  # to learn from


def nine_runs(kind: str, people: int = EVERYBODY) -> list[float]:
    """Per cent that a kind of learned template finds of the people held out, in each of its stored runs.

    >>> min(nine_runs("none"))
    100.0
    """
    few = "" if people == EVERYBODY else f", n={people}"
    return sum(scores("facts", [f"{relation} {kind}{few}" for relation in RELATIONS]).values(), [])


def hand_written(relation: str, split: int, model, tokenizer) -> tuple[float, float]:
    """Per cent that templates written by hand find of the same people: the mean one, and the one that did best on the
    people to learn from."""
    facts = task("facts")
    people = facts.where(relation=relation).resplit(split, by="subject")
    asked = [replace(people, template=template) for template in facts.templates[relation]]
    train, test = (
        [100 * each.evaluate(model, tokenizer, name)["accuracy"] for each in asked] for name in ("train", "test")
    )
    return sum(test) / len(test), test[train.index(max(train))]
