"""The card of DPO's beta: what a short and a long leash make of a model, stored runs beside the learner's own."""

import html
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import ipywidgets as widgets
from matplotlib.figure import Figure

from peft_edu.lab.figures import leash
from peft_edu.lab.figures.leash import Line
from peft_edu.lab.study.preferences import STEPS, dpo_runs
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import html_table, needs_function
from peft_edu.lab.widgets.guess import Guess
from peft_edu.lab.widgets.training import OnStep, TrainButton
from peft_edu.lab.widgets.views import FIGURE

COLUMNS = ("", "wins", "happy texts", "facts kept", "KL, nats a text", "fluency")
HELD = "The runs appear once you have guessed, or pressed skip."
NEEDED = ("win", "happy", "slots", "KL", "fluency", "text")


class BetaCard(Card):
    """Turn beta: win rate, what was kept of the task, KL and a text, of five stored runs each.

    `train(beta, on_step)` trains, and gives what a `Measure` of the study measures: it enters the picture. `runs` are
    the stored ones, for each beta a dict for each seed, shares in per cent. `after` is a guess that comes first.

    >>> str(BetaCard())[:12]
    'At beta 0.3,'
    """

    def __init__(
        self,
        train: Callable[[float, OnStep], Mapping[str, object]] | None = None,
        steps: int = STEPS,
        runs: Mapping[float, Sequence[Line]] | None = None,
        after: Guess | None = None,
    ):
        self.runs = dict(sorted((dpo_runs() if runs is None else runs).items()))
        for beta, lines in self.runs.items():
            if not lines or any(name not in line for line in lines for name in NEEDED):
                raise ValueError(f"runs[{beta!r}] must be dicts with {', '.join(NEEDED)}, one for each seed")
        self.own: dict[float, Mapping[str, object]] = {}
        self.train = train
        options, middle = list(self.runs), 0.3 if 0.3 in self.runs else min(self.runs)
        wide = widgets.Layout(width="300px")
        controls = {"beta": widgets.SelectionSlider(options=options, value=middle, description="beta", layout=wide)}
        trainer = None
        if train is not None:
            needs_function("train", train, "train(beta, on_step)")
            trainer = TrainButton(self._train, lambda: steps, lambda: f"beta {self.state():g}", self._trained)
        super().__init__("How long is the leash?", controls, trainer, after)

    def state(self) -> float:
        return self.controls["beta"].value

    def _train(self, on_step: OnStep) -> str:
        beta = self.state()
        found = self.train(beta, on_step)
        if not isinstance(found, Mapping) or any(name not in found for name in NEEDED):
            raise TypeError(f"train gave {found!r:.80}, but must give a dict with {', '.join(NEEDED)}")
        self.own[beta] = in_per_cent(found)
        return f"wins {self.own[beta]['win']:.0f}%, KL {found['KL']:.1f} nats a text"

    def _trained(self) -> None:
        if not self.held:
            self.views.show(FIGURE)
        self.redraw()

    def measure(self, beta: float) -> tuple[float, Sequence[Line]]:
        return beta, self.runs[beta]

    def words(self, numbers) -> str:
        if self.held:
            return HELD
        beta, lines = numbers
        rows = [(f"mean of {len(lines)} runs", *_row({name: _mean(lines, name) for name in NEEDED[:-1]}))]
        texts = [("one of the stored runs", lines[0]["text"])]
        if beta in self.own:
            rows.append(("your run", *_row(self.own[beta])))
            texts.append(("yours", self.own[beta]["text"]))
        written = "".join(
            f"<p style='margin:2px 0'><b>{name}:</b> {html.escape(str(text)).replace(' | ', '<br>')}</p>"
            for name, text in texts
        )
        return html_table(COLUMNS, rows) + written

    def alt(self, numbers) -> str:
        if self.held:
            return HELD
        beta, lines = numbers
        means = {name: _mean(lines, name) for name in NEEDED[:-1]}
        return (
            f"At beta {beta:g}, in the mean of {len(lines)} stored runs: {means['win']:.0f}% wins, "
            f"{means['happy']:.0f}% happy texts, {means['slots']:.1f}% of the facts, KL {means['KL']:.1f} nats a text."
        )

    def draw(self, numbers) -> Figure:
        beta, _ = numbers
        if self.held:
            return leash.leash(self.runs, beta, HELD, shown=False)
        first, *_, last = self.runs.values()
        grows = f"from {_mean(last, 'KL'):.1f} to {_mean(first, 'KL'):.0f} nats"
        title = f"From beta {max(self.runs):g} to {min(self.runs):g} the KL grows {grows}"
        return leash.leash(self.runs, beta, title, self.own)


def in_per_cent(line: Mapping[str, object]) -> dict[str, object]:
    """Shares as per cent, the rest as it is."""
    return {name: 100 * value if name in ("win", "happy", "slots") else value for name, value in line.items()}


def _mean(lines: Sequence[Line], name: str) -> float:
    return fmean(line[name] for line in lines)


def _row(line: Mapping[str, object]) -> tuple[str, ...]:
    shares = [f"{line[name]:.1f}%" for name in ("win", "happy", "slots")]
    return *shares, f"{line['KL']:.1f}", f"{line['fluency']:.2f}"
