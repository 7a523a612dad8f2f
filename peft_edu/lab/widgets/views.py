"""One place of a card for several things to see, of which buttons show one: so a card fits a screen."""

from collections.abc import Mapping

import ipywidgets as widgets

FIGURE, BLOCK, LOSS = "the figure", "the block", "the loss"


class Views:
    """The widgets by the names of their buttons; with one of them there is nothing to choose, and no button."""

    def __init__(self, shown: Mapping[str, widgets.Widget], first: str = FIGURE):
        self.shown = dict(shown)
        self.toggle = widgets.ToggleButtons(options=tuple(shown), value=first, layout={"width": "auto"})
        self.toggle.style.button_width = "84px"
        self.toggle.observe(self._show, "value")
        self._show()

    @property
    def now(self) -> str:
        return self.toggle.value

    def show(self, name: str) -> None:
        self.toggle.value = name

    def _show(self, _change=None) -> None:
        for name, widget in self.shown.items():
            widget.layout.display = None if name == self.now else "none"
