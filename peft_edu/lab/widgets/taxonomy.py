"""The families of methods as "Scaling Down to Scale Up" orders them, as a map that leads to each lesson.

Lialin, Deshpande & Rumshisky 2023, https://arxiv.org/abs/2303.15647, section 3.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import ipywidgets as widgets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from peft_edu.lab.figures import style
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import html_table

FAMILY_DOES = {  # what is done to the model, and the two families that do the same
    "adapters": "adds modules",
    "soft prompts": "adds vectors",
    "selective": "chooses weights",
    "reparameterised": "rewrites the change",
}


@dataclass(frozen=True)
class Place:
    """A method on the map. `also`: a second family that it borrows from while it is trained."""

    method: str
    family: str
    lesson: str
    idea: str
    also: str = ""


METHOD_PLACES = (
    Place("adapters", "adapters", "02_adapters.ipynb", "small networks in series with the frozen sub-layers"),
    Place("prefix tuning", "soft prompts", "03_prefix_tuning.ipynb", "keys and values in front of the text, in every "
          "layer", "reparameterised"),
    Place("prompt tuning", "soft prompts", "04_prompt_tuning.ipynb", "embeddings in front of the text"),
    Place("P-tuning v1", "soft prompts", "05_p_tuning_v1.ipynb", "embeddings among the words of a template",
          "reparameterised"),
    Place("P-tuning v2", "soft prompts", "06_p_tuning_v2.ipynb", "prefix tuning under a linear head, in the layers "
          "that are chosen"),
    Place("top blocks", "selective", "01_full_fine_tuning_and_freezing.ipynb", "the last blocks of the model"),
    Place("BitFit", "selective", "01_full_fine_tuning_and_freezing.ipynb", "the biases"),
    Place("LoRA", "reparameterised", "07_lora.ipynb", "the change of a weight as a product of two thin matrices"),
)  # fmt: skip


class TaxonomyCard(Card):
    """Choose a method: its family lights up, with what the family does and the lesson to read."""

    def __init__(self):
        self.places = {place.method: place for place in METHOD_PLACES}
        choice = widgets.Dropdown(options=list(self.places), description="method", layout=widgets.Layout(width="260px"))
        super().__init__("Where a method belongs", {"method": choice})

    def state(self) -> Hashable:
        return self.controls["method"].value

    def measure(self, method: str) -> Place:
        return self.places[method]

    def words(self, place: Place) -> str:
        link = f'Read <a href="{place.lesson}" target="_blank"><u>lesson {place.lesson[:2]}</u></a>.'
        family = place.family + (f"; the network that makes it while it learns: {place.also}" if place.also else "")
        rows = [("family", family), ("what it does", FAMILY_DOES[place.family]), ("what is trained", place.idea)]
        return html_table(("", place.method), rows) + link

    def alt(self, place: Place) -> str:
        also = f"; the network that makes it while it learns is {place.also}" if place.also else ""
        return f"{place.method} is of the family {place.family}, which {FAMILY_DOES[place.family]}: {place.idea}{also}."

    def draw(self, place: Place) -> Figure:
        return family_map(place, f"{place.method}: {place.idea}")


@style.styled
def family_map(chosen: Place, title: str) -> Figure:
    """A column a family, a box a method; the chosen one in the colour of what is trained."""
    figure, axes = style.sheet(title)
    wide, high, gap, top = 172, 30, 10, 236
    for column, (family, does) in enumerate(FAMILY_DOES.items()):
        left = 18 + column * (wide + 14)
        mine = [place for place in METHOD_PLACES if place.family == family]
        heavy = 2.2 if family in (chosen.family, chosen.also) else 0.8
        dashes = (0, (4, 2)) if family == chosen.also else "-"
        frame = {"facecolor": style.PAPER, "edgecolor": style.INK, "linewidth": heavy, "linestyle": dashes}
        axes.add_patch(Rectangle((left, 36), wide, top, **frame))
        axes.text(left + wide / 2, top + 16, family, ha="center", weight="bold")
        axes.text(left + wide / 2, top - 4, does, ha="center", color=style.MUTED, size=8.5)
        for row, place in enumerate(mine):
            y = top - 52 - row * (high + gap)
            here = place == chosen
            look = style.TRAINED_BOX if here else style.FROZEN_BOX | {"hatch": None}  # its name stands in it
            axes.add_patch(Rectangle((left + 10, y), wide - 20, high, linewidth=0.9, **look))
            axes.text(left + wide / 2, y + high / 2 - 1, place.method, ha="center", va="center",
                      weight="bold" if here else "normal")  # fmt: skip
    return figure
