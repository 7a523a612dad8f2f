"""Read a task from files: .jsonl, .csv or .tsv, one file a split, or a single file that is split here.

Columns are `text, label` to classify (and `second`, for pairs of texts), `words, tags` to tag (lists, or texts that
blanks divide), `source, target` to generate (and `slots`, if you have them), `messages` to chat (see chat.py for other
names), `answer` beside any others to fill, `prompt, chosen, rejected` of preferences (see preference.py), and `text`
alone, which is unlabelled.
Other names that are in common use are known too: see columns.py. Every error names the file and the line.
"""

import csv
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from unicodedata import normalize

from peft_edu.lab.tasks import hub_dataset
from peft_edu.lab.tasks.chat import conversation
from peft_edu.lab.tasks.columns import NEEDS, kind_and_names, renamed
from peft_edu.lab.tasks.preference import preference

SUFFIXES = (".jsonl", ".csv", ".tsv")
LARGEST = 200_000_000  # bytes: a task is read whole, and its rows take nine times as much memory
ABOUT = {  # what task.json may say, and how that looks
    **dict.fromkeys(("name", "description", "separator", "template"), "a text"),
    "labels": ["bad", "good"],
    "baselines": {"majority": 0.5, "nobody": 0},
    "templates": {"birthplace": ["{subject} was born in [MASK]."]},
}
Rows = list[tuple[int, dict]]  # each with the line where it begins


@dataclass
class Read:
    """What the rows of all splits are: their kind, the labels, and which of their columns are called otherwise."""

    kind: str
    labels: list[str]
    splits: dict[str, list[dict]]
    columns: dict[str, str]


def read_splits(place: Path, labels: list[str], said: Mapping[str, str]) -> Read:
    """From a folder with a train file, or from one file, which is split here."""
    files = _split_files(place) if place.is_dir() else {"train": place}
    read = _read({split: (str(path), _rows_of(path)) for split, path in files.items()}, labels, said, place)
    if not place.is_dir():
        read.splits = _split_rows(read.splits["train"], place)
    return read


def read_dataset(given: object, said: Mapping[str, str]) -> Read:
    """From a 🤗 Dataset, which is split here, or a DatasetDict. A split of which no row has its label is left out."""
    data = hub_dataset.splits_of(given)
    _, names = kind_and_names(data["train"].column_names, said, "the data set")
    column = next(
        (name for ours in ("label", "tags") if (name := names.get(ours, ours)) in data["train"].column_names), ""
    )
    labels = hub_dataset.label_names(data["train"], column)
    named = {-1: None} | dict(enumerate(labels))  # -1: not told, as in the test splits of GLUE
    sources = {}
    for split, each in data.items():
        rows = [(line, dict(row)) for line, row in enumerate(each, start=1)]
        for _, row in rows if labels else ():
            listed = isinstance(row[column], list)
            row[column] = (
                [named.get(tag, tag) for tag in row[column]] if listed else named.get(row[column], row[column])
            )
        if rows and (split == "train" or any(row.get(column, "") is not None for _, row in rows)):
            sources[split] = f"the split {split}", rows
    read = _read(sources, labels, said, "the data set")
    if len(data) == 1:
        read.splits = _split_rows(read.splits["train"], "the data set")
    return read


def _read(sources: dict[str, tuple[str, Rows]], labels: list[str], said: Mapping[str, str], place: object) -> Read:
    """`sources`: by split, where the rows come from, in words, and the rows with their lines."""
    found = {split: kind_and_names(rows[0][1], said, where) for split, (where, rows) in sources.items()}
    (kind, columns), *others = found.values()
    if other := next((each for each, _ in others if each != kind), None):
        raise ValueError(f"{place}: one file has rows to {kind}, another to {other}; a task is of one kind")
    read = [
        (where, [(line, _row(row, kind, found[split][1], f"{where}, line {line}")) for line, row in rows])
        for split, (where, rows) in sources.items()
    ]
    labels = _number_labels(read, NEEDS[kind][1], labels) if kind in ("classify", "tag") else []
    splits = {split: [row for _, row in rows] for split, (_, rows) in zip(sources, read, strict=True)}
    return Read(kind, labels, splits, columns)


def read_about(path: Path) -> dict:
    """What task.json says of a task; its other entries are for readers."""
    known = _json_object("".join(_lines(path, largest=100_000)), str(path)) if path.exists() else {}
    told = {key: known[key] for key in ABOUT if key in known}
    for key, value in told.items():
        if not _made_of(value) <= _made_of(ABOUT[key]):
            raise ValueError(f"{path}: {key!r} is {value!r:.80}, but must be of the form {json.dumps(ABOUT[key])}")
    return told


def _made_of(value: object) -> set[str]:
    """["bad", "good"] is made of 'list' and 'list of str'."""
    kind, parts = type(value).__name__, {dict: dict.values, list: iter}.get(type(value), lambda _: ())(value)
    return {kind} | {f"{kind} of {inside}" for part in parts for inside in _made_of(part)}


def _split_files(folder: Path) -> dict[str, Path]:
    # A zip from macOS has a ._train.csv, which is none, beside train.csv.
    paths = sorted(path for path in folder.iterdir() if _suffix(path) in SUFFIXES and not path.name.startswith("."))
    files: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: [path.stem != usual for usual in ("train", "validation", "test")]):
        if files.setdefault(path.stem, path) != path:
            raise ValueError(f"{folder} has {files[path.stem].name} and {path.name}: a split is one file")
    if "train" not in files:
        found = ", ".join(path.name for path in paths) or "no such file"
        raise FileNotFoundError(f"{folder} needs train.jsonl, train.csv or train.tsv; it has {found}")
    return files


def _suffix(path: Path) -> str:
    return path.suffix.lower()  # Excel and Windows may write .CSV


def _split_rows(rows: list[dict], place: Path) -> dict[str, list[dict]]:
    """80% to train, 10% to choose settings on, 10% to test: always the same rows, whatever their order means."""
    if len(rows) < 10:
        raise ValueError(f"{place} has {len(rows)} rows; to make train, validation and test of it, it needs 10 or more")
    rows = random.Random(0).sample(rows, len(rows))
    tenth = len(rows) // 10
    return {"train": rows[2 * tenth :], "validation": rows[:tenth], "test": rows[tenth : 2 * tenth]}


def _rows_of(path: Path) -> Rows:
    if _suffix(path) not in SUFFIXES:
        raise ValueError(f"{path}: a task is read from {', '.join(SUFFIXES)}, not from {path.suffix or 'such a file'}")
    rows = list(_json_rows(path) if _suffix(path) == ".jsonl" else _table_rows(path))
    if not rows:
        raise ValueError(f"{path} is empty: it needs a row for each example")
    return rows


def _row(row: dict, kind: str, names: Mapping[str, str], where: str) -> dict:
    """The row as a task has it."""
    row = renamed(row, names)
    if kind in ("chat", "prefer"):
        return (conversation if kind == "chat" else preference)(row, where)
    _check_row(row, kind, where)
    return row


def _check_row(row: dict, kind: str, where: str) -> None:
    """Refuse what no task can use. Words and tags become lists, labels are freed of blanks around them."""
    row |= {column: _cell(row, column, where) for column in NEEDS[kind]}
    if kind == "classify" and row.get("second"):
        _cell(row, "second", where)
    if kind == "tag" and len(row["words"]) != len(row["tags"]):
        raise ValueError(f"{where}: {len(row['words'])} words, but {len(row['tags'])} tags")
    if kind == "generate" and not _made_of(row.get("slots", {})) <= {"dict", "dict of str"}:
        raise ValueError(f"{where}: {row['slots']!r:.60} under 'slots', where a text must stand for each name")


def _cell(row: dict, column: str, where: str) -> str | list[str]:
    """The text that stands in a column, or the list of words or tags. Labels and tags may be numbers."""
    value, named, listed = row.get(column), column in ("label", "tags"), column in ("words", "tags")
    if value in (None, []) or str(value).strip().lower() in ("", "nan"):  # nan: pandas had nothing to write
        raise ValueError(f"{where}: nothing under {column!r}")
    parts = value.split() if listed and isinstance(value, str) else value if listed else [value]
    if not isinstance(parts, list) or not {type(part) for part in parts} <= {str, int if named else str}:
        expected = "a list of texts" if listed else "a text"
        raise ValueError(f"{where}: {value!r:.60} under {column!r}, where {expected} must stand")
    parts = [" ".join(str(part).split()) for part in parts] if named else parts
    return parts if listed else parts[0]


def _lines(path: Path, largest: int = LARGEST) -> Iterator[str]:
    """The lines of a text in UTF-8, with their ends."""
    if not path.is_file():  # a pipe would be waited for, and a device has no end
        raise ValueError(f"{path} is no regular file")
    if (size := path.stat().st_size) > largest:
        raise ValueError(f"{path} has {size / 1e6:,.1f} MB; it is read whole, so it may have {largest / 1e6:g} at most")
    # -sig: Excel puts a mark in front of UTF-8.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, start=1):
            if re.search("[\0\udc80-\udcff]", line):
                raise ValueError(f'{path}, line {number}: no text in UTF-8; save the file so, in Excel as "CSV UTF-8"')
            yield line


def _json_object(text: str, where: str) -> dict:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON ({str(error).replace('line 1 ', '')})") from None
    if not isinstance(found, dict):
        raise ValueError(f'{where}: each line is one object such as {{"text": "...", "label": 1}}')
    return found


def _json_rows(path: Path) -> Iterator[tuple[int, dict]]:
    for line, text in enumerate(_lines(path), start=1):
        if text.strip():
            yield line, _json_object(text.strip(), f"{path}, line {line}")


def _table_rows(path: Path) -> Iterator[tuple[int, dict]]:
    # A .tsv has no quoting: a quotation mark in it is part of the sentence.
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if _suffix(path) == ".tsv" else {"strict": True}
    csv.field_size_limit(LARGEST)
    reader, header, line = csv.reader(_lines(path), **style), [], 1
    try:
        for cells in reader:
            if not header:
                header = [name.strip() for name in cells]
                if twice := [name for name in header if name and header.count(name) > 1]:
                    raise ValueError(f"{path}, line {line}: two columns are called {twice[0]!r}")
            elif len(cells) > len(header):
                many = f"{len(cells)} cells, but {len(header)} columns"
                raise ValueError(f"{path}, line {line}: {many}; a text with a comma needs quotation marks around it")
            elif cells:
                yield line, {name: cell for name, cell in zip_longest(header, cells, fillvalue="") if name}
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}; is a quotation mark open here?") from None


def _number_labels(read: list[tuple[str, Rows]], column: str, named: list[str]) -> list[str]:
    """Put a number in the place of each label: of those that task.json names, or of those in the train rows."""
    listed = {"label": lambda row: [row["label"]], "tags": lambda row: row["tags"]}[column]
    first, rows = read[0]
    found = {name for _, row in rows for name in listed(row)}
    if not named and column == "tags" and all(map(str.isdecimal, found)):
        raise ValueError(f'{first}: tags that are numbers need names in task.json: "labels": ["O", "B-PER"]')
    labels = named or sorted(found, key=lambda name: (name != "O", name.zfill(9) if name.isdecimal() else name, name))
    seen: dict[str, str] = {}
    for label in labels:
        if (key := normalize("NFKC", label).casefold()) in seen:
            raise ValueError(f"{first}: the labels {seen[key]!r} and {label!r} look alike; write them as one")
        seen[key] = label
    numbers = {label: i for i, label in enumerate(labels)} | {str(i): i for i in range(len(named))}
    for where, rows in read:
        for line, row in rows:
            if unknown := [name for name in listed(row) if name not in numbers]:
                what, known = column.removesuffix("s"), ", ".join(labels)
                raise ValueError(f"{where}, line {line}: unknown {what} {unknown[0]!r}; known are {known:.300}")
            found = [numbers[name] for name in listed(row)]
            row[column] = found if column == "tags" else found[0]
    return labels
