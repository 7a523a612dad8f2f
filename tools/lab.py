"""Open a lesson in JupyterLab, or print its address where there is no browser: `python tools/lab.py NOTEBOOK`."""

import os
import sys
import webbrowser
from pathlib import Path

# Read when Jupyter is imported. Lessons run without a network: JupyterLab is not to ask for news or updates.
os.environ["JUPYTER_CONFIG_PATH"] = str(Path(__file__).parent.resolve() / "jupyter")

from jupyterlab.labapp import main  # noqa: E402


def has_browser():
    try:
        return bool(webbrowser.get())
    except webbrowser.Error:
        return False


def options(notebook):
    yield "--Application.log_level=WARN"  # what is left is the address
    yield "--LabApp.extension_manager=readonly"  # the other one asks the package index
    yield "--ServerApp.root_dir=."
    yield f"--LabApp.default_url=/lab/tree/{Path(notebook).as_posix()}"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "--allow-root"  # in containers people are root, and Jupyter refuses unless told
    if not has_browser():
        yield "--no-browser"
        print(
            "There is no browser on this machine. Open the address below in one that runs here; from another computer"
        )
        print("first run there `ssh -L 8888:localhost:8888 THIS_MACHINE`, with the address's own number.", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python tools/lab.py NOTEBOOK [OPTION OF JUPYTERLAB]...")
    lesson, *more = sys.argv[1:]
    if not Path(lesson).is_file():
        sys.exit(f"{lesson} is not in {Path.cwd()}: run this from the root of the repository.")
    main([*options(lesson), *more])
