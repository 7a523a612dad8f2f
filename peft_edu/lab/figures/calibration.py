"""How good one's guesses are: each beside what was measured, as a part of the range that was asked for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure

from peft_edu.lab import workbook
from peft_edu.lab.figures import style
from peft_edu.lab.figures.display import show

NEAR = 0.05  # of the range: within it a guess is right
NONE = "No guess is here to compare yet: each that you commit and then measure becomes a point"


@dataclass(frozen=True)
class Compared:
    """A guess and its measurement, both from 0 to 1 in the range of the question; a point of a drawn line is one."""

    question: str
    measured: float
    guessed: float
    drawn: bool = False
    late: bool = False

    @property
    def apart(self) -> float:
        return self.guessed - self.measured


def calibration() -> None:
    """Show all guesses that the workbook keeps, typed and drawn, against what was measured.

    A point above the diagonal was guessed too high. A guess that was committed after its answer was seen is hollow, and
    does not count.
    """
    found = compared(workbook.everything())
    title = finding(found)
    show(figure(found, title), f"{title}. {_listed(found)}".rstrip())


def compared(entries: Sequence[Mapping[str, object]]) -> list[Compared]:
    """The last guess to each question that asked for a number or a line, if it was measured."""
    last = {entry["name"]: entry for entry in entries if entry["kind"] == "guess" and "measured" in entry}
    found = []
    for question, entry in last.items():
        try:
            low, high, late = float(entry["low"]), float(entry["high"]), bool(entry.get("late"))
            drawn = isinstance(entry["value"], list)
            pairs = (
                zip(entry["value"], entry["measured"], strict=True) if drawn else [(entry["value"], entry["measured"])]
            )
            log = entry.get("scale") == "log"
            for guessed, measured in pairs:
                places = (_place(float(each), low, high, log) for each in (measured, guessed))
                found.append(Compared(str(question), *places, drawn, late))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue  # one of several choices, or a line of the file that is damaged
    return found


def _place(value: float, low: float, high: float, log: bool) -> float:
    """From 0 to 1, also for what was measured outside the range. On a logarithmic scale 0 has no place, so a thousandth
    of the range stands for it."""
    if log:
        low = max(low, high / 1000)
        return min(1.0, max(0.0, math.log(max(value, low) / low) / math.log(high / low)))
    return min(1.0, max(0.0, (value - low) / (high - low)))


def finding(found: Sequence[Compared]) -> str:
    """In a sentence: how many were right, and to which side the others lie."""
    counted = [each for each in found if not each.late]
    if not counted:
        return NONE
    high = sum(each.apart > NEAR for each in counted)
    low = sum(each.apart < -NEAR for each in counted)
    mean = fmean(abs(each.apart) for each in counted)
    points = "1 point" if len(counted) == 1 else f"{len(counted)} points"
    sides = f"{len(counted) - high - low} right, {high} too high, {low} too low"
    return f"Your guesses: of {points} {sides}; on average {mean:.0%} of the range off"


@style.styled
def figure(found: Sequence[Compared], title: str) -> Figure:
    """Measured against guessed, with the diagonal on which both are the same."""
    figure, _ = style.panels(title, height=4.2, room=False)
    axes = figure.add_axes([0.095, 0.115, 0.45, 0.45 * style.WIDTH / 4.2])  # a square
    axes.fill_between([0, 1], [-NEAR, 1 - NEAR], [NEAR, 1 + NEAR], color=style.FROZEN, linewidth=0, zorder=1)
    axes.plot([0, 1], [0, 1], color=style.FROZEN_LINE, linewidth=1, zorder=1)
    words = {"ha": "center", "va": "center", "color": style.MUTED, "size": 9}
    axes.text(0.25, 0.8, "guessed\ntoo high", **words)
    axes.text(0.78, 0.22, "guessed\ntoo low", **words)
    for drawn, name, look in ((False, "typed", {"marker": "o"}), (True, "drawn, each point", {"marker": "s"})):
        for late in (False, True):
            points = [each for each in found if (each.drawn, each.late) == (drawn, late)]
            colour = style.HEAD if drawn else style.TRAINED
            face = style.PAPER if late else colour
            label = f"{name}, after the answer" if late else name
            if points:
                x, y = [each.measured for each in points], [each.guessed for each in points]
                axes.plot(x, y, linestyle="", color=colour, markerfacecolor=face, label=label, zorder=3, **look)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=ticks, yticks=ticks)
    axes.set(xlabel="measured, as a part of the range", ylabel="guessed, as a part of the range")
    if found:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.04, 1))
    axes.text(1.07, 0.02, "the grey band is right:\nwithin a twentieth of the range", color=style.MUTED, size=9)
    return figure


def _listed(found: Sequence[Compared]) -> str:
    """The guesses in words, those that lie furthest off first."""
    return " ".join(
        f"{each.question} measured {each.measured:.2f}, guessed {each.guessed:.2f}{' (late)' if each.late else ''}."
        for each in sorted(found, key=lambda each: -abs(each.apart))
    )
