"""The card of the rules: which negations they know, which wrong rule is among them, and what their votes are worth."""

import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from peft_edu.lab.figures import rules as figures
from peft_edu.lab.figures.rules import Heard
from peft_edu.lab.study.weak import NEGATIONS, Rule, score
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import needs_function
from peft_edu.weak import LabelModel, covered, majority, report, vote

NONE = "none"
State = tuple[tuple[str, ...], str]


class RulesCard(Card):
    """Tick the negations that the rules know, or put a wrong rule among them.

    `rules(negations)` gives the labelling functions. They vote on `texts`, which have no labels. `labelled` are rows
    with one: by them the card measures how right the votes are. `wrong`: further rules, by name.
    """

    inches = 3.0

    def __init__(
        self,
        rules: Callable[[Sequence[str]], Sequence[Rule]],
        texts: Sequence[str],
        labelled: Sequence[Mapping],
        wrong: Mapping[str, Sequence[Rule]] = {},
        negations: Sequence[str] = NEGATIONS,
    ):
        needs_function("rules", rules, "rules(negations) gives a list of labelling functions")
        self.rules, self.texts, self.wrong, self.negations = rules, list(texts), dict(wrong), tuple(negations)
        self.labelled = [row["text"] for row in labelled]
        self.labels = torch.tensor([row["label"] for row in labelled])
        narrow = widgets.Layout(width="170px")
        controls: dict[str, widgets.Widget] = {
            name: widgets.Checkbox(False, description=name, layout=narrow, indent=False) for name in self.negations
        }
        if wrong:
            controls["wrong rule"] = widgets.Dropdown(
                options=[NONE, *self.wrong], description="wrong rule", layout=widgets.Layout(width="270px")
            )
        super().__init__("What do the rules know?", controls)

    def state(self) -> State:
        known = tuple(name for name in self.negations if self.controls[name].value)
        return known, self.controls["wrong rule"].value if self.wrong else NONE

    def measure(self, state: State) -> tuple[State, Heard]:
        known, wrong = state
        rules = [*self.rules(known), *self.wrong.get(wrong, ())]
        names = _names(rules)
        votes, measured = vote(rules, self.texts), vote(rules, self.labelled)
        model = LabelModel()
        model.fit(votes)
        heard, believed = covered(measured), model.probabilities(measured)
        combined = {"majority": majority(measured), "label model": believed}
        share = {name: 100 * score(each, self.labels)[heard].mean().item() for name, each in combined.items()}
        missed = heard & (score(believed, self.labels) < 1)
        told = ["blame" if label == 0 else "praise" for label in self.labels]
        right = report(measured, self.labels, names)["right"]
        alone = covered(measured) & ~covered(measured[:, : len(self.rules(known))])
        found = Heard(
            labels=int(covered(votes).sum()),
            texts=len(self.texts),
            conflicts=100 * ((votes == 0).any(1) & (votes == 1).any(1)).double().mean().item(),
            right={name: None if each != each else 100 * each for name, each in right.items()},
            estimate=dict(zip(names, (100 * model.accuracy).tolist(), strict=True)),
            combined=share,
            alone=int(alone.sum()),
            wrong=[(self.labelled[i], told[i]) for i in missed.nonzero()[:, 0].tolist()[:2]],
        )
        return state, found

    def words(self, numbers: tuple[State, Heard]) -> str:
        _, found = numbers
        missed = "<br>".join(
            f"{html.escape(text)} <i>(in truth: {html.escape(meant)})</i>" for text, meant in found.wrong
        )
        read = f"Read where the label model is wrong:<br>{missed}" if missed else "It is wrong nowhere that it votes."
        return f"<b>{html.escape(self._says(numbers))}</b> {_alone(found.alone)}{read}"

    def alt(self, numbers: tuple[State, Heard]) -> str:
        return self._says(numbers)

    def draw(self, numbers: tuple[State, Heard]) -> Figure:
        (known, wrong), found = numbers
        among = "" if wrong == NONE else f", and a wrong rule ({wrong})"
        best = " and ".join(f"{name} {share:.0f}%" for name, share in found.combined.items())
        return figures.rules(found, f"{len(known)} of {len(self.negations)} negations known{among}: {best} right")

    def _says(self, numbers: tuple[State, Heard]) -> str:
        (known, wrong), found = numbers
        among = "" if wrong == NONE else f" and a wrong rule ({wrong})"
        right = ", ".join(f"{name} {share:.1f}%" for name, share in found.combined.items())
        return (
            f"{_negations(len(known))}{among}: a vote on {found.labels:,} of {found.texts:,} sentences, rules in "
            f"conflict on {found.conflicts:.1f}%. Right where they vote: {right}."
        )


def _negations(known: int) -> str:
    return f"{known} negation{'' if known == 1 else 's'}"


def _alone(texts: int) -> str:
    """What the bars cannot tell: on these nobody can find out that the rule is wrong."""
    return f"On {texts} of the labelled sentences only the wrong rule votes.<br>" if texts else ""


def _names(rules: Sequence[Rule]) -> list[str]:
    """The rules' names; a second rule of one name is numbered."""
    given = [getattr(rule, "__name__", f"rule {i}") for i, rule in enumerate(rules, 1)]
    return [f"{name} {given[: i + 1].count(name)}" if given.count(name) > 1 else name for i, name in enumerate(given)]
