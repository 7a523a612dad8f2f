"""A lesson as a person has it before them: JupyterLab in Chromium, a notebook, and the cards in it.

lesson = open_lesson("07_lora")
lesson.run_all()
card = lesson.card("Rank")
with card.changing("text", "figure"):
    card.move("rank", "ArrowRight")
card.press("train")
lesson.screenshot("07_lora")
"""

import functools
import itertools
import json
import re
import struct
import time
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"  # kept for people to look at


def save_picture(shown, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    shown.screenshot(path=SCREENSHOTS / f"{name}.png")


def wait_until(page, holds, what, seconds, pause=0.02):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds} s for this, in vain: {what}"
        page.wait_for_timeout(1000 * pause)


def kernel_message(frame):
    """Its type and content: a frame is the offsets, then channel, header, parent, metadata, content and buffers."""
    (count,) = struct.unpack_from("<Q", frame)
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    _, header, _, _, content, *_ = (frame[start:end] for start, end in itertools.pairwise(offsets))
    return json.loads(header)["msg_type"], json.loads(content)


class Lesson:
    def __init__(self, page, address):
        self.page = page
        self.notebook = page.locator(".jp-Notebook")
        self.code = self.notebook.locator(".jp-CodeCell")
        self._errors, self._stderr = [], ""
        page.on("websocket", lambda socket: socket.on("framereceived", self._listen))
        page.goto(address)
        expect(self.code.first).to_be_visible(timeout=60_000)
        # The notebook's own sign says idle before there is a kernel, and a cell run then is silently not run.
        expect(page.get_by_role("button", name="| Idle")).to_be_visible(timeout=60_000)

    def _listen(self, frame):
        kind, content = kernel_message(frame) if isinstance(frame, bytes) else (None, {})
        if kind == "error":
            self._errors.append(f"{content['ename']}: {content['evalue']}")
        elif kind == "stream" and content["name"] == "stderr":
            self._stderr += content["text"]

    @property
    def errors(self):
        """Those of cells, of threads, and of widgets' callbacks, which JupyterLab itself shows nobody."""
        shown = self.notebook.get_by_role("alert").all_inner_texts()  # how a card of the lab tells of its own
        return self._errors + shown + [self._stderr] * ("Traceback (most recent call last)" in self._stderr)

    def no_errors(self):
        assert not self.errors, "\n".join(self.errors)

    def run_all(self, seconds=600):
        """By the menu. The test's copy of the lesson came without outputs: a cell with a number has run here."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        ran = self.code.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[\d+\]"))

        def all_ran():
            return self.errors or ran.count() == self.code.count()

        wait_until(self.page, all_ran, "every cell has run", seconds, pause=1)  # to ask more often slows the kernel
        self.no_errors()

    def is_accessible(self):
        """axe-core finds nothing in what the cells show: names, roles, contrast, in the theme that is on."""
        ours = {"include": [[".jp-Notebook .jp-OutputArea-output"]], "exclude": [[".dataframe"]]}  # pandas' tables
        found = Axe().run(self.page, context=ours).response
        wrong = [
            f"{rule['id']} ({rule['help']}): {node['html']}" for rule in found["violations"] for node in rule["nodes"]
        ]
        assert found["passes"] and not wrong, "\n".join(wrong)

    def cards(self, title):
        """The widgets whose text holds `title`."""
        shown = self.notebook.locator(".jp-OutputArea-output:has(.jupyter-widgets)").filter(has_text=title)
        return [Card(shown.nth(i)) for i in range(shown.count())]

    def card(self, title):
        return self.cards(title)[0]

    def commit_every_guess(self):
        """The last choice, once none was refused, the lowest number, a line drawn by keys; how many there were."""
        guesses = self.cards("Predict.")
        for guess in guesses:
            choices, handles = guess.shown.get_by_role("radio"), guess.shown.locator(".noUi-handle")
            if choices.count():
                guess.press("commit")
                guess.wait_for("Choose one first.")
                choices.last.check()
            elif handles.count():
                guess.press("commit")
                guess.wait_for("Draw first")
                for handle in handles.all():
                    handle.press("ArrowUp")
            else:
                box = guess.shown.get_by_role("textbox")
                box.fill(re.search(r"from (\S+) to", box.get_attribute("placeholder"))[1])
            guess.press("commit")
            guess.wait_for("Your guess:")
        return len(guesses)

    def screenshot(self, name):
        save_picture(self.page, name)


class Card:
    """What `peft_edu.lab` shows: controls, a result in words, a figure."""

    def __init__(self, shown):
        self.shown = shown
        shown.scroll_into_view_if_needed()

    @property
    def text(self):
        return "\n".join(self.shown.locator(".widget-html-content").all_inner_texts())

    @property
    def figure(self):
        """Where the browser keeps the picture that is shown: another address is another picture."""
        return self.shown.locator("img").first.get_attribute("src")

    def move(self, slider, *keys):
        """Press keys on the slider of this label, as somebody without a mouse does."""
        handle = self.shown.locator(".widget-slider").filter(has_text=slider).locator(".noUi-handle")
        for key in keys or ["ArrowRight"]:
            handle.press(key)

    def type(self, box, text):
        """Put a number or words into the box of this label, and leave it."""
        field = self.shown.locator(".widget-inline-hbox").filter(has_text=box).locator("input, textarea").first
        field.fill(str(text))
        field.press("Enter")
        field.blur()  # in a box of several lines Enter begins a new one

    def choose(self, box, option):
        """From the list of this label."""
        self.shown.locator(".widget-inline-hbox").filter(has_text=box).locator("select").select_option(option)

    def press(self, button):
        self.shown.get_by_role("button", name=button, exact=True).click()

    def wait_for(self, text, seconds=60):
        expect(self.shown).to_contain_text(text, timeout=seconds * 1000)

    def train_and_stop(self, name):
        """A training that is stopped, with a picture while it runs and one after."""
        self.press("train")
        self.wait_for("loss")
        self.screenshot(f"{name}_training")
        self.press("stop")
        self.wait_for("stopped after")
        self.screenshot(name)

    @contextmanager
    def changing(self, *names, seconds=60):
        """What the block does must change each of these: "text", "figure"."""
        before = {name: getattr(self, name) for name in names}
        yield
        for name, old in before.items():
            new = functools.partial(getattr, self, name)
            wait_until(self.shown.page, lambda old=old, new=new: new() != old, f"the {name} changes", seconds)

    def screenshot(self, name):
        save_picture(self.shown, name)
