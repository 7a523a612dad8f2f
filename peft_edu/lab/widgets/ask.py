"""Ask it yourself: a text that is typed, what models answer while it is, and virtual tokens that are switched off."""

import html
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.lab.figures import ask as figures
from peft_edu.lab.figures.ask import Column
from peft_edu.lab.figures.display import present
from peft_edu.lab.measure.ask import Reply, ask
from peft_edu.lab.widgets.card import Card
from peft_edu.lab.widgets.controls import plural
from peft_edu.p_tuning import FIELD, PSEUDO, template_ids

ANSWER = "the token that answers"


@dataclass(frozen=True, eq=False)
class Asked:
    """What the models answered to a text, and what the text was to them."""

    replies: dict[str, Reply]
    columns: tuple[Column, ...]
    about: str  # whose attention it is
    off: tuple[int, ...]  # virtual tokens, counted from 0
    start: str = ""  # the token that the card put in front of what was typed


class AskCard(Card):
    """A text to type, bars of the likeliest answers, and a map of what the answering token, or a word, attends to.

    `models`: one, or several by name, as {"before": base, "after": tuned}; they are asked as they are, and stay so. A
    masked model answers at [MASK], one that writes with its first words, a classifier with its labels. `template`:
    words around a {field} for which the text stands. Text and template may hold the [P] of P-tuning.
    `start_token=False`: without the token that begins a document, for models that were trained on such texts.

    Each virtual token has a button that switches it off: nothing attends to it any more, in no layer.
    """

    def __init__(
        self,
        models: PreTrainedModel | Mapping[str, PreTrainedModel],
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        template: str | None = None,
        start_token: bool = True,
    ):
        self.models = dict(models) if isinstance(models, Mapping) else {"": models}
        _check(self.models, tokenizer, text, template)
        self.tokenizer, self.start_token, self._quiet = tokenizer, start_token, False
        ids = self.ids(text, template)
        replies = [ask(model, tokenizer, ids) for model in self.models.values()]
        self.virtual = max(max(each.front for each in replies), sum(each < 0 for each in ids))
        layers, rows = (max(map(len, each)) for each in zip(*((r.attention, r.answers) for r in replies), strict=True))
        self.high = figures.height(len(replies), layers, rows)
        wide = {"layout": widgets.Layout(width="740px"), "continuous_update": True}  # it is answered while it is typed
        controls: dict[str, widgets.Widget] = {"text": widgets.Text(text, description="your text", **wide)}
        if template is not None:
            controls["template"] = widgets.Text(template, description="template", **wide)
        controls["word"] = widgets.Dropdown(options=[(ANSWER, -1)], description="attention of")
        for i in range(self.virtual):
            controls[f"virtual {i + 1}"] = _switch(i + 1)
        super().__init__("Ask it yourself", controls)
        if extra := self._buttons(PSEUDO in (template or text)):
            before, after = self.view.children[:2], self.view.children[2:]
            self.view.children = [*before, widgets.HBox(extra, layout={"align_items": "center"}), *after]

    def _buttons(self, pseudo: bool) -> list[widgets.Widget]:
        """To switch all virtual tokens at once, and to move one among the words."""
        extra = []
        if self.virtual:
            for name, value in (("all on", True), ("all off", False)):
                extra.append(_button(name, f"switch {name[4:]} all virtual tokens", self._switch_all, value))
        if pseudo:
            options = list(range(1, self.virtual + 1))
            style = {"description_width": "initial"}
            self.moved = widgets.Dropdown(options=options, description=f"move {PSEUDO} number", style=style)
            self.moved.layout.width = "180px"
            extra += [self.moved, _button("← left", "one word to the left", self.move, -1)]
            extra.append(_button("right →", "one word to the right", self.move, 1))
        return extra

    @contextmanager
    def _together(self):
        """Several controls change, and what they say is shown once."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _switch_all(self, value: bool) -> None:
        with self._together():
            for switch in self._switches():
                switch.value = value
        self.update()

    def move(self, step: int) -> None:
        """Move a pseudo token past the next word on its left or right."""
        box = self.controls.get("template", self.controls["text"])
        box.value = moved(box.value, self.moved.value, step)

    def _switches(self) -> list[widgets.ToggleButton]:
        return [self.controls[f"virtual {i + 1}"] for i in range(self.virtual)]

    def ids(self, text: str, template: str | None) -> list[int]:
        """The token ids of the text in its template."""
        if not text.strip():
            raise ValueError("type a text for the model")
        ids = template_ids(text if template is None else FIELD.sub(lambda _: text, template), self.tokenizer, {})
        return ids if self.start_token else ids[self._begun(ids) :]

    def _begun(self, ids: list[int]) -> bool:
        """Whether the tokenizer wrote a start token in front."""
        return ids[:1] == [self.tokenizer.bos_token_id]

    def state(self) -> tuple[str, str | None, int, tuple[int, ...]]:
        template = self.controls["template"].value if "template" in self.controls else None
        off = tuple(i for i, switch in enumerate(self._switches()) if not switch.value)
        return self.controls["text"].value.strip(), template, self.controls["word"].value, off

    def update(self, change=None) -> None:
        if self._quiet:
            return
        for i, switch in enumerate(self._switches()):
            switch.description = f"{i + 1}" if switch.value else f"{i + 1} off"
        self._offer_words()
        super().update(change)

    def _offer_words(self) -> None:
        """The words of the text as it stands: one of them can be asked for."""
        text, template, word, _ = self.state()
        try:
            texts = self._texts(self.ids(text, template))
        except (TypeError, ValueError):
            return  # half a template: it is told below
        options = [(ANSWER, -1), *((f"{i + 1}: {each}", i) for i, each in enumerate(texts))]
        if tuple(options) != tuple(self.controls["word"].options):
            with self._together():
                self.controls["word"].options = options
                self.controls["word"].value = word if word < len(texts) else -1

    def _texts(self, ids: list[int]) -> list[str]:
        return [f"{PSEUDO}{-each}" if each < 0 else self.tokenizer.decode([each]).strip() or "␣" for each in ids]

    def measure(self, state: tuple) -> Asked:
        text, template, word, off = state
        ids = self.ids(text, template)
        place = None if word < 0 else min(word, len(ids) - 1)
        found = {name: ask(model, self.tokenizer, ids, place, off) for name, model in self.models.items()}
        front = max(each.front for each in found.values())
        columns = [Column(f"{i + 1}", virtual=True, off=i in off) for i in range(front)]
        for i, each in enumerate(self._texts(ids)):
            columns.append(Column(each, ids[i] < 0, ids[i] < 0 and -ids[i] - 1 in off, i == place))
        return Asked({name: _wider(each, front) for name, each in found.items()}, tuple(columns),
                     ANSWER if place is None else repr(columns[front + place].text), off,
                     self.tokenizer.bos_token if self._begun(ids) else "")  # fmt: skip

    def words(self, asked: Asked) -> str:
        lines = []
        for name, reply in asked.replies.items():
            written = f', and writes: "{html.escape(reply.written)}"' if reply.written else ""
            lines.append(f"{html.escape(_says(name, reply))}{written}.{_on_virtual(reply, asked)}")
        return "<br>".join(lines) + _switched_off(asked) + html.escape(_started(asked))

    def alt(self, asked: Asked) -> str:
        told = []
        for name, reply in asked.replies.items():
            answers = ", ".join(f"{answer} {share:.2f}" for answer, share in reply.answers.items())
            told.append(f"{name}: {answers}.{_on_virtual(reply, asked)}".removeprefix(": "))
        return f"To {self.controls['text'].value.strip()!r}: {' '.join(told)}{_switched_off(asked)}{_started(asked)}"

    def draw(self, asked: Asked) -> str:
        """As SVG: it is drawn in a moment, and the mouse finds the number behind each cell."""
        title = "; ".join(_says(name, reply) for name, reply in asked.replies.items())
        return figures.svg(asked.replies, asked.columns, title, self.alt(asked), asked.about, self.high)

    def frame(self) -> widgets.HTML:
        return widgets.HTML(layout=widgets.Layout(width=f"{figures.WIDTH}px", height=f"{self.high + 4:.0f}px"))

    def _picture(self, state: tuple, asked: Asked) -> str:
        return self.draw(asked)

    def _ipython_display_(self) -> None:
        present(self.view, str(self), self.figure())


def moved(text: str, number: int, step: int) -> str:
    """The text with its pseudo token of this number, counted from 1, moved past the next word on one side."""
    pieces = re.sub(r"(\[P\]|\[MASK\])", r" \1 ", text).split()
    places = [i for i, piece in enumerate(pieces) if piece == PSEUDO]
    if not 1 <= number <= len(places):
        raise ValueError(f"{text!r} has {plural(len(places), PSEUDO)}, and no number {number}")
    to = places[number - 1] + step
    while 0 <= to < len(pieces) and pieces[to] == PSEUDO:  # past another [P] nothing would change
        to += step
    if 0 <= to < len(pieces):
        del pieces[places[number - 1]]
        pieces.insert(to, PSEUDO)
    return " ".join(pieces)


def _says(name: str, reply: Reply) -> str:
    share = reply.answers[reply.answer]
    return f"{name}: {reply.answer} ({share:.0%})" if name else f"The likeliest answer is {reply.answer} ({share:.0%})"


def _on_virtual(reply: Reply, asked: Asked) -> str:
    """How much of the attention falls on virtual tokens, layer by layer."""
    virtual = [i for i, column in enumerate(asked.columns) if column.virtual]
    shares = np.nansum(reply.attention[:, virtual], 1)
    if not virtual or np.isnan(reply.attention[:, virtual]).all():
        return ""
    said = ", ".join(f"{share:.0%}" for share in shares)
    return f" Attention of {asked.about} on virtual tokens, from the first layer: {said}."


def _switched_off(asked: Asked) -> str:
    if not asked.off:
        return ""
    which = ", ".join(str(i + 1) for i in asked.off)
    return f" Switched off: virtual token{'s' if len(asked.off) > 1 else ''} {which}, to which nothing attends."


def _started(asked: Asked) -> str:
    return f" The tokenizer puts {asked.start} in front of your text." if asked.start else ""


def _wider(reply: Reply, front: int) -> Reply:
    """With columns for virtual tokens that only another model has."""
    missing = np.full((len(reply.attention), front - reply.front), np.nan)
    return Reply(reply.answers, reply.written, np.concatenate([missing, reply.attention], 1), front)


def _switch(number: int) -> widgets.ToggleButton:
    tooltip = f"virtual token {number}: press to switch it off or on"
    layout = widgets.Layout(width="auto", min_width="40px")
    return widgets.ToggleButton(True, description=str(number), tooltip=tooltip, layout=layout)


def _button(name: str, tooltip: str, press, value) -> widgets.Button:
    button = widgets.Button(description=name, tooltip=tooltip, layout=widgets.Layout(width="76px"))
    button.on_click(lambda _: press(value))
    return button


def _check(models: Mapping[str, object], tokenizer: object, text: object, template: object) -> None:
    if not models or not all(isinstance(each, PreTrainedModel) for each in models.values()):
        raise TypeError(f"models are {models!r}, but must be a transformers model, or several by name")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(f"tokenizer is a {type(tokenizer).__name__}, but must be the models' tokenizer")
    if not isinstance(text, str) or not text.strip():
        raise TypeError(f"text is {text!r}, but must be a text to begin with")
    if template is not None and (not isinstance(template, str) or not FIELD.search(template)):
        raise ValueError(f"template is {template!r}, but must have a field for the text, as in '{{text}} [MASK]'")
