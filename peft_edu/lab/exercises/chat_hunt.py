"""Lesson 09, the hunt: a training example with three faults that people make. None stops with an error: the labels are
shifted by hand, though the model shifts them; the end is left out, since it pads too; a long text loses its answer.
"""

from collections.abc import Callable

from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise

ASKED, ANSWER, END = [11, 12, 13, 14, 15, 16], [21, 22], 2


def hunted_example(asked, answer, end, length):
    asked = asked[max(0, len(asked) + len(answer) + 1 - length) :]
    ids = asked + answer + [end]
    labels = [-100] * len(asked) + answer + [end]
    unused = length - len(ids)
    return ids + [end] * unused, labels + [-100] * unused


@exercise(
    "chat.hunt",
    reference=hunted_example,
    hints=(
        "Draw a short example with show_learned, and ask of each token: should it be hatched?",
        "Look at the token that ends the answer. It is also what fills the list up: the two must be told apart by "
        "their place, not by their id.",
        "Then draw an example whose question alone is longer than `length`. What is left to be learned?",
        "One fault lies in what is cut, one in which label stands at which token, one in the end.",
    ),
)
def _hunt(f) -> None:
    """hunted_example(asked, answer, end, length) -> (ids, labels), each `length` long, without its three faults"""
    _expect_pair(f)
    found = [message for fault, message in FAULTS.items() if fault(f)]
    if found:
        more = f"{len(found)} faults are still in. Look at the tokens, mend one, and run this again"
        raise Misconception(f"1 fault is still in. {found[0]}" if len(found) == 1 else more)
    for length in (3, 5, 9, 20):
        ids, labels = (list(each) for each in f(list(ASKED), list(ANSWER), END, length))
        right = hunted_example(ASKED, ANSWER, END, length)
        if ids != right[0] and ids == [*ASKED[: length - len(ANSWER) - 1], *ANSWER, END]:
            raise Misconception(
                f"at length {length} the end of the question is cut, where the answer's turn begins: cut its beginning"
            )
        if (ids, labels) != right:
            raise Misconception(f"at length {length} yours gives {ids} and {labels}, but must give {right}")


def _expect_pair(f: Callable) -> None:
    result = f(list(ASKED), list(ANSWER), END, 20)
    if not isinstance(result, (tuple, list)) or len(result) != 2 or [len(each) for each in result] != [20, 20]:
        raise NotWritten(f"two lists of length 20 are asked for, and it gives {result!r:.80}. Bring the cell back")


def _places(f: Callable, length: int, wanted: int) -> tuple[set[int], int]:
    """How far from its own token each label `wanted` stands, and how many there are."""
    ids, labels = (list(each) for each in f(list(ASKED), list(ANSWER), END, length))
    at = [place for place, label in enumerate(labels) if label == wanted]
    return {place - ids.index(wanted) for place in at if wanted in ids}, len(at)


def _shifted(f: Callable) -> bool:
    apart, there = _places(f, 20, ANSWER[0])
    return there > 0 and apart != {0}


def _never_ends(f: Callable) -> bool:
    return _places(f, 20, END)[1] != 1


def _answer_cut(f: Callable) -> bool:
    return any(not set(ANSWER) <= set(f(list(ASKED), list(ANSWER), END, length)[0]) for length in (5, 6))


FAULTS = {
    _shifted: "Draw the tokens and their labels: does each label stand at its own token? The model itself compares a "
    "token's prediction with the label one further",
    _never_ends: "Train with it and let the model write: it does not stop, or it learns from what only fills the list "
    "up. How many labels are the end?",
    _answer_cut: "Draw an example whose question alone is as long as `length`. What is left to be learned of it?",
}
