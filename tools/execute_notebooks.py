"""Run notebooks from top to bottom and save them with their outputs.

What is saved is what a second run would save: no widget state, no model ids, no times, no name of one's own kernel.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SECONDS_A_CELL = 240
VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read(path):
    """The notebook, or a sentence on what is there instead. Asked of all before the first is run for minutes."""
    try:
        if not path.is_file() or not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
            sys.exit(f"{path}: no file that can be written, in a folder that can be written")
        return nbformat.read(path, as_version=4)
    except Exception as error:
        sys.exit(f"{path} is no notebook ({type(error).__name__}: {str(error).splitlines()[0]:.100})")


def run(path):
    notebook = read(path)
    kernel = AsyncKernelManager(kernel_name="python3")
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, km=kernel, timeout=SECONDS_A_CELL, record_timing=False, resources=where).execute()
    return notebook


def run_with_one_retry(path):
    """Executing widgets stalls now and then; an error in a cell is an error, and is not tried again."""
    try:
        return run(path)
    except (CellTimeoutError, DeadKernelError) as stalled:
        print(f"{path.name}: {str(stalled).splitlines()[0]} Once more.", flush=True)
        return run(path)


def tidy(notebook):
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VIEW, None)  # its model lived in the kernel that is now gone
    return notebook


def write(notebook, path):
    """Beside the old one, which gives way when all is written: a full disk leaves the lesson as it was."""
    beside = path.with_name(f".{path.name}.part")
    try:
        nbformat.write(notebook, beside)
        os.replace(beside, path)
    except OSError as error:
        sys.exit(f"{path} stays as it was: {error}")
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all lessons")
    asked = parser.parse_args().notebooks or sorted(NOTEBOOKS.rglob("*.ipynb"))
    for path in asked:
        read(path)
    for path in asked:
        started = time.perf_counter()
        try:
            ran = run_with_one_retry(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            sys.exit(f"{path} stays as it was: {error}")
        write(tidy(ran), path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)
