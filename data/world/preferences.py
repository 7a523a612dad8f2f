"""Texts without labels, and preferences. The pairs of `happy` are what tiny-gpt2 writes: its weights decide them.

unlabelled   sentences as those of `reviews`, none of which is there, and no labels
happy        two reviews that tiny-gpt2 began and ended alike; the happier one was chosen, by a judge who counts words
"""

from random import Random

import torch

from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.tasks.judge import Judge
from peft_edu.preferences import sample

from .lexicon import ASPECTS, BLAME, PRAISE
from .opinions import NEW_NEGATIONS, opinion
from .rows import Row, Splits, distinct

BEGINNINGS = {"train": 45, "validation": 6, "test": 10}  # "The soup", of an aspect that stands in one split
EACH, TOKENS = 32, 24  # texts of a beginning, and their tokens at most
WORDS = {  # what the judge hears: adjectives, and words that tell a mood otherwise
    "praise": PRAISE + "loved liked best happy gladly joy worth smiled thanks recommends praised proud pleased".split(),
    "blame": BLAME + "hated disliked worst sad complaint waste shame warns frowned early away angry upset".split(),
}
JUDGE = Judge(dict.fromkeys(WORDS["praise"], 1) | dict.fromkeys(WORDS["blame"], -1))


def unlabelled(reviews: Splits) -> Splits:
    r, seen = Random("unlabelled"), {row["text"] for rows in reviews.values() for row in rows}

    def row() -> Row:
        polarity = r.randint(0, 1)
        kinds = {"negation": 0.5, "contrast": 0.6, "conjoin": 0.0, "reserved": True, "negations": NEW_NEGATIONS}
        return {"text": opinion(r, polarity, **kinds)}

    return {"train": distinct(2000, row, "text", seen)}


def happy() -> Splits:
    model, tokenizer = backbone("tiny-gpt2")
    aspects, splits = iter(Random("happy").sample(ASPECTS, len(ASPECTS))), {}
    for number, (split, count) in enumerate(BEGINNINGS.items()):
        beginnings = [f"The {next(aspects)}" for _ in range(count)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            ids = [tokenizer(beginning)["input_ids"] for beginning in beginnings]
            texts, _ = sample(model, tokenizer, ids, TOKENS, EACH)
        pairs = [(beginnings[i // EACH], texts[i : i + 2]) for i in range(0, len(texts), 2)]
        splits[split] = [_preference(beginning, pair) for beginning, pair in pairs if len(set(map(JUDGE, pair))) > 1]
    return splits


def _preference(beginning: str, pair: list[str]) -> Row:
    rejected, chosen = sorted(pair, key=JUDGE)
    why = " rather than ".join(f"{JUDGE(text):.2f} ({_heard(text)})" for text in (chosen, rejected))
    answers = (text.removeprefix(beginning).strip() for text in (chosen, rejected))
    return {"prompt": beginning, **dict(zip(("chosen", "rejected"), answers, strict=True)), "why": why}


def _heard(text: str) -> str:
    return " ".join(f"{'+' if count > 0 else '-'}{word}" for word, count in JUDGE.heard(text)) or "nothing"


def longer(splits: Splits) -> float:
    """How often the longer text is the chosen one."""
    return sum(len(row["chosen"]) > len(row["rejected"]) for row in splits["test"]) / len(splits["test"])
