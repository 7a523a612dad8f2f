"""Explain: after a measurement, the learner writes why; then a model answer stands beside their words."""

import html

import ipywidgets as widgets

from peft_edu.lab import workbook
from peft_edu.lab.exercises.model_answers import answer_to
from peft_edu.lab.figures.display import present


class Explanation:
    """A box for the learner's words, kept by its question, and a button that shows a model answer beside them."""

    def __init__(self, question: str):
        self.question, self.answer = question, answer_to(question)
        said = (workbook.kept("explanation", question) or {}).get("text", "")
        wide = widgets.Layout(width="98%", height="90px")
        hint = "In your own words, two or three sentences. What you write stays on this machine."
        # The words come when the box is left, and so before the click on the button.
        self.box = widgets.Textarea(value=str(said), placeholder=hint, layout=wide, continuous_update=False)
        tooltip = "Keep what you wrote, and show a model answer beside it"
        self.button = widgets.Button(description="compare", tooltip=tooltip, layout=widgets.Layout(width="90px"))
        self.shown = widgets.HTML()
        self.button.on_click(self.compare)
        heading = widgets.HTML(f"<b>Explain.</b> {html.escape(question)}")
        self.view = widgets.VBox([heading, self.box, self.button, self.shown])
        if said:
            self.show()

    def compare(self, _button: object = None) -> None:
        """Keep the learner's words, and show the answer; an empty box gives nothing away."""
        text = self.box.value.strip()
        if not text:
            self.shown.value = "Write a sentence of your own first: what you compare with is yours."
            return
        workbook.keep("explanation", self.question, text=text)
        self.show()

    def show(self) -> None:
        points = "".join(f"<li>{html.escape(point)}</li>" for point in self.answer.look_for)
        model = f"<b>One way to say it.</b> {html.escape(self.answer.text)}"
        self.shown.value = (
            f'<div aria-live="polite" style="line-height:1.5;max-width:760px">{model}<br>'
            f"<b>Does yours say this?</b><ul>{points}</ul></div>"
        )


def explain(question: str) -> None:
    """Ask for an explanation. Where nobody is at the keyboard, the question is printed alone."""
    present(Explanation(question).view, f"Explain. {question}")
