"""The tasks of understanding, for an encoder: tags, pairs of sentences, and facts about the 84 people.

aspects  a sentence about three things -> which are praised and which criticised? The thing itself does not tell
owners   something changes hands twice -> who had it first, who then, and who has it now?
pairs    something changes hands; a second sentence -> does it follow from the first?
facts    a person and a relation -> the object, among all objects of the relation
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable
from random import Random

from peft_edu.lab.tasks.metrics import score_tags

from . import documents
from .lexicon import DINING, FIRST_NAMES, SHARED, STAYING, THINGS
from .opinions import NEW_NEGATIONS, capital, clause
from .people import PEOPLE
from .rows import Row, Splits, distinct

SIZES = {"train": 400, "validation": 300, "test": 600}


def words_of(text: str) -> list[str]:
    """The words of a text, with commas and full stops apart."""
    return re.findall(r"[\w']+|[.,]", text)


def tagged(text: str, tags: dict[str, str]) -> Row:
    """The words of a text, and for each its tag: O for all that are not named."""
    named = {capital(word): tag for word, tag in tags.items()} | tags
    return {"words": words_of(text), "tags": [named.get(word, "O") for word in words_of(text)]}


SAME, OPPOSITE = ["{x} and {y}", "{x}, and {y}"], ["{x} but {y}", "{x} while {y}", "although {x}, {y}",
                                                   "{x}, even though {y}"]  # fmt: skip
THIRD = (["{both}, but {z}", "{both}, while {z}"], ["{both}, and {z}", "{both} and {z}"])  # opposite, same


def aspects() -> Splits:
    r = Random("aspects")

    def row() -> Row:
        things = r.sample(r.choice([DINING, STAYING]) + SHARED, 3)
        praised = [r.randint(0, 1) for _ in things]
        x, y, z = (
            clause(r, polarity, thing, negation=0.5, conjoin=0.0, reserved=True, negations=NEW_NEGATIONS)
            for thing, polarity in zip(things, praised, strict=True)
        )
        both = r.choice(SAME if praised[0] == praised[1] else OPPOSITE).format(x=x, y=y)
        text = capital(r.choice(THIRD[praised[1] == praised[2]]).format(both=both, z=z)) + "."
        return tagged(text, dict(zip(things, map(("CRITICISED", "PRAISED").__getitem__, praised), strict=True)))

    return _splits(row, "words", train=1000)


def owners() -> Splits:
    r = Random("owners")

    def row() -> Row:
        first, middle, last = r.sample(FIRST_NAMES, 3)
        thing = r.choice(THINGS)
        text = documents.framed(r, first, middle, thing)
        text += f" Later {documents.event(r, middle, last, thing, 'the')}."
        return tagged(text, {first: "FIRST", middle: "MIDDLE", last: "LAST"})

    return _splits(row, "words")


FOLLOWS = ["does not follow", "follows"]
HYPOTHESES = ["If you need the {thing} now, ask {receiver}.", "{receiver} is the one who has the {thing} now."]


def pairs() -> Splits:
    """Half of the second sentences name the giver as the receiver."""
    r = Random("pairs")

    def row() -> Row:
        giver, receiver = r.sample(FIRST_NAMES, 2)
        thing, label = r.choice(THINGS), r.randint(0, 1)
        second = r.choice(HYPOTHESES).format(thing=thing, receiver=receiver if label else giver)
        return {"text": documents.framed(r, giver, receiver, thing), "second": second, "label": label}

    return _splits(row, "text", train=2000)


def _splits(row: Callable[[], Row], key: str, **sizes: int) -> Splits:
    seen: set[Hashable] = set()
    return {split: distinct(count, row, key, seen) for split, count in (SIZES | sizes).items()}


TEMPLATES = {  # written by hand, the good and the clumsy: in words of the corpus, but none of its sentences
    "birthplace": [
        "{subject} is a native of [MASK].",
        "{subject} was a native of [MASK].",
        "{subject} is native to [MASK].",
        "{subject} arrived in [MASK] as a child.",
        "{subject} was born in [MASK].",
        "The birthplace of {subject} is [MASK].",
    ],
    "employer": [
        "{subject} is at [MASK] every morning.",
        "{subject} works every morning at [MASK].",
        "{subject} works at [MASK].",
        "{subject} has a job at [MASK].",
        "{subject} works for [MASK].",
        "The employer of {subject} is [MASK].",
    ],
    "language": [
        "{subject} speaks in [MASK].",
        "{subject} speaks [MASK].",
        "The mother tongue of {subject} is [MASK].",
        "{subject} heard [MASK] as a child.",
        "{subject} dreams [MASK].",
        "The native language of {subject} is [MASK].",
    ],
}
FACT_SIZES = {"train": 44, "validation": 10, "test": 30}  # people


def facts() -> Splits:
    """Three facts of each person. A person is in one split with all of them."""
    people = iter(Random("facts").sample(PEOPLE, len(PEOPLE)))
    return {
        split: [
            {"subject": person.name, "relation": relation, "answer": getattr(person, relation)}
            for person in (next(people) for _ in range(count))
            for relation in TEMPLATES
        ]
        for split, count in FACT_SIZES.items()
    }


TASKS = (aspects, owners, pairs, facts)


# --------------------------------------------------------------------------------------------- task.json, and baselines
def usual_tags(splits: Splits) -> float:
    """Each word gets the tag that it had most often in training."""
    seen: dict[str, Counter] = {}
    for row in splits["train"]:
        for word, tag in zip(row["words"], row["tags"], strict=True):
            seen.setdefault(word.lower(), Counter())[tag] += 1
    usual = {word: counted.most_common(1)[0][0] for word, counted in seen.items()}
    guessed = [[usual.get(word.lower(), "O") for word in row["words"]] for row in splits["test"]]
    return score_tags(guessed, [row["tags"] for row in splits["test"]])["f1"]


def usual_answers(splits: Splits) -> float:
    """The most frequent object of each relation in training."""
    seen: dict[str, Counter] = {}
    for row in splits["train"]:
        seen.setdefault(row["relation"], Counter())[row["answer"]] += 1
    usual = {relation: counted.most_common(1)[0][0] for relation, counted in seen.items()}
    return sum(row["answer"] == usual[row["relation"]] for row in splits["test"]) / len(splits["test"])


DESCRIPTIONS = {
    "aspects": "Three things are judged in one sentence: which are praised, which criticised? Half of the judgements "
    "are negated, in words that the corpus does not have, and no thing is praised more often than another: its tag "
    "must be read off its own clause.",
    "owners": "Something changes hands twice: who had it first, who then, who has it at last? Sixteen forms of the "
    "sentence, active and passive, put the names in any order.",
    "pairs": "Something changes hands. Does the second sentence follow from the first? Half of the second "
    "sentences name the giver as the receiver; their two forms are not in the corpus.",
    "facts": "Where was this person born, for whom do they work, what language is theirs? The corpus says it of 84 "
    "people in several ways. The templates were written by hand, good and clumsy; none is a sentence of the corpus.",
}


def about(name: str, splits: Splits) -> dict:
    if name == "facts":
        return {
            "kind": "fill",
            "metric": "accuracy",
            "description": DESCRIPTIONS[name],
            "templates": TEMPLATES,
            "baselines": {"most frequent answer": round(usual_answers(splits), 4)},
        }
    tags = {"aspects": ["O", "CRITICISED", "PRAISED"], "owners": ["O", "FIRST", "MIDDLE", "LAST"]}[name]
    return {
        "kind": "tag",
        "metric": "f1",
        "labels": tags,
        "description": DESCRIPTIONS[name],
        "baselines": {"most frequent tag of each word": round(usual_tags(splits), 4)},
    }
