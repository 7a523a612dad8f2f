"""Texts beside each other, with what a judge hears in them."""

import html
import re
from collections.abc import Mapping, Sequence

from IPython.display import display

from peft_edu.lab.tasks.judge import Judge


def show_heard(written: Mapping[str, Sequence[str]], judge: Judge) -> None:
    """A column for each writer, a row for each beginning: the words that count, + or -, and the verdict behind."""
    lengths = {name: len(texts) for name, texts in written.items()}
    if len(set(lengths.values())) != 1 or not max(lengths.values()):
        raise ValueError(f"the columns have {lengths} texts: each needs as many, and one at least")
    cell = "padding:4px 14px 6px 0;text-align:left;vertical-align:top"
    head = "".join(f'<th scope="col" style="{cell}">{html.escape(name)}</th>' for name in written)
    rows = [
        "".join(f'<td style="{cell}">{_marked(text, judge)}</td>' for text in row)
        for row in zip(*written.values(), strict=True)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    told = [f"{name}: {judge(text):+.2f} {text}" for name, texts in written.items() for text in texts]
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    display({"text/html": table, "text/plain": "\n".join(told)}, raw=True)


def _marked(text: str, judge: Judge) -> str:
    heard, at, pieces = iter(judge.heard(text)), 0, []
    for found in re.finditer("[a-z]+", text.lower()):
        if found[0] in judge.worth:
            _, count = next(heard)
            word = html.escape(text[found.start() : found.end()])
            marked = f"<b>{word}<sup>+</sup></b>" if count > 0 else f"<u>{word}<sup>&minus;</sup></u>"
            pieces += [html.escape(text[at : found.start()]), marked]
            at = found.end()
    pieces.append(html.escape(text[at:]))
    return f"{''.join(pieces)} &nbsp;<i>{judge(text):+.2f}</i>"
