"""A card's second view: the block of the attached model, as the controls have it now."""

from collections.abc import Callable, Hashable

import ipywidgets as widgets
from transformers import PreTrainedModel

from peft_edu.lab.figures.block import svg
from peft_edu.lab.figures.display import unseen
from peft_edu.lab.measure.block_parts import block_parts, describe
from peft_edu.storage.checkpoint import count

FIGURE, BLOCK = "the figure", "the block"


class BlockView:
    """Two buttons, of which the second shows `attached(state)` as the picture of a block, in the figure's place."""

    def __init__(self, attached: Callable[[Hashable], PreTrainedModel], figure: widgets.Widget):
        self.attached, self.figure = attached, figure
        self.toggle = widgets.ToggleButtons(options=(FIGURE, BLOCK), description="show", layout={"width": "auto"})
        self.toggle.style.button_width = "84px"
        self.picture = widgets.HTML(layout={"display": "none"})
        self._drawn: dict[Hashable, str] = {}

    @property
    def shown(self) -> bool:
        return self.toggle.value == BLOCK

    def update(self, state: Hashable) -> None:
        self.picture.layout.display = None if self.shown else "none"
        self.figure.layout.display = "none" if self.shown else None
        if self.shown:
            if state not in self._drawn:
                model = self.attached(state)
                parts = block_parts(model)
                words = unseen(f"Figure: {describe(parts)}")
                self._drawn[state] = svg(parts, str(count(model))) + words
            self.picture.value = self._drawn[state]
