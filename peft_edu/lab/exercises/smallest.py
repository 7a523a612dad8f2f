"""The open tasks that ask for the smallest of a kind: what is counted before training, and what is reached."""

from dataclasses import dataclass, replace

from peft_edu import count
from peft_edu.lab.exercises.check import Misconception
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.recipe import Recipe
from peft_edu.lab.study.run import Run, finetune
from peft_edu.method import Method


@dataclass(frozen=True)
class Limits:
    """`most` parameters beside the task head, `steps` of training, `at_least` this share right on validation."""

    most: int
    at_least: float
    steps: int

    def expect(self, study: str, chosen: object, *kinds: str, told: str = "") -> None:
        """A recipe whose method is of these kinds, and which keeps the limits. `told`: where many of them lie."""
        self.expect_recipe(chosen)
        if not set(kinds) & {each.__name__ for each in type(chosen.method).__mro__}:
            raise Misconception(f"the method is {chosen.method}: this task is about {kinds[0]}(...)")
        if not chosen.pretrained or chosen.backbone:
            raise Misconception("this task is about the pretrained tiny-bert, as the recipe has it")
        own = self.expect_few(replace(chosen.method), told)
        self.expect_reached(finetune(study, chosen), f"{own:,} parameters beside the task head")

    def expect_recipe(self, chosen: object) -> None:
        if not isinstance(chosen, Recipe):
            got = type(chosen).__name__
            raise Misconception(f"expected a Recipe, got {got}: return replace(recipe(...), method=...)")
        if chosen.steps > self.steps:
            raise Misconception(f"{chosen.steps} steps are more than the {self.steps} that are allowed here")

    def expect_few(self, method: Method, told: str = "") -> int:
        """How many parameters the method trains beside the head of tiny-bert."""
        numbers = count(method.attach(backbone("tiny-bert", head="classify")[0]))
        own = numbers.trainable - numbers.head
        if own > self.most:
            raise Misconception(
                f"{own:,} parameters are trained beside the task head{told}, and {self.most:,} are allowed"
            )
        return own

    def expect_reached(self, run: Run, what: str) -> None:
        """Validation decides; the test score is told beside it."""
        reached = run.score("validation")
        print(f"{what}: {reached:.1%} on validation, {run.score():.1%} on test")
        if reached < self.at_least:
            raise Misconception(f"{reached:.1%} on validation, and {self.at_least:.0%} are asked for")
