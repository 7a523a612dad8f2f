"""Lesson 01, the open task: the fewest parameters of the model itself that still do reviews.

Measured with seed 0 and 150 steps, on validation: the weights of the nine LayerNorms (1,152 parameters) reach 93.0% at
a learning rate of 0.03. At 0.01 their biases reach 86.5%, and the biases of the two output maps (1,024) 87.7%.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatch

from peft_edu import count
from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune, recipe
from peft_edu.method import METHODS, Method

MOST, AT_LEAST, STEPS = 1200, 0.9, 150  # parameters beside the task head, validation accuracy, training steps


@dataclass
class Parts(Method):
    names: tuple[str, ...] = ()

    def insert(self, model):
        for name, parameter in model.named_parameters():
            if any(fnmatch(name, pattern) for pattern in self.names):
                self.unfreeze(parameter)


METHODS.pop("Parts")  # the lesson has one of its own


def fewest():
    return replace(recipe("reviews", "BitFit"), method=Parts(("*LayerNorm.weight",)), lr=0.03, steps=150)


@exercise(
    "freezing.fewest",
    reference=fewest,
    beside=(Parts,),
    hints=(
        "`for name, p in model.named_parameters(): print(name, p.numel())` shows what there is.",
        "A LayerNorm has a weight and a bias of 128 parameters each, and there are two in each block.",
        "Few parameters want large steps: try 0.01 to 0.05, and look at the loss.",
    ),
)
def _fewest(f) -> None:
    """fewest() -> a Recipe for reviews that trains at most 1,200 of the model's own parameters beside the task head, in
    at most 150 steps, and reaches 90% on validation"""
    chosen = f()
    if not isinstance(chosen, Recipe):
        raise Misconception(f"expected a Recipe, got {type(chosen).__name__}: return replace(recipe(...), method=...)")
    if not chosen.pretrained or chosen.backbone:
        raise Misconception("this task is about the pretrained tiny-bert, as the recipe has it")
    if chosen.steps > STEPS:
        raise Misconception(f"{chosen.steps} steps are more than the {STEPS} that are allowed here")
    method = replace(chosen.method)
    numbers = count(method.attach(backbone("tiny-bert", head="classify")[0]))
    own = numbers.trainable - numbers.head
    if method.added:
        raise Misconception(f"{type(method).__name__} puts something into the model: train what is there already")
    if own > MOST:
        raise Misconception(f"{own:,} parameters are trained beside the task head, and {MOST:,} are allowed")
    if not own:
        raise Misconception("nothing is trained beside the task head: does any name fit the patterns? * stands for all")
    run = finetune("reviews", chosen)
    reached = run.score("validation")
    print(f"{own:,} parameters beside the task head: {reached:.1%} on validation, {run.score():.1%} on test")
    if reached < AT_LEAST:
        raise Misconception(f"{reached:.1%} on validation, and {AT_LEAST:.0%} are asked for")
