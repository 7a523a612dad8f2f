"""Open a lesson in JupyterLab; where there is no browser, print the address: `python tools/lab.py NOTEBOOK`."""

import os
import subprocess
import sys
import webbrowser
from pathlib import Path


def has_browser():
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def command(notebook):
    jupyter = [sys.executable, "-m", "jupyterlab", notebook]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        jupyter.append("--allow-root")  # in a container people are root, and Jupyter refuses unless told
    if not has_browser():
        jupyter.append("--no-browser")
        print("No browser found here: open the address below, the one with ?token=, in a browser of yours.", flush=True)
    return jupyter


if __name__ == "__main__":
    lesson = sys.argv[1]
    if not Path(lesson).is_file():
        sys.exit(f"{lesson} is not in {Path.cwd()}: run this from the root of the repository.")
    try:
        subprocess.run(command(lesson), check=True)
    except KeyboardInterrupt:
        print("JupyterLab is closed.")
