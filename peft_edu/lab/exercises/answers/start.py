"""Lesson 00: what is said to a guess."""

from peft_edu.lab.exercises.model_answers import HINTS

HINTS["Which share of the parameters will be trained, in per cent?"] = {
    "too high": "Thin matrices are far smaller than the weights they stand beside.",
    "too low": "Small, but there are two of them beside two maps in every block.",
    "right": "And the models that people use have a share that is smaller still.",
}
