"""What files of one's own may hold: read as it was meant, or refused with the file, the line and the mend."""

import json
import os
import re

import pytest

from peft_edu import PTuning
from peft_edu.lab import backbone
from peft_edu.lab.tasks.task import task

ROWS = [{"text": f"text {i}", "label": i % 2} for i in range(20)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def folder(tmp_path, about=None, **splits):
    for name, content in splits.items():
        written(tmp_path / "mine" / name.replace("_", "."), content)
    if about is not None:
        written(tmp_path / "mine" / "task.json", about if isinstance(about, (str, bytes)) else json.dumps(about))
    return tmp_path / "mine"


@pytest.mark.parametrize(
    "name, content, message",
    [
        # a comma that is not quoted, and what else shifts the cells of a table
        ("a.csv", "text,label\nThe soup was good, but cold,b\n", "line 2: 3 cells, but 2 columns; .* quotation marks"),
        ("a.csv", 'text,label\n"two\nlines",0\nfine,it was,1\n', "line 4: 3 cells, but 2 columns"),
        ("a.csv", "label,text\n1,fine,\n", "line 2: 3 cells, but 2 columns"),
        ("a.tsv", "text\tlabel\nx\t1\t2\n", "line 2: 3 cells, but 2 columns"),
        ("a.csv", "text,label,text\nx,1,y\n", "line 1: two columns are called 'text'"),
        ("a.csv", "\ntext,label, label\nx,1,2\n", "line 2: two columns are called 'label'"),
        ("a.csv", 'text,label\nfine,1\n"open,0\n' + "x,1\n" * 50_000, "line 3: unexpected end of data; is a quotation"),
        ("a.csv", 'text,label\n"so called" food,1\n', "line 2: .* expected after .*; is a quotation mark open here"),
        # what is no text in UTF-8
        ("a.csv", "text,label\nfine,1\ntr\u00e8s bien,1\n".encode("latin-1"), "line 3: no text in UTF-8"),
        ("a.csv", "text,label\nfine,1\n".encode("utf-16"), "line 1: no text in UTF-8"),
        ("a.csv", "text,label\nfine,1\n".encode("utf-16-le"), "line 1: no text in UTF-8"),
        ("a.jsonl", '{"text": "tr\u00e8s bien", "label": 1}\n'.encode("cp1252"), "line 1: no text in UTF-8"),
        ("a.csv", bytes(range(255, 0, -1)), "line 1: no text in UTF-8"),
        # JSON that is none, or deeper than anybody reads
        ("a.jsonl", lines(ROWS[:1]) + '{"text": "open\n', "line 2: not valid JSON .Unterminated string"),
        ("a.jsonl", '{"text": ' + "[" * 100_000 + "\n", "line 1: not valid JSON .maximum recursion"),
        ("a.jsonl", '{"text": "x", "label": ' + "1" * 5000 + "}\n", "line 1: not valid JSON .Exceeds the limit"),
        # cells that are no texts
        ("a.jsonl", '{"text": 5, "label": 1}\n', "line 1: 5 under 'text', where a text must stand"),
        ("a.jsonl", '{"text": ["x", "y"], "label": 1}\n', r"line 1: \['x', 'y'\] under 'text', where a text"),
        ("a.jsonl", '{"text": {"a": 1}, "label": 1}\n', "line 1: .* under 'text', where a text must stand"),
        ("a.jsonl", '{"text": "x", "second": 5, "label": 1}\n', "line 1: 5 under 'second', where a text must stand"),
        ("a.jsonl", '{"text": "  ", "label": 1}\n', "line 1: nothing under 'text'"),
        ("a.csv", "text,label\nfine,1\nfine\n", "line 3: nothing under 'label'"),
        ("a.jsonl", '{"text": "x", "label": [1]}\n', r"line 1: \[1\] under 'label'"),
        ("a.jsonl", '{"text": "x", "label": 0.5}\n', "line 1: 0.5 under 'label'"),
        ("a.jsonl", '{"text": "x", "label": true}\n', "line 1: True under 'label'"),
        ("a.jsonl", '{"text": "x", "label": NaN}\n', "line 1: nothing under 'label'"),
        ("a.csv", "text,label\nx,nan\n", "line 2: nothing under 'label'"),
        ("a.csv", "text,label\nx,   \n", "line 2: nothing under 'label'"),
        ("a.jsonl", '{"words": 5, "tags": ["O"]}\n', "line 1: 5 under 'words', where a list of texts must stand"),
        ("a.jsonl", '{"words": [null], "tags": ["O"]}\n', r"line 1: \[None\] under 'words'"),
        ("a.jsonl", '{"words": [], "tags": []}\n', "line 1: nothing under 'words'"),
        ("a.jsonl", '{"words": ["a"], "tags": {"a": 1}}\n', "line 1: .* under 'tags', where a list of texts"),
        ("a.jsonl", '{"source": 5, "target": "x"}\n', "line 1: 5 under 'source', where a text must stand"),
        ("a.jsonl", '{"source": "x", "target": "y", "slots": ["z"]}\n', "line 1: .* under 'slots', where"),
        ("a.jsonl", '{"source": "x", "target": "y", "slots": "z"}\n', "line 1: 'z' under 'slots', where a text must"),
        ("a.jsonl", '{"source": "x", "target": "y", "slots": {"n": 5}}\n', "line 1: .* under 'slots', where"),
        ("a.jsonl", '{"subject": "x", "answer": 5}\n', "line 1: 5 under 'answer', where a text must stand"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_told_with_file_and_line(tmp_path, name, content, message):
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ",? .*" * (message[0] != ",") + message):
        task(path)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "with Excel's mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_of_unicode_and_ends_of_lines_are_no_rows(tmp_path, start, end):
    """U+2028 and U+0085 may stand in a string of JSON, and are no ends of lines."""
    texts = ["one\u2028two", "one\u0085two", "one\x0btwo".replace("\x0b", " "), "tr\u00e8s bien"]
    content = end.join(json.dumps({"text": text, "label": 0}, ensure_ascii=False) for text in texts)
    written(tmp_path / "j" / "train.jsonl", start + content.encode())
    written(tmp_path / "c" / "train.csv", start + end.join(["text,label", *(f"{text},0" for text in texts)]).encode())
    for place in (tmp_path / "j", tmp_path / "c"):
        assert [row["text"] for row in task(place).rows("train")] == texts


def test_an_ending_in_capitals_is_the_same_kind_of_file(tmp_path):
    written(tmp_path / "c" / "train.CSV", 'text,label\n"one, two",0\n')
    written(tmp_path / "t" / "train.Tsv", 'text\tlabel\n"one, two\t0\n')
    written(tmp_path / "j" / "train.JSONL", lines([{"text": "one, two", "label": 0}]))
    read = {place: task(tmp_path / place).rows("train") for place in "ctj"}
    assert {place: [row["text"] for row in rows] for place, rows in read.items()} == {
        "c": ["one, two"],
        "t": ['"one, two'],
        "j": ["one, two"],
    }
    written(tmp_path / "c" / "train.tsv", "text\tlabel\nx\t0\n")
    with pytest.raises(ValueError, match="c has train.CSV and train.tsv: a split is one file"):
        task(tmp_path / "c")


def test_a_long_document_is_read_from_every_kind_of_file(tmp_path):
    long = "word " * 40_000
    written(tmp_path / "c" / "train.csv", f'text,label\n"{long}, said",0\n')
    written(tmp_path / "t" / "train.tsv", f"text\tlabel\n{long}, said\t0\n")
    written(tmp_path / "j" / "train.jsonl", lines([{"text": f"{long}, said", "label": 0}]))
    for place in "ctj":
        assert task(tmp_path / place).rows("train") == [{"text": f"{long}, said", "label": 0}]


def test_blanks_around_a_label_or_a_column_are_no_part_of_it(tmp_path):
    labels = ["pos", "pos ", " neg", "neg", " very  good", "very good"]
    rows = "".join(f"x,{label}\n" for label in labels)
    data = task(folder(tmp_path, train_csv=f"text, label\n{rows}"))
    assert data.labels == ["neg", "pos", "very good"]
    assert [row["label"] for row in data.rows("train")] == [1, 1, 0, 0, 2, 2]


@pytest.mark.parametrize("one, other", [("True", "true"), ("caf\u00e9", "cafe\u0301"), ("\uff30\uff4f\uff53", "pos")])
def test_labels_that_look_alike_are_refused(tmp_path, one, other):
    with pytest.raises(ValueError, match="train.csv: the labels .* and .* look alike; write them as one"):
        task(folder(tmp_path, train_csv=f"text,label\nx,{one}\ny,{other}\nz,else\n"))
    with pytest.raises(ValueError, match="look alike"):
        task(folder(tmp_path, {"labels": ["neg", one, other]}, train_csv="text,label\nx,0\n"))


def test_a_label_that_no_training_row_has_is_told_with_its_line(tmp_path):
    with pytest.raises(ValueError, match="test.csv, line 3: unknown label 'Pos'; known are neg, pos"):
        task(folder(tmp_path, train_csv="text,label\nx,pos\ny,neg\n", test_csv="text,label\nx,pos\ny,Pos\n"))


def test_labels_that_task_json_names_may_be_numbers_or_names(tmp_path):
    about = {"name": "opinions", "labels": ["neg", "pos"]}
    data = task(folder(tmp_path, about, train_jsonl=lines([{"text": "x", "label": each} for each in (0, "1", "neg")])))
    assert data.labels == ["neg", "pos"] and [row["label"] for row in data.rows("train")] == [0, 1, 0]


def test_tags_that_are_numbers_need_names(tmp_path):
    """Without them nobody knows that 0 is no entity."""
    rows = lines([{"words": ["Rosa", "ran", "."], "tags": [1, 0, 0]}, {"words": ["Rosa", "Lux"], "tags": [1, 2]}])
    with pytest.raises(ValueError, match='train.jsonl: tags that are numbers need names in task.json: "labels"'):
        task(folder(tmp_path, train_jsonl=rows))
    with pytest.raises(ValueError, match="tags that are numbers need names"):
        task(written(tmp_path / "one.csv", "words,tags\n" + "Rosa ran,1 0\n" * 10))
    data = task(folder(tmp_path, {"labels": ["O", "B-PER", "I-PER"]}, train_jsonl=rows))
    assert [row["tags"] for row in data.rows("train")] == [[1, 0, 0], [1, 2]] and data.labels[0] == "O"
    with pytest.raises(ValueError, match="train.jsonl, line 2: unknown tag '2'; known are O, B-PER"):
        task(folder(tmp_path, {"labels": ["O", "B-PER"]}, train_jsonl=rows))


def test_a_split_is_one_file_and_all_are_of_one_kind(tmp_path):
    place = folder(tmp_path, train_csv="text,label\nx,1\ny,0\n", **{"._train_csv": b"\0\5\x16\7", ".hidden_jsonl": "x"})
    written(place / "._train.csv", b"\0\5\x16\7")  # what a zip of macOS has beside each file
    assert task(place).splits == {"train": [{"text": "x", "label": 1}, {"text": "y", "label": 0}]}
    written(place / "notes.csv", "remark,by\nlook,me\n")
    with pytest.raises(ValueError, match="notes.csv has the columns by, remark; needed are"):
        task(place)
    written(place / "notes.csv", "source,target\nlook,me\n")
    with pytest.raises(ValueError, match="one file has rows to classify, another to generate"):
        task(place)
    (place / "notes.csv").unlink()
    written(place / "train.jsonl", lines(ROWS))
    with pytest.raises(ValueError, match="mine has train.csv and train.jsonl: a split is one file"):
        task(place)


def test_what_is_no_file_on_a_disk_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "random.tsv").symlink_to("/dev/urandom")
    (tmp_path / "in" / "train.csv").mkdir(parents=True)
    os.mkfifo(folder(tmp_path, train_csv="text,label\nx,1\n") / "task.json")
    for place in ("x.csv", "zero.jsonl", "random.tsv", "in", "mine"):
        with pytest.raises(ValueError, match="is no regular file"):
            task(tmp_path / place)


def test_a_file_that_is_too_large_is_refused_by_its_size(tmp_path):
    path = tmp_path / "sparse.jsonl"
    with path.open("wb") as file:
        file.truncate(4_000_000_000)
    with pytest.raises(ValueError, match="sparse.jsonl has 4,000.0 MB; it is read whole, so it may have 200 at most"):
        task(path)
    about = {"name": "x", "description": "y" * 10_000_000}
    with pytest.raises(ValueError, match="task.json has 10.0 MB; .* 0.1 at most"):
        task(folder(tmp_path, about, train_csv="text,label\nx,1\n"))


@pytest.mark.parametrize(
    "about, message",
    [
        ("{", "not valid JSON"),
        ("[" * 50_000, "not valid JSON"),
        ("[]", "each line is one object"),
        ({"labels": "ab"}, "'labels' is 'ab', but must be of the form \\[\"bad\", \"good\"\\]"),
        ({"labels": 2}, "'labels' is 2"),
        ({"labels": [0, 1]}, r"'labels' is \[0, 1\]"),
        ({"baselines": "none"}, "'baselines' is 'none', but must be of the form {\"majority\": 0.5"),
        ({"name": 5}, "'name' is 5, but must be of the form"),
        ({"template": 5}, "'template' is 5"),
        ({"templates": {"town": "{subject}"}}, "'templates' is"),
        ({"description": None}, "'description' is None"),
        ("tr\u00e8s bien".encode("latin-1"), "line 1: no text in UTF-8"),
    ],
)
def test_task_json_is_checked(tmp_path, about, message):
    with pytest.raises(ValueError, match="task.json.*" + message):
        task(folder(tmp_path, about, train_csv="text,label\nx,1\ny,0\n"))


def test_task_json_may_say_nothing(tmp_path):
    data = task(folder(tmp_path, {"rows": {"train": 2}}, train_csv="text,label\nx,1\ny,0\n"))
    assert data.name == "mine" and data.labels == ["0", "1"]


@pytest.mark.parametrize(
    "template", ["{subject:>2000000000} [MASK]", "{subject.__class__} [MASK]", "{subject!r:>9} [MASK]"]
)
def test_a_template_that_is_a_programme_is_refused(tmp_path, template):
    data = task(folder(tmp_path, {"template": template}, train_jsonl=lines([{"subject": "Rosa", "answer": "Selby"}])))
    _, tokenizer = backbone("tiny-bert")
    with pytest.raises(ValueError, match="subject"):
        data.batches(tokenizer, "train")
    assert data.asked_by(PTuning("[P] {subject} [MASK]")).template == "[P] {subject} [MASK]"


def test_nothing_that_a_terminal_obeys_is_printed(tmp_path):
    about = {"name": "\x1b[2Jgone\x07", "description": "\u202eright to left", "labels": ["\x1b[31mred", "\x9b31mblue"]}
    shown = repr(task(folder(tmp_path, about, train_jsonl=lines([{"text": "\x1b]0;title\x07", "label": 0}]))))
    assert not set(shown) & set("\x1b\x07\x9b\u202e") and "gone" in shown and "right to left" in shown


@pytest.mark.parametrize("name", [None, 5, b"reviews", ["reviews"], True])
def test_a_name_that_is_none_is_told(name):
    with pytest.raises(TypeError, match="name is .*, but must be a task's name, the path"):
        task(name)


@pytest.mark.parametrize("name", ["no\0file", "x" * 5000, "~nobody-is-called-so/x.csv", ""])
def test_a_name_that_no_file_has_is_told(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match="no task|needs train.jsonl"):
        task(name)
