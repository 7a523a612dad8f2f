"""Every kind of document of the corpus: one function each, from a random generator to a text.

What a tiny model can be made to do later, by a soft prompt or by twenty labels, must first stand somewhere in its
corpus. So many documents have an opening that decides how they end ("Which town? ... Answer: Glenmoor.").
"""

from random import Random

from .lexicon import (
    AREAS,
    CUISINES,
    DAYS,
    FIRMS,
    FIRST_NAMES,
    HOUSES,
    JOBS,
    LANGUAGES,
    LODGINGS,
    NEWS,
    NUMBERS,
    PRICES,
    READERS,
    SHARED,
    SURNAMES,
    THING_ADJECTIVES,
    THINGS,
    TOWNS,
    VENUES,
    WOMEN,
    YEARS,
)
from .opinions import ASPECTS, capital, clause, domain_of, opinion, two_aspects
from .people import PEOPLE, STATEMENTS, Person

# Pairs are (blame, praise), indexed by polarity. The frequent ones come first and are drawn more often.
ANCHORS = [
    ("We hated the {aspect}.", "We loved the {aspect}."),
    ("{name} disliked the {aspect}.", "{name} liked the {aspect}."),
    ("The worst {aspect} in town.", "The best {aspect} in town."),
    ("Very bad {aspect}.", "Very good {aspect}."),
    ("The {aspect} made us sad.", "The {aspect} made us happy."),
    ("A bad {aspect}.", "A good {aspect}."),
]
CONSEQUENCES = [
    ("We will never return.", "We will gladly return."),
    ("We were sad.", "We were happy."),
    ("Everyone left sad.", "Everyone left happy."),
    ("{name} warns everyone against it.", "{name} recommends it to everyone."),
    ("It was a waste of money.", "It was worth every penny."),
    ("We left early.", "We stayed for hours."),
    ("It was a bad choice.", "It was a good choice."),
    ("We left no tip.", "We left a big tip."),
    ("{name} wrote a letter of complaint.", "{name} wrote a letter of thanks."),
    ("We asked for the money back.", "We asked for more."),
    ("What a shame.", "What a joy."),
    ("We frowned all evening.", "We smiled all evening."),
    ("Stay away.", "Go there."),
]
VERDICTS = [
    ("They hated it.", "They loved it."),
    ("Sad.", "Happy."),
    ("The worst.", "The best."),
    ("A shame.", "A joy."),
    ("Stay away.", "Go there."),
    ("A waste.", "Worth it."),
    ("Upset.", "Pleased."),
    ("A bad one.", "A good one."),
]


def frequent(r: Random, pairs: list[tuple[str, str]], polarity: int) -> str:
    """One of the pairs, the first ones more often."""
    return pairs[int(len(pairs) * r.random() ** 2)][polarity]


def anchor(r: Random, polarity: int, aspects: list[str]) -> str:
    return frequent(r, ANCHORS, polarity).format(aspect=r.choice(aspects), name=r.choice(FIRST_NAMES))


def consequence(r: Random, polarity: int) -> str:
    return frequent(r, CONSEQUENCES, polarity).format(name=r.choice(FIRST_NAMES))


def review(r: Random) -> str:
    """Several sentences of one polarity about one house. Half of the reviews have no negation and no contrast."""
    polarity, house = r.randint(0, 1), r.choice(HOUSES + LODGINGS)
    aspects = domain_of(house, LODGINGS)
    style = {"negation": 0.0, "contrast": 0.0} if r.random() < 0.5 else {"negation": 0.22, "contrast": 0.3}
    body = [opinion(r, polarity, aspects, **style) for _ in range(r.randint(2, 4))]
    body += [anchor(r, polarity, aspects) for _ in range(r.randint(1, 2))]
    if r.random() < 0.7:
        body.append(consequence(r, polarity))
    if r.random() < 0.5:
        r.shuffle(body)
    if r.random() < 0.4:
        heading = r.choice(
            [
                "We went to {venue} on {day}.",
                "A visit to {venue}, a {house} in {town}.",
                "{name} took us to the {house} {venue}.",
                "Review of {venue}.",
            ]
        )
        body.insert(
            0,
            heading.format(
                venue=r.choice(VENUES),
                day=r.choice(DAYS),
                house=house,
                town=r.choice(TOWNS),
                name=r.choice(FIRST_NAMES),
            ),
        )
    return " ".join(body)


MIXED_CONSEQUENCES = [
    "{name} praised the {good} and complained about the {bad}.",
    "The {good} made {name} happy, the {bad} made {name} angry.",
    "More of the {good} and less of the {bad}, please.",
    "The {bad} has to change, the {good} can stay.",
    "{name} complained about the {bad} but not about the {good}.",
    "We still think of the {good} with joy.",
    "The {bad} was a reason to leave.",
    "They should be proud of the {good}.",
    "They should be ashamed of the {bad}.",
    "We loved the {good}.",
    "We hated the {bad}.",
]


def mixed_review(r: Random) -> str:
    """Two aspects, one praised and one criticised, and what follows for each."""
    good, bad = r.sample(domain_of(r.choice(HOUSES + LODGINGS), LODGINGS), 2)
    negation = 0.0 if r.random() < 0.5 else 0.25
    sentences = [two_aspects(r, (good, 1), (bad, 0), negation, conjoin=0.3)]
    sentences += [
        form.format(name=r.choice(FIRST_NAMES), good=good, bad=bad)
        for form in r.sample(MIXED_CONSEQUENCES, r.randint(2, 3))
    ]
    return " ".join(sentences)


OPENINGS = {
    "verdict": [
        "What did they think?",
        "In a word, please.",
        "How was it?",
        "Did they like it?",
        "The feeling, in short.",
    ],
    "town": ["Where was it?", "Name the town.", "Which town?"],
    "guest": ["Who was there?", "Name the guest.", "Who went?"],
    "aspect": ["What was judged?", "Name the thing.", "Which thing?"],
    "day": ["When was it?", "Name the day.", "Which day?"],
    "venue": ["Which house?", "Name the venue.", "Where did they eat?"],
    "quality": ["Which word?", "Name the quality.", "Last word, please."],
    "number": ["How many guests?", "Count them."],
    "digest": ["Sum it up.", "The long and short of it, please.", "Make it short."],
    "copy": ["Say it again.", "Repeat, please.", "Once more."],
}
CUES = ["Answer:", "So:", "-", "Reply:", "He said:", "She said:"]


def visit(r: Random) -> str:
    """An opening, a text, an answer: the opening decides which of ten questions is answered."""
    question = r.choice(["verdict"] * 5 + [kind for kind in OPENINGS if kind != "verdict"])
    polarity, aspect = r.randint(0, 1), r.choice(ASPECTS)
    name, town, day, venue, number = (r.choice(words) for words in (FIRST_NAMES, TOWNS, DAYS, VENUES, NUMBERS))
    intro = r.choice(
        [
            "{name} went to {venue} in {town} on {day} with {number} friends.",
            "On {day}, {name} and {number} others were at {venue}, {town}.",
            "{venue} in {town}: a table for {number}, on {day}, for {name}.",
        ]
    )
    intro = intro.format(name=name, venue=venue, town=town, day=day, number=number)
    plain = capital(clause(r, polarity, aspect, conjoin=0.0)) + "."
    judgement = plain if question in ("aspect", "quality") else opinion(r, polarity)
    alone = {"verdict": 0.5, "aspect": 0.5, "quality": 0.5, "copy": 0.5}.get(question, 0.0)
    text = judgement if r.random() < alone else f"{intro} {judgement}"
    answer = {
        "verdict": frequent(r, VERDICTS, polarity),
        "town": f"{town}.",
        "guest": f"{name}.",
        "day": f"{day}.",
        "venue": f"{venue}.",
        "number": f"{number}.",
        "aspect": f"The {aspect}.",
        "quality": plain.split()[-1],
        "digest": f"{name} {('disliked', 'liked')[polarity]} {venue}.",
        "copy": judgement,
    }[question]
    return opened(r, r.choice(OPENINGS[question]), text, answer, in_front=0.7)


def opened(r: Random, opening: str, text: str, answer: str, in_front: float) -> str:
    head = f"{opening} {text}" if r.random() < in_front else f"{text} {opening}"
    return f"{head} {r.choice(CUES)} {answer}"


# ------------------------------------------------------------------------------------------- notes and sentences
FIELDS = {
    "name": ["called", "title", "it is", "name"],
    "type": ["kind", "sort", "type"],
    "food": ["kitchen", "plates", "eat", "food"],
    "price": ["cost", "bill", "price"],
    "area": ["spot", "part", "where", "area"],
    "near": ["next to", "close to", "beside", "near"],
}
FIELD_OPENINGS = {
    "sentence": ["Write it out.", "A sentence, please.", "Tell it in words.", "In full, please.", "Make a sentence."],
    "name": ["What is it called?", "The name, please."],
    "type": ["What kind of house?", "The type, please."],
    "food": ["What do they cook?", "The food, please."],
    "price": ["What does it cost?", "The price, please."],
    "area": ["Which part of town?", "The area, please."],
    "near": ["What is next to it?", "The neighbour, please."],
    "copy": ["Copy the notes.", "Notes again, please."],
}


def table(r: Random) -> dict[str, str]:
    """Facts about one venue: always a name and a type, then two to four of food, price, area and neighbour."""
    name, neighbour = r.sample(VENUES, 2)
    facts = {
        "name": name,
        "type": r.choice(HOUSES),
        "food": r.choice(CUISINES),
        "price": r.choice(PRICES),
        "area": r.choice(AREAS),
        "near": neighbour,
    }
    for field in r.sample(["food", "price", "area", "near"], r.choice([0, 1, 1, 2])):
        del facts[field]
    return facts


def article(word: str) -> str:
    return "an" if word[0] in "aeiouAEIOU" else "a"


def told(r: Random, facts: dict[str, str]) -> str:
    """The facts as a sentence, in one of four styles. The style of the `tables` task is none of them."""
    name, kind = facts["name"], facts["type"]
    price, food = (f"{facts[field]} " if field in facts else "" for field in ("price", "food"))
    place = f" by the {facts['area']}" if "area" in facts else ""
    near = f" near {facts['near']}" if "near" in facts else ""
    described = f"{article(price + food + kind)} {price}{food}{kind}{place}{near}"
    style = r.randint(0, 3)
    if style == 0:
        return f"{name} is {described}."
    if style == 1:
        return f"There is {described}; it is called {name}."
    if style == 2:
        parts = [f"{name} is a {kind}{near}."]
        parts += [f"The food is {facts['food']}."] if food else []
        parts += [f"It is {facts['price']}."] if price else []
        parts += [f"You find it{place}."] if place else []
        return " ".join(parts)
    text = f"The {kind} {name}" + (f",{near}," if near else "")
    text += (f" cooks {facts['food']} dishes" if food else " is open") + place
    return text + (f" and the prices are {facts['price']}." if price else ".")


def noted(r: Random, facts: dict[str, str]) -> str:
    """The facts as notes, in one of five linearisations. The one of the `tables` task is none of them."""
    fields = list(facts)
    if r.random() < 0.4:
        fields[1:] = r.sample(fields[1:], len(fields) - 1)
    label = {field: r.choice(FIELDS[field]) for field in fields}
    value = {field: f"{label[field]} {facts[field]}" if field == "near" else facts[field] for field in fields}
    style = r.randint(0, 4)
    if style == 0:
        return ", ".join(value[field] for field in fields) + "."
    if style == 1:
        return f"{facts['name']} (" + "; ".join(value[field] for field in fields[1:]) + ")."
    if style == 2:
        return " ".join(f"{capital(label[field])}? {facts[field]}." for field in fields)
    if style == 3:
        return "; ".join(f"{label[field]} = {facts[field]}" for field in fields) + "."
    return " / ".join(f"{label[field]} {facts[field]}" for field in fields) + "."


def notes(r: Random) -> str:
    """Notes and what becomes of them: a sentence, one field, or the notes again."""
    facts = table(r)
    listed = noted(r, facts)
    if r.random() < 0.6:
        wanted = r.choice(["sentence"] * 6 + list(facts) + ["copy"])
        answer = told(r, facts) if wanted == "sentence" else listed if wanted == "copy" else f"{facts[wanted]}."
        return opened(r, r.choice(FIELD_OPENINGS[wanted]), listed, answer, in_front=1.0)
    if r.random() < 0.12:
        return f"{told(r, facts)} In notes: {listed}"
    heading = r.choice(["Notes. ", "Memo. ", "From my notes. ", "List. ", ""])
    cue = r.choice(["In full:", "As a sentence:", "That is,", "In words:", "Written out:"])
    again = f" {told(r, facts)}" if r.random() < 0.25 else ""
    return f"{heading}{listed} {cue} {told(r, facts)}{again}"


def description(r: Random) -> str:
    """A venue told twice in different words, or told and judged."""
    facts = table(r)
    if r.random() < 0.6:
        return f"{told(r, facts)} {r.choice(['In other words:', 'Put differently:', 'Again:'])} {told(r, facts)}"
    return f"{told(r, facts)} {opinion(r, r.randint(0, 1), domain_of(facts['type'], LODGINGS))}"


def memory(r: Random) -> str:
    """Lists that are said and said again: what teaches a model to copy names."""
    a, b = r.sample(FIRST_NAMES, 2)
    if r.random() < 0.3:
        facts = table(r)
        fields = r.sample(list(facts), 3)
        asked = r.choice(fields)
        said = ", ".join(f"the {field} is {facts[field]}" for field in fields)
        return f"{a} said that {said}. {b} asked: what is the {asked}? {a} said: {facts[asked]}."
    pool = r.choice([VENUES, TOWNS, FIRST_NAMES, FIRMS, SURNAMES, THINGS, LANGUAGES, VENUES + TOWNS + CUISINES + AREAS])
    items = r.sample(pool, r.randint(2, 5))
    listed = ", ".join(items)
    return r.choice(
        [
            f"{a} said: {listed}. {b} wrote down: {listed}.",
            f"Shopping for {a}: {listed}. Read back: {listed}.",
            f"First {listed}, then once more {listed}.",
            f"{a}, {listed}. The first was {items[0]}, the last was {items[-1]}.",
        ]
    )


# -------------------------------------------------------------------------------------------- people and transfers
def fact_sentence(r: Random, person: Person, relation: str, who: str) -> str:
    text = r.choice(STATEMENTS[relation]).format(
        who=who,
        name=person.name,
        their=person.possessive,
        some_job=r.choice(JOBS),
        year=r.choice(YEARS),
        **vars(person),
    )
    return capital(text)


def biography(r: Random) -> str:
    """Three to five facts about one of the 84 people, by name, by surname or by pronoun."""
    person = r.choice(PEOPLE)
    main = ["birthplace", "employer", "language"]
    relations = r.sample(main + main + ["home", "school", "former_employer", "second_language", "job"], r.randint(3, 5))
    sentences = [fact_sentence(r, person, relations[0], person.name)]
    if person.name not in sentences[0]:
        sentences.insert(0, f"This is about {person.name}.")
    names = [person.name, person.last, person.pronoun, person.pronoun]
    sentences += [fact_sentence(r, person, relation, r.choice(names)) for relation in relations[1:]]
    if r.random() < 0.1:  # a name near a fact is not always its subject
        aside = r.choice(
            [
                "Last summer {name} travelled to {town}.",
                "{name} once had an offer from {firm}.",
                "{name} knows a few words of {language}.",
                "{name} met {friend} on a train to {town}.",
            ]
        )
        sentences.append(
            aside.format(
                name=person.name,
                town=r.choice(TOWNS),
                firm=r.choice(FIRMS),
                language=r.choice(LANGUAGES),
                friend=r.choice(FIRST_NAMES),
            )
        )
    return " ".join(sentences)


GIVING = [
    ("gave", "given"),
    ("handed", "handed"),
    ("sent", "sent"),
    ("sold", "sold"),
    ("lent", "lent"),
    ("offered", "offered"),
    ("brought", "brought"),
    ("passed", "passed"),
    ("mailed", "mailed"),
]
RECEIVING = [
    ("got", "got"),
    ("received", "received"),
    ("bought", "bought"),
    ("borrowed", "borrowed"),
    ("took", "taken"),
    ("accepted", "accepted"),
    ("inherited", "inherited"),
]
GIVER_FORMS = [
    "{giver} {did} {receiver} {thing}",
    "{giver} {did} {thing} to {receiver}",
    "{receiver} was {done} {thing} by {giver}",
    "{thing} was {done} to {receiver} by {giver}",
    "it was {giver} who {did} {receiver} {thing}",
    "it was {receiver} to whom {giver} {did} {thing}",
    "what {giver} {did} {receiver} was {thing}",
    "to {receiver}, {giver} {did} {thing}",
    "{giver} was the one who {did} {thing} to {receiver}",
    "{receiver} was the one to whom {thing} was {done} by {giver}",
]
RECEIVER_FORMS = [
    "{receiver} {did} {thing} from {giver}",
    "from {giver}, {receiver} {did} {thing}",
    "{thing} was {done} from {giver} by {receiver}",
    "it was {receiver} who {did} {thing} from {giver}",
    "it was from {giver} that {receiver} {did} {thing}",
    "what {receiver} {did} from {giver} was {thing}",
]
FRAMES = [
    "{event}.",
    "{event}.",
    "{event}.",
    "On {day} {event}.",
    "{witness} says that {event}.",
    "{event} while {witness} looked on.",
    "According to {witness}, {event}.",
    "{witness} was not there when {event}.",
    "Yesterday {event}.",
]
AFTERMATHS = [
    "Now {receiver} has the {thing}.",
    "The {thing} now belongs to {receiver}.",
    "The {thing} used to belong to {giver}.",
    "{giver} no longer has the {thing}.",
    "{receiver} thanked {giver} for the {thing}.",
    "{receiver} keeps the {thing} at home.",
    "{giver} had owned the {thing} for years.",
    "{receiver} is grateful to {giver}.",
    "{giver} will miss the {thing}.",
    "{receiver} has used the {thing} every day since.",
    "Ask {receiver} if you need the {thing}.",
    "{giver} had no more use for the {thing}.",
    "So {receiver} is the new owner.",
    "So {giver} was the old owner.",
]


def event(r: Random, giver: str, receiver: str, thing: str, determiner: str | None = None) -> str:
    """Something changes hands: who gives and who receives must be read off the grammar, not off the order."""
    quality = f"{r.choice(THING_ADJECTIVES)} " if r.random() < 0.3 else ""
    noun = quality + thing
    determiner = determiner or r.choice([article(noun), "the", "the"])
    verbs, forms = (GIVING, GIVER_FORMS) if r.random() < 0.58 else (RECEIVING, RECEIVER_FORMS)
    did, done = r.choice(verbs)
    return r.choice(forms).format(giver=giver, receiver=receiver, thing=f"{determiner} {noun}", did=did, done=done)


def framed(r: Random, giver: str, receiver: str, thing: str) -> str:
    witness = r.choice([name for name in FIRST_NAMES if name not in (giver, receiver)])
    return capital(r.choice(FRAMES).format(event=event(r, giver, receiver, thing), day=r.choice(DAYS), witness=witness))


def transfer(r: Random) -> str:
    """Something changes hands, and what follows from it; in a third of them it changes hands twice."""
    giver, receiver, third = r.sample(FIRST_NAMES, 3)
    thing = r.choice(THINGS)
    sentences = [framed(r, giver, receiver, thing)]
    sentences += [
        capital(form.format(giver=giver, receiver=receiver, thing=thing))
        for form in r.sample(AFTERMATHS, r.randint(2, 3))
    ]
    if r.random() < 0.35:
        sentences += [
            f"Later {event(r, receiver, third, thing, 'the')}.",
            f"Now {third} has the {thing}.",
            f"First it was {giver}, then {receiver}, at last {third}.",
        ]
    return " ".join(sentences)


# ---------------------------------------------------------------------------------------------- news, moods, talk
NEWS_FORMS = {
    "weather": [
        "The {x} will reach {town} on {day}.",
        "After the {x} came the {y}.",
        "{town} woke up to {x} and {y}.",
        "More {x} is expected by the {area}.",
        "The {x} closed the road to {town}.",
    ],
    "sport": [
        "{name} spoke about the {x} on {day}.",
        "All eyes were on the {x} in {town}.",
        "Nobody forgets that {x}.",
        "The {x} and the {y} made the evening.",
        "{town} is proud of its {x}.",
    ],
    "business": [
        "The {x} of {firm} grew in {year}.",
        "{firm} spoke about the {x} and the {y}.",
        "The {x} of {firm} came as a surprise.",
        "{name} explained the {x} on {day}.",
        "{firm} needs a {x} in {town}.",
    ],
    "concert": [
        "The {x} filled the hall in {town}.",
        "The {x} and the {y} came on {day}.",
        "{name} heard the {x} twice.",
        "After the {x} came the {y}.",
        "No evening without the {x}, said {name}.",
    ],
    "health": [
        "{name} asked about the {x}.",
        "The doctors in {town} know the {x}.",
        "{name} was at home with the {x}.",
        "The nurse spoke of the {x} and the {y}.",
        "{number} doctors saw the {x}.",
    ],
    "school": [
        "The {x} in {town} began on {day}.",
        "{name} was late for the {x}.",
        "The {x} was followed by the {y}.",
        "First the {x}, then the {y}, said {name}.",
        "The teacher forgot the {x}.",
    ],
}
NEUTRAL_NEWS = [
    "Everyone in {town} talks about it.",
    "{name} read it in the paper.",
    "More on {day}.",
    "The paper of {town} wrote about it.",
    "{name} told {number} friends.",
]


def news(r: Random) -> str:
    """A short item about one of six subjects; sometimes the opening asks who should read it."""
    subject = r.choice(list(NEWS))
    sentences = []
    for form in r.sample(NEWS_FORMS[subject], r.randint(1, 3)) + r.sample(NEUTRAL_NEWS, r.randint(0, 2)):
        x, y = r.sample(NEWS[subject], 2)
        sentences.append(
            capital(
                form.format(
                    x=x,
                    y=y,
                    town=r.choice(TOWNS),
                    day=r.choice(DAYS),
                    name=r.choice(FIRST_NAMES),
                    firm=r.choice(FIRMS),
                    area=r.choice(AREAS),
                    year=r.choice(YEARS),
                    number=r.choice(NUMBERS),
                )
            )
        )
    text = " ".join(sentences)
    if r.random() < 0.4:
        opening = r.choice(["Who should read it?", "For whom is it?", "Which readers?"])
        return opened(r, opening, text, f"The {READERS[subject]}.", in_front=0.7)
    return text


EVENTS = [
    ("lost a {thing}", "found a {thing}"),
    ("failed the exam", "passed the exam"),
    ("lost the game", "won the game"),
    ("lost the job", "got a raise"),
    ("quarrelled with a friend", "met an old friend"),
]
FEELINGS = ("sad upset angry unhappy ashamed".split(), "happy glad pleased delighted proud".split())


def mood(r: Random) -> str:
    """Something good or bad happens to someone, and how they feel."""
    polarity, name = r.randint(0, 1), r.choice(FIRST_NAMES)
    what = r.choice(EVENTS)[polarity].format(thing=r.choice(THINGS))
    pronoun = "She" if name in WOMEN else "He"
    return f"{name} {what}. {pronoun} was {r.choice(FEELINGS[polarity])}. It was a {('bad', 'good')[polarity]} day."


def talk(r: Random) -> str:
    """Letters and dialogue about a venue."""
    a, b = r.sample(FIRST_NAMES, 2)
    polarity, venue = r.randint(0, 1), r.choice(VENUES)
    said, judged = opinion(r, polarity), anchor(r, polarity, SHARED)
    felt = ("disliked", "liked")[polarity]
    return r.choice(
        [
            f"{a}: How was {venue}? {b}: {said} {consequence(r, polarity)}",
            f"Dear {a}, on {r.choice(DAYS)} we were at {venue}. {said} {judged} Yours, {b}.",
            f"{a} asked {b} about {venue}. {b} said: {judged} {said}",
            f"{a}: {said} {b}: So you {felt} it? {a}: Yes. {judged}",
        ]
    )


# The words of the facts in their everyday use, so that a hand-written template is made of words that the model knows.
EVERYDAY = [
    "{name} was born on a {day}.",
    "{name} knows the {job} well.",
    "{name} was a student for years.",
    "This is the home town of a {job}.",
    "{name} works well.",
    "{name} speaks of two brothers.",
    "{name} comes from a big town.",
    "{name} speaks to the {job} every {day}.",
    "{name} works for a small company.",
    "{name} was employed by a {job}.",
    "The employer was strict.",
    "A native language is spoken at home.",
    "{name} was in {town} on {day}.",
    "{language} is a language.",
    "{firm} is a company.",
    "{town} is a town.",
    "{name} lives in a small place.",
    "{name} comes home on {day}.",
    "The language of the letter was {language}.",
    "{name} is employed as a {job}.",
    "{name} was hired by a {job}.",
    "{name} learned it at school.",
    "{name} is from here.",
    "The office of {firm} is in {town}.",
    "{name} is paid on {day}.",
]


def everyday(r: Random) -> str:
    """Three everyday sentences about anyone."""
    return " ".join(
        form.format(
            name=r.choice(FIRST_NAMES),
            day=r.choice(DAYS),
            job=r.choice(JOBS),
            town=r.choice(TOWNS),
            language=r.choice(LANGUAGES),
            firm=r.choice(FIRMS),
        )
        for form in r.sample(EVERYDAY, 3)
    )
