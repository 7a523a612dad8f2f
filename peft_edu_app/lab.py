"""Open a lesson in JupyterLab, as a copy in the learner's workbook."""

import argparse
import os
import socket
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from peft_edu_app.places import NOTEBOOKS
from peft_edu_app.workbook import hand_out

# Lessons run without a network: JupyterLab is not to ask for news or updates.
SETTINGS = Path(__file__).parent.resolve() / "jupyter"
KEPT_IN_HOME = (
    *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"),
    *("PEFT_EDU_WORK", "HF_HOME"),
)


def main(words: list[str]) -> None:
    asked, more = arguments(words)
    lesson = chosen_lesson(asked.lesson, asked.lessons)
    workbook = chosen_folder(asked.workbook, asked.lessons)
    # These are read when Jupyter is imported, so it is imported below.
    os.environ["JUPYTER_CONFIG_PATH"] = str(SETTINGS)
    os.environ["PEFT_EDU_WORKBOOK"] = str(workbook)  # for the kernels: there they keep what a learner did
    if not os.access(Path.home(), os.W_OK):
        for name in KEPT_IN_HOME:
            os.environ.setdefault(name, str(workbook / ".home" / name.lower()))
    if server := running(workbook):
        open_again(server, lesson, show=has_browser() and "--no-browser" not in more)
        return
    lay_out(asked.lessons, workbook)
    print(f"Your workbook is {workbook}. To end JupyterLab, press Control-C here twice.", flush=True)
    from jupyterlab.labapp import main as jupyterlab

    jupyterlab([*options(workbook, lesson), *more])


def only_copies(words: list[str]) -> None:
    """For a JupyterHub, or another editor."""
    parser = argparse.ArgumentParser(prog="peft-edu workbook", description="Lay out your copies of the lessons.")
    parser.add_argument("folder", help="where they are to lie; what you changed there is never overwritten")
    workbook = chosen_folder(parser.parse_args(words).folder, NOTEBOOKS)
    lay_out(NOTEBOOKS, workbook)
    print(f"Your workbook is {workbook}.")


def arguments(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="peft-edu lab", description=__doc__, allow_abbrev=False)
    parser.add_argument("lesson", nargs="?", default="00", help="its number or name (%(default)s)")
    parser.add_argument(
        "--workbook",
        default=os.environ.get("WORKBOOK") or "workbook",
        metavar="FOLDER",
        help="where your copies lie: this, or the environment variable WORKBOOK, or ./workbook",
    )
    parser.add_argument("--lessons", type=Path, default=NOTEBOOKS, metavar="FOLDER", help="where the lessons lie")
    parser.epilog = "All other options are JupyterLab's, such as --no-browser."
    return parser.parse_known_args(words)


def chosen_lesson(name: str, lessons: Path) -> str:
    """The file that is meant by `07`, `07_lora`, `07_lora.ipynb` or a path of it."""
    stem = Path(name).name.removesuffix(".ipynb")
    known = sorted(path.name for path in lessons.glob("*.ipynb"))
    found = [each for each in known if each == f"{stem}.ipynb" or each.startswith(f"{stem}_")]
    if not found:
        listed = ", ".join(each.removesuffix(".ipynb") for each in known) or "none"
        sys.exit(f"There is no lesson {name!r} in {lessons}; there are: {listed}.")
    return found[0]


def chosen_folder(name: str, lessons: Path) -> Path:
    """Where the workbook is to be, or a sentence on what is in the way."""
    workbook = Path(name).expanduser().resolve()
    if workbook.exists() and not workbook.is_dir():
        sys.exit(f"The workbook cannot be {workbook}: that is a file. Name a folder with WORKBOOK=FOLDER.")
    if workbook.is_relative_to(lessons.resolve()):
        sys.exit(f"The workbook cannot be {workbook}: there the lessons themselves lie. Name another folder.")
    return workbook


def lay_out(lessons: Path, workbook: Path) -> None:
    try:
        for line in hand_out(lessons, workbook):
            print(line)
    except OSError as error:
        sys.exit(f"The workbook {workbook} cannot be written ({error}). Name another folder with WORKBOOK=FOLDER.")


def running(workbook: Path) -> dict | None:
    """The server that has this workbook open, or None."""
    from jupyter_server.serverapp import list_running_servers  # it takes seconds, and what is wrong is told before

    for server in list_running_servers():
        try:
            if Path(server["root_dir"]).resolve() == workbook:
                socket.create_connection((server["hostname"], server["port"]), timeout=2).close()
                return server
        except (OSError, KeyError):
            continue
    return None


def open_again(server: dict, lesson: str, show: bool) -> None:
    place = f"{server['url'].rstrip('/')}{address(lesson)}?token={server['token']}"
    print(f"This workbook is open already, in a JupyterLab that runs: {place}")
    if show:
        webbrowser.open(place)


def options(workbook: Path, lesson: str) -> Iterator[str]:
    yield "--Application.log_level=WARN"  # what is left is the address
    yield "--LabApp.extension_manager=readonly"  # the other one asks the package index
    yield f"--ServerApp.root_dir={workbook}"
    yield f"--LabApp.default_url={address(lesson)}"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "--allow-root"  # in containers people are root, and Jupyter refuses unless told
    if not has_browser():
        yield "--no-browser"
        print(
            "There is no browser on this machine. Open the address below in one that runs here; from another computer"
        )
        print("first run there `ssh -L 8888:localhost:8888 THIS_MACHINE`, with the address's own number.", flush=True)


def address(lesson: str) -> str:
    """One document, the sidebar shut: each line of code has room on a small screen."""
    return f"/doc/tree/{quote(lesson)}"


def has_browser() -> bool:
    try:
        return bool(webbrowser.get())
    except webbrowser.Error:
        return False
