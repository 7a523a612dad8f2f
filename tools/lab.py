"""Open a lesson in JupyterLab, as a copy in the learner's workbook: `python tools/lab.py NOTEBOOK`.

The workbook is the folder `workbook`, or the one that the environment variable WORKBOOK names.
"""

import os
import socket
import sys
import webbrowser
from pathlib import Path
from urllib.parse import quote

# Read when Jupyter is imported. Lessons run without a network: JupyterLab is not to ask for news or updates.
os.environ["JUPYTER_CONFIG_PATH"] = str(Path(__file__).parent.resolve() / "jupyter")

from workbook import hand_out  # noqa: E402


def has_browser():
    try:
        return bool(webbrowser.get())
    except webbrowser.Error:
        return False


def options(workbook, lesson):
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


def address(lesson):
    """One document, the sidebar shut: each line of code has room on a small screen."""
    return f"/doc/tree/{quote(lesson)}"


def running(workbook):
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


def chosen_folder(lesson):
    """Where the workbook is to be, or a sentence on what is in the way."""
    if not lesson.is_file():
        sys.exit(f"{lesson} is not in {Path.cwd()}: run this from the root of the repository.")
    workbook = Path(os.environ.get("WORKBOOK") or "workbook").expanduser().resolve()
    if workbook.exists() and not workbook.is_dir():
        sys.exit(f"The workbook cannot be {workbook}: that is a file. Name a folder with WORKBOOK=FOLDER.")
    if workbook.is_relative_to(lesson.parent.resolve()):
        sys.exit(f"The workbook cannot be {workbook}: there the lessons themselves lie. Name another folder.")
    return workbook


def lay_out(lessons, workbook):
    try:
        for line in hand_out(lessons, workbook):
            print(line)
    except OSError as error:
        sys.exit(f"The workbook {workbook} cannot be written ({error}). Name another folder with WORKBOOK=FOLDER.")


def open_again(server, lesson, show):
    place = f"{server['url'].rstrip('/')}{address(lesson)}?token={server['token']}"
    print(f"This workbook is open already, in a JupyterLab that runs: {place}")
    if show:
        webbrowser.open(place)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python tools/lab.py NOTEBOOK [OPTION OF JUPYTERLAB]...")
    lesson, more = Path(sys.argv[1]), sys.argv[2:]
    workbook = chosen_folder(lesson)
    if server := running(workbook):
        open_again(server, lesson.name, show=has_browser() and "--no-browser" not in more)
    else:
        lay_out(lesson.parent, workbook)
        os.environ["PEFT_EDU_WORKBOOK"] = str(workbook)  # for the kernels: there they keep what a learner did
        print(f"Your workbook is {workbook}. To end JupyterLab, press Control-C here twice.", flush=True)
        from jupyterlab.labapp import main

        main([*options(workbook, lesson.name), *more])
