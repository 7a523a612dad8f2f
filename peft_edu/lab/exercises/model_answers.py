"""Answers worth reading: what an explain box puts beside the learner's own words, and what a wrong guess usually means.

They stand here, and in no notebook, so that a question does not give its answer away.
"""

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class ModelAnswer:
    text: str
    look_for: tuple[str, ...]


ANSWERS: dict[str, ModelAnswer] = {}
HINTS: dict[str, dict[str, str]] = {}  # question -> "too high", "too low", "right", or a choice -> what to say to it


def model_answer(question: str, text: str, *look_for: str) -> None:
    """Put an answer on the list, with two or three points that a good one of the learner's has."""
    ANSWERS[question] = ModelAnswer(" ".join(text.split()), look_for)


def answer_to(question: str) -> ModelAnswer:
    if not isinstance(question, str) or question not in ANSWERS:
        near = get_close_matches(str(question), ANSWERS, n=1, cutoff=0.4)
        known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, ANSWERS))}"
        raise ValueError(f"no model answer to {question!r}; {known}")
    return ANSWERS[question]
