"""Lesson 04: a prompt in front of the embeddings, and what must be as long as it."""

import torch

from peft_edu.lab.exercises.check import Misconception, exercise, same, tensors, untouched


def prompt_inputs(embeddings, prompt):
    rows = prompt.expand(len(embeddings), -1, -1)
    return torch.cat([rows, embeddings], 1)


@exercise(
    "prompt.inputs",
    reference=prompt_inputs,
    hints=(
        "The result is (b, p + t, d).",
        "Every row gets the same prompt: `prompt.expand(b, -1, -1)`.",
        "In front, so that a decoder's text can see it.",
    ),
)
def _prompt_inputs(f) -> None:
    """f(embeddings, prompt) -> (b, p + t, d): embeddings (b, t, d), prompt (p, d), the same for every row"""
    embeddings, prompt = tensors((2, 3, 4), (5, 4))
    result = untouched(f, (embeddings, prompt))
    rows = prompt.expand(2, -1, -1)
    wrong = {"the prompt stands behind the text: a decoder's text would never see it": torch.cat([embeddings, rows], 1)}
    if isinstance(result, torch.Tensor) and result.shape == embeddings.shape:
        raise Misconception("the sequence is as long as before: the prompt is put in front, not added to the text")
    same(result, torch.cat([rows, embeddings], 1), wrong)


def prompt_labels(labels, length):
    return torch.cat([labels.new_full((len(labels), length), -100), labels], 1)


@exercise(
    "prompt.labels",
    reference=prompt_labels,
    hints=(
        "Every position of the logits needs a label.",
        "Nobody is to guess a virtual token.",
        "Cross entropy leaves out -100.",
    ),
)
def _prompt_labels(f) -> None:
    """f(labels, length) -> (b, p + t): labels (b, t) of a language model, for a text with a prompt in front"""
    labels = torch.tensor([[4, 5, 6], [7, 8, -100]])
    result = untouched(f, (labels,), 4)
    if isinstance(result, torch.Tensor) and result.shape == labels.shape:
        raise Misconception("the labels are as long as before: every position of the logits needs one")
    out, labels = torch.full((2, 4), -100.0, dtype=torch.float64), labels.double()
    wrong = {
        "the virtual tokens are to be guessed as token 0: -100 leaves them out of the loss": torch.cat(
            [0 * out, labels], 1
        ),
        "the places of the prompt stand behind the text": torch.cat([labels, out], 1),
    }
    same(result, torch.cat([out, labels], 1), wrong)
