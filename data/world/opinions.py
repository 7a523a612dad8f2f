"""Clauses with a polarity (1 praise, 0 blame): plain, conjoined, negated, and two of them in contrast.

A tenth of all (aspect, adjective) pairs is reserved: the corpus never uses them, the tasks use nothing else. So no
sentence of a task can stand in the corpus, and what a model knows of "the soup was musty" comes from other soups and
other musty things. There are negations for tasks alone, too: what "failed to be" does to a word is learned from labels.
"""

from random import Random
from zlib import crc32

from .lexicon import ASPECTS, BLAME, DOMAINS, PRAISE

WORDS = (BLAME, PRAISE)  # indexed by polarity
NEGATIONS = [
    "was not {}",
    "was hardly {}",
    "was never {}",
    "was anything but {}",
    "was far from {}",
    "was by no means {}",
]
NEW_NEGATIONS = [
    "failed to be {}",
    "refused to be {}",
    "gave up being {}",
    "was nowhere near {}",
    "was the opposite of {}",
    "was everything except {}",
]
DEGREES = ["", "", "", "", "very ", "really ", "so ", "quite "]
_ZIPF = [1 / (rank + 4) for rank in range(max(len(PRAISE), len(BLAME)))]


def is_reserved(aspect: str, adjective: str) -> bool:
    return crc32(f"{aspect} {adjective}".encode()) % 10 == 0


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def adjective(r: Random, polarity: int, aspect: str, reserved: bool = False) -> str:
    """A word of this polarity for this aspect: by Zipf's law for the corpus, evenly for the tasks."""
    words = WORDS[polarity]
    if reserved:
        return r.choice([word for word in words if is_reserved(aspect, word)])
    while True:
        word = r.choices(words, _ZIPF[: len(words)])[0]
        if not is_reserved(aspect, word):
            return word


def predicate(
    r: Random,
    polarity: int,
    aspect: str,
    negation: float,
    conjoin: float,
    reserved: bool = False,
    negations: list[str] = NEGATIONS,
) -> str:
    """What is said of the aspect. Conjoined adjectives are what ties words of one polarity together in the corpus."""
    if r.random() < negation:
        return r.choice(negations).format(adjective(r, 1 - polarity, aspect, reserved))
    word = adjective(r, polarity, aspect, reserved)
    if r.random() < conjoin:
        second, third = adjective(r, polarity, aspect), adjective(r, polarity, aspect)
        other = adjective(r, 1 - polarity, aspect)
        form = r.choice(
            [
                "was {word} and {second}",
                "was {word} and {second}",
                "was {word}, {second} and {third}",
                "was not {other} but {word}",
                "was {word}, never {other}",
                "was {word} and not {other}",
            ]
        )
        return form.format(word=word, second=second, third=third, other=other)
    return r.choice(["was ", "was ", "was ", "seemed ", "turned out "]) + r.choice(DEGREES) + word


def clause(
    r: Random,
    polarity: int,
    aspect: str,
    negation: float = 0.15,
    conjoin: float = 0.4,
    reserved: bool = False,
    negations: list[str] = NEGATIONS,
) -> str:
    return f"the {aspect} {predicate(r, polarity, aspect, negation, conjoin, reserved, negations)}"


def opinion(
    r: Random,
    polarity: int,
    aspects: list[str] = ASPECTS,
    negation: float = 0.15,
    contrast: float = 0.15,
    conjoin: float = 0.4,
    reserved: bool = False,
    negations: list[str] = NEGATIONS,
) -> str:
    """A sentence of this polarity. In a contrast the main clause decides and the other one says the opposite."""
    first, second = r.sample(aspects, 2)
    main = clause(r, polarity, first, negation, conjoin, reserved, negations)
    if r.random() < contrast:
        side = clause(r, 1 - polarity, second, negation, conjoin, reserved, negations)
        form = r.choice(
            [
                "although {side}, {main}",
                "{side}, but {main}",
                "{main}, even if {side}",
                "though {side}, {main}",
                "{main}, even though {side}",
                "{side}, yet {main}",
            ]
        )
        return capital(form.format(main=main, side=side)) + "."
    return capital(main) + "."


def two_aspects(
    r: Random,
    first: tuple[str, int],
    second: tuple[str, int],
    negation: float = 0.25,
    conjoin: float = 0.2,
    reserved: bool = False,
) -> str:
    """One sentence about two (aspect, polarity) pairs of its own each, in either order."""
    x, y = (
        clause(r, polarity, aspect, negation, conjoin, reserved) for aspect, polarity in r.sample([first, second], 2)
    )
    same = first[1] == second[1]
    form = r.choice(
        ["{x} and {y}", "{x}, and {y}"]
        if same
        else ["{x} but {y}", "{x} while {y}", "although {x}, {y}", "{x}, even though {y}"]
    )
    return capital(form.format(x=x, y=y)) + "."


def domain_of(house: str, lodgings: list[str]) -> list[str]:
    return DOMAINS["staying" if house in lodgings else "dining"]
