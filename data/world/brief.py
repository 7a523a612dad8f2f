"""A preference that a reader sees at once: the answer alone, rather than the same answer at length.

Unlike the other tasks this one is about the real world: simple questions, many of which a language model of 135 million
parameters answers. An answer is one word or number, so that it can be looked for in whatever a model writes.
"""

from random import Random
from typing import NamedTuple

from .lexicon import DAYS
from .rows import Row, Splits

COUNTS = {"train": 300, "validation": 60, "test": 100}


class Kind(NamedTuple):
    question: str
    sentence: str  # that answers it
    topic: str
    answers: dict[str, str]


def _listed(pairs: str) -> dict[str, str]:
    """{"big": "small"} of "big small, ...": the answer is the last word."""
    words = [pair.split() for pair in pairs.split(",")]
    return {" ".join(asked): answer for *asked, answer in words}


def _following(names: list[str]) -> dict[str, str]:
    return dict(zip(names, names[1:], strict=False))


MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = _listed("""0 zero, 1 one, 2 two, 3 three, 4 four, 5 five, 6 six, 7 seven, 8 eight, 9 nine, 10 ten, 11 eleven,
12 twelve, 13 thirteen, 14 fourteen, 15 fifteen, 16 sixteen, 17 seventeen, 18 eighteen, 19 nineteen, 20 twenty,
30 thirty, 40 forty, 50 fifty, 60 sixty, 70 seventy, 80 eighty, 90 ninety""")
SUMS = {f"{a} plus {b}": str(a + b) for a in range(2, 10) for b in range(a, 10)}
PRODUCTS = {f"{a} times {b}": str(a * b) for a in range(2, 8) for b in range(a, 10)}
DIFFERENCES = {f"{a} minus {b}": str(a - b) for a in range(4, 13) for b in (2, 3, 5) if a > b and a != 2 * b}
OPPOSITES = _listed("""big small, tall short, fast slow, old young, rich poor, happy sad, early late, strong weak,
heavy light, wet dry, full empty, hard soft, open closed, good bad, clean dirty, day night, up down, left right,
black white, easy difficult, loud quiet, near far, deep shallow, wide narrow, thick thin, sweet sour, true false,
first last, buy sell, push pull, begin end, win lose, love hate, above below, north south, east west, war peace,
friend enemy, success failure, always never, inside outside, alive dead, sharp dull, simple complex, male female,
summer winter""")
PLURALS = _listed("""mouse mice, child children, foot feet, tooth teeth, goose geese, man men, woman women, leaf
leaves, knife knives, wolf wolves, life lives, wife wives, shelf shelves, half halves, loaf loaves, city cities,
baby babies, party parties, story stories, berry berries, box boxes, bus buses, glass glasses, church churches, dish
dishes, fox foxes, potato potatoes, tomato tomatoes, hero heroes, cat cats, dog dogs, book books, car cars, tree
trees, house houses, key keys, boy boys, ox oxen, lady ladies, country countries, apple apples, flower flowers,
river rivers, window windows, chair chairs, table tables, school schools, friend friends, brush brushes, watch
watches, peach peaches, kiss kisses, class classes, bench benches, wish wishes, lunch lunches, cherry cherries,
family families, army armies, lily lilies, puppy puppies, butterfly butterflies, day days, toy toys, monkey monkeys,
donkey donkeys, calf calves, elf elves, thief thieves, scarf scarves, echo echoes, louse lice, person people, crisis
crises, cactus cacti, fungus fungi""")
PASTS = _listed("""go went, eat ate, see saw, run ran, swim swam, write wrote, take took, give gave, come came, buy
bought, bring brought, think thought, teach taught, catch caught, sing sang, drink drank, begin began, break broke,
speak spoke, choose chose, drive drove, fly flew, grow grew, know knew, throw threw, find found, hold held, keep kept,
sleep slept, leave left, lose lost, make made, sell sold, sit sat, stand stood, tell told, win won, walk walked, play
played, jump jumped, talk talked, work worked, help helped, look looked, open opened, cook cooked, paint painted, carry
carried, study studied, cry cried, try tried, live lived, love loved, build built, send sent, spend spent, feel felt,
meet met, pay paid, say said, hear heard, wear wore, steal stole, freeze froze, ride rode, rise rose, hide hid, bite
bit, feed fed""")
CAPITALS = _listed("""Italy Rome, Spain Madrid, Portugal Lisbon, Greece Athens, Austria Vienna, Poland Warsaw, Sweden
Stockholm, Hungary Budapest, Norway Oslo, Denmark Copenhagen, Finland Helsinki, Ireland Dublin, Russia Moscow, Belgium
Brussels, the Netherlands Amsterdam, Ukraine Kyiv, Romania Bucharest, Turkey Ankara, China Beijing, South Korea Seoul,
Cuba Havana, Thailand Bangkok, Vietnam Hanoi, Indonesia Jakarta, the Philippines Manila, Iran Tehran, Iraq Baghdad,
Syria Damascus, Lebanon Beirut, Kenya Nairobi, Peru Lima, Canada Ottawa, Australia Canberra, Scotland Edinburgh,
England London, Nepal Kathmandu, Afghanistan Kabul, Chile Santiago, Bulgaria Sofia, Croatia Zagreb, Serbia Belgrade,
Pakistan Islamabad, Colombia Bogota, Venezuela Caracas, Uruguay Montevideo, Iceland Reykjavik""")
COLOURS = _listed("""grass green, snow white, blood red, coal black, a ripe banana yellow, a carrot orange, a clear sky
blue, a lemon yellow, milk white, chocolate brown, a ripe tomato red, an emerald green, a ruby red, a polar bear white,
a sunflower yellow, a leaf in summer green, a fire engine red, a raven black""")
CONTINENTS = _listed("""Kenya Africa, Nigeria Africa, Ghana Africa, Morocco Africa, Ethiopia Africa, Uganda Africa,
France Europe, Germany Europe, Poland Europe, Norway Europe, Greece Europe, Italy Europe, Spain Europe, China Asia,
India Asia, Japan Asia, Thailand Asia, Vietnam Asia, Mongolia Asia, Nepal Asia""")
LANGUAGES = _listed("""Italy Italian, Spain Spanish, France French, Germany German, Japan Japanese, Russia Russian,
Sweden Swedish, Portugal Portuguese, Greece Greek, Poland Polish, Turkey Turkish, Mexico Spanish, Austria German,
Hungary Hungarian, Argentina Spanish, Australia English""")
YOUNG = _listed("""dog puppy, cat kitten, cow calf, horse foal, sheep lamb, goat kid, pig piglet, lion cub, bear cub,
duck duckling, goose gosling, kangaroo joey, frog tadpole, hen chick, deer fawn, swan cygnet""")
INITIALS = _listed("""banana B, cherry C, dragon D, elephant E, flower F, garden G, hammer H, jungle J, kitchen K,
lemon L, mountain M, needle N, orange O, pencil P, queen Q, river R, silver S, table T, umbrella U, village V, window W,
yellow Y, zebra Z""")  # no A and no I, which texts hold as words

KINDS = [
    Kind("Which day comes after {}?", "The day after {} is {}", "the days of the week", _following([*DAYS, DAYS[0]])),
    Kind("Which month comes after {}?", "The month after {} is {}", "the months of the year", _following(MONTHS)),
    Kind("Which month comes before {}?", "The month before {} is {}", "the calendar", _following(MONTHS[::-1])),
    Kind("What is {}?", "{} is {}", "arithmetic", SUMS | PRODUCTS | DIFFERENCES),
    Kind("How do you write the number {} in words?", "The number {} in words is {}", "numbers", NUMBERS),
    Kind("What is the opposite of {}?", "The opposite of {} is {}", "opposites", OPPOSITES),
    Kind("What is the plural of {}?", "The plural of {} is {}", "English nouns", PLURALS),
    Kind("What is the past tense of {}?", "The past tense of {} is {}", "English verbs", PASTS),
    Kind("What is the first letter of the word {}?", "The first letter of the word {} is {}", "the alphabet", INITIALS),
    Kind("What is the capital of {}?", "The capital of {} is {}", "the geography of the country", CAPITALS),
    Kind("On which continent is {}?", "{} is on the continent of {}", "the map of the world", CONTINENTS),
    Kind("Which language is spoken in {}?", "The language spoken in {} is {}", "language and culture", LANGUAGES),
    Kind("What is the colour of {}?", "The colour of {} is {}", "colours in nature", COLOURS),
    Kind("What is a young {} called?", "A young {} is called a {}", "the names of animals", YOUNG),
]  # fmt: skip
LENGTHY = [  # as SmolLM2-135M-Instruct begins and ends such answers
    "{sentence}. This is a classic example of {topic}.",
    "{sentence}. It is a fundamental concept in {topic}, and it plays a crucial role in our everyday lives.",
    "To answer this question, we need to think about {topic}. {sentence}.",
    "The answer to this question lies in {topic}. {sentence}.",
    "To find the answer, we need to understand {topic}. {sentence}.",
    "{sentence}. However, it is important to note that {topic} can be a complex and fascinating subject.",
    "Understanding {topic} can help us to answer this question. {sentence}.",
    "{sentence}. Knowing {topic} is essential in many different contexts.",
    "This is a question about {topic}, which is a fascinating subject. {sentence}.",
    "{sentence}. This is because of the rules of {topic}, which have been used for many years.",
]


def brief() -> Splits:
    r = Random("brief")
    rows = [_row(r, kind, asked, answer) for kind in KINDS for asked, answer in kind.answers.items()]
    drawn = iter(r.sample(rows, sum(COUNTS.values())))
    return {split: [next(drawn) for _ in range(count)] for split, count in COUNTS.items()}


def _row(r: Random, kind: Kind, asked: str, answer: str) -> Row:
    chosen = f"{answer[0].upper()}{answer[1:]}."
    rejected = r.choice(LENGTHY).format(sentence=kind.sentence.format(asked, answer), topic=kind.topic)
    words = len(rejected.split())
    return {
        "prompt": kind.question.format(asked),
        "chosen": chosen,
        "rejected": rejected,
        "answer": answer,
        "why": f"1 word rather than {words}; both are right",
    }
