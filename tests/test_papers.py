"""The papers' parameter counts, recomputed by attaching each method to the paper's own model.

`data/papers.csv` holds what was published and where. A count that the paper prints wrongly is asserted to be wrong.
"""

import re

import pytest

from peft_edu import LoRA, count
from peft_edu.lab import architecture, paper_counts
from peft_edu.lab.papers import METHODS, published, recount

ROWS = [row for _, row in published().iterrows()]


def rounds_to(number: int, printed: str) -> bool:
    """Is it what the paper printed, to the last digit that the paper printed?"""
    digits, unit = re.fullmatch(r"([\d.]+)([KM]?)", printed).groups()
    decimals = len(digits.partition(".")[2])
    return f"{number / {'': 1, 'K': 1e3, 'M': 1e6}[unit]:.{decimals}f}" == digits


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}-{row.method}-{row.setting}")
def test_the_count_of_the_paper(row):
    counted = recount(row)
    assert counted == int(row.trainable)
    assert rounds_to(counted, row.published_as) == (row.agrees == "yes")


def test_every_method_that_has_published_counts_is_recomputed():
    assert {row.method for row in ROWS} == set(METHODS) and len(ROWS) == 11


def test_a_lesson_shows_the_counts_beside_the_print():
    table = paper_counts("lora")
    assert table.loc["gpt2-medium", ["counted", "printed"]].tolist() == ["393,216", "0.35M"]
    with pytest.raises(ValueError, match="no published counts for 'dora'"):
        paper_counts("dora")


def test_a_count_does_not_depend_on_the_task_head():
    """The papers' tables leave the head out, so a classifier gives the same figure once its head is taken off."""
    bare = count(LoRA(rank=8).attach(architecture("roberta-base")))
    classifier = count(LoRA(rank=8).attach(architecture("roberta-base", labels=2)))
    assert classifier.head > 0 and classifier.trainable - classifier.head == bare.trainable == 294_912
