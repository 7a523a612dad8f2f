"""What a checkpoint can do, in shares between 0 and 1. Abilities emerge late and at once, and the loss hides it.

A probe asks the frozen model for one word at the end of a sentence (decoder) or behind a mask (encoder) and looks only
at the candidates. Opinions are made of reserved word pairs, so no probe sentence stands in the corpus.
"""

from collections.abc import Callable
from random import Random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import documents as d
from .lexicon import FIRMS, FIRST_NAMES, LANGUAGES, LODGINGS, THINGS, TOWNS, VENUES
from .opinions import capital, domain_of, opinion, two_aspects
from .people import PEOPLE

Question = tuple[str, list[str], str]  # a text with one gap at {}, candidates, the right one
FACTS = {
    "birthplace": ("{name} came into the world in {}.", TOWNS),
    "employer": ("{name} earns {their} money at {}.", FIRMS),
    "language": ("{name} dreams in {}.", LANGUAGES),
}


def polarity_by_opening(r: Random) -> Question:
    polarity = r.randint(0, 1)
    text = opinion(r, polarity, negation=0.2, contrast=0.3, conjoin=0.0, reserved=True)
    words = ["Sad", "Happy"]
    return f"How was it? {text} Reply: {{}}.", words, words[polarity]


def polarity(r: Random) -> Question:
    value = r.randint(0, 1)
    text = opinion(r, value, negation=0.2, contrast=0.3, conjoin=0.0, reserved=True)
    return f"{text} We were {{}}.", ["sad", "happy"], ("sad", "happy")[value]


def aspect(r: Random) -> Question:
    good, bad = r.sample(domain_of(r.choice(d.HOUSES + LODGINGS), LODGINGS), 2)
    text = two_aspects(r, (good, 1), (bad, 0), conjoin=0.0, reserved=True)
    asked = r.choice([good, bad])
    return f"{text} We {{}} the {asked}.", ["hated", "loved"], "loved" if asked == good else "hated"


def town(r: Random) -> Question:
    asked = r.choice(TOWNS)
    venue, name, day = r.choice(VENUES), r.choice(FIRST_NAMES), r.choice(d.DAYS)
    return f"Which town? On {day}, {name} and two others were at {venue}, {asked}. Answer: {{}}.", TOWNS, asked


def role(r: Random) -> Question:
    giver, receiver = r.sample(FIRST_NAMES, 2)
    thing = r.choice(THINGS)
    text = capital(d.event(r, giver, receiver, thing))
    return f"{text}. The {thing} now belongs to {{}}.", [giver, receiver], receiver


def copying(r: Random) -> Question:
    a, b = r.sample(FIRST_NAMES, 2)
    items = r.sample(VENUES, 3)
    return f"{a} said: {', '.join(items)}. {b} wrote down: {', '.join(items[:2])}, {{}}.", VENUES, items[2]


def fact(relation: str) -> list[Question]:
    form, candidates = FACTS[relation]
    return [
        (
            form.replace("{}", "{{}}").format(name=person.name, their=person.possessive),
            candidates,
            getattr(person, relation),
        )
        for person in PEOPLE
    ]


PROBES: dict[str, dict[str, Callable[[Random], Question]]] = {
    "decoder": {"polarity": polarity_by_opening, "town": town, "role": role, "copying": copying},
    "encoder": {"polarity": polarity, "aspect": aspect, "role": role, "copying": copying},
}
# A checkpoint ships when it reaches all of these, and so does the same recipe with another seed. Two probes are logged
# but not asked of BERT: lists are 2% of its documents, and it did not come to copy them or to bind aspects.
GATES = {
    "tiny-gpt2": {
        "polarity": 0.9,
        "town": 0.95,
        "role": 0.9,
        "copying": 0.95,
        "birthplace": 0.9,
        "employer": 0.9,
        "language": 0.9,
    },
    "tiny-bert": {
        "polarity": 0.85,
        "role": 0.95,
        "birthplace": 0.9,
        "employer": 0.9,
        "language": 0.9,
    },
    "tiny-t5": {
        "polarity": 0.95,
        "town": 0.95,
        "role": 0.95,
        "copying": 0.95,
        "birthplace": 0.8,
        "employer": 0.85,
        "language": 0.9,
    },
}


@torch.no_grad()
def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Question]) -> list[str]:
    """The best candidate for each gap: the next token of a decoder, the masked token of an encoder, and the first token
    that an encoder-decoder writes after it has read what stands before the gap."""
    masked = tokenizer.mask_token is not None
    texts = [text.format(tokenizer.mask_token) if masked else text[: text.index(" {}")] for text, _, _ in questions]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    if model.config.is_encoder_decoder:
        start = torch.full((len(questions), 1), model.config.decoder_start_token_id)
        logits = model(**batch, decoder_input_ids=start).logits[:, 0]
        return [best(tokenizer, row, words) for row, (_, words, _) in zip(logits, questions, strict=True)]
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
    gap = (batch.input_ids == tokenizer.mask_token_id).int().argmax(1) if masked else batch.attention_mask.sum(1) - 1
    logits = logits[torch.arange(len(questions)), gap]
    return [best(tokenizer, row, words) for row, (_, words, _) in zip(logits, questions, strict=True)]


def best(tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor, candidates: list[str]) -> str:
    ids = [tokenizer(word, add_special_tokens=False).input_ids[0] for word in candidates]
    return candidates[int(logits[ids].argmax())]


def probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mix: str, count: int = 300) -> dict[str, float]:
    """The share of right answers of each probe, `count` questions each and every person for the facts."""
    r = Random("probes")
    asked = {name: [make(r) for _ in range(count)] for name, make in PROBES[mix].items()}
    asked |= {relation: fact(relation) for relation in FACTS}
    was_training = model.training
    model.eval()
    shares = {
        name: sum(
            given == right for given, (_, _, right) in zip(answer(model, tokenizer, questions), questions, strict=True)
        )
        / len(questions)
        for name, questions in asked.items()
    }
    model.train(was_training)
    return shares


def missed(shares: dict[str, float], model: str) -> dict[str, tuple[float, float]]:
    """The probes that a checkpoint of this recipe fails: what it reached and what is asked of it."""
    return {name: (shares[name], gate) for name, gate in GATES[model].items() if shares[name] < gate}
