"""Explain: say it in your own words, then compare them with a model answer and with what to look for."""

import html

import ipywidgets as widgets

from peft_edu.lab import workbook
from peft_edu.lab.exercises.model_answers import find
from peft_edu.lab.figures.display import present


class Explanation:
    """A learner's own words on a question, and beside them, once asked for, the model answer."""

    def __init__(self, question: str):
        self.question, self.model = question, find(question)
        layout = widgets.Layout(width="380px", height="150px")
        label = {"description": "your words", "style": {"description_width": "initial"}}
        # The words arrive when the box is left, so before the click on a button.
        self.box = widgets.Textarea(
            placeholder="Two or three sentences are enough.", continuous_update=False, layout=layout, **label
        )
        wide = widgets.Layout(width="max-content")
        self.button = widgets.Button(description="compare with a model answer", layout=wide)
        self.skip = widgets.Button(description="show me without writing", layout=wide)
        self.note, self.answer = widgets.HTML(), widgets.HTML(layout=widgets.Layout(max_width="380px"))
        self._recall()
        self.button.on_click(lambda _: self.compare())
        self.skip.on_click(lambda _: self._show())
        heading = widgets.HTML(f"<b>Explain.</b> {html.escape(question)}")
        beside = widgets.HBox([self.box, self.answer], layout={"flex_flow": "row wrap"})
        self.view = widgets.VBox([heading, beside, widgets.HBox([self.button, self.skip]), self.note])

    def compare(self) -> None:
        """Keep the words and show the model answer beside them; without words, ask for some."""
        text = self.box.value.strip()
        if not text:
            self.note.value = '<div role="status">Write a sentence first, even a half-sure one.</div>'
            return
        if text != self._kept():
            workbook.keep("explanation", self.question, text=text)
        self._show()

    def _kept(self) -> str:
        """The words of an earlier time, or none."""
        text = (workbook.kept("explanation", self.question) or {}).get("text")
        return text if isinstance(text, str) else ""

    def _recall(self) -> None:
        if text := self._kept():
            self.box.value = text
            self._show()

    def _show(self) -> None:
        points = "".join(f"<li>{html.escape(point)}</li>" for point in self.model.points)
        look = "<b>Do your words have these?</b>"
        answer = f"<b>A model answer.</b> {html.escape(self.model.answer)}"
        self.note.value = ""
        self.answer.value = f'<div role="status" style="line-height:1.5">{answer}<br>{look}<ul>{points}</ul></div>'


def explain(question: str) -> Explanation:
    """Ask for an explanation in the learner's own words, and put a model answer beside it when they ask for it.

    The answer is looked up by its question, so it stands in no notebook. The words are kept in the workbook, and shown
    when the cell is run again. With nobody at the keyboard it is the question alone.
    """
    explanation = Explanation(question)
    present(explanation.view, f"Explain. {question}")
    return explanation
