"""The papers' parameter counts, recomputed by attaching each method to the paper's own model.

`data/papers.csv` holds what was published and where. A count that the paper prints wrongly is asserted to be wrong.
"""

import csv
import re

import pytest

from peft_edu import BitFit, FullFineTuning, LoRA, TopBlocks, count
from peft_edu.lab import architecture
from peft_edu.lab.paths import data_path

ROLES = {"q": "query", "k": "key", "v": "value"}


def lora(setting):
    rank, targets = re.fullmatch(r"r=(\d+) (.+)", setting).groups()
    return LoRA(rank=int(rank), targets=tuple(ROLES.get(role, role) for role in targets.split(",")))


RECIPES = {
    "lora": lora,
    "bitfit": lambda setting: BitFit(),
    "full": lambda setting: FullFineTuning(),
    "top-2 blocks": lambda setting: TopBlocks(2),
}


def rows():
    with open(data_path("papers.csv"), encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["method"] in RECIPES]


def rounds_to(number: int, published: str) -> bool:
    """Is it what the paper printed, to the last digit that the paper printed?"""
    digits, unit = re.fullmatch(r"([\d.]+)([KM]?)", published).groups()
    decimals = len(digits.partition(".")[2])
    return f"{number / {'': 1, 'K': 1e3, 'M': 1e6}[unit]:.{decimals}f}" == digits


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['model']}-{row['method']}-{row['setting']}")
def test_the_count_of_the_paper(row):
    model = RECIPES[row["method"]](row["setting"]).attach(architecture(row["model"]))
    assert count(model).trainable == int(row["trainable"])
    assert rounds_to(count(model).trainable, row["published_as"]) == (row["agrees"] == "yes")


def test_every_method_that_has_published_counts_is_recomputed():
    assert {row["method"] for row in rows()} == set(RECIPES) and len(rows()) == 11


def test_a_count_does_not_depend_on_the_task_head():
    """The papers' tables leave the head out, so a classifier gives the same figure once its head is taken off."""
    bare = count(LoRA(rank=8).attach(architecture("roberta-base")))
    classifier = count(LoRA(rank=8).attach(architecture("roberta-base", labels=2)))
    assert classifier.head > 0 and classifier.trainable - classifier.head == bare.trainable == 294_912
