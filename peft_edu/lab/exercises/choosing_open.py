"""Lesson 08, the open tasks: a method of one's own against the others, and one's own data through the whole way."""

import csv
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from peft_edu import BitFit, LoRA, fit, load, save, seed
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise
from peft_edu.lab.exercises.choosing_method import PACKAGED, MyMethod
from peft_edu.lab.exercises.smallest import Limits
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.run import finetune, recipe
from peft_edu.lab.tasks.task import Task, task
from peft_edu.method import Method

LIMITS = Limits(most=4_000, at_least=0.88, steps=150)
ABOVE_CHANCE = 0.7  # on two labels


def rival():
    return replace(recipe("methods", "reviews BitFit"), method=MyMethod(), lr=0.03)


@exercise(
    "choosing.rival",
    reference=rival,
    hints=(
        '`replace(recipe("methods", "reviews BitFit"), method=MyMethod(), lr=...)` has the steps that all others had.',
        "A learning rate too low shows in the loss: it still falls at the last step. Try three, each three times the "
        "one before, and let validation choose.",
        "Too many parameters? `count(...)` tells. Fewer blocks, or one place less in each.",
    ),
)
def _rival(f) -> None:
    """rival() -> a Recipe for reviews with a method of your own: at most 4,000 parameters beside the task head, at most
    150 steps, and 88% on validation"""
    chosen = f()
    LIMITS.expect_recipe(chosen)
    if isinstance(chosen.method, PACKAGED):
        raise Misconception(f"{type(chosen.method).__name__} is in the lessons already: put in a method of your own")
    if chosen.problem is None or chosen.problem.task != "reviews":
        raise Misconception('take the recipe of a row of reviews: recipe("methods", "reviews BitFit")')
    own = LIMITS.expect_few(replace(chosen.method))
    LIMITS.expect_reached(finetune("methods", chosen), f"{own:,} parameters beside the task head")


def whole_way(path, folder):
    data, tried = task(path), {}
    for name, method, lr in (("BitFit", BitFit(), 1e-2), ("LoRA", LoRA(rank=4), 3e-3)):
        model, tokenizer = backbone("tiny-bert", **data.head)
        seed(0)
        fit(method.attach(model), data.batches(tokenizer, "train", steps=60), steps=60, lr=lr, head_lr=1e-2)
        tried[name] = data.evaluate(model, tokenizer, "validation")["accuracy"], model
    chosen = max(tried, key=lambda name: tried[name][0])
    save(tried[chosen][1], folder)
    model = load(backbone("tiny-bert", **data.head)[0], folder)
    return chosen, data.evaluate(model, tokenizer, "test")["accuracy"]


@exercise(
    "choosing.whole_way",
    reference=whole_way,
    hints=(
        "`data = task(path)` reads the file and makes three splits. Lesson 00 trains, saves and loads on one page.",
        'For each candidate a new model: `backbone("tiny-bert", **data.head)`, attach, fit, then '
        '`data.evaluate(model, tokenizer, "validation")["accuracy"]`.',
        "Save the best with `save(model, folder)`. Load it into a new backbone, and ask that one the test rows, once.",
    ),
)
def _whole_way(f) -> None:
    """whole_way(path, folder) -> (name of the chosen method, its test accuracy between 0 and 1): reads the task at path
    (a CSV with text and label), trains two methods or more, lets validation choose, saves the chosen one into folder,
    loads it into a new model, and asks that one the test rows"""
    with tempfile.TemporaryDirectory() as place:
        path, folder = Path(place, "mine.csv"), Path(place, "chosen")
        data = task(_some_rows(path))
        with _watched() as seen:
            result = f(path, folder)
        if result is None and not seen["trained"]:
            raise NotWritten(NOTHING)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise Misconception(f"expected a name and an accuracy, got {result!r:.80}")
        if seen["trained"] < 2:
            raise Misconception("one method was attached: to choose there must be two or more")
        if not folder.is_dir():
            raise Misconception("nothing is saved in folder: save(model, folder)")
        if not seen["validation"]:
            raise Misconception('the validation rows were not asked: data.evaluate(model, tokenizer, "validation")')
        if seen["test"] != 1:
            told = "not asked" if not seen["test"] else f"asked {seen['test']} times"
            raise Misconception(f"the test rows were {told}: ask them once, when the choice is made")
        if not seen["loaded"]:
            raise Misconception("the model that was trained got the test rows: load what is saved, and ask that one")
        model, tokenizer = backbone("tiny-bert", **data.head)
        reached = data.evaluate(load(model, folder), tokenizer, "test")["accuracy"]
        if abs(result[1] - reached) > 1e-9:
            raise Misconception(
                f"{result[1]:.4g} is told, and what is saved reaches {reached:.4g} on test: tell that, between 0 and 1"
            )
        print(f"{result[0]}: {reached:.1%} on the test rows of a file with 400 sentences")
        if reached < ABOVE_CHANCE:
            raise Misconception(f"{reached:.1%} on test is near to chance: more steps, or another learning rate?")


def _some_rows(path: Path) -> Path:
    """A file as a learner may have it: 400 sentences about restaurants, with the names of their labels."""
    reviews = task("reviews")
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        for row in (reviews.rows("train") + reviews.rows("test"))[:400]:
            rows.writerow((row["text"], reviews.labels[row["label"]]))
    return path


@contextmanager
def _watched() -> Iterator[Counter]:
    """How often a method was attached and trained, which rows were asked, and whether of a model that was loaded."""
    seen: Counter = Counter()
    evaluate, attach, fill = Task.evaluate, Method.attach, load.__globals__["attach_and_fill"]

    def asked(self, model, tokenizer, split="test", *rest, **more):
        seen[split] += 1
        seen["loaded"] += split == "test" and getattr(model, "_was_loaded", False)
        return evaluate(self, model, tokenizer, split, *rest, **more)

    def put(self, model):
        seen["trained"] += 1
        return attach(self, model)

    def filled(method, model, learned, beside):
        seen["trained"] -= 1  # what load attaches is not trained
        model._was_loaded = True
        return fill(method, model, learned, beside)

    with (
        patch.object(Task, "evaluate", asked),
        patch.object(Method, "attach", put),
        patch.dict(load.__globals__, attach_and_fill=filled),
    ):
        yield seen
