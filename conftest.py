"""What all tests and all notebooks run under: one thread a process, no model hub, no network."""

import json
import os
import runpy
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from hypothesis import settings

OFFLINE = Path(__file__).parent / "tests" / "offline"
SHARED = ("browser/test_lessons.py", "test_classroom.py")
LONGEST = (
    "test_classroom",
    "notebooks/04",
    "notebooks/08",
    "notebooks/02",
    "notebooks/",
    "test_contract",
    "browser/",
    "test_world",
)

# Before torch is imported anywhere; the kernels and servers that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PEFT_EDU_WORKBOOK", None)  # in a terminal of JupyterLab it names a learner's own
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
settings.register_profile("the same each time", derandomize=True)  # what passes here passes in CI
settings.load_profile("the same each time")


def pytest_addoption(parser):
    about = "in the browser run every cell of a lesson, not only those that its controls need"
    parser.addoption("--whole-lessons", action="store_true", help=about)
    parser.addoption("--all", action="store_true", help="also what is marked `thorough`: make test ALL=1")


def pytest_collection_modifyitems(config, items):
    """Without --all, leave out what is marked `thorough`, and of the lessons all that lies behind the core.

    The longest files come first: no worker ends alone.
    """
    if not config.getoption("--all"):
        left_out = [item for item in items if item.get_closest_marker("thorough") or is_further(item)]
        config.hook.pytest_deselected(items=left_out)
        left = set(left_out)
        items[:] = [item for item in items if item not in left]
    for item in items:  # a lesson whose real model is not installed goes on with a stand-in, which says other things
        if "real" in getattr(item, "cell", {}).get("metadata", {}).get("tags", ()) and not real_models_are_there():
            item.options["check"] = False
    items.sort(key=lambda item: next((i for i, part in enumerate(LONGEST) if part in item.nodeid), len(LONGEST)))


@cache
def real_models_are_there():
    """Whether `make real` has brought what cells with the tag "real" were run with."""
    known = json.loads((Path(__file__).parent / "data" / "real_models.json").read_text(encoding="utf-8"))
    try:
        return all(version(each["wheel"]) == each["version"] for each in known.values())
    except PackageNotFoundError:
        return False


def is_further(item):
    """Whether this cell stands behind the heading "Further": that the core runs without those is a test of its own. So
    it is with the exercises: test_classroom.py runs their solutions."""
    if "notebooks/exercises/" in item.nodeid:
        return True
    cells = getattr(getattr(item.parent, "nb", None), "cells", [])
    heading = next((i for i, cell in enumerate(cells) if cell.source.startswith("# Further")), len(cells))
    return any(cell is item.cell for cell in cells[heading:])


@pytest.hookimpl(optionalhook=True)  # without xdist nobody asks
def pytest_xdist_make_scheduler(config, log):
    """A worker takes a whole file, but of the two longest one test: so two workers share them."""
    from xdist.scheduler import LoadScopeScheduling

    class FileByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid if any(name in nodeid for name in SHARED) else super()._split_scope(nodeid)

    return FileByFile(config, log)


def pytest_collectstart(collector):
    """Notebook outputs that no two machines draw alike. Numbers and sentences stay compared."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("text/html", "image/svg+xml", "stderr")


def pytest_terminal_summary(terminalreporter):
    """What did not run is not to be overlooked."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "tests/browser/" in report.nodeid]
    if skipped:
        reason = skipped[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(skipped)} BROWSER TESTS DID NOT RUN: {reason}.", red=True)
