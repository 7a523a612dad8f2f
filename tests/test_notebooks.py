"""What a lesson promises beside running: it was run before it was saved, its cells are short, its links lead somewhere.

That each cell's output comes out again is tested by nbval on the notebooks themselves.
"""

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = sorted(  # without the copies that JupyterLab keeps beside those that were opened
    path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
SHOWS = {"print", "display", "show", "reveal", "draw"}  # a cell that ends in one of these has something to show

pytestmark = pytest.mark.parametrize("path", LESSONS, ids=lambda path: str(path.relative_to(NOTEBOOKS).with_suffix("")))


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell):
    return set(cell.metadata.get("tags", []))


def ends_in_showing(cell):
    last = ast.parse(re.sub(r"^[%!].*", "", cell.source, flags=re.MULTILINE)).body[-1:]
    if not last or not isinstance(last[0], ast.Expr) or not isinstance(last[0].value, ast.Call):
        return False
    function = last[0].value.func
    return getattr(function, "attr", getattr(function, "id", None)) in SHOWS


def test_it_was_run_from_top_to_bottom(path):
    """nbval checks nothing in a cell that was saved unrun, so that an unrun lesson would pass."""
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


def test_cells_that_show_something_have_it_saved(path):
    silent = [cell.source for cell in cells(path, "code") if ends_in_showing(cell) and not cell.outputs]
    assert not silent, "run `make notebooks`: these cells show something and have no output saved"


def test_no_error_is_saved(path):
    for cell in cells(path, "code"):
        if "raises-exception" not in tags(cell):
            assert not [output for output in cell.outputs if output.output_type == "error"], cell.source


def test_no_widget_state_is_saved(path):
    """GitHub refuses to show some notebooks that have it."""
    assert "widgets" not in nbformat.read(path, as_version=4).metadata


def test_cells_are_short(path):
    """But for the teacher's solutions of an exercise, which a student never sees."""
    read = [cell for cell in cells(path, "code") if not cell.metadata.get("nbgrader", {}).get("solution")]
    lengths = [len(cell.source.splitlines()) for cell in read]
    assert max(lengths) <= 15
    assert median(lengths) <= 8


def test_each_guess_has_a_name_of_its_own(path):
    """A guess may be committed after all cells have run: the cell that reveals it must then still mean this one."""
    code = "\n".join(cell.source for cell in cells(path, "code"))
    names = re.findall(r"^(\w+) = (?:predict|draw_guess)\(", code, flags=re.MULTILINE)
    assert len(names) == len(set(names)), names


def test_nearly_all_output_is_compared(path):
    code = cells(path, "code")
    ignored = [cell for cell in code if tags(cell) & {"nbval-ignore-output", "nbval-skip"} or "NBVAL_" in cell.source]
    assert len(ignored) <= len(code) / 10


def core(path):
    """The cells before the heading "Further", in a lesson that has one."""
    every = nbformat.read(path, as_version=4).cells
    further = [i for i, cell in enumerate(every) if cell.source.startswith("# Further")]
    return every[: further[0]] if further else None


def test_a_core_is_short_and_comes_first(path):
    """What comes first can need nothing that comes later: so the core runs alone."""
    if (first := core(path)) is None:
        pytest.skip("not yet parted into core and further")
    assert len(first) <= 30
    assert "**Keep in mind**" in first[-1].source
    kinds = "\n".join(cell.source for cell in first)
    for part in ("predict(", "check(", "explain(", "Card(", "draw_block("):
        assert part in kinds, f"the core has no {part}...)"


def test_a_measurement_is_revealed_in_a_cell_that_attaches_nothing(path):
    for cell in cells(path, "code"):
        assert not (".reveal(" in cell.source and ".attach(" in cell.source), cell.source


def heading_anchors(path):
    if path.suffix != ".ipynb":
        text = path.read_text(encoding="utf-8")
    else:
        text = "\n".join(cell.source for cell in cells(path, "markdown"))
    headings = re.findall(r"^#+\s+(.+?)\s*$", text, re.MULTILINE)
    return {heading.replace(" ", "-") for heading in headings} | {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    }


def test_links_lead_somewhere(path):
    """Jupyter's anchors keep case and punctuation, GitHub's do not: a link may use either."""
    for cell in cells(path, "markdown"):
        for file, _, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(#([^)\s]+))?\)", cell.source):
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), f"{path.name} links to {file}, which is not there"
            assert not anchor or anchor in heading_anchors(target), f"{file or path.name} has no heading #{anchor}"


def test_figures_are_told_in_words(path):
    """JupyterLab and GitHub show the picture only; the sentence is for screen readers, and nbval compares it."""
    for cell in cells(path, "code"):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert not output.data.get("text/plain", "<Figure").startswith("<Figure"), cell.source


def test_pictures_in_the_text_are_told_in_words(path):
    for cell in cells(path, "markdown"):
        assert "![](" not in cell.source and not re.search(r"<img(?![^>]*\balt=\"[^\"]+\")", cell.source), cell.source


def attaches(node):
    """The names of the models that a method is attached to somewhere in this piece of code."""
    calls = [each for each in ast.walk(node) if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute)]
    return {call.args[0].id for call in calls if call.func.attr == "attach" and isinstance(call.args[0], ast.Name)}


def attached_to(code):
    """Of those the ones that the code did not make itself; none if it takes the method off, or shows the refusal."""
    tree = ast.parse(re.sub(r"^[%!].*", "", code, flags=re.MULTILINE))
    made = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.For | ast.comprehension):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
            made |= names - (attaches(node.value) if isinstance(node, ast.Assign) else set())
    return set() if ".detach()" in code or "except " in code else attaches(tree) - made


def test_a_cell_that_attaches_can_be_run_twice(path):
    """A model takes one method: who runs the cell again would be refused, so it makes its model anew."""
    again = {cell.source: names for cell in cells(path, "code") if (names := attached_to(cell.source))}
    assert not again, f"make the model in the cell that attaches a method to it: {again}"
