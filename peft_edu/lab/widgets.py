"""A widget is one card: a title, the controls in one row, the result in words, the figure of the same thing.

Three layers, each to be tested alone: a pure function gives numbers, a pure function draws them, and the card puts both
into the page when a control moves. A callback's error is shown in the card, where an observer would swallow it.
"""

import html
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence

import ipywidgets as widgets
from matplotlib.figure import Figure

from peft_edu.lab import plots, style
from peft_edu.lab.display import present, unseen

WIDTH = "790px"  # of every card: a figure and its frame
CURVE = 2.2  # inches: the height of a training curve
OnStep = Callable[[int, float], bool]
_TRAINING = threading.Lock()  # one training at a time: two would share the cores and the random numbers


class Card:
    """The base of all cards. A subclass gives `state`, `measure`, `words`, `alt` and `draw`."""

    inches = style.HEIGHT  # of the figure, whatever it shows

    def __init__(self, title: str, controls: Mapping[str, widgets.Widget], trainer: "Trainer | None" = None):
        self.controls, self.trainer = dict(controls), trainer
        self.result, self.image = widgets.HTML(), _reserved_image(self.inches)
        self._drawn: dict[Hashable, bytes] = {}
        row = [*self.controls.values(), *(trainer.buttons if trainer else ())]
        rest = [trainer.progress, trainer.status, trainer.image] if trainer else []
        layout = widgets.Layout(width=WIDTH, padding="8px", border="1px solid var(--jp-border-color1)")
        heading = widgets.HTML(f"<b>{html.escape(title)}</b>")
        row_layout = widgets.Layout(flex_flow="row wrap", align_items="center")
        self.view = widgets.VBox(
            [heading, widgets.HBox(row, layout=row_layout), self.result, self.image, *rest], layout=layout
        )
        for control in self.controls.values():
            control.observe(self.update, "value")
        self.update()

    def state(self) -> Hashable:
        """The values of the controls."""
        raise NotImplementedError

    def measure(self, state):
        """The numbers of a state."""
        raise NotImplementedError

    def words(self, numbers) -> str:
        """The result as HTML."""
        raise NotImplementedError

    def alt(self, numbers) -> str:
        """What the figure shows, in a sentence."""
        raise NotImplementedError

    def draw(self, numbers) -> Figure:
        raise NotImplementedError

    def figure(self) -> Figure:
        """The figure as it stands now, for a page where no widget lives."""
        return self.draw(self.measure(self.state()))

    def update(self, change=None) -> None:
        """Show what the controls say."""
        try:
            state = self.state()
            numbers = self.measure(state)
            if state not in self._drawn:
                self._drawn[state] = style.png(self.draw(numbers))
            # An Image with a tooltip does not open in JupyterLab (ipywidgets 8.1), so its words stand in the result.
            self.result.value = self.words(numbers) + unseen(f"Figure: {self.alt(numbers)}")
            self.image.value = self._drawn[state]
        except Exception as error:
            self.result.value = as_error(error)

    def __str__(self) -> str:
        return self.alt(self.measure(self.state()))

    def _ipython_display_(self) -> None:
        present(self.view, str(self))


class Trainer:
    """A train and a stop button: training runs in a thread, so that the page stays alive, and its curve grows.

    `train(on_step)` trains, hands each step and loss to `on_step`, ends when that gives True, and returns what to say;
    then `after()` is called.
    The curves of the last runs stay, to compare. Stopped or failed, what was reached stays on the page.
    """

    def __init__(
        self,
        train: Callable[[OnStep], object],
        steps: Callable[[], int],
        label: Callable[[], str] = lambda: "this run",
        after: Callable[[], object] = lambda: None,
    ):
        self.train, self.steps, self.label, self.after = train, steps, label, after
        small = widgets.Layout(width="62px")
        self.start = widgets.Button(description="train", button_style="primary", layout=small)
        self.stop = widgets.Button(description="stop", disabled=True, layout=small)
        self.buttons = (self.start, self.stop)
        self.progress = widgets.IntProgress(max=steps(), layout=widgets.Layout(width="98%"))
        self.status, self.image = widgets.HTML("Not trained yet."), _reserved_image(CURVE)
        self.curves: dict[str, list[float]] = {}
        self.thread: threading.Thread | None = None
        self._stopped, self._next_report = threading.Event(), 0.0
        self.start.on_click(self._start)
        self.stop.on_click(self._stop)
        self._show_curves("The loss will appear here")

    def _start(self, _button) -> None:
        try:
            steps, label = self.steps(), self.label()
        except Exception as error:  # nobody sees what a callback raises
            self.status.value = as_error(error)
            return
        if not _TRAINING.acquire(blocking=False):
            self.status.value = "Another training is running: wait for it, or stop it."
            return
        self._stopped.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.progress.max = steps
        self.thread = threading.Thread(target=self._run, args=(label,), daemon=True)
        self.thread.start()

    def _stop(self, _button) -> None:
        self._stopped.set()
        self.status.value = "Stopping after this step ..."

    def _run(self, name: str) -> None:
        losses = self._new_curve(name)
        started = time.perf_counter()

        def on_step(step: int, loss: float) -> bool:
            losses.append(loss)
            if time.perf_counter() > self._next_report:
                self._report(name, losses)
            return self._stopped.is_set()

        try:
            said = html.escape(str(self.train(on_step)))
            ended = "stopped after" if self._stopped.is_set() else "after"
            seconds = time.perf_counter() - started
            self.status.value = f"{html.escape(name)}: <b>{said}</b>, {ended} {len(losses)} steps and {seconds:.1f} s"
            self.progress.value = len(losses)
            if losses:
                self._show_curves(f"{name} ends at a loss of {losses[-1]:.3f}")
            self.after()
        except Exception as error:
            self.progress.value = len(losses)
            self.status.value = as_error(error)
        finally:
            self.start.disabled, self.stop.disabled = False, True
            _TRAINING.release()

    def _new_curve(self, name: str) -> list[float]:
        """An empty curve; of the older ones the last three stay."""
        self.curves.pop(name, None)
        self.curves = dict(list(self.curves.items())[-3:]) | {name: []}
        return self.curves[name]

    def _report(self, name: str, losses: Sequence[float]) -> None:
        """Words, bar and curve, as often as leaves four fifths of the time to training."""
        started = time.perf_counter()
        self.progress.value = len(losses)
        if not self._stopped.is_set():
            self.status.value = f"{html.escape(name)}: step {len(losses)} of {self.progress.max}, loss {losses[-1]:.3f}"
        self._show_curves(f"{name} is at a loss of {losses[-1]:.3f}")
        ended = time.perf_counter()
        self._next_report = ended + max(0.3, 4 * (ended - started))

    def _show_curves(self, title: str) -> None:
        curves = {name: list(losses) for name, losses in self.curves.items() if losses}
        self.image.value = style.png(plots.learning_curves(curves, title, steps=self.progress.max, height=CURVE))


class TrainerCard(Card):
    """A card that only trains: `train(on_step)` returns what to say at the end."""

    def __init__(self, title: str, train: Callable[[OnStep], object], steps: int):
        super().__init__(title, {}, Trainer(train, lambda: steps))
        self.view.children = [child for child in self.view.children if child not in (self.result, self.image)]

    def state(self) -> Hashable:
        return len(self.trainer.curves.get("this run", ()))

    def measure(self, state):
        return {name: losses for name, losses in self.trainer.curves.items() if losses}

    def words(self, numbers) -> str:
        return ""

    def alt(self, numbers) -> str:
        ends = ", ".join(f"{name} {losses[-1]:.3f}" for name, losses in numbers.items())
        return f"Training loss. {ends}" if ends else "Not trained yet: press train."

    def draw(self, numbers) -> Figure:
        return plots.learning_curves(numbers, self.alt(numbers), steps=self.trainer.steps())


def number(label: str, low: int, high: int, value: int) -> dict[str, widgets.Widget]:
    """A slider and a number box for the same number."""
    wide, narrow = widgets.Layout(width="280px"), widgets.Layout(width="140px")
    slider = widgets.IntSlider(value, low, high, description=label, readout=False, layout=wide)
    box = widgets.BoundedIntText(value, low, high, description=label, layout=narrow)
    for control in (slider, box):
        control.style.description_width = "initial"
    widgets.link((slider, "value"), (box, "value"))
    return {"slider": slider, "box": box}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table as HTML; the first cell of a row names it."""
    cell = "padding:2px 14px 2px 0;text-align:left"
    head = "".join(f'<th scope="col" style="{cell}">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row" style="{cell};font-weight:normal">{html.escape(first)}</th>'
        + "".join(f'<td style="{cell}">{html.escape(value)}</td>' for value in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f'<table role="status"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def as_error(error: Exception) -> str:
    """The error in a line, and where it came from for those who want to know."""
    trace = html.escape("".join(traceback.format_exception(error)))
    summary = f"<b>{type(error).__name__}:</b> {html.escape(str(error))}"
    return f'<details role="alert"><summary>{summary}</summary><pre>{trace}</pre></details>'


def _reserved_image(inches: float = style.HEIGHT) -> widgets.Image:
    """It has its size before it has a picture, so that nothing jumps."""
    width, height = style.WIDTH * style.DPI, inches * style.DPI
    return widgets.Image(format="png", layout=widgets.Layout(width=f"{width:.0f}px", height=f"{height:.0f}px"))
