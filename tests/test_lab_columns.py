"""Which column is which: names in common use, names that are said, and rows of 🤗 datasets."""

import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, Sequence, Value

from peft_edu.lab import task

SENTIMENT = [{"sentence": f"soup {i}", "label": i % 2} for i in range(20)]
SWAPPED = {"text": "label", "label": "text"}
NAMED = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})


def written(path, rows, name="mine.jsonl"):
    (path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path / name


@pytest.mark.parametrize(
    "row, kind, columns",
    [
        ({"sentence": "a", "sentiment": "good"}, "classify", {"text": "sentence", "label": "sentiment"}),
        ({"premise": "a", "hypothesis": "b", "label": "yes"}, "classify", {"text": "premise", "second": "hypothesis"}),
        ({"text": "a", "sentence2": "b", "label": "yes"}, "classify", {"second": "sentence2"}),
        ({"question1": "a", "question2": "b", "label": 1}, "classify", {"text": "question1", "second": "question2"}),
        ({"review": "a", "stars": 5}, "classify", {"text": "review", "label": "stars"}),
        ({"tokens": ["a", "b"], "ner_tags": ["O", "B-PER"]}, "tag", {"words": "tokens", "tags": "ner_tags"}),
        ({"tokens": ["a", "b"], "labels": ["O", "B-PER"]}, "tag", {"words": "tokens", "tags": "labels"}),
        ({"document": "a b c", "summary": "a"}, "generate", {"source": "document", "target": "summary"}),
        ({"text": "a", "label": "good"}, "classify", {}),
        ({"source": "a", "target": "b", "summary": "c"}, "generate", {}),
    ],
)
def test_names_in_common_use_are_known_and_shown(tmp_path, row, kind, columns):
    data = task(written(tmp_path, [row] * 10))
    assert data.kind == kind and data.columns == columns
    for ours, theirs in columns.items():
        assert f"{ours} is {theirs!r}" in repr(data)
        assert theirs not in data.rows("train")[0]
    assert ("columns: " in repr(data)) == bool(columns)


def test_columns_can_be_said(tmp_path):
    path = written(tmp_path, [{"body": f"a {i}", "text": "an id", "mark": "x"} for i in range(10)])
    data = task(path, columns={"text": "body", "label": "mark"})
    assert data.kind == "classify" and data.rows("train")[0]["text"].startswith("a ")
    assert data.columns == {"text": "body", "label": "mark"}


def test_two_columns_can_be_said_the_other_way_round(tmp_path):
    data = task(written(tmp_path, [{"text": "good", "label": f"a {i}"} for i in range(10)]), columns=SWAPPED)
    assert data.labels == ["good"] and data.rows("train")[0]["text"].startswith("a ")


@pytest.mark.parametrize(
    "said, message",
    [
        ({"text": "boddy"}, "mine.jsonl has no column 'boddy'; it has body, mark"),
        ({"txt": "body"}, "columns names 'txt'; a task can have text, second, label"),
        (
            {"text": "body"},
            'has the columns body, mark; needed are text and label to classify.*columns={"text": "body"}',
        ),
        (None, "mine.jsonl has the columns body, mark; needed are"),
    ],
)
def test_what_is_not_known_is_asked_for(tmp_path, said, message):
    path = written(tmp_path, [{"body": "a", "mark": "x"}] * 10)
    with pytest.raises(ValueError, match=message):
        task(path, columns=said)


def test_a_row_that_lacks_a_column_is_told_with_its_line(tmp_path):
    path = written(tmp_path, [{"sentence": "a", "label": 1}, {"label": 0}] * 5)
    with pytest.raises(ValueError, match="mine.jsonl, line 2: nothing under 'text'"):
        task(path)


def test_a_dataset_is_a_task_and_its_labels_have_their_names():
    data = task(Dataset.from_list(SENTIMENT, features=NAMED))
    assert data.labels == ["bad", "good"] and data.columns == {"text": "sentence"}
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    for row in data.rows("train"):
        assert row["label"] == int(row["text"].split()[1]) % 2


def test_a_dict_of_datasets_keeps_its_splits_and_leaves_out_what_has_no_labels():
    splits = {name: Dataset.from_list(SENTIMENT, features=NAMED) for name in ("train", "validation")}
    hidden = Dataset.from_list([row | {"label": -1} for row in SENTIMENT], features=NAMED)
    data = task(DatasetDict(splits | {"test": hidden}))
    assert list(data.splits) == ["train", "validation"] and len(data.rows("train")) == 20


def test_tags_of_a_dataset_have_their_names():
    tags = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=["O", "B-PER"]))})
    data = task(Dataset.from_list([{"tokens": ["a", "b"], "ner_tags": [0, 1]}] * 10, features=tags))
    assert data.kind == "tag" and data.labels == ["O", "B-PER"] and data.rows("train")[0]["tags"] == [0, 1]


def test_conversations_of_a_dataset():
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]}] * 10
    assert task(Dataset.from_list(rows)).rows("train")[0]["target"] == "ok"


def test_what_a_dataset_cannot_give_is_told():
    with pytest.raises(ValueError, match="the split 'train' is streamed: take rows first"):
        task(IterableDataset.from_generator(lambda: iter(SENTIMENT), features=NAMED))
    with pytest.raises(ValueError, match="a task needs a split 'train'; this data set has test"):
        task(DatasetDict({"test": Dataset.from_list(SENTIMENT)}))
    with pytest.raises(ValueError, match="the split train, line 2: nothing under 'label'"):
        task(Dataset.from_list([row | {"label": [1, -1][i % 2]} for i, row in enumerate(SENTIMENT)], features=NAMED))
    with pytest.raises(ValueError, match="the data set has the columns idx, remark"):
        task(Dataset.from_list([{"idx": 1, "remark": "a"}] * 10))
    with pytest.raises(TypeError, match="must be a task's name, the path of a file or folder, or a Dataset"):
        task(3)
