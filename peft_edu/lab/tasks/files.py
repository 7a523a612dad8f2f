"""Read a task from files: .jsonl, .csv or .tsv, one file a split, or a single file that is split here.

Columns are `text, label` to classify (and `second`, for pairs of texts), `words, tags` to tag (lists, or texts that
blanks divide), `source, target` to generate (and `slots`, if you have them), and `answer` beside any others to fill.
Every error names the file and the line.
"""

import csv
import json
import random
from pathlib import Path

COLUMNS = {
    "classify": ("text", "label"),
    "tag": ("words", "tags"),
    "generate": ("source", "target"),
    "fill": ("answer",),
}
SUFFIXES = (".jsonl", ".csv", ".tsv")


def read_splits(place: Path) -> tuple[str, dict[str, list[dict]]]:
    """The kind of the task and the rows of its splits, from a folder with a train file or from one file."""
    if place.is_dir():
        files = {path.stem: path for path in sorted(place.iterdir(), key=_first_train) if path.suffix in SUFFIXES}
        if "train" not in files:
            found = ", ".join(path.name for path in files.values()) or "no such file"
            raise FileNotFoundError(f"{place} needs train.jsonl, train.csv or train.tsv; it has {found}")
        kinds, splits = zip(*(read_rows(path) for path in files.values()), strict=True)
        if len(set(kinds)) > 1:
            raise ValueError(f"{place}: one file has rows to {kinds[0]}, another to {kinds[-1]}; a task is of one kind")
        return kinds[0], dict(zip(files, splits, strict=True))
    kind, rows = read_rows(place)
    return kind, split_rows(rows, place)


def _first_train(path: Path):
    usual = ("train", "validation", "test")
    return (usual.index(path.stem) if path.stem in usual else len(usual), path.name)


def split_rows(rows: list[dict], place: Path) -> dict[str, list[dict]]:
    """80% to train, 10% to choose settings on, 10% to test: always the same rows, whatever their order means."""
    if len(rows) < 10:
        raise ValueError(
            f"{place} has {len(rows)} rows; to be split into train, validation and test it needs 10 or more"
        )
    rows = random.Random(0).sample(rows, len(rows))
    tenth = len(rows) // 10
    return {"train": rows[2 * tenth :], "validation": rows[:tenth], "test": rows[tenth : 2 * tenth]}


def read_rows(path: Path) -> tuple[str, list[dict]]:
    """The kind that the columns tell, and one dict a row."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: a task is read from {', '.join(SUFFIXES)}, not from {path.suffix or 'such a file'}")
    read = _read_jsonl if path.suffix == ".jsonl" else _read_table
    numbered = read(path)
    if not numbered:
        raise ValueError(f"{path} is empty: it needs a row for each example")
    columns = set(numbered[0][1])
    kind = next((kind for kind, needed in COLUMNS.items() if columns >= set(needed)), None)
    if kind is None:
        raise ValueError(
            f"{path} has the columns {', '.join(sorted(columns))}; needed are text and label to classify, "
            "words and tags to tag, source and target to generate, or an answer beside fields to fill"
        )
    for line, row in numbered:
        for column in COLUMNS[kind]:
            if row.get(column) in (None, ""):
                raise ValueError(f"{path}, line {line}: nothing under {column!r}")
        if kind == "tag":
            row |= {column: row[column].split() for column in COLUMNS["tag"] if isinstance(row[column], str)}
            if len(row["words"]) != len(row["tags"]):
                raise ValueError(f"{path}, line {line}: {len(row['words'])} words, but {len(row['tags'])} tags")
    return kind, [row for _, row in numbered]


def _read_jsonl(path) -> list[tuple[int, dict]]:
    rows = []
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {line}: not valid JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(row, dict):
            raise ValueError(f'{path}, line {line}: each line is one object such as {{"text": "...", "label": 1}}')
        rows.append((line, row))
    return rows


def _read_table(path) -> list[tuple[int, dict]]:
    # A .tsv has no quoting: a quotation mark in it is part of the sentence.
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: Excel puts a mark in front of UTF-8
        reader = csv.DictReader(file, **style)
        return [(reader.line_num, {key: value for key, value in row.items() if key}) for row in reader]
