"""Lesson 05, the open task: the fewest pseudo tokens that still find the birthplaces.

Without an encoder, at a learning rate of 0.1 and after 40 steps, in the mean of three splits: two between subject
and gap find 100% on validation and on test; one there 100% and 89%; one before the subject and one behind it 73%,
one behind the gap 33%.
"""

from dataclasses import replace

from peft_edu import PTuning
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune, recipe
from peft_edu.p_tuning import FIELD, MASK, PSEUDO

MOST, AT_LEAST, STEPS, SPLITS = 2, 0.9, 60, 3  # pseudo tokens, mean validation accuracy, steps, splits of the people


def few_pseudo():
    method = PTuning("{subject} [P] [P] [MASK]", encoder="none")
    return replace(recipe("facts", "birthplace none"), method=method)


@exercise(
    "p_tuning.fewest",
    reference=few_pseudo,
    hints=(
        "The card of section 7 tells which places are worth most. Section 12 tells whether an encoder is needed.",
        '`replace(recipe("facts", "birthplace none"), method=PTuning("...", encoder="none"))`',
        "Without an encoder a learning rate of 0.1 suits, with one 0.003.",
    ),
)
def _fewest(f) -> None:
    """few_pseudo() -> a Recipe for facts whose PTuning has at most two pseudo tokens and no words, and that finds 90%
    of the validation people's birthplaces, in the mean of three splits"""
    chosen = f()
    if not isinstance(chosen, Recipe):
        raise Misconception(f"expected a Recipe, got {type(chosen).__name__}: return replace(recipe(...), method=...)")
    if not isinstance(chosen.method, PTuning):
        raise Misconception(f"the method is {chosen.method}: this task is about PTuning(template)")
    if chosen.method.joint:
        raise Misconception("joint=True trains the whole model: here it stays frozen")
    if chosen.steps > STEPS:
        raise Misconception(f"{chosen.steps} steps are more than the {STEPS} that are allowed here")
    template = chosen.method.template
    if words := FIELD.sub("", template).replace(PSEUDO, "").replace(MASK, "").split():
        raise Misconception(f"the template has words, {' '.join(words)}: they ask by themselves. None are allowed")
    if MASK not in template or "{subject}" not in template:
        raise Misconception("the template needs {subject} and [MASK], who is asked about and where the answer stands")
    n = template.count(PSEUDO)
    if n > MOST:
        raise Misconception(f"the template has {n} pseudo tokens, and {MOST} are allowed")
    asked = replace(chosen, relation="birthplace", limit=None)
    runs = [finetune("facts", asked, seed=split) for split in range(SPLITS)]
    reached, test = (sum(run.score(split) for run in runs) / SPLITS for split in ("validation", "test"))
    print(f"{n} pseudo tokens, {SPLITS} splits: {reached:.1%} on validation, {test:.1%} on test")
    if reached < AT_LEAST:
        raise Misconception(f"{reached:.1%} on validation, and {AT_LEAST:.0%} are asked for")
