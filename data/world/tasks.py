"""The labelled tasks, as jsonl. Their word pairs and their formats stand nowhere in the corpus (tested).

Here are the tasks about whole texts; tags, pairs and facts are in understanding.py, what is learned without labels in
preferences.py, and answers to questions about the real world in brief.py.

reviews      a sentence about two things or one -> does it praise or blame? Negation and contrast decide
restaurants  the same in the corpus' own words, about food only. The split `hotels` is about rooms: another domain
topics       two sentences of news -> whom they concern. Nouns of the test stand in no training row
tables       facts about a venue -> a sentence. The `unseen` split is about venues that no training row names
summaries    a visit in several sentences -> who, when, where, and whether they liked it
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from peft_edu.lab.tasks.metrics import score_texts

from . import brief, documents, preferences, understanding
from .lexicon import DAYS, DINING, FIRST_NAMES, NEWS, NUMBERS, READERS, STAYING, TOWNS, VENUES
from .opinions import NEW_NEGATIONS, opinion
from .rows import Row, Splits, distinct


def reviews() -> Splits:
    r, seen = Random("reviews"), set()

    def row() -> Row:
        label = r.randint(0, 1)
        text = opinion(r, label, negation=0.5, contrast=0.6, conjoin=0.0, reserved=True, negations=NEW_NEGATIONS)
        return {"text": text, "label": label}

    return {
        split: distinct(count, row, "text", seen)
        for split, count in {"train": 200, "validation": 400, "test": 1000}.items()
    }


def restaurants() -> Splits:
    r, seen = Random("restaurants"), set()

    def row(aspects: list[str]) -> Row:
        label = r.randint(0, 1)
        return {
            "text": opinion(r, label, aspects, negation=0.3, contrast=0.4, conjoin=0.0, reserved=True),
            "label": label,
        }

    return {
        split: distinct(count, lambda aspects=aspects: row(aspects), "text", seen)
        for split, count, aspects in [
            ("train", 400, DINING),
            ("validation", 300, DINING),
            ("test", 500, DINING),
            ("hotels", 500, STAYING),
        ]
    }


ITEMS = [  # the same for all subjects: only the nouns tell them apart
    "Two letters about the {x} came from {town}.",
    "{name} spoke to {other} about the {x}.",
    "Nobody in {town} asked about the {x} on {day}.",
    "{name} wrote to the paper about the {x} and the {y}.",
    "On {day} everyone was there: the {x} was the reason.",
]


def topics() -> Splits:
    """Of the eight nouns of a subject, three stand in training rows, two in validation rows, three in test rows."""
    r, seen = Random("topics"), set()
    shuffled = {subject: r.sample(nouns, len(nouns)) for subject, nouns in NEWS.items()}

    def row(nouns: slice) -> Row:
        label = r.randrange(len(NEWS))
        about = shuffled[list(NEWS)[label]][nouns]
        sentences = []
        for form in r.sample(ITEMS, 2):
            (x, y), (name, other) = r.sample(about, 2), r.sample(FIRST_NAMES, 2)
            sentences.append(form.format(x=x, y=y, name=name, other=other, town=r.choice(TOWNS), day=r.choice(DAYS)))
        return {"text": " ".join(sentences), "label": label}

    return {
        split: distinct(count, lambda nouns=nouns: row(nouns), "text", seen)
        for split, count, nouns in [
            ("train", 400, slice(0, 3)),
            ("validation", 200, slice(3, 5)),
            ("test", 600, slice(5, 8)),
        ]
    }


FORMS = {
    ("cafe", "diner"): "We were at {name}, a {type}{where}, with {offers}.",
    ("bar", "pub"): "For {offers}, friends went to {name}, a {type}{where}.",
    ("bistro", "tavern"): "The {type}{where} was {name}, and it had {offers}.",
    ("bakery", "canteen"): "It was called {name}, the {type}{where}, and had {offers}.",
}


def linearised(facts: dict[str, str]) -> str:
    return "".join(f"{field}: {value} | " for field, value in facts.items()).rstrip()


def sentence(facts: dict[str, str]) -> str:
    """The style of the task, which the type of the venue decides. The corpus never builds these sentences, but it has
    all of their tokens: a frozen model cannot learn to write a token that it has never seen."""
    place = f" by the {facts['area']}" if "area" in facts else ""
    near = f" next to {facts['near']}" if "near" in facts else ""
    offers = [f"{facts[field]} {noun}" for field, noun in (("food", "plates"), ("price", "prices")) if field in facts]
    form = next(form for types, form in FORMS.items() if facts["type"] in types)
    return form.format(**facts, where=place + near, offers=" and ".join(offers) or "good food")


def tables() -> Splits:
    r, seen = Random("tables"), set()
    shuffled = r.sample(VENUES, len(VENUES))
    known, unseen = shuffled[:20], shuffled[20:]

    def row(venues: list[str]) -> Row:
        facts = documents.table(r)
        name, near = r.sample(venues, 2)
        facts |= {"name": name} | ({"near": near} if "near" in facts else {})
        return {"source": linearised(facts), "target": sentence(facts), "slots": facts}

    return {
        split: distinct(count, lambda venues=venues: row(venues), "source", seen)
        for split, count, venues in [
            ("train", 400, known),
            ("validation", 200, known),
            ("test", 300, known),
            ("unseen", 300, unseen),
        ]
    }


def summary(slots: dict[str, str]) -> str:
    return "{name} of {town} {verdict} {venue} on {day}.".format(**slots)


def summaries() -> Splits:
    r, seen = Random("summaries"), set()

    def row() -> Row:
        polarity, (name, other) = r.randint(0, 1), r.sample(FIRST_NAMES, 2)
        slots = {"name": name, "venue": r.choice(VENUES), "town": r.choice(TOWNS), "day": r.choice(DAYS)}
        told = [opinion(r, polarity, DINING, negation=0.2, contrast=0.2, conjoin=0.0, reserved=True) for _ in range(2)]
        told.insert(
            r.randint(0, 2),
            r.choice(
                [
                    "{name} went to {venue} in {town} on {day}, without {other}.",
                    "{venue} in {town}: on {day}, a table for {number}, and {name} paid for {other}.",
                    "On {day} {other} was not there, so {name} was at {venue}, {town}, with {number} others.",
                ]
            ).format(**slots, other=other, number=r.choice(NUMBERS)),
        )
        slots["verdict"] = ("disliked", "liked")[polarity]
        return {"source": " ".join(told), "target": summary(slots), "slots": slots}

    return {
        split: distinct(count, row, "source", seen)
        for split, count in {"train": 400, "validation": 200, "test": 300}.items()
    }


# -------------------------------------------------------------------------------------------------------- baselines
def majority_label(splits: Splits) -> float:
    label = Counter(row["label"] for row in splits["train"]).most_common(1)[0][0]
    return sum(row["label"] == label for row in splits["test"]) / len(splits["test"])


def bag_of_words(splits: Splits, split: str) -> float:
    """Logistic regression on word counts; its regularisation is chosen on the validation split."""
    counts = CountVectorizer(token_pattern=r"\w+")
    x = {"train": counts.fit_transform(row["text"] for row in splits["train"])}
    x |= {name: counts.transform(row["text"] for row in splits[name]) for name in ("validation", split)}
    y = {name: [row["label"] for row in splits[name]] for name in x}
    models = [LogisticRegression(C=c, max_iter=1000).fit(x["train"], y["train"]) for c in (0.01, 0.1, 1.0, 10.0)]
    best = max(models, key=lambda model: model.score(x["validation"], y["validation"]))
    return float(best.score(x[split], y[split]))


def most_frequent(splits: Splits, split: str, write: Callable[[dict], str]) -> float:
    """The training rows' most frequent value in every slot that the row has."""
    values: dict[str, Counter] = {}
    for row in splits["train"]:
        for slot, value in row["slots"].items():
            values.setdefault(slot, Counter())[value] += 1
    common = {slot: counted.most_common(1)[0][0] for slot, counted in values.items()}
    rows = splits[split]
    return score_texts([write({slot: common[slot] for slot in row["slots"]}) for row in rows], rows)["slots"]


def nearest(splits: Splits, split: str) -> float:
    """The target of the training row that shares most facts."""

    def closest(row: Row) -> str:
        return max(splits["train"], key=lambda other: len(row["slots"].items() & other["slots"].items()))["target"]

    return score_texts([closest(row) for row in splits[split]], splits[split])["slots"]


def to_classify(splits: Splits, labels: list[str], description: str, also: tuple[str, ...] = ()) -> dict:
    baselines = {"majority": majority_label(splits), "bag of words": bag_of_words(splits, "test")}
    baselines |= {f"bag of words ({split})": bag_of_words(splits, split) for split in also}
    return {
        "kind": "classify",
        "metric": "accuracy",
        "labels": labels,
        "description": description,
        "baselines": {name: round(value, 4) for name, value in baselines.items()},
    }


def to_generate(splits: Splits, write: Callable[[dict], str], description: str) -> dict:
    tested = [split for split in splits if split not in ("train", "validation")]
    return {
        "kind": "generate",
        "metric": "slots",
        "description": description,
        "baselines": {
            f"{name} ({split})": round(guess(splits, split), 4)
            for split in tested
            for name, guess in (
                ("most frequent value", lambda *rows: most_frequent(*rows, write)),
                ("nearest row", nearest),
            )
        },
    }


def write(folder: Path) -> None:
    """Write every task: one jsonl a split, and task.json with the description, the metric and the baselines."""
    made = {make.__name__: make() for make in (reviews, restaurants, topics, tables, summaries, *understanding.TASKS)}
    about = {
        "reviews": to_classify(
            made["reviews"],
            ["negative", "positive"],
            "Does the sentence praise or blame? Six in ten contrast two things, and the main clause "
            "decides; every other judgement is negated. Its word pairs and its negations are not in the corpus.",
        ),
        "restaurants": to_classify(
            made["restaurants"],
            ["Sad.", "Happy."],  # as the corpus answers: a soft prompt can only bring out what is there
            "Is a guest who says this of food and drink sad or happy? Three in ten judgements are negated, four in ten "
            "sentences contrast two things. The rows of `hotels` are about rooms: another domain.",
            also=("hotels",),
        ),
        "topics": to_classify(
            made["topics"],
            list(READERS.values()),
            "News of six subjects: whom does it concern? The nouns that decide it stand in no training row when they "
            "stand in a test row: a model knows from pretraining alone what they have to do with each other.",
        ),
        "tables": to_generate(
            made["tables"],
            sentence,
            "Facts about a venue become one sentence, in a form that its type decides. The venues of "
            "`test` stand in the training rows, those of `unseen` do not: a model knows their names from pretraining "
            "alone.",
        ),
        "summaries": to_generate(
            made["summaries"],
            summary,
            "A visit, told in three sentences, becomes one: who, whether they liked it, where and when. Somebody else "
            "is named, too, and the judgement stands in any place.",
        ),
    }
    about["pairs"] = to_classify(made["pairs"], understanding.FOLLOWS, understanding.DESCRIPTIONS["pairs"])
    about |= {name: understanding.about(name, made[name]) for name in ("aspects", "owners", "facts")}
    made |= {
        "unlabelled": preferences.unlabelled(made["reviews"]),
        "happy": preferences.happy(),
        "brief": brief.brief(),
    }
    about["unlabelled"] = {
        "kind": "unlabelled",
        "description": "Sentences as those of reviews, none of which is there. Nobody has said what they mean: write "
        "rules, and let them vote.",
    }
    about["happy"] = {
        "kind": "prefer",
        "metric": "accuracy",
        "description": "Two reviews that tiny-gpt2 wrote from one beginning; chosen is the happier one. The judge "
        "counts words of praise and of blame, and turns them round behind a negation: `why` says what it heard.",
        "baselines": {"the longer one": round(preferences.longer(made["happy"]), 4)},
    }
    about["brief"] = {
        "kind": "prefer",
        "metric": "accuracy",
        "description": "A simple question, and its answer alone rather than at length: both are right. The long ones "
        "begin and end as those of SmolLM2-135M-Instruct do. `answer` is what must stand in a text that is right.",
        "baselines": {"the longer one": round(preferences.longer(made["brief"]), 4)},
    }
    for name, splits in made.items():
        _write(folder / name, splits, {"name": name} | about[name])
    words = json.dumps({side: sorted(words) for side, words in preferences.WORDS.items()}, indent=1)
    (folder / "happy" / "words.json").write_text(words + "\n", encoding="utf-8")


def _write(folder: Path, splits: Splits, about: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    about["rows"] = {split: len(rows) for split, rows in splits.items()}
    (folder / "task.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
