"""Tagged sentences: what is tagged as what, in a picture and as a set."""

from collections.abc import Sequence

from peft_edu.lab.figures.display import show
from peft_edu.lab.figures.sentences import sentences
from peft_edu.lab.tasks.metrics import entities
from peft_edu.lab.tasks.task import Task

Tags = Sequence[Sequence[str]]  # a tag for each word of each sentence; "O" is none


def right_tags(data: Task, rows: Sequence[dict]) -> list[list[str]]:
    """The tags that these rows have, by name."""
    return [[data.labels[tag] for tag in row["tags"]] for row in rows]


def entities_in(tags: Tags) -> set[tuple[int, int, int, str]]:
    """What is tagged in these sentences: (sentence, first word, word after the last, kind)."""
    return {(i, *each) for i, sentence in enumerate(tags) for each in entities(sentence)}


def show_tags(rows: Sequence[dict], tags: Tags, title: str) -> None:
    """The sentences, each tagged word in a box of its kind."""
    lines, said = [], []
    for row, given in zip(rows, tags, strict=True):
        words = list(zip(row["words"], given, strict=True))
        lines.append(("", [(word, "word" if tag == "O" else tag) for word, tag in words]))
        said += [f"{word}: {tag.lower()}" for word, tag in words if tag != "O"]
    show(sentences(lines, title), "; ".join(said))
