"""In a card: the block of the attached model, as the controls have it now; also one to click on."""

from collections.abc import Callable, Collection, Hashable, Mapping

import ipywidgets as widgets
from transformers import PreTrainedModel

from peft_edu.lab.figures import style
from peft_edu.lab.figures.block import HEIGHT, WIDTH, drawn
from peft_edu.lab.figures.display import unseen
from peft_edu.lab.figures.pen import Place
from peft_edu.lab.measure.block_parts import block_parts, describe
from peft_edu.storage.checkpoint import count


class BlockView:
    """The picture of a block of `attached(state)`, the model that the controls ask for."""

    def __init__(self, attached: Callable[[Hashable], PreTrainedModel]):
        self.attached, self.svg = attached, widgets.HTML()
        self.picture: widgets.Box = widgets.Box([self.svg])
        self._drawn: dict[Hashable, tuple[str, list[Place]]] = {}

    def update(self, state: Hashable) -> None:
        if state not in self._drawn:
            model = self.attached(state)
            parts = block_parts(model)
            picture, places = drawn(parts, str(count(model)))
            self._drawn[state] = picture + unseen(f"Figure: {describe(parts)}"), places
        self.show(*self._drawn[state])

    def show(self, picture: str, places: list[Place]) -> None:
        self.svg.value = picture

    def clear(self) -> None:
        """Hidden, it would hide the hatching of every other picture of a block on the page."""
        self.svg.value = ""


class ClickableBlock(BlockView):
    """The picture of a block whose places are buttons: over each lies one, named by what it does there.

    `does`: what a click on a place puts there, in words. `clicked(place)` is called by a click.
    """

    def __init__(self, attached, does: Mapping[str, str], clicked: Callable[[str], None]):
        super().__init__(attached)
        self.does, self.clicked = dict(does), clicked
        self.buttons: list[tuple[str, widgets.Button]] = []
        self.picture = widgets.GridBox(
            [self.svg], layout={"grid_template_columns": f"{WIDTH}px", "grid_template_rows": f"{HEIGHT + 2}px"}
        )
        self.svg.layout.grid_area = "1 / 1 / 2 / 2"  # all lie in one cell: the picture, and the buttons on it

    def show(self, picture: str, places: list[Place]) -> None:
        super().show(picture, places)
        places = [place for place in places if place.name in self.does]
        if not self.buttons:
            self.buttons = [(place.name, self._button(place.name)) for place in places]
            self.picture.children = [self.svg, *(button for _, button in self.buttons)]
        for (_, button), place in zip(self.buttons, places, strict=True):
            button.layout.margin = f"{place.y - place.h / 2:.0f}px 0 0 {place.x - place.w / 2:.0f}px"
            button.layout.width, button.layout.height = f"{place.w:.0f}px", f"{place.h:.0f}px"

    def mark(self, chosen: Collection[str]) -> None:
        """Show which places are on."""
        for name, button in self.buttons:
            on = name in chosen
            button.description = button.tooltip = f"{name}: {self.does[name]}, {'on' if on else 'off'}"
            edge = f"2px solid {style.TRAINED_LINE}" if on else f"1px dashed {style.MUTED}"
            for side in ("top", "right", "bottom", "left"):
                setattr(button.layout, f"border_{side}", edge)

    def _button(self, name: str) -> widgets.Button:
        button = widgets.Button(layout={"grid_area": "1 / 1 / 2 / 2", "padding": "0px"})
        button.style.button_color, button.style.font_size = "transparent", "0px"  # the name is for screen readers
        button.on_click(lambda _: self.clicked(name))
        return button
