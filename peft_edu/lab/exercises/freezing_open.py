"""Lesson 01, the open task: the fewest parameters of the model itself that still do reviews.

Measured with seed 0 and 150 steps, on validation: the weights of the nine LayerNorms (1,152 parameters) reach 93.0% at
a learning rate of 0.03. At 0.01 their biases reach 86.5%, and the biases of the two output maps (1,024) 87.7%.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatch

from peft_edu.lab.exercises.check import Misconception, exercise
from peft_edu.lab.exercises.smallest import Limits
from peft_edu.lab.study.run import finetune, recipe
from peft_edu.method import METHODS, Method

LIMITS = Limits(most=1200, at_least=0.9, steps=150)


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
    LIMITS.expect_recipe(chosen)
    if not chosen.pretrained or chosen.backbone:
        raise Misconception("this task is about the pretrained tiny-bert, as the recipe has it")
    method = replace(chosen.method)
    own = LIMITS.expect_few(method)
    if method.added:
        raise Misconception(f"{type(method).__name__} puts something into the model: train what is there already")
    if not own:
        raise Misconception("nothing is trained beside the task head: does any name fit the patterns? * stands for all")
    LIMITS.expect_reached(finetune("reviews", chosen), f"{own:,} parameters beside the task head")
