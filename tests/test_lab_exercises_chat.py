"""Lesson 09's exercises: what is right in any style passes, and each mistake gets the sentence that teaches."""

import csv

import pytest

from peft_edu.lab import hint
from peft_edu.lab.exercises.chat_hunt import hunted_example
from peft_edu.lab.exercises.check import EXERCISES, checked
from peft_edu.lab.tasks.task import task

NAMES = ["chat.labels", "chat.few_shot", "chat.f1", "chat.hunt", "chat.own"]


def others(asked, answer, end):
    ids = []
    for part in (asked, answer, (end,)):
        ids.extend(part)
    return ids, [-100 if i < len(asked) else token for i, token in enumerate(ids)]


def looped(examples, row):
    messages = []
    for each in examples:
        messages += each["messages"]
    return messages + row["messages"]


def by_keys(given, right):
    hits = len([name for name in given if name in right and given[name] == right[name]])
    precision, recall = (hits / len(each) if each else 0 for each in (given, right))
    return 2 * precision * recall / (precision + recall) if hits else 0


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_right_and_its_hints_end_with_it(name, capsys):
    exercise = EXERCISES[name]
    copy = {}
    exec(f"{exercise.solution}", vars(__import__(exercise.reference.__module__, fromlist=["x"])) | copy, copy)
    assert checked(name, copy[exercise.reference.__name__])
    for _ in range(len(exercise.hints) + 1):
        hint(name)
    assert exercise.solution.strip().splitlines()[-1].strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "written"), [("chat.labels", others), ("chat.few_shot", looped), ("chat.f1", by_keys)]
)
def test_another_style_is_right(name, written):
    assert checked(name, written)


WRONG_LABELS = {
    "the question is learned as well": lambda asked, answer, end: ([*asked, *answer, end],) * 2,
    "never stops": lambda asked, answer, end: (asked + answer + [end], [-100] * len(asked) + answer + [-100]),
    "shifted by one": lambda asked, answer, end: (
        asked + answer + [end],
        ([-100] * len(asked) + answer + [end])[1:] + [-100],
    ),
    "0 is a token like any other": lambda asked, answer, end: (
        asked + answer + [end],
        [0] * len(asked) + answer + [end],
    ),
    "the other way round": lambda asked, answer, end: (asked + answer + [end], asked + [-100] * (len(answer) + 1)),
    "the end is missing": lambda asked, answer, end: (asked + answer, [-100] * len(asked) + answer),
    "the answer is not among the ids": lambda asked, answer, end: (asked, [-100] * len(asked)),
    "in this order": lambda asked, answer, end: (answer + asked + [end], answer + [-100] * len(asked) + [end]),
    "6 ids and 3 labels": lambda asked, answer, end: (asked + answer + [end], answer + [end]),
    "Which tokens is the model to write itself": lambda asked, answer, end: (asked + answer + [end], [-100] * 6),
    "expected the pair": lambda asked, answer, end: asked + answer + [end],
    "expected two plain lists": lambda asked, answer, end: (3, 4),
    "shifted by one, and the question is learned": lambda asked, answer, end: (
        asked + answer + [end],
        asked[1:] + answer + [end, -100],
    ),
    "The end has one, too": lambda asked, answer, end: (asked + answer + [end], [-100] * len(asked) + answer),
    "end is one id, and no list": lambda asked, answer, end: (asked + answer + end, asked),
    "is there a return": lambda asked, answer, end: print(end="") or None,
}


@pytest.mark.parametrize("message", WRONG_LABELS)
def test_labels_that_are_wrong_are_told(message):
    feedback = checked("chat.labels", WRONG_LABELS[message])
    assert not feedback and message in feedback.message


def test_what_was_given_is_not_to_be_changed():
    def grown(asked, answer, end):
        asked += [*answer, end]
        return asked, [-100] * (len(asked) - len(answer) - 1) + [*answer, end]

    def extended(examples, row):
        examples[0]["messages"].extend(examples[1]["messages"] + row["messages"])
        return examples[0]["messages"]

    assert "changed in place" in checked("chat.labels", grown).message
    assert "changed in place" in checked("chat.few_shot", extended).message


def said(examples, row, what):
    return [message for each in [*examples, row] for message in each["messages"] if message["role"] == what]


WRONG_FEW = {
    "the row comes last": lambda examples, row: looped([row, *examples[:-1]], examples[-1]),
    "the row itself is missing": lambda examples, row: looped(examples[:-1], examples[-1]),
    "the answers are left out": lambda examples, row: said(examples, row, "user"),
    "the answers of the examples are left out": lambda examples, row: [
        *(each["messages"][0] for each in examples),
        *row["messages"],
    ],
    "the row's own answer is missing": lambda examples, row: looped(examples, row)[:-1],
    "keep their order": lambda examples, row: looped(examples[::-1], row),
    "these are lists in a list": lambda examples, row: [each["messages"] for each in [*examples, row]],
    "expected a list of messages": lambda examples, row: [*examples, row],
    "yours makes": lambda examples, row: looped(examples, row) * 2,
    "is there a return": lambda examples, row: print(end="") or None,
}


@pytest.mark.parametrize("message", WRONG_FEW)
def test_examples_in_the_wrong_place_are_told(message):
    feedback = checked("chat.few_shot", WRONG_FEW[message])
    assert not feedback and message in feedback.message


def hits(given, right):
    return sum(right.get(name) == value for name, value in given.items())


WRONG_F1 = {
    "(recall)": lambda given, right: hits(given, right) / len(right),
    "(precision)": lambda given, right: hits(given, right) / len(given),
    "twice the hits": lambda given, right: hits(given, right) / (len(given) + len(right)),
    "its value must be right, too": lambda given, right: (
        2 * len(given.keys() & right.keys()) / (len(given) + len(right))
    ),
    "yours finds none": lambda given, right: float(given == right),
    "2 * 2 / (6 + 4) = 0.4": lambda given, right: 17.0,
    "two equal records have 1": lambda given, right: 0.4,
    "here it divides by zero": lambda given, right: (
        lambda hits: 2 * (hits / len(given)) * (hits / len(right)) / (hits / len(given) + hits / len(right))
    )(hits(given, right)),
    "can be put in no set": lambda given, right: (
        2 * len(set(given.items()) & set(right.items())) / (len(given) + len(right))
    ),
    "a hit agrees in both": lambda given, right: (
        2 * len([value for value in given.values() if value in right.values()]) / (len(given) + len(right))
    ),
    "get(name) gives None": lambda given, right: (
        2 * len([name for name in given if given[name] == right[name]]) / (len(given) + len(right))
    ),
    "expected a number": lambda given, right: "0.4",
    "is there a return": lambda given, right: print(end="") or None,
}


@pytest.mark.parametrize("message", WRONG_F1)
def test_another_score_than_f1_is_told(message):
    feedback = checked("chat.f1", WRONG_F1[message])
    assert not feedback and message in feedback.message


def cut(ids, labels, length, fill):
    return ids[:length] + [fill] * (length - len(ids)), labels[:length] + [-100] * (length - len(labels))


def with_faults(shift, no_end, cut_answer):
    """The lesson's cell with some of its faults."""

    def example(asked, answer, end, length):
        if not cut_answer:
            asked = asked[max(0, len(asked) + len(answer) + 1 - length) :]
        ids, labels = cut(asked + answer + [end], [-100] * len(asked) + answer + [end], length, end)
        if no_end:
            labels = [-100 if label == end else label for label in labels]
        return ids, labels[1:] + [-100] if shift else labels

    return example


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ((True, True, True), "3 faults are still in"),
        ((True, False, True), "2 faults are still in"),
        ((True, False, False), "does each label stand at its own token"),
        ((False, True, False), "How many labels are the end"),
        ((False, False, True), "whose question alone is as long"),
    ],
)
def test_each_fault_of_the_hunt_is_found_by_itself(faults, message):
    feedback = checked("chat.hunt", with_faults(*faults))
    assert not feedback and message in feedback.message
    assert checked("chat.hunt", with_faults(False, False, False))


def test_new_faults_are_no_mend():
    def padded_learned(asked, answer, end, length):
        ids, labels = hunted_example(asked, answer, end, length)
        return ids, [end if label == -100 and place >= len(asked) else label for place, label in enumerate(labels)]

    assert "How many labels are the end" in checked("chat.hunt", padded_learned).message
    assert "two lists of length 20" in checked("chat.hunt", lambda asked, answer, end, length: ([], [])).message

    def learns_all(asked, answer, end, length):
        ids, labels = hunted_example(asked, answer, end, length)
        return ids, [
            token if place < len(asked) else label for place, (token, label) in enumerate(zip(ids, labels, strict=True))
        ]

    assert "at length" in checked("chat.hunt", learns_all).message

    def end_of_the_question_cut(asked, answer, end, length):
        return hunted_example(asked[: length - len(answer) - 1], answer, end, length)

    assert "cut its beginning" in checked("chat.hunt", end_of_the_question_cut).message


def read(path):
    return task(path, columns={"prompt": "complaint", "completion": "department"})


def with_csv(path):
    with open(path) as file:
        first = next(csv.DictReader(file))
    return read(path).as_chat(lambda row: row["source"] + " Who?", lambda row: first["department"])


WRONG_OWN = {
    "say what is asked": read,
    "does not hold the complaint": lambda path: read(path).as_chat(lambda row: "Who?", lambda row: row["target"]),
    "the answer is": with_csv,
    "expected a Task, got list": lambda path: read(path).rows("train"),
    "are functions of a row": lambda path: read(path).as_chat("Who?", "department"),
    "the file's right": lambda path: task(path, columns={"complaint": "prompt"}),
    "or prompt and completion, to chat": task,
    "of the kind classify": lambda path: task(path, columns={"text": "complaint", "label": "department"}),
    "is there a return": lambda path: print(end="") or None,
}


@pytest.mark.parametrize("message", WRONG_OWN)
def test_conversations_that_do_not_ask_are_told(message):
    feedback = checked("chat.own", WRONG_OWN[message])
    assert not feedback and message in feedback.message


def test_the_labels_of_a_table_can_be_written_as_answers():
    def from_labels(path):
        data = task(path, columns={"text": "complaint", "label": "department"})
        return data.as_chat(lambda row: f"Who must hear this? {row['text']}", lambda row: data.labels[row["label"]])

    assert checked("chat.own", from_labels)
