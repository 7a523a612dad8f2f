"""The open tasks that ask for the smallest of a kind: what is counted before training, and what is reached."""

from dataclasses import dataclass, replace

from peft_edu import count
from peft_edu.lab.exercises.check import Misconception
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import finetune


@dataclass(frozen=True)
class Limits:
    """`most` parameters beside the task head, `steps` of training, `at_least` this share right on validation."""

    most: int
    at_least: float
    steps: int

    def expect(self, study: str, chosen: object, *kinds: str, told: str = "") -> None:
        """A recipe whose method is of these kinds, and which keeps the limits. `told`: where many of them lie."""
        if not isinstance(chosen, Recipe):
            got = type(chosen).__name__
            raise Misconception(f"expected a Recipe, got {got}: return replace(recipe(...), method=...)")
        if type(chosen.method).__name__ not in kinds:
            raise Misconception(f"the method is {chosen.method}: this task is about {kinds[0]}(...)")
        if chosen.steps > self.steps:
            raise Misconception(f"{chosen.steps} steps are more than the {self.steps} that are allowed here")
        numbers = count(replace(chosen.method).attach(backbone("tiny-bert", head="classify")[0]))
        own = numbers.trainable - numbers.head
        if own > self.most:
            raise Misconception(
                f"{own:,} parameters are trained beside the task head{told}, and {self.most:,} are allowed"
            )
        run = finetune(study, chosen)
        reached = run.score("validation")
        print(f"{own:,} parameters beside the task head: {reached:.1%} on validation, {run.score():.1%} on test")
        if reached < self.at_least:
            raise Misconception(f"{reached:.1%} on validation, and {self.at_least:.0%} are asked for")
