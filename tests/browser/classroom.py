"""Where lessons are opened as people open them: a copy of the notebooks, one JupyterLab, one Chromium."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import nbformat
from controls import only_controls
from lab_server import ROOT, jupyter_lab
from lesson import Lesson
from playwright.sync_api import Error, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# CI is root in a container; the rest keeps the browser from asking for hosts that a closed network refuses.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Cells outside the window are in the page as well, so that a test can ask for any of them.
TRACKER = "config/lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
FIRST = "00_start_here"  # always whole: here begins who has never opened a notebook


class NoChromium(RuntimeError):
    pass


@contextmanager
def classroom(folder, whole=False):
    """Set one up in the empty `folder`, with `whole` lessons or with what their controls need."""
    copy_lessons(folder / "peft_edu", whole)
    (folder / "home" / TRACKER).parent.mkdir(parents=True)
    (folder / "home" / TRACKER).write_text('{"windowingMode": "none"}')
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        with jupyter_lab(folder / "peft_edu", "notebooks/card.ipynb", folder / "home") as address:
            yield Classroom(folder / "peft_edu" / "workbook", chromium, urlsplit(address))


def copy_lessons(folder, whole):
    """Running the copies leaves the checkout as it is; they have no outputs, so that what is seen was made just now."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True)
    (folder / "data").symlink_to(ROOT / "data")
    nbformat.write(card(), notebooks / "card.ipynb")
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(lesson, as_version=4)
        if not whole and lesson.stem != FIRST:
            notebook.cells = only_controls(notebook.cells)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, notebooks / lesson.name)


def card():
    """It is kept as plain Python: a notebook in tests/ would count as a lesson."""
    _, *parts = (Path(__file__).parent / "card.py").read_text().split("# %%\n")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(part.strip()) for part in parts], metadata=kernel)


def launch(playwright):
    """The system's Chromium, or the one that Playwright can fetch."""
    try:
        for path in filter(None, map(shutil.which, BROWSERS)):
            return playwright.chromium.launch(executable_path=path, args=FLAGS)
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], capture_output=True, timeout=300)
        return playwright.chromium.launch(args=FLAGS)
    except (Error, subprocess.TimeoutExpired) as error:
        raise NoChromium("no Chromium starts on this machine, and Playwright could not fetch its own") from error


class Classroom:
    def __init__(self, notebooks, chromium, server):
        self.notebooks, self.chromium, self.server = notebooks, chromium, server

    @contextmanager
    def desk(self):
        """`open_lesson(name)`: a window with the lesson, its kernel started, nothing run."""
        context = self.chromium.new_context(viewport={"width": 1280, "height": 900})

        def open_lesson(name):
            place = f"http://{self.server.netloc}/lab/tree/{name}.ipynb"
            return Lesson(context.new_page(), f"{place}?reset&{self.server.query}")

        try:
            yield open_lesson
        finally:
            context.close()
            self._end_kernels()

    def _end_kernels(self):
        """The next one starts afresh, and the memory of a trained model is free again."""
        for session in json.loads(self._ask("GET", "sessions")):
            self._ask("DELETE", f"sessions/{session['id']}")

    def _ask(self, method, path):
        authorization = {"Authorization": self.server.query.replace("token=", "token ")}
        request = Request(f"http://{self.server.netloc}/api/{path}", method=method, headers=authorization)
        with urlopen(request, timeout=30) as answer:
            return answer.read()
