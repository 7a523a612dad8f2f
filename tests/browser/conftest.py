"""One JupyterLab and one Chromium for all browser tests of a process, on a copy of the lessons."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import nbformat
import pytest
from lab_server import ROOT, jupyter_lab
from lesson import Lesson
from playwright.sync_api import Error, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A test is root in a container; the rest keeps the browser from asking for hosts that a closed network refuses.
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


def write_card(target):
    """The card is kept as plain Python: a notebook in tests/ would count as a lesson."""
    _, *cells = (Path(__file__).parent / "card.py").read_text().split("# %%\n")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    code = [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=kernel), target)


def copy_cleared(source, target):
    """Without outputs: what the test then sees was made before its eyes."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, target)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A copy of the lessons: running them leaves the checkout as it is."""
    folder = tmp_path_factory.mktemp("peft_edu")
    (folder / "notebooks").mkdir()
    (folder / "data").symlink_to(ROOT / "data")
    write_card(folder / "notebooks" / "card.ipynb")
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        copy_cleared(lesson, folder / "notebooks" / lesson.name)
    return folder


@pytest.fixture(scope="session")
def server(folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / TRACKER).parent.mkdir(parents=True)
    (home / TRACKER).write_text('{"windowingMode": "none"}')
    with jupyter_lab(folder, "notebooks/card.ipynb", home) as address:
        yield urlsplit(address)


def launch(playwright):
    """The system's Chromium, or the one that Playwright can fetch."""
    for path in filter(None, map(shutil.which, BROWSERS)):
        return playwright.chromium.launch(executable_path=path, args=FLAGS)
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], capture_output=True, timeout=300)
    return playwright.chromium.launch(args=FLAGS)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        try:
            chromium = launch(playwright)
        except (Error, subprocess.TimeoutExpired):
            pytest.skip("no Chromium on this machine, and Playwright could not fetch its own")
        yield chromium
        chromium.close()


def end_kernels(server):
    """The next test starts afresh, and the memory of a trained model is free again."""
    headers = {"Authorization": server.query.replace("token=", "token ")}

    def ask(method, path):
        request = Request(f"http://{server.netloc}/api/{path}", method=method, headers=headers)
        with urlopen(request, timeout=30) as answer:
            return answer.read()

    for session in json.loads(ask("GET", "sessions")):
        ask("DELETE", f"sessions/{session['id']}")


@pytest.fixture
def open_lesson(browser, server):
    """`open_lesson("07_lora")`: the lesson in a window of its own, its kernel started, nothing run."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()

    def open_lesson(name):
        return Lesson(page, f"http://{server.netloc}/lab/tree/notebooks/{name}.ipynb?reset&{server.query}")

    yield open_lesson
    context.close()
    end_kernels(server)
