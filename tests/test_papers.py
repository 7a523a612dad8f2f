"""The papers' parameter counts, recomputed by attaching each method to the paper's own model.

`data/papers.csv` holds what was published and where. A count that the paper prints wrongly is asserted to be wrong.
"""

import re

import pandas as pd
import pytest

from peft_edu import FullFineTuning, LoRA, count
from peft_edu.anatomy import blocks
from peft_edu.lab import architecture, paper_counts
from peft_edu.lab.measure.papers import METHODS, published, recount
from peft_edu.lab.paths import data_path

ROWS = [row for _, row in published().iterrows()]


def rounds_to(number: int, printed: str, total: int) -> bool:
    """Is it what the paper printed, to the last digit that counts? Zeros at the end of 250K do not."""
    digits, unit = re.fullmatch(r"(?:about )?([\d.]+)([KkM%]?)", printed).groups()
    value = number / {"": 1, "K": 1e3, "k": 1e3, "M": 1e6, "%": total / 100}[unit]
    significant = len(digits.replace(".", "").lstrip("0")) if "." in digits else len(digits.rstrip("0"))
    return float(f"{value:.{significant}g}") == float(digits)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}-{row.method}-{row.setting}")
def test_the_count_of_the_paper(row):
    counted = recount(row)
    assert counted == int(row.trainable)
    if row.agrees == "derived":
        assert row.published_as == "not printed"
        return
    against = re.search(r"against the encoder alone \((\d+)\)", row.agrees)
    total = int(against[1]) if against else 0
    if "%" in row.published_as and not against:  # shares are of the model that is fine-tuned, with its classifier
        total = count(FullFineTuning().attach(architecture(row.model, labels=2))).total
    assert rounds_to(counted, row.published_as, total) == row.agrees.startswith("yes")


def test_the_encoder_alone():
    """Houlsby's 2.1% is a share of BERT-large's blocks, which is what the csv says it is."""
    assert sum(p.numel() for block in blocks(architecture("bert-large")) for p in block.parameters()) == 302_309_376


def test_every_method_that_has_published_counts_is_recomputed():
    assert {row.method for row in ROWS} == set(METHODS) and len(ROWS) == 39


def test_methods_that_are_still_to_come_are_counted_by_their_equations():
    """On Llama-3.2-3B, with LoRA's r (in + out) a map: DoRA adds a magnitude to each output, LoRA-FA trains B alone,
    VeRA a vector of r and one of the outputs, IA3 a factor for each key, value and hidden unit of the MLP."""
    config = architecture("Llama-3.2-3B").config
    query, mlp, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    value = config.num_key_value_heads * config.head_dim
    outputs = query + value
    equations = {
        "dora": layers * (32 * (2 * query + outputs) + outputs),
        "lora-fa": layers * 32 * outputs,
        "vera": layers * (2 * 256 + outputs),
        "ia3": layers * (2 * value + mlp),
    }
    rows = pd.read_csv(data_path("papers.csv"))
    later = rows[~rows.method.isin(METHODS)]
    assert dict(zip(later.method, later.trainable, strict=True)) == equations


def test_a_lesson_shows_the_counts_beside_the_print():
    table = paper_counts("lora")
    assert table.loc["gpt2-medium", ["counted", "printed"]].tolist() == ["393,216", "0.35M"]
    for none in ("dora", None, 5, ["lora"]):
        with pytest.raises(
            ValueError, match=f"no published counts for {re.escape(repr(none))}; there are some for lora"
        ):
            paper_counts(none)
    kinds = {"adapter-L", "adapter-H", "houlsby adapter", "pfeiffer adapter"}
    assert set(paper_counts("adapter").method) == kinds  # a part of their names
    assert "method" not in paper_counts("prefix")  # a name of its own, though prefix-embed has it as a part


def test_a_count_does_not_depend_on_the_task_head():
    """The papers' tables leave the head out, so a classifier gives the same figure once its head is taken off."""
    bare = count(LoRA(rank=8).attach(architecture("roberta-base")))
    classifier = count(LoRA(rank=8).attach(architecture("roberta-base", labels=2)))
    assert classifier.head > 0 and classifier.trainable - classifier.head == bare.trainable == 294_912
