"""A conversation token by token: what the model reads, and what of it is learned."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from peft_edu.lab.figures.display import show
from peft_edu.lab.figures.sentences import sentences
from peft_edu.lab.tasks.chat import IGNORE


def show_learned(ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase, title: str) -> None:
    """A box a token: orange where it is a label, grey where the label is -100. A dot is a space, an arrow a new
    line."""
    if len(ids) != len(labels):
        raise ValueError(f"{len(ids)} ids and {len(labels)} labels: each token needs a label, or -100")
    texts = [tokenizer.decode([token]).replace(" ", "·").replace("\n", "↵") for token in map(int, ids)]
    kinds = ["asked" if label == IGNORE else "learned" for label in labels]
    learned = " ".join(text for text, kind in zip(texts, kinds, strict=True) if kind == "learned")
    alt = f"{title}. Of {len(texts)} tokens {kinds.count('learned')} are learned: {learned}"
    show(sentences([("", list(zip(texts, kinds, strict=True)))], title), alt)
