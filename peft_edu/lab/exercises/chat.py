"""Lesson 09: a conversation as ids and labels, examples in front of a question, and the F1 of a record's fields."""

from peft_edu.lab.exercises.check import NOTHING, Misconception, exercise

IGNORE = -100


def chat_labels(asked, answer, end):
    input_ids = [*asked, *answer, end]
    labels = [-100] * len(asked) + [*answer, end]
    return input_ids, labels


@exercise(
    "chat.labels",
    reference=chat_labels,
    hints=(
        "The model reads all of it: the question, the answer, and the token that ends the answer.",
        "There are as many labels as ids. Where nothing is to be learned the label is -100.",
        "`[-100] * len(asked)` is a list of so many -100. The end is learned, too.",
    ),
)
def _labels(f) -> None:
    """f(asked, answer, end) -> (input_ids, labels), two lists of equal length: asked and answer are lists of token ids,
    end is the id of the token that ends an answer"""
    asked, answer, end = [11, 12, 13], [21, 22], 2
    given = list(asked), list(answer)
    try:
        result = f(*given, end)
    except TypeError as error:
        if "list" in str(error) and "int" in str(error):
            raise Misconception("end is one id, and no list: [end] is a list that can be added to another") from error
        raise
    if given != (asked, answer):
        raise Misconception("an argument was changed in place (by += or append): make a new list")
    if result is None:
        raise Misconception(NOTHING)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Misconception(f"expected the pair input_ids, labels, got {result!r:.80}")
    if not all(isinstance(each, (list, tuple)) for each in result):
        raise Misconception(f"expected two plain lists, got {' and '.join(type(each).__name__ for each in result)}")
    ids, labels = (list(each) for each in result)
    _ids_right(ids, [*asked, *answer, end], answer)
    if len(labels) != len(ids):
        end_missing = ". The end has one, too" if labels == [IGNORE] * 3 + answer else ""
        raise Misconception(f"{len(ids)} ids and {len(labels)} labels: each token has one, be it -100{end_missing}")
    wrong = {
        tuple(ids): "the question is learned as well: the model would spend its steps on learning to ask",
        (*[IGNORE] * 3, *answer, IGNORE): "the end is not learned: such a model never stops",
        (*[IGNORE] * 2, *answer, end, IGNORE): "the labels are shifted by one: the model does that for itself, so a "
        "label stands at its own token",
        (*asked[1:], *answer, end, IGNORE): "the labels are shifted by one, and the question is learned, too: a label "
        "stands at its own token, and the model shifts by itself",
        (0, 0, 0, *answer, end): "0 is a token like any other: what is not to be learned has the label -100",
        (*asked, IGNORE, IGNORE, IGNORE): "the question is learned, and the answer is not: it is the other way round",
    }
    if labels != [IGNORE] * 3 + [*answer, end]:
        told = f"for asked {asked}, answer {answer} and end {end} your labels are {labels}"
        raise Misconception(wrong.get(tuple(labels), f"{told}. Which tokens is the model to write itself?"))


def _ids_right(ids: list, right: list, answer: list) -> None:
    if ids == right:
        return
    if ids == right[:-1]:
        raise Misconception("the end is missing: the model reads it behind the answer, and learns when to stop")
    if not set(answer) <= set(ids):
        raise Misconception("the answer is not among the ids: the model reads it, as it reads the question")
    raise Misconception(f"the ids are {ids}, but must be the question, the answer and the end, in this order: {right}")


def in_front(examples, row):
    return [message for each in [*examples, row] for message in each["messages"]]


@exercise(
    "chat.few_shot",
    reference=in_front,
    hints=(
        "Each row has a list of messages under 'messages': a question of the user, an answer of the assistant.",
        "The examples come first, with their answers. The row itself comes last.",
        "Two loops: over `[*examples, row]`, and in each over its messages.",
    ),
)
def _few_shot(f) -> None:
    """f(examples, row) -> one list of messages: those of the examples, then those of the row"""

    def row(n: int) -> dict:
        return {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}

    first, second, asked = row(1), row(2), row(3)
    result = f([first, second], asked)
    if result is None:
        raise Misconception(NOTHING)
    if (first, second, asked) != (row(1), row(2), row(3)):
        raise Misconception("a row was changed in place (by += or extend): make a new list")
    if isinstance(result, list) and result and all(isinstance(each, list) for each in result):
        raise Misconception("these are lists in a list: put all messages into one list, as + does with two")
    if not isinstance(result, list) or not all(isinstance(each, dict) and "content" in each for each in result):
        raise Misconception(f"expected a list of messages, got {result!r:.100}: take what stands under 'messages'")
    said = [each["content"] for each in result]
    wrong = {
        ("q3", "a3", "q1", "a1", "q2", "a2"): "the row comes last: the model answers what it was asked last",
        ("q1", "a1", "q2", "a2"): "the row itself is missing: it comes last",
        ("q1", "q2", "q3"): "the answers are left out: they are what the model is to take as an example",
        ("q1", "q2", "q3", "a3"): "the answers of the examples are left out: they are what the model is to copy",
        ("q1", "a1", "q2", "a2", "q3"): "the row's own answer is missing. Leave it in: the lesson cuts it off before "
        "the model reads, and knows by it how long an answer may be",
        ("q2", "a2", "q1", "a1", "q3", "a3"): "the examples have changed places: keep their order",
    }
    if said != ["q1", "a1", "q2", "a2", "q3", "a3"]:
        raise Misconception(wrong.get(tuple(said), f"of examples 1 and 2 and row 3 yours makes {said}"))


LISTS = "a value may be a list, as in JSON, and a list can be put in no set: compare it with =="


def record_f1(given, right):
    hits = sum(right.get(name) == value for name, value in given.items())
    return 2 * hits / (len(given) + len(right))


@exercise(
    "chat.f1",
    reference=record_f1,
    hints=(
        "A hit is a field of the answer that the right record has too, with the same value.",
        "F1 is twice the hits, divided by the fields given plus the fields wanted.",
        "`given.items()` are pairs of name and value; `right.get(name)` is None where there is no such field.",
    ),
)
def _f1(f) -> None:
    """f(given, right) -> a number from 0 to 1: given and right are dicts, the record that was written and the right
    one"""
    right = {"name": "Zelda", "town": "Dunwick", "day": "Friday", "verdict": "liked"}
    given = {"name": "Zelda", "town": "Dunwick", "day": "Monday", "place": "here", "mood": "good", "who": "she"}
    try:
        result = f(dict(given), dict(right))
    except KeyError as error:
        raise Misconception(
            f"it asks a record for {error}, a field that only the other one has: a dict's get(name) gives None then"
        ) from error
    if result is None:
        raise Misconception(NOTHING)
    if isinstance(result, bool) or not isinstance(result, (int, float)):
        raise Misconception(f"expected a number, got {type(result).__name__}: {result!r:.60}")
    wrong = {
        2 / 4: "this is the share of the wanted fields that were found (recall): who writes every field there is would "
        "have all of them. The fields given count as well",
        2 / 6: "this is the share of the given fields that are right (precision): who gives one sure field would have "
        "all. The fields wanted count as well",
        2 / 10: "twice the hits: there are 6 + 4 fields, and a hit is one of each",
        6 / 10: "a field whose name alone is right is no hit: its value must be right, too",
        0.0: "of these two records two fields agree, yours finds none",
    }
    if abs(result - 0.4) > 1e-9:
        near = next((told for value, told in wrong.items() if abs(result - value) < 1e-9), None)
        raise Misconception(near or f"2 hits of 6 given and 4 wanted fields make 2 * 2 / (6 + 4) = 0.4, not {result:g}")
    try:
        ends = f(dict(right), dict(right)), f({"a": "b"}, dict(right))
    except ZeroDivisionError as error:
        raise Misconception("two records without a common field have F1 0: here it divides by zero") from error
    if ends != (1, 0):
        raise Misconception("two equal records have 1, and two without a common field 0")
    if f({"name": "Friday"}, dict(right)) != 0:
        raise Misconception("Friday is right for the day, and stands under name: a hit agrees in both, name and value")
    try:
        hits = f({"name": ["a", "list"]}, dict(right))
    except TypeError as error:
        raise Misconception(LISTS) from error
    if hits != 0:
        raise Misconception(LISTS)
