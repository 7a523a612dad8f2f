"""Model answers to the questions that the lessons ask to `explain`, by their question.

A lesson's file holds them: model_answer(question, answer, *points), the points being what to look for in one's own
words. They stand in no notebook, so that nobody reads them before they have thought.
"""

import difflib
from dataclasses import dataclass

MODEL_ANSWERS: dict[str, "ModelAnswer"] = {}


@dataclass(frozen=True)
class ModelAnswer:
    answer: str
    points: tuple[str, ...]


def model_answer(question: str, answer: str, *points: str) -> None:
    """Put an answer on the list, with two or three points to look for."""
    for text in (question, answer, *points):
        if not isinstance(text, str) or not text.strip():
            raise TypeError(f"question, answer and points must be texts, got {text!r}")
    if not 2 <= len(points) <= 3:
        raise ValueError(f"{question!r} has {len(points)} points to look for, but needs two or three")
    if question in MODEL_ANSWERS:
        raise ValueError(f"{question!r} has a model answer already")
    MODEL_ANSWERS[question] = ModelAnswer(answer, points)


def find(question: str) -> ModelAnswer:
    """The answer to this very question; if there is none, the questions that come near are told."""
    if not isinstance(question, str):
        raise TypeError(f"question is {question!r}, but must be a text")
    if question not in MODEL_ANSWERS:
        near = difflib.get_close_matches(question, MODEL_ANSWERS) or list(MODEL_ANSWERS)
        raise ValueError(
            f"no model answer to {question!r}; there are {'; '.join(map(repr, near))}. "
            "One is added by model_answer(question, answer, *points) in a file of peft_edu/lab/exercises"
        )
    return MODEL_ANSWERS[question]
