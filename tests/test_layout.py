"""The layout: who imports whom. Arrows run one way, so that each file can be read with what it stands on alone."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up: a room of the lab imports what stands before it, and nothing behind it.
ROOMS = (
    *("paths", "workbook", "tasks", "models", "study", "measure", "exercises"),
    *("figures", "widgets", "installation", "__init__"),
)


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module(path): path for path in (ROOT / "peft_edu").rglob("*.py")}


def imported(name: str, top_only: bool = True) -> set[str]:
    """The modules of the package that a module imports, when it is itself imported or at all."""
    tree, found = ast.parse(FILES[name].read_text(encoding="utf-8")), set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= inside or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & FILES.keys() - {name}


def room(name: str) -> str:
    return name.removeprefix("peft_edu.lab").lstrip(".").partition(".")[0] or "__init__"


def test_no_import_runs_in_a_circle():
    tops = {"peft_edu", "peft_edu.lab"}  # they gather the public names, and everybody may take these
    graph = {name: imported(name) - tops for name in FILES if name not in tops}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("peft_edu.lab.")])
def test_a_room_of_the_lab_imports_only_rooms_below_it(name):
    for other in imported(name, top_only=False):
        if other.startswith("peft_edu.lab"):
            assert ROOMS.index(room(other)) <= ROOMS.index(room(name)), f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("peft_edu.classroom")])
def test_the_classroom_stands_on_everything_and_nothing_on_it(name):
    assert not [other for other in imported(name, top_only=False) if other.startswith("peft_edu.classroom")]


ABOVE = ("peft_edu.lab", "peft_edu.classroom")


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(ABOVE)])
def test_the_methods_stand_without_the_lab(name):
    assert not [other for other in imported(name) if other.startswith("peft_edu.lab")]
    if name.count(".") == 1 and name not in ("peft_edu.train", "peft_edu.storage"):  # the methods and their ground
        above = [other for other in imported(name) if other.startswith(("peft_edu.train", "peft_edu.storage"))]
        assert not above, f"{name} imports {above}"
