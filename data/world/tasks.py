"""The labelled tasks, as jsonl. Their word pairs and their formats stand nowhere in the corpus (tested).

reviews   a sentence about two things or one -> does it praise or blame? Negation and contrast decide
tables    facts about a venue -> a sentence. The `unseen` split is about venues that no training row names
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from peft_edu.lab.tasks import score_texts

from . import documents
from .lexicon import VENUES
from .opinions import NEW_NEGATIONS, opinion

Row = dict
Splits = dict[str, list[Row]]


def distinct(count: int, make: Callable[[], Row], key: str, seen: set[str]) -> list[Row]:
    """`count` rows whose `key` is new, also to the splits made before."""
    rows: list[Row] = []
    while len(rows) < count:
        row = make()
        if row[key] not in seen:
            seen.add(row[key])
            rows.append(row)
    return rows


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


# -------------------------------------------------------------------------------------------------------- baselines
def majority_label(splits: Splits) -> float:
    label = Counter(row["label"] for row in splits["train"]).most_common(1)[0][0]
    return sum(row["label"] == label for row in splits["test"]) / len(splits["test"])


def bag_of_words(splits: Splits) -> float:
    """Logistic regression on word counts; its regularisation is chosen on the validation split."""
    counts = CountVectorizer(token_pattern=r"\w+")
    x = {"train": counts.fit_transform(row["text"] for row in splits["train"])}
    x |= {split: counts.transform(row["text"] for row in splits[split]) for split in ("validation", "test")}
    y = {split: [row["label"] for row in splits[split]] for split in x}
    models = [LogisticRegression(C=c, max_iter=1000).fit(x["train"], y["train"]) for c in (0.01, 0.1, 1.0, 10.0)]
    best = max(models, key=lambda model: model.score(x["validation"], y["validation"]))
    return float(best.score(x["test"], y["test"]))


def most_frequent(splits: Splits, split: str) -> float:
    """The training sentence's most frequent value in every slot that the row has."""
    common = {
        field: Counter(row["slots"][field] for row in splits["train"] if field in row["slots"]).most_common(1)[0][0]
        for field in documents.FIELDS
    }
    rows = splits[split]
    return score_texts([sentence({field: common[field] for field in row["slots"]}) for row in rows], rows)["slots"]


def nearest(splits: Splits, split: str) -> float:
    """The target of the training row that shares most facts."""

    def closest(row: Row) -> str:
        return max(splits["train"], key=lambda other: len(row["slots"].items() & other["slots"].items()))["target"]

    return score_texts([closest(row) for row in splits[split]], splits[split])["slots"]


def write(folder: Path) -> None:
    """Write every task: one jsonl a split, and task.json with the description, the metric and the baselines."""
    made, told = reviews(), tables()
    _write(
        folder / "reviews",
        made,
        {
            "name": "reviews",
            "kind": "classify",
            "metric": "accuracy",
            "labels": ["negative", "positive"],
            "description": "Does the sentence praise or blame? Six in ten contrast two things, and the main clause "
            "decides; every other judgement is negated. Its word pairs and its negations are not in the corpus.",
            "baselines": {"majority": round(majority_label(made), 4), "bag of words": round(bag_of_words(made), 4)},
        },
    )
    _write(
        folder / "tables",
        told,
        {
            "name": "tables",
            "kind": "generate",
            "metric": "slots",
            "description": "Facts about a venue become one sentence, in a form that its type decides. The venues of "
            "`test` stand in the training rows, those of `unseen` do not: a model knows their names from pretraining "
            "alone.",
            "baselines": {
                f"{name} ({split})": round(guess(told, split), 4)
                for split in ("test", "unseen")
                for name, guess in (("most frequent value", most_frequent), ("nearest row", nearest))
            },
        },
    )


def _write(folder: Path, splits: Splits, about: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    about["rows"] = {split: len(rows) for split, rows in splits.items()}
    (folder / "task.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
