"""JupyterLab as `make lab` starts it, on a free port, for as long as a test needs it."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def printed_address(log, server, seconds=60):
    """The line that a learner without a browser copies: http://127.0.0.1:PORT/doc/tree/LESSON?token=TOKEN."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\S+token=\w+", log.read_text()):
            return found[0]
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab printed no address within {seconds} seconds:\n{log.read_text()}")


KEPT = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython"}


@contextmanager
def jupyter_lab(folder, lesson, home, kept=KEPT):
    """Serve copies of `lesson` and those beside it, from `folder`/workbook, and yield the address of `lesson`.

    A lesson that is a number alone is one of the suite. What Jupyter knows of its user it keeps in `home`.
    """
    here = [lesson, "--lessons", str(Path(folder, lesson).parent)] if "/" in lesson else [lesson]
    command = [sys.executable, "-m", "peft_edu_app", "lab", *here, "--no-browser", f"--ServerApp.port={free_port()}"]
    environment = os.environ | {name: str(home / path) for name, path in kept.items()} | {"WORKBOOK": "workbook"}
    home.mkdir(parents=True, exist_ok=True)
    log = home / "jupyter.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield printed_address(log, server)
        finally:
            server.terminate()
            server.wait(timeout=30)
