"""The card of few levels: which levels, in blocks of how many, and what that costs real weights."""

import html
from collections.abc import Mapping

import ipywidgets as widgets
from matplotlib.figure import Figure
from torch import Tensor

from peft_edu.lab.figures import rounding as figures
from peft_edu.lab.measure.rounding import KINDS, Rounding, levels_of, rounded
from peft_edu.lab.widgets.card import Card

BLOCKS = (16, 32, 64, 128, 256, 1024, 4096)
MODEL = 7e9  # weights of the model that people have in mind


class LevelsCard(Card):
    """Turn levels and block size for matrices of real weights; the error and the bits a weight are measured.

    >>> card = LevelsCard({"value": torch.eye(64)})
    >>> str(card)
    'nf4 in blocks of 64, of value: 4.50 bits a weight, an error of 0.0%.'
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        if not isinstance(weights, Mapping) or not weights:
            raise TypeError(f"weights is {weights!r:.80}, but must be a dict: names, and the matrices that they name")
        for name, each in weights.items():
            if not isinstance(each, Tensor) or not each.any():
                raise ValueError(f"weights[{name!r}] must be a tensor that is not all zero: there is nothing to round")
        self.weights, self._curves = dict(weights), {}
        controls = {
            "weights": widgets.Dropdown(options=list(weights), description="weights"),
            "levels": widgets.Dropdown(options=KINDS, description="levels", layout=widgets.Layout(width="150px")),
            "block": widgets.SelectionSlider(
                options=BLOCKS, value=64, description="weights that share a scale", layout=widgets.Layout(width="420px")
            ),
        }
        super().__init__("Few levels for many weights", controls)

    def state(self) -> tuple[str, str, int]:
        return self.controls["weights"].value, self.controls["levels"].value, self.controls["block"].value

    def measure(self, state: tuple[str, str, int]) -> tuple[tuple[str, str, int], Rounding]:
        name, kind, block = state
        return state, rounded(self.weights[name], levels_of(kind), block)

    def words(self, numbers) -> str:
        _, found = numbers
        size = MODEL * found.bits / 8e9
        return f"<b>{html.escape(self._says(numbers))}</b> Seven billion such weights take {size:.1f} GB."

    def alt(self, numbers) -> str:
        return self._says(numbers)

    def draw(self, numbers) -> Figure:
        (name, *_), found = numbers
        return figures.tried(found, self._curve(name), self._says(numbers))

    def _says(self, numbers) -> str:
        (name, kind, block), found = numbers
        return f"{kind} in blocks of {block}, of {name}: {found.bits:.2f} bits a weight, an error of {found.error:.1%}."

    def _curve(self, name: str) -> dict[str, list[tuple[float, float]]]:
        """Of every kind and block, measured when these weights are shown for the first time."""
        if name not in self._curves:
            every = {kind: [rounded(self.weights[name], levels_of(kind), block) for block in BLOCKS] for kind in KINDS}
            self._curves[name] = {kind: [(each.bits, each.error) for each in found] for kind, found in every.items()}
        return self._curves[name]
