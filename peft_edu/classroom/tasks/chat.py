"""Exercise 09: grouped heads, a batch, labels of several turns, scores, a figure, a hunt, and new facts."""

import json
from collections.abc import Callable
from functools import cache
from random import Random
from types import SimpleNamespace

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from peft_edu.classroom.figure import Bars, floor
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab import backbone, held_out, language_loss, task
from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten
from peft_edu.method import attached

IGNORE = -100

# LoRA where heads share keys and values ----------------------------------------------------------------------------

MAPS = (
    ("query", "value"),
    ("key", "value"),
    ("value", "output"),
    ("query", "key", "value", "output"),
    ("query", "key", "value", "output", "gate", "up", "down"),
)


def _llama(draw: Random) -> dict:
    heads, kv_heads = draw.choice(((9, 3), (14, 2), (32, 8), (16, 4), (24, 8), (12, 4), (20, 5)))
    head = draw.choice((48, 64, 80, 128))
    return {
        "blocks": draw.randint(11, 41),
        "width": heads * head,
        "heads": heads,
        "kv_heads": kv_heads,
        "inner": 128 * draw.randint(heads * head // 64, heads * head // 32),
        "rank": draw.choice((3, 5, 6, 7, 9, 10, 12)),
        "maps": draw.choice(MAPS),
    }


def _shapes(n: SimpleNamespace, kv_heads: int) -> dict[str, tuple[int, int]]:
    """in and out of each map"""
    narrow = n.width // n.heads * kv_heads
    attention = {
        "query": (n.width, n.width),
        "key": (n.width, narrow),
        "value": (n.width, narrow),
        "output": (n.width, n.width),
    }
    return attention | {"gate": (n.width, n.inner), "up": (n.width, n.inner), "down": (n.inner, n.width)}


def _lora(n: SimpleNamespace, kv_heads: int) -> int:
    return n.blocks * n.rank * sum(sum(_shapes(n, kv_heads)[each]) for each in n.maps)


def _parameters(answer: object, n: SimpleNamespace) -> None:
    right = _lora(n, n.kv_heads)
    thin = sum(_shapes(n, n.kv_heads)[each][0] for each in n.maps)
    wrong = {
        "the keys and values of this model are narrower: heads share them": _lora(n, n.heads),
        "a key or value map gives kv_heads times the width of ONE head": _lora(n, 1),
        "all maps are counted as width to width": n.blocks * len(n.maps) * n.rank * 2 * n.width,
        "the blocks are left out": right / n.blocks,
        "only A is counted: B is trained, too": n.blocks * n.rank * thin,
        "only B is counted: A is trained, too": right - n.blocks * n.rank * thin,
        "the rank is left out": right / n.rank,
    }
    otherwise = "a map from a to b numbers gets A (r, a) and B (b, r): write down a and b of each map first"
    expect(plain_number(item(answer, "parameters"), "parameters"), right, wrong, otherwise)


def _share(answer: object, n: SimpleNamespace) -> None:
    frozen = n.blocks * sum(a * b for a, b in _shapes(n, n.kv_heads).values())
    of_maps = n.blocks * sum(a * b for name, (a, b) in _shapes(n, n.kv_heads).items() if name in n.maps)
    right = 100 * _lora(n, n.kv_heads) / frozen
    wrong = {
        "this is a fraction: the answer is asked for in per cent": right / 100,
        "this is the share of the maps in n.maps: all seven of a block are asked for": 100
        * _lora(n, n.kv_heads)
        / of_maps,
        "the trained ones stand on both sides: set them against the frozen maps alone": 100 * right / (100 + right),
        "this is upside down": 1e4 / right,
    }
    if of_maps == frozen:
        wrong.pop("this is the share of the maps in n.maps: all seven of a block are asked for")
    otherwise = "the seven maps of a block: query, key, value, output, and gate, up, down with n.inner"
    expect(plain_number(item(answer, "share"), "share"), right, wrong, otherwise, 1e-3)


def _fewer(answer: object, n: SimpleNamespace) -> None:
    right = _lora(n, n.heads) - _lora(n, n.kv_heads)
    wrong = {
        "this is what it would be then: the difference is asked for": _lora(n, n.heads),
        "the difference the other way round": -right,
        "this is of one block": right / n.blocks,
    }
    otherwise = "count it again with as many key and value heads as query heads, and take the difference"
    expect(plain_number(item(answer, "fewer"), "fewer"), right, wrong, otherwise)


SIZES = Task(
    "chat.sizes",
    "How much is trained?",
    _llama,
    {_parameters: 2, _share: 1, _fewer: 1},
    (
        "A head is width / heads wide. There are kv_heads key heads and as many value heads.",
        "The query map takes width numbers to width, the key map width numbers to fewer. And down?",
        "Where every head has its own keys and values, all maps of attention are width to width.",
    ),
    stars=2,
    minutes=10,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# What is in a batch ------------------------------------------------------------------------------------------------


def _conversations(draw: Random) -> dict:
    return {
        "asked": [draw.randint(20, 90) for _ in range(4)],
        "answers": [draw.choice((2, 5, 9, 14, 23, 37)) + draw.randint(0, 4) for _ in range(4)],
        "losses": [round(draw.uniform(0.3, 3.5), 2) for _ in range(4)],
    }


def _lengths(n: SimpleNamespace) -> list[int]:
    return [asked + answer + 1 for asked, answer in zip(n.asked, n.answers, strict=True)]


def _tokens(answer: object, n: SimpleNamespace) -> None:
    right = 4 * max(_lengths(n))
    wrong = {
        "the end of each answer is a token, too": right - 4,
        "this is without padding: a batch is as wide as its longest row": sum(_lengths(n)),
        "this is the longest row alone": max(_lengths(n)),
        "the longest question and the longest answer need not stand in one row": 4
        * (max(n.asked) + max(n.answers) + 1),
    }
    expect(plain_number(item(answer, "tokens"), "tokens"), right, wrong, "rows times the length of the longest row")


def _padding(answer: object, n: SimpleNamespace) -> None:
    right = 4 * max(_lengths(n)) - sum(_lengths(n))
    wrong = {"these are the tokens that are no padding": sum(_lengths(n)), "the ends are no padding": right + 4}
    otherwise = "what each row lacks to the longest one, together"
    expect(plain_number(item(answer, "padding"), "padding"), right, wrong, otherwise)


def _learned(answer: object, n: SimpleNamespace) -> None:
    right = sum(n.answers) + 4
    wrong = {
        "the end of each answer is learned, too": right - 4,
        "these are all tokens: the questions are not learned": sum(_lengths(n)),
        "these are the labels that are -100": 4 * max(_lengths(n)) - right,
    }
    expect(plain_number(item(answer, "learned"), "learned"), right, wrong, "the answers, each with its end")


def _loss(answer: object, n: SimpleNamespace) -> None:
    def mean(weights: list[int]) -> float:
        return sum(loss * weight for loss, weight in zip(n.losses, weights, strict=True)) / sum(weights)

    wrong = {
        "this is the mean of four means: a long answer has more tokens in the batch's loss": sum(n.losses) / 4,
        "each loss is weighted with its answer without its end, which is learned as well": mean(n.answers),
        "each loss is weighted with its whole row: the questions are not in the loss": mean(_lengths(n)),
        "each loss is weighted with its question: the questions are not in the loss": mean(n.asked),
        "this is a sum: a mean over all learned tokens is asked for": sum(n.losses),
    }
    right = mean([each + 1 for each in n.answers])
    given = plain_number(item(answer, "loss"), "loss")
    expect(given, right, wrong, "add the losses of all learned tokens, and divide by how many there are", 1e-4)


BATCH = Task(
    "chat.batch",
    "What is in a batch",
    _conversations,
    {_tokens: 1, _padding: 1, _learned: 1, _loss: 1},
    (
        "A row is a question, its answer and one end. Shorter rows are filled up to the longest.",
        "A label that is not -100 is learned. Padding and questions have -100.",
        "n2.losses are means. Times the learned tokens of its row each is a sum again.",
    ),
    stars=1,
    minutes=8,
    errors={"expected a number, got list": "one number for the whole batch, not one a row"},
    telling=True,
)

# Several turns -----------------------------------------------------------------------------------------------------

LEARN = ("every answer", "the last answer")


def _template(draw: Random) -> dict:
    system, user, assistant, end = draw.sample(range(3, 20), 4)
    return {
        "learn": draw.choice(LEARN),
        "marks": {"system": system, "user": user, "assistant": assistant},
        "end": end,
    }


Turns = list[tuple[str, list[int]]]
TALKS = (
    [("user", [51, 52, 53]), ("assistant", [61, 62])],
    [("system", [41]), ("user", [61, 52, 62, 54]), ("assistant", [62, 61]), ("user", [62]), ("assistant", [61])],
    [(role, [50 + i, 61]) for i in range(4) for role in ("user", "assistant")],
)


def _right(turns: Turns, n: SimpleNamespace, length: int) -> tuple[list[int], list[int]]:
    last = max(place for place, (role, _) in enumerate(turns) if role == "assistant")
    ids, labels = [], []
    for place, (role, said) in enumerate(turns):
        learned = place == last if n.learn == LEARN[1] else role == "assistant"
        ids += [n.marks[role], *said, n.end]
        labels += [IGNORE, *(said + [n.end] if learned else [IGNORE] * (len(said) + 1))]
    return ids[-length:], labels[-length:]


def _of(f: Callable, turns: Turns, length: int) -> tuple[list[int], list[int]]:
    """What the student's function gives, as two plain lists."""
    if not callable(f) or isinstance(f, type):
        raise Misconception("a function is asked for: give it by its name alone")
    given = [(role, list(said)) for role, said in turns]
    result = f(given, length)
    if given != turns:
        raise Misconception("the turns were changed in place (by += or append): make a new list")
    if result is None:
        raise NotWritten(NOTHING)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Misconception(f"expected two lists, ids and labels; got {result!r:.80}")
    try:
        return tuple([int(each) for each in part] for part in result)
    except (TypeError, ValueError):
        raise Misconception(f"ids and labels are lists of numbers; got {result!r:.80}") from None


def _ids(f: object, n: SimpleNamespace) -> None:
    for turns in TALKS:
        ids, right = _of(f, turns, 99)[0], _right(turns, n, 99)[0]
        if ids == right:
            continue
        roles = [role for role, _ in turns]
        wrong = {
            "the marks are missing: each turn begins with that of its role": [t for _, s in turns for t in [*s, n.end]],
            "only answers end with n.end here: every turn does": [
                t for r, s in turns for t in [n.marks[r], *s, *[n.end] * (r == "assistant")]
            ],
            "the ends are missing: each turn has one": [t for r, s in turns for t in [n.marks[r], *s]],
            "one end at the end is not enough: each turn has one": [
                *(t for r, s in turns for t in [n.marks[r], *s]),
                n.end,
            ],
        }
        told = [why for why, value in wrong.items() if ids == value]
        more = "each turn is the mark of its role, what was said, and n.end"
        raise Misconception(told[0] if told else f"for the roles {roles} the ids are not right: {more}")


def _labels(f: object, n: SimpleNamespace) -> None:
    for turns in TALKS:
        ids, labels = _of(f, turns, 99)
        right = _right(turns, n, 99)[1]
        if len(labels) != len(ids):
            raise Misconception(f"{len(ids)} ids and {len(labels)} labels: each token has one, be it -100")
        if labels == right:
            continue
        other = SimpleNamespace(**vars(n) | {"learn": next(each for each in LEARN if each != n.learn)})
        at = {place for place, label in enumerate(labels) if label != IGNORE}
        marks = {place for place, token in enumerate(ids) if token in n.marks.values()}
        ends = {place for place, token in enumerate(ids) if token == n.end}
        wanted = {place for place, label in enumerate(right) if label != IGNORE}
        wrong = {
            "0 is a token like any other: what is not learned has the label -100": 0 in labels,
            "the labels are shifted by one: the model does that, and a label stands at its own token": labels
            == right[1:] + [IGNORE],
            f"n.learn is {n.learn!r}": labels == _right(turns, other, 99)[1],
            "nothing is learned": not at,
            "everything is learned, the questions as well": at == set(range(len(ids))),
            "the end of an answer is not learned: such a model never stops": at == wanted - ends,
            "the ends of questions are learned, too: only those of answers are": at == wanted | ends,
            "the mark of the assistant is learned: it is given when the model begins to write": wanted < at
            and at - wanted <= marks,
            "a token is told by its place, not by its id: the same token stands in questions and answers": wanted < at
            and {ids[place] for place in at} <= {ids[place] for place in wanted},
        }
        told = [why for why, so in wrong.items() if so]
        roles = [role for role, _ in turns]
        raise Misconception(told[0] if told else f"for the roles {roles}: which tokens does the model write itself?")


def _cut(f: object, n: SimpleNamespace) -> None:
    for turns in TALKS:
        whole = _of(f, turns, 99)
        for length in (len(whole[0]) - 1, len(turns[-1][1]) + 2):
            ids, labels = _of(f, turns, length)
            if len(ids) != length or len(labels) != len(ids):
                raise Misconception(
                    f"with length {length} a conversation of {len(whole[0])} tokens gives {len(ids)} ids and "
                    f"{len(labels)} labels"
                )
            if ids == whole[0][:length]:
                raise Misconception("the end is cut off, and the last answer with it: cut the beginning")
            if (ids, labels) != tuple(part[-length:] for part in whole):
                raise Misconception("what is too long loses its beginning, ids and labels alike")


LABELS = Task(
    "chat.labels",
    "Several turns",
    _template,
    {_ids: 1, _labels: 3, _cut: 2},
    (
        "Go through the turns, and lengthen two lists by as many numbers each: ids and labels.",
        "A turn has three parts: mark, tokens, end. Which of them does the model write itself, and in which turns?",
        "The last `length` numbers of a list are list[-length:]. Cut when both lists are whole.",
    ),
    stars=2,
    minutes=18,
    errors={
        "can only concatenate list": "a mark or an end is one number: [n3.end] is a list that can be added",
        "unhashable type": "a turn is a pair of a role and a list: for role, tokens in turns",
    },
)

# Scores of records -------------------------------------------------------------------------------------------------

AVERAGES, LETTERS = ("over all fields", "over the records"), ("count", "do not count")


def _form(draw: Random) -> dict:
    names = draw.sample(("name", "town", "day", "venue", "guests", "dish", "price", "phone"), 4)
    return {"average": draw.choice(AVERAGES), "letters": draw.choice(LETTERS), "fields": names}


def _written(n: SimpleNamespace) -> tuple[list[str], list[dict]]:
    """Texts that a model wrote, and the records that were wanted."""
    a, b, c, d = n.fields
    wanted = [{a: "Mina", b: "Selby", c: 3, d: ["soup", "pie"]}, {a: "Otto", b: "Harwick"}, {a: "Ida", c: 7}, {b: "x"}]
    given = [
        json.dumps(wanted[0] | {b: "selby"}),
        json.dumps({b: "Harwick", a: "Otto"}),
        json.dumps({a: "Ida"}) + " And so on.",
        json.dumps(["x"]),
    ]
    more = [json.dumps({a: "Otto", b: "Ida", c: 3, d: None}), json.dumps({})]
    return given + more, wanted + [{a: "Ida", b: "Otto", c: 3}, {d: "x"}]


def _records(n: SimpleNamespace) -> list[tuple[dict | None, dict]]:
    """What each text holds, None where that is no record, beside what was wanted."""
    texts, wanted = _written(n)
    found = []
    for text in texts:
        try:
            read = json.loads(text)
        except ValueError:
            read = None
        found.append(read if isinstance(read, dict) else None)
    return list(zip(found, wanted, strict=True))


def _alike(one: object, other: object, letters: str) -> bool:
    texts = isinstance(one, str) and isinstance(other, str) and letters == LETTERS[1]
    return one.lower() == other.lower() if texts else one == other


def _hits(given: dict, wanted: dict, letters: str) -> int:
    return sum(name in given and _alike(given[name], wanted[name], letters) for name in wanted)


def _counts(n: SimpleNamespace, letters: str) -> list[tuple[int, int, int]]:
    """Of each text the hits, the given fields and the wanted ones."""
    return [(_hits(given or {}, wanted, letters), len(given or {}), len(wanted)) for given, wanted in _records(n)]


def _mean(shares: list[tuple[int, int]], average: str) -> float:
    if average == AVERAGES[1]:
        return sum(part / whole for part, whole in shares) / len(shares)
    return sum(part for part, _ in shares) / sum(whole for _, whole in shares)


def _f1(counts: list[tuple[int, int, int]], average: str) -> float:
    return _mean([(2 * hits, given + wanted) for hits, given, wanted in counts], average)


def _scored(f: object, n: SimpleNamespace, name: str) -> float:
    if not callable(f):
        raise Misconception("a function is asked for: give it by its name alone")
    texts, wanted = _written(n)
    before = json.dumps(wanted)
    try:
        result = f(list(texts), wanted)
    except json.JSONDecodeError as error:
        raise Misconception(f"a text that is no JSON stops it ({error}): such a text is no record") from error
    if json.dumps(wanted) != before:
        raise Misconception("the wanted records were changed in place")
    if result is None:
        raise NotWritten(NOTHING)
    return plain_number(item(result, name), name)


def _valid(f: object, n: SimpleNamespace) -> None:
    wrong = {
        "a list is JSON, but no record; and what goes on behind its record is no JSON": 5 / 6,
    }
    _expect_share(_scored(f, n, "valid"), 4 / 6, wrong, "the share of texts that json.loads reads as a dict")


def _exact(f: object, n: SimpleNamespace) -> None:
    same = [given is not None and len(given) == len(wanted) == _hits(given, wanted, n.letters)
            for given, wanted in _records(n)]  # fmt: skip
    texts, wanted = _written(n)
    word = [text == json.dumps(each) for text, each in zip(texts, wanted, strict=True)]
    other = [given is not None and len(given) == len(wanted) == _hits(given, wanted, each)
             for each in LETTERS if each != n.letters for given, wanted in _records(n)]  # fmt: skip
    wrong = {
        "the texts are compared: the order of the fields does not count": sum(word) / 6,
        f"capital letters in texts {n.letters}": sum(other) / 6,
        "this is a number of records: a share is asked for": sum(same),
        "this is the share of the valid ones: a text that is no record is not right": sum(same) / 4,
    }
    otherwise = "the share of all texts whose record has the wanted fields, all of them and no others"
    _expect_share(_scored(f, n, "exact"), sum(same) / 6, wrong, otherwise)


def _fields(f: object, n: SimpleNamespace) -> None:
    other = {both: next(each for each in both if each not in (n.average, n.letters)) for both in (AVERAGES, LETTERS)}
    counts = _counts(n, n.letters)
    read = [each for each, (given, _) in zip(counts, _records(n), strict=True) if given is not None]
    wrong = {
        f"the mean is to be taken {n.average}": _f1(counts, other[AVERAGES]),
        f"capital letters in texts {n.letters}": _f1(_counts(n, other[LETTERS]), n.average),
        "texts that are no record are left out: their wanted fields were missed": _f1(read, n.average),
        "this is the share of the wanted fields (recall)": _mean(
            [(hits, wanted) for hits, _, wanted in counts], n.average
        ),
        "this is the share of the given fields (precision)": _mean(
            [(h, given or 1) for h, given, _ in counts], n.average
        ),
    }
    otherwise = "2 hits / (given + wanted); a hit has the field and its value; no record has no given field"
    _expect_share(_scored(f, n, "f1"), _f1(counts, n.average), wrong, otherwise)


def _expect_share(given: float, right: float, wrong: dict[str, float], otherwise: str) -> None:
    """Of a function, whose digits are all there: never "nearly"."""
    if given > 1:
        raise Misconception("a number from 0 to 1 is asked for: is it a count, or in per cent?")
    expect(round(given, 9), round(right, 9), {why: round(value, 9) for why, value in wrong.items()}, otherwise)


SCORE = Task(
    "chat.score",
    "Scores",
    _form,
    {_valid: 1, _exact: 1, _fields: 2},
    (
        "json.loads(text) raises json.JSONDecodeError where text is no JSON. Catch it, and go on with an empty record.",
        "isinstance(found, dict) tells a record from a list or a number. Two dicts are equal in any order.",
        "Count hits, given and wanted of each pair first. Then the two ways to take the mean differ in one line.",
    ),
    stars=2,
    minutes=15,
    errors={
        "object has no attribute 'items'": "json.loads may give a list or a number: is it a dict?",
        "object has no attribute 'lower'": "a value may be a number or a list: only texts have lower()",
    },
)

# A figure ----------------------------------------------------------------------------------------------------------

FIGURE = floor(
    "chat.figure",
    Bars(
        "smollm2",
        {
            "visits full": "full",
            "visits LoRA": "LoRA, r = 8",
            "visits LoRA r=1": "LoRA, r = 1",
            "visits LoRA all": "LoRA, seven maps",
            "visits adapter": "adapter",
            "visits prefix": "prefix",
            "visits prompt": "prompt",
            "visits top 2": "top two blocks",
        },
        "Records of visits, SmolLM2: which methods?",
        score="F1 of the fields, %",
        lowest=50,
    ),
)

# A hunt ------------------------------------------------------------------------------------------------------------

CODE = """\
def example(asked, answer, end, length):
    asked = asked[max(0, len(asked) + len(answer) + 1 - length):]
    ids = asked + answer + [end]
    labels = [-100] * len(asked) + answer + [end]
    return ids, labels

def batch(examples, pad):
    longest = max(len(ids) for ids, labels in examples)
    ids = [ids + [pad] * (longest - len(ids)) for ids, labels in examples]
    seen = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, labels in examples]
    labels = [labels + [-100] * (longest - len(labels)) for ids, labels in examples]
    return torch.tensor(ids), torch.tensor(seen), torch.tensor(labels)

def loss(logits, labels):
    logits, labels = logits[:, :-1], labels[:, 1:]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

def prompts(questions, pad):
    longest = max(len(ids) for ids in questions)
    ids = [[pad] * (longest - len(ids)) + ids for ids in questions]
    seen = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in questions]
    return torch.tensor(ids), torch.tensor(seen)"""
CUT, IDS = "asked = asked[max(0, len(asked) + len(answer) + 1 - length):]", "ids = asked + answer + [end]"
WHICH = "labels = [-100] * len(asked) + answer + [end]"
FILL = "ids = [ids + [pad] * (longest - len(ids)) for ids, labels in examples]"
SEEN = "seen = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, labels in examples]"
FILLED = "labels = [labels + [-100] * (longest - len(labels)) for ids, labels in examples]"
SHIFT = "logits, labels = logits[:, :-1], labels[:, 1:]"
MEAN = "return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)"
BEFORE = "ids = [[pad] * (longest - len(ids)) + ids for ids in questions]"
HEARD = "seen = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in questions]"
LONG = "Make an example whose question alone is as long as `length`: how long is it, and which tokens are left?"
LABELLED = "Print ids and labels of one short example below each other: which tokens are learned, and where?"
ROWS = "Make a batch of a short and a long example with pad equal to end: print ids, seen and labels of the short one"
GUESS = "Give logits that are sure of the right NEXT token everywhere an answer stands: the loss should be 0"
UNSURE = "Let all logits be zero: the loss should be the logarithm of the number of tokens, whatever the questions"
WRITE = "Print ids and seen of a short and a long question: behind which token would the model begin to write?"
FAULTS = (
    Fault(CUT, "asked = asked[:max(0, length - len(answer) - 1)]", LONG),
    Fault(CUT, "asked = asked[max(0, len(asked) + len(answer) - length):]", LONG),
    Fault(CUT, "asked = asked[max(0, len(asked) + 1 - length):]", LONG),
    Fault(IDS, "ids = [end] + asked + answer", LABELLED),
    Fault(WHICH, "labels = [-100] * len(asked) + answer + [-100]", LABELLED),
    Fault(WHICH, "labels = asked + answer + [end]", LABELLED),
    Fault(WHICH, "labels = [-100] * (len(asked) - 1) + answer + [end, -100]", LABELLED),
    Fault(FILL, "ids = [[pad] * (longest - len(ids)) + ids for ids, labels in examples]", ROWS),
    Fault(SEEN, "seen = [[1] * longest for ids, labels in examples]", ROWS),
    Fault(
        SEEN, "seen = [[int(i < len(ids) and ids[i] != pad) for i in range(longest)] for ids, labels in examples]", ROWS
    ),
    Fault(FILLED, "labels = [labels + [pad] * (longest - len(labels)) for ids, labels in examples]", ROWS),
    Fault(SHIFT, "logits, labels = logits[:, 1:], labels[:, :-1]", GUESS),
    Fault(SHIFT, "logits, labels = logits, labels", GUESS),
    Fault(MEAN, "return cross_entropy(logits.flatten(0, 1), labels.clamp(min=0).flatten(), ignore_index=-100)", GUESS),
    Fault(
        MEAN, "return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction='sum')", UNSURE
    ),
    Fault(BEFORE, "ids = [ids + [pad] * (longest - len(ids)) for ids in questions]", WRITE),
    Fault(HEARD, "seen = [[1] * longest for ids in questions]", WRITE),
)


def _works(found: dict) -> None:
    asked, answer, end = [11, 12, 13, 14, 15], [16, 12], 2
    for length in (9, 6, 4):
        made = found["example"](list(asked), list(answer), end, length)
        kept = asked[max(0, 8 - length) :]
        _expect_lists(made, ([*kept, *answer, end], [IGNORE] * len(kept) + [*answer, end]), f"example, length {length}")
    examples = [([11, 12, 2], [IGNORE, 12, 2]), ([13, 11, 14, 15, 2], [IGNORE, IGNORE, 14, 15, 2])]
    right = (
        [[11, 12, 2, 2, 2], [13, 11, 14, 15, 2]],
        [[1, 1, 1, 0, 0], [1] * 5],
        [[IGNORE, 12, 2, IGNORE, IGNORE], examples[1][1]],
    )
    _expect_lists([each.tolist() for each in found["batch"](examples, 2)], right, "batch: ids, seen or labels")
    right = [[2, 2, 11], [12, 13, 14]], [[0, 0, 1], [1, 1, 1]]
    _expect_lists([each.tolist() for each in found["prompts"]([[11], [12, 13, 14]], 2)], right, "prompts: ids or seen")
    labels = torch.tensor([[IGNORE, 3, 4, IGNORE], [IGNORE, IGNORE, 1, 2]])
    logits = torch.randn(2, 4, 6)
    wanted = cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:])
    if not torch.allclose(found["loss"](logits, labels), wanted):
        raise Misconception("loss is not the mean over the learned labels, each predicted by the token before it")


def _expect_lists(given, right: tuple, what: str) -> None:
    if tuple(map(list, given)) != tuple(map(list, right)):
        raise Misconception(f"{what} is not what it should be")


LISTING = Listing(CODE, FAULTS, _works, {"torch": torch, "cross_entropy": cross_entropy})
HUNT = LISTING.task(
    "chat.hunt",
    (
        "Four functions, which can each be tried alone with lists of small numbers.",
        "Try what is too long and what is too short, and a pad that is the end: many tokenizers have no other.",
        "For loss: make the logits yourself, so that you know what it must give.",
    ),
    errors={
        "expected sequence of length": "the rows of a batch have different lengths: print them before torch.tensor"
    },
)


# New facts without loss --------------------------------------------------------------------------------------------

MAY_RISE, SURELY = 0.2, 0.3  # of the loss on old texts: what is allowed, and what facts alone cost at the least


def _people(draw: Random) -> dict:
    return {"people": draw.choice((4, 5)), "data_seed": draw.randrange(10**6)}


def new_people(n: SimpleNamespace) -> list[tuple[str, str]]:
    """Questions and answers about people of whom the corpus says nothing, in words that tiny-gpt2 knows."""
    rows = [row for rows in task("facts").splits.values() for row in rows]
    known = sorted({row["subject"] for row in rows})
    firsts, lasts = (sorted({name.split()[i] for name in known}) for i in (0, 1))
    towns = sorted({row["answer"] for row in rows if row["relation"] == "birthplace"})
    draw = Random(n.data_seed)
    names = [f"{first} {last}" for first in draw.sample(firsts, 9) for last in draw.sample(lasts, 2)]
    names = draw.sample([name for name in names if name not in known], n.people)
    pairs = zip(names, draw.sample(towns, n.people), strict=True)
    return [(f"Where was {name} born?", f"{name} was born in {town}.") for name, town in pairs]


@cache
def old_texts() -> tuple[list[str], list[str]]:
    """Texts as it was pretrained on, which it has not seen: some to train on, and 30 others to measure."""
    texts = held_out("tiny-gpt2", 330)
    return texts[30:], texts[:30]


@cache
def _loss_before() -> float:
    return language_loss(*backbone("tiny-gpt2"), old_texts()[1])


def _model(answer: object) -> PreTrainedModel:
    model = item(answer, "model")
    if not isinstance(model, PreTrainedModel) or model.config.model_type != "gpt2":
        raise Misconception(f"model: the trained tiny-gpt2 is asked for, got {type(model).__name__}")
    if attached(model) is None:
        raise Misconception("no method is attached to this model: hand it in with its LoRA, not merged or taken off")
    with attached(model).off():
        off = language_loss(model, backbone("tiny-gpt2")[1], old_texts()[1])
    if abs(off - _loss_before()) > 1e-6:
        raise Misconception("with the method off it is not the pretrained model: its own weights have been trained")
    return model


def _taught(answer: object, n: SimpleNamespace) -> None:
    if missed := _missed(_model(answer), n):
        raise Misconception(f"{len(missed)} of {n.people} answers do not come out, as that to {missed[0]!r}")


@torch.no_grad()
def _missed(model: PreTrainedModel, n: SimpleNamespace) -> list[str]:
    """The questions to which the right town is not the likeliest."""
    tokenizer, missed = backbone("tiny-gpt2")[1], []
    for question, said in new_people(n):
        ids = tokenizer(f"{question} {said}", return_tensors="pt").input_ids[0]
        town = len(ids) - 2  # the last token but one, in front of the full stop
        if model(input_ids=ids[None, :town]).logits[0, -1].argmax() != ids[town]:
            missed.append(question)
    return missed


def _kept(answer: object, n: SimpleNamespace) -> None:
    model = _model(answer)
    if len(_missed(model, n)) > n.people / 2:
        raise Misconception("hardly a new fact is learned: before that it is no merit to keep the old ones")
    rise = language_loss(model, backbone("tiny-gpt2")[1], old_texts()[1]) - _loss_before()
    if rise > MAY_RISE:
        raise Misconception(
            f"the loss on `old` has risen by {rise:.2f}, and may rise by {MAY_RISE}: what no step asks for is forgotten"
        )


def _measured(answer: object, n: SimpleNamespace) -> None:
    before, alone, mixed = (plain_number(item(answer, each), each) for each in ("before", "alone", "mixed"))
    after = language_loss(_model(answer), backbone("tiny-gpt2")[1], old_texts()[1])
    for name, given, right in (("before", before, _loss_before()), ("mixed", mixed, after)):
        if not abs(given - right) <= 0.01:
            raise Misconception(f"`{name}` is not what is measured here on `old`: language_loss(model, tokenizer, old)")
    if not alone - before > SURELY:
        raise Misconception(
            "`alone`: after a training on the new facts alone, until they all come out, the old texts have lost more"
        )


OPEN = Task(
    "chat.kept",
    "New facts, and the old ones kept",
    _people,
    {_taught: 2, _kept: 2, _measured: 1},
    (
        "LoRA with r = 4 beside query and value, learning rate 0.01, 40 steps on all people at once: it learns them.",
        "What it forgets is what no step asks for. What could each step have beside the new facts?",
        "Add two losses in each step: that of the new answers, and that of some texts out of `more`.",
    ),
    stars=3,
    minutes=25,
    errors={
        "is attached to this model": "take a new model for each training: backbone('tiny-gpt2')[0]",
        "Unable to create tensor": "texts of different lengths need padding=True, and their padding the label -100",
    },
    shown=("people",),
)

put_on_the_list(SIZES, BATCH, LABELS, SCORE, FIGURE, HUNT, OPEN)
