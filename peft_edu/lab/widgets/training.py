"""Training from a card: a button to start, one to stop, and the curve as it grows."""

import html
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache

import ipywidgets as widgets

from peft_edu.checks import whole_number
from peft_edu.lab.figures import plots, style
from peft_edu.lab.widgets.controls import as_error, needs_function, reserved_image

CURVE = 2.2  # inches: the height of a training curve
OnStep = Callable[[int, float], bool]
_TRAINING = threading.Lock()  # one training at a time: two would share the cores and the random numbers


@cache
def _nothing_yet() -> bytes:
    return style.png(plots.learning_curves({}, "The loss is drawn here, step by step, once it trains", height=CURVE))


class TrainButton:
    """A train and a stop button: training runs in a thread, so that the page stays alive, and its curve grows.

    `train(on_step)` trains, hands each step and loss to `on_step`, ends when that gives True, and returns what to say;
    then `after()` is called. The last three curves stay, to compare. Stopped or failed, what was reached stays too.
    """

    def __init__(
        self,
        train: Callable[[OnStep], object],
        steps: Callable[[], int],
        label: Callable[[], str] = lambda: "this run",
        after: Callable[[], object] = lambda: None,
    ):
        needs_function("train", train, "train(on_step) trains, and calls on_step(step, loss)")
        self.train, self.steps, self.label, self.after = train, steps, label, after
        small = widgets.Layout(width="62px")
        self.start = widgets.Button(description="train", button_style="primary", layout=small)
        self.stop = widgets.Button(description="stop", disabled=True, layout=small)
        self.buttons = (self.start, self.stop)
        self.progress = widgets.IntProgress(max=self._checked_steps(), layout=widgets.Layout(width="98%"))
        self.status, self.image = widgets.HTML("Not trained yet."), reserved_image(CURVE)
        self.image.add_class("peft-edu-curve")
        self.image.value = _nothing_yet()
        self.curves: dict[str, list[float]] = {}
        self.thread: threading.Thread | None = None
        self.possible = True  # whether there is anything to train
        self._stopped, self._next_report = threading.Event(), 0.0
        self.start.on_click(self._start)
        self.stop.on_click(self._stop)
        self.progress.layout.display = "none"  # until there is something to see
        self.began: Callable[[], object] = lambda: None  # what a card does when training starts

    def allow(self, possible: bool) -> None:
        """Whether train can be pressed, once no training runs."""
        self.possible = possible
        self.start.disabled = not possible or not self.stop.disabled

    def _checked_steps(self) -> int:
        steps = self.steps()
        whole_number("steps", steps)
        return steps

    def _start(self, _button) -> None:
        try:
            steps, label = self._checked_steps(), self.label()
        except Exception as error:  # nobody sees what a callback raises
            self.status.value = as_error(error)
            return
        if not _TRAINING.acquire(blocking=False):
            self.status.value = "Another training is running: wait for it, or stop it."
            return
        self._stopped.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.progress.max = steps
        self.progress.layout.display = None
        self.began()
        self.thread = threading.Thread(target=self._run, args=(label,), daemon=True)
        self.thread.start()

    def _stop(self, _button) -> None:
        self._stopped.set()
        self.status.value = "Stopping after this step ..."

    def _run(self, name: str) -> None:
        losses: list[float] = []
        older = {other: curve for other, curve in self.curves.items() if other != name}
        self.curves = dict(list(older.items())[-3:]) | {name: losses}
        started = time.perf_counter()

        def on_step(step: int, loss: float) -> bool:
            try:
                losses.append(float(loss))
            except (TypeError, ValueError):
                raise TypeError(f"on_step was given the loss {loss!r}, but must be given a number") from None
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
                self._show_curves(f"{name} ends at a loss of {plots.smoothed(losses)[-1]:.3f}")
            self.after()
        except BaseException as error:  # sys.exit() too: the card says how its training ended
            self.progress.value = len(losses)
            self.status.value = as_error(error)
        finally:
            self.stop.disabled = True
            self.allow(self.possible)
            _TRAINING.release()

    def _report(self, name: str, losses: Sequence[float]) -> None:
        """Words, bar and curve, as often as leaves four fifths of the time to training."""
        started = time.perf_counter()
        self.progress.value = len(losses)
        if not self._stopped.is_set():
            self.status.value = f"{html.escape(name)}: step {len(losses)} of {self.progress.max}, loss {losses[-1]:.3f}"
        self._show_curves(f"{name} is at a loss of {plots.smoothed(losses)[-1]:.3f}")
        ended = time.perf_counter()
        self._next_report = ended + max(0.3, 4 * (ended - started))

    def _show_curves(self, title: str) -> None:
        curves = {name: list(losses) for name, losses in self.curves.items() if losses}
        self.image.value = style.png(plots.learning_curves(curves, title, steps=self.progress.max, height=CURVE))
