"""What a lesson says that a paper reports stands in data/claims.csv, with its table, its model and its task.

A sentence that names a paper may hold no number that is not in a row of its lesson there, or, where the lesson recounts
parameters, in data/papers.csv. Our own figures therefore stand in sentences of their own.
"""

import ast
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from peft_edu.lab.measure.papers import published

ROOT = Path(__file__).parents[1]
LESSONS = {path.stem[:2]: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
CLAIMS = pd.read_csv(ROOT / "data" / "claims.csv", dtype=str)
ROWS = [row for _, row in CLAIMS.iterrows()]

A_PAPER = re.compile(  # how lessons name a paper: in words, by its authors, its places, its data sets and models
    r"\b(papers?|authors?|survey|tables? \d\w*|figures? \d\w*|printed|Houlsby|Ben Zaken|Pfeiffer|Liang|Lester|Liu|"
    r"Hu et al|LoRA's|Lialin|He et al|Kalajdzievski|AutoPrompt|BLEU|MNLI|CoLA|\w*GLUE|LAMA|E2E|WikiSQL|"
    r"TextbookQA|T5-XXL|Christiano|Ouyang|Rafailov|Schulman|Shao|Gao et al|Pal et al)\b"
)
OURS = re.compile(r"\b([Hh]ere|[Oo]urs?)\b")
NO_FIGURE = re.compile(  # digits that report nothing: places, years, names of models and methods, our own lessons
    r"\[\d\d · [^]]*\]\([^)]*\)|\]\([^)]*\)|arXiv:[\d.]+|\b(?:19|20)\d\d\b|"
    r"(?:tables?|figures?|sections?|lessons?) \d[\w.]*(?:(?:, | and | to )\d[\w.]*)*|"
    r"GPT-\d|E2E|\bT5|\bv[12]\b|[Vv]ersion [12]\b|`[^`]*`|^## \d+"
)
A_BREAK = re.compile(r"(?<!et al)[.?!:][)*]*\s+(?=[A-Z*`(\"$])|\n- ")  # between sentences
PLACE = re.compile(r"(table|figure|section) (\d+(?:\.\d+)?)")


def passages(path):
    """(cell's text, sentence) for all that may tell of a paper; of code the argument `paper` and titles in quotes."""
    for cell in nbformat.read(path, as_version=4).cells:
        found = prose(cell.source) if cell.cell_type == "markdown" else plotted(cell.source)
        yield from ((cell.source, " ".join(sentence.split())) for sentence in found)


def prose(text):
    named = False
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith(("**References", "**Paper:", "**Papers:")):
            continue
        if paragraph.startswith("|"):  # a table belongs to what was said above it
            yield from [paragraph] if named else []
            continue
        naming = list(about_papers(A_BREAK.split(paragraph)))
        yield from naming
        named = bool(naming)


def about_papers(sentences):
    """Those that name a paper; after a beginning in bold that does, all up to where we speak of ours."""
    beside = sentences[0].startswith("**") and A_PAPER.search(sentences[0])
    for sentence in sentences:
        beside = beside and not OURS.search(sentence)
        if beside or A_PAPER.search(sentence):
            yield sentence


def plotted(code):
    tree = ast.parse(re.sub(r"^[%!].*", "", code, flags=re.MULTILINE))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "paper" and not isinstance(node.value, ast.Name):
            yield ast.get_source_segment(code, node.value)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "paper":
            yield ast.get_source_segment(code, node.value)


def recounted(lesson):
    """The published counts that a lesson shows beside its own."""
    asked = re.findall(r'paper_counts\(\\?"([^"\\]+)', LESSONS[lesson].read_text(encoding="utf-8"))
    rows = published()
    rows = rows[[any(name in method for name in asked) for method in rows.method]]
    numbers = [*rows.published_as, *(f"{int(count):,}" for count in rows.trainable)]
    return {re.sub(r"[^\d.,]", "", number) for number in numbers}


def uncovered(sentence, lesson):
    """The numbers of a sentence that no row of this lesson has."""
    for text in sorted(CLAIMS.text[CLAIMS.lesson == lesson], key=len, reverse=True):
        sentence = sentence.replace(text, "")
    numbers = re.findall(r"\d(?:[\d.,]*\d)?", NO_FIGURE.sub("", sentence))
    return [number for number in numbers if number not in recounted(lesson)]


def told(row):
    return [(cell, sentence) for cell, sentence in passages(LESSONS[row.lesson]) if row.text in sentence]


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_figure_of_a_paper_in_a_lesson_has_its_source(lesson):
    without = {
        sentence: missing for _, sentence in passages(LESSONS[lesson]) if (missing := uncovered(sentence, lesson))
    }
    assert not without, f"not in data/claims.csv: {without}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.lesson}: {row.text[:40]}")
def test_a_row_says_where_it_was_read_and_its_lesson_says_it(row):
    assert (
        row.notna().all() and re.search(r"\d", row.text) and row.seen in ("in the paper", "in the code", "from memory")
    )
    assert told(row), f"lesson {row.lesson} has no sentence about a paper that says {row.text!r}"
    for cell, sentence in told(row):
        places = PLACE.findall(sentence)
        assert not places or set(places) & set(PLACE.findall(row.place)), (sentence, row.place)
        near = cell if sentence.startswith("|") else sentence  # a table has it in the words above
        assert row.seen != "from memory" or "from memory" in " ".join(near.split())


def test_a_figure_without_a_source_is_found():
    assert uncovered("Houlsby et al. reach 75.1 on 17 tasks (table 2).", "03") == ["75.1", "17"]
    assert uncovered("In 2019 the authors of GPT-2 say so in tables 2 and 3, see lesson 04.", "03") == []
    assert [*prose("We see 5. The paper sees 6.\n\n| a | 7 |")] == ["The paper sees 6.", "| a | 7 |"]
    assert [*plotted("show(bars(ours, paper={'q': 70.4}))\npaper = {8: 86.2}")] == ["{8: 86.2}", "{'q': 70.4}"]
