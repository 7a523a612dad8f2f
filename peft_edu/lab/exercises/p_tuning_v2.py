"""Lesson 06: a tag for each word, however many tokens it has, and how tags are measured."""

from peft_edu.lab.exercises.check import Misconception, exercise, expect_number


def align(word_ids, tags):
    labels = []
    for word, before in zip(word_ids, [None, *word_ids], strict=False):
        first = word is not None and word != before
        labels.append(tags[word] if first else -100)
    return labels


@exercise(
    "p_tuning_v2.align",
    reference=align,
    hints=(
        "A token is asked for if its word is not the word of the token before it.",
        "`zip(word_ids, [None, *word_ids])` gives each token's word and the one before.",
        "A special token has no word: check for `None` too.",
    ),
)
def _align(f) -> None:
    """f(word_ids, tags) -> list: for each token the tag of its word, if it is the word's first token, else -100.

    word_ids has the number of each token's word, and None for special tokens; tags has a number for each word.
    """
    result = f([None, 0, 0, 0, 1, 2, 2, None], [2, 0, 1])
    right = [-100, 2, -100, -100, 0, 1, -100, -100]
    wrong = {
        (-100, 2, 2, 2, 0, 1, 1, -100): "every token of a word has its tag: a long word would count several times",
        (-100, -100, -100, 2, 0, -100, 1, -100): "the last token of a word has its tag: the first one is asked for",
        (0, 2, -100, -100, 0, 1, -100, 0): "special tokens are asked for tag 0: -100 leaves a position out of the loss",
    }
    _same_list(result, right, wrong)


def f1_of(given, right):
    return 2 * len(given & right) / max(1, len(given) + len(right))


@exercise(
    "p_tuning_v2.f1",
    reference=f1_of,
    hints=(
        "Precision and recall share their numerator, `len(given & right)`.",
        "The harmonic mean of a/b and a/c is 2a / (b + c).",
        "Both sets may be empty, or one: no division by zero.",
    ),
)
def _f1(f) -> None:
    """f(given, right) -> F1: two sets of entities (first word, word after the last, kind)"""
    given = {(0, 1, "PRAISED"), (3, 4, "PRAISED"), (6, 7, "CRITICISED"), (8, 9, "CRITICISED")}
    right = {(0, 1, "PRAISED"), (3, 4, "CRITICISED"), (6, 8, "CRITICISED")}
    wrong = {
        1 / 4: "that is the precision: of what was given, the share that is right",
        1 / 3: "that is the recall: of what is right, the share that was given",
        7 / 24: "that is the mean of precision and recall: F1 is their harmonic mean",
        1 / 6: "that divides by the union of both sets: F1 counts 2 for what they share, over the sum of their sizes",
    }
    result = f(given, right)
    expect_number(round(result, 6) if isinstance(result, float) else result, round(2 / 7, 6),
           {round(value, 6): message for value, message in wrong.items()})  # fmt: skip
    try:
        nothing_given = f(set(), set(right))
    except ZeroDivisionError as error:
        raise Misconception("right where something is found, but where nothing is given it divides by 0") from error
    if nothing_given != 0:
        raise Misconception("where nothing is given, F1 is 0")


def _same_list(result: object, right: list[int], wrong: dict[tuple[int, ...], str]) -> None:
    if not isinstance(result, (list, tuple)):
        raise Misconception(f"expected a list, got {type(result).__name__}")
    if len(result) != len(right):
        raise Misconception(f"the list has {len(result)} entries for {len(right)} tokens: each token needs one")
    if list(result) != right:
        at = next(i for i, (given, wanted) in enumerate(zip(result, right, strict=True)) if given != wanted)
        otherwise = f"at token {at} it is {result[at]!r} instead of {right[at]}"
        raise Misconception(wrong.get(tuple(result), otherwise))
