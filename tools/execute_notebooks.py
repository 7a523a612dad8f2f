"""Run notebooks from top to bottom and save them with their outputs: `python tools/execute_notebooks.py [NOTEBOOK]...`.

What is saved is what a second run would save: no widget state, no model ids, no times, no name of one's own kernel.
"""

import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SECONDS_A_CELL = 120
VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def run(path):
    notebook = nbformat.read(path, as_version=4)
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


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sorted(NOTEBOOKS.rglob("*.ipynb"))):
        started = time.perf_counter()
        nbformat.write(tidy(run_with_one_retry(path)), path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)
