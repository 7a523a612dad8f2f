"""Which cells a control needs; no browser is asked."""

from controls import only_controls
from nbformat.v4 import new_code_cell, new_markdown_cell

LESSON = [
    "import lab",
    "def train():\n    return lab.fit(model, rate)",
    "model = train()",  # bound anew below, before the card reads it
    "rate = lab.best(train())",
    "model = lab.backbone()",
    "model.mean()",
    "class Bench:\n    rate = rate",
    "card = RankCard(model, lambda rank: [Bench(each) for each in range(rank)])",
    "print(card)",
]


def test_a_card_needs_what_it_reads_and_what_that_reads():
    cells = [new_markdown_cell("# Rank"), *map(new_code_cell, LESSON)]
    assert [cells.index(cell) for cell in only_controls(cells)] == [0, 1, 2, 4, 5, 7, 8]


def test_a_guess_needs_nothing():
    cells = [new_code_cell(source) for source in ("x = 1", 'guess = predict("How many?")', "guess.reveal(x)")]
    assert only_controls(cells) == cells[1:2]


def test_what_is_read_before_it_is_bound_comes_from_before():
    cells = [new_code_cell(source) for source in ("runs = {}", "%time\nruns |= {1: 2}", "TableCard(runs)")]
    assert only_controls(cells) == cells
