"""Which column is which: by the names that tasks have here, by those in common use, or as you say."""

from collections.abc import Iterable, Mapping

from peft_edu.lab.tasks.chat import has_conversation

NEEDS = {
    "classify": ("text", "label"),
    "tag": ("words", "tags"),
    "generate": ("source", "target"),
    "chat": ("messages",),
    "fill": ("answer",),
    "prefer": ("chosen", "rejected"),
    "unlabelled": ("text",),
}
MAY_HAVE = {"prefer": ("prompt",), "classify": ("second",), "generate": ("slots",)}
USUAL = {  # in the order in which they are tried
    "text": ("sentence", "sentence1", "premise", "question1", "review", "content", "comment", "tweet"),
    "second": ("hypothesis", "sentence2", "question2", "text2", "passage"),
    "label": ("labels", "sentiment", "class", "category", "polarity", "stars"),
    "words": ("tokens",),
    "tags": ("ner_tags", "pos_tags", "labels"),
    "source": ("input", "article", "document", "dialogue"),
    "target": ("summary", "highlights", "output", "abstract"),
    "prompt": ("question", "instruction", "query"),
}

NAMES = (*USUAL, "answer", "messages", "completion", "system", "chosen", "rejected")  # what `columns=` may say


def kind_and_names(columns: Iterable[str], said: Mapping[str, str], where: object) -> tuple[str, dict[str, str]]:
    """The kind of task that columns tell, and of those that are called otherwise here: our name, their name.

    `said` names columns by hand, as in {"text": "body"}, of a conversation as in {"prompt": "question", "completion":
    "reply"}. Otherwise a conversation keeps its names: `chat` reads them.
    """
    columns = list(columns)
    if missing := [theirs for theirs in said.values() if theirs not in columns]:
        sides = "in columns={...} the package's name stands left, the file's right"
        raise ValueError(f"{where} has no column {missing[0]!r}; it has {', '.join(sorted(columns))}; {sides}")
    if unknown := [ours for ours in said if ours not in NAMES]:
        raise ValueError(f"columns names {unknown[0]!r}; a task can have {', '.join(NAMES)}")
    here = set(columns) - set(said.values()) | said.keys()
    possible = {"prefer": NEEDS["prefer"]} | NEEDS  # first: a file of preferences may hold whole conversations as well
    if len(here) > 1:
        del possible["unlabelled"]  # a text beside other columns rather lacks the name of its label
    for kind, needed in possible.items():
        if here >= set(needed) and not (kind == "fill" and has_conversation(here)):
            return kind, said | _guessed(MAY_HAVE.get(kind, ()), here)
    if has_conversation(here):
        return "chat", dict(said)
    for kind, needed in possible.items():
        guessed = _guessed(needed, here)
        if here | guessed.keys() >= set(needed):
            return kind, said | guessed | _guessed(MAY_HAVE.get(kind, ()), here)
    sets = NEEDS | {"chat": ("messages, or prompt and completion,",), "prefer": ("prompt, chosen", "rejected")}
    del sets["unlabelled"]
    needed = ", ".join(f"{' and '.join(needed)} to {kind}" for kind, needed in sets.items())
    named = 'task(..., columns={"text": "body"}) says which column is which, in the command --column text=body'
    alone = "a text alone is unlabelled"
    raise ValueError(f"{where} has the columns {', '.join(sorted(columns))}; needed are {needed}; {alone}; {named}")


def _guessed(wanted: Iterable[str], here: set[str]) -> dict[str, str]:
    first = {ours: next((name for name in USUAL.get(ours, ()) if name in here), None) for ours in wanted}
    return {ours: theirs for ours, theirs in first.items() if theirs is not None and ours not in here}


def renamed(row: dict, names: Mapping[str, str]) -> dict:
    """The row under the names that tasks have here."""
    return {**{name: value for name, value in row.items() if name not in names.values()},
            **{ours: row[theirs] for ours, theirs in names.items() if theirs in row}}  # fmt: skip
