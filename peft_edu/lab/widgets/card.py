"""A widget is one card: a title, the controls in one row, the result in words, the figure of the same thing.

Three layers, each to be tested alone: a pure function gives numbers, a pure function draws them, and the card puts both
into the page when a control moves. A callback's error is shown in the card, where an observer would swallow it.
"""

import html
from collections.abc import Callable, Hashable, Mapping

import ipywidgets as widgets
from matplotlib.figure import Figure
from transformers import PreTrainedModel

from peft_edu.lab.figures import plots, style
from peft_edu.lab.figures.display import present, unseen
from peft_edu.lab.widgets.block_view import BlockView
from peft_edu.lab.widgets.controls import as_error, reserved_image
from peft_edu.lab.widgets.guess import Guess
from peft_edu.lab.widgets.training import OnStep, TrainButton
from peft_edu.lab.widgets.views import BLOCK, FIGURE, LOSS, Views

WIDTH = "794px"  # of every card: a figure and its frame


class Card:
    """The base of all cards. A subclass gives five functions:

    state()           the values of the controls
    measure(state)    the numbers of a state
    words(numbers)    the result as HTML
    alt(numbers)      what the figure shows, in a sentence
    draw(numbers)     the figure

    Where there is a model to look into, also `attached(state)`: the model of which a second view shows a block.
    """

    inches = style.HEIGHT  # of the figure, whatever it shows
    attached: Callable[[Hashable], PreTrainedModel] | None = None
    first_view = FIGURE

    def __init__(
        self,
        title: str,
        controls: Mapping[str, widgets.Widget],
        trainer: TrainButton | None = None,
        after: Guess | None = None,
    ):
        self.controls, self.trainer, self.after = dict(controls), trainer, after
        self.result, self.image = widgets.HTML(), self.frame()
        self._measured, self._drawn = {}, {}  # by state: each is measured and drawn once
        row = [*self.controls.values(), *(trainer.buttons if trainer else ())]
        self.block = self.block_view() if self.attached else None
        views: dict[str, widgets.Widget] = {FIGURE: self.image}
        if self.block:
            views[BLOCK] = self.block.picture
        if trainer:
            views[LOSS] = trainer.image
            trainer.began = lambda: self.views.show(LOSS)
        self.views = Views(views, self.first_view)
        if len(views) > 1:
            self.controls["show"] = self.views.toggle
            row.append(self.views.toggle)
        rest = [trainer.progress, trainer.status] if trainer else []
        heading = widgets.HTML(f"<b>{html.escape(str(title))}</b>")
        shown = [heading, widgets.HBox(row, layout={"flex_flow": "row wrap", "align_items": "center"}), self.result]
        edge = "1px solid var(--jp-border-color1)"
        layout = {"width": WIDTH, "max_width": "100%", "overflow": "auto", "padding": "8px", "border": edge}
        self.view = widgets.VBox([*shown, *views.values(), *rest], layout=layout)
        self.view.add_class("peft-edu-card")
        for name, control in self.controls.items():
            control.style.description_width = "initial"
            if name != "box":  # it goes with the slider: to watch both would show each move twice
                control.observe(self.update, "value")
        if after:
            after.when_open(self.update)
        self.update()

    def block_view(self) -> BlockView:
        return BlockView(self.attached)

    def frame(self) -> widgets.Widget:
        """What shows the figure as its value. It has its size before it has a figure."""
        return reserved_image(self.inches)

    @property
    def held(self) -> bool:
        """Whether the answer to a guess is still held back: it shows itself once there is a guess, or at "skip"."""
        return self.after is not None and not self.after.open

    def figure(self) -> Figure:
        """The figure as it stands now, for a page where no widget lives."""
        return self.draw(self._numbers(self.state()))

    def _numbers(self, state: Hashable):
        if state not in self._measured:
            self._measured[state] = self.measure(state)
        return self._measured[state]

    def update(self, change=None) -> None:
        """Show what the controls say."""
        try:
            state = self.state()
            numbers = self._numbers(state)
            # An Image with a tooltip does not open in JupyterLab (ipywidgets 8.1), so its words stand in the result.
            self.result.value = self.words(numbers) + unseen(f"Figure: {self.alt(numbers)}")
            if self.views.now == FIGURE:
                self.image.value = self._picture(state, numbers)
            if self.block and self.views.now == BLOCK:
                self.block.update(state)
            elif self.block:
                self.block.clear()
        except Exception as error:
            self.result.value = as_error(error)

    def _picture(self, state: Hashable, numbers) -> bytes:
        shown = state, self.held
        if shown not in self._drawn:
            self._drawn[shown] = style.png(self.draw(numbers))
        return self._drawn[shown]

    def redraw(self) -> None:
        """Show what the controls say, after what is drawn has changed."""
        self._drawn.clear()
        self.update()

    def __str__(self) -> str:
        return self.alt(self._numbers(self.state()))

    def _ipython_display_(self) -> None:
        present(self.view, str(self))


class TrainerCard(Card):
    """A card that only trains: `train(on_step)` returns what to say at the end, after `steps` steps."""

    def __init__(self, title: str, train: Callable[[OnStep], object], steps: int):
        super().__init__(title, {}, TrainButton(train, lambda: steps))
        self.view.children = [child for child in self.view.children if child not in (self.result, self.image)]
        self.views.toggle.layout.display = "none"  # there is the loss alone

    def state(self) -> Hashable:
        return tuple((name, *losses) for name, losses in self.trainer.curves.items() if losses)

    def measure(self, state):
        return {name: losses for name, *losses in state}

    def words(self, numbers) -> str:
        return ""

    def alt(self, numbers) -> str:
        ends = ", ".join(f"{name} {losses[-1]:.3f}" for name, losses in numbers.items())
        return f"Training loss. {ends}" if ends else "Not trained yet: press train."

    def draw(self, numbers) -> Figure:
        return plots.learning_curves(numbers, self.alt(numbers), steps=self.trainer.steps())
