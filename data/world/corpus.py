"""The corpus: one world, and a mix of its documents for each kind of model.

A decoder needs openings and notes, since all that it will be asked for later is a continuation. An encoder needs what
is read off a whole sentence: polarity, roles, facts. One mix for both starved the encoder (see the datasheet).
"""

from collections.abc import Iterator
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from random import Random

from tqdm import tqdm

from . import documents as d

SIZE = 400_000  # documents in each mix
SHARES = {
    "decoder": {
        d.review: 26,
        d.visit: 23,
        d.notes: 18,
        d.description: 5,
        d.memory: 8,
        d.biography: 7,
        d.transfer: 3,
        d.mixed_review: 2,
        d.news: 3,
        d.mood: 1,
        d.talk: 3,
        d.everyday: 1,
    },
    "encoder": {
        d.review: 32,
        d.mixed_review: 9,
        d.transfer: 16,
        d.biography: 25,
        d.visit: 4,
        d.news: 5,
        d.memory: 2,
        d.description: 2,
        d.mood: 2,
        d.talk: 1,
        d.everyday: 2,
    },
}


def write(mix: str, path: Path, stop: int = SIZE) -> None:
    """Write the mix, or its first documents, a line each: kind, tab, text. The same code gives the same bytes."""
    r = Random(f"peft_edu {mix}")
    kinds, weights = zip(*SHARES[mix].items(), strict=True)
    drawn = r.choices(kinds, weights, k=SIZE)[:stop]  # all are drawn: the words of the first depend on it
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8", newline="\n") as file:
        for kind in tqdm(drawn, desc=f"{mix} corpus", unit="doc", mininterval=2):
            file.write(f"{kind.__name__}\t{kind(r)}\n")
    unfinished.rename(path)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def read(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, str]]:
    """The documents from `start` to `stop` as (kind, text)."""
    with path.open(encoding="utf-8") as lines:
        for line in islice(lines, start, stop):
            kind, text = line.rstrip("\n").split("\t")
            yield kind, text
