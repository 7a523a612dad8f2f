"""The house: one list of packages everywhere, pinned; a network that is dead; a set-up that says what is missing."""

import ast
import os
import re
import runpy
import socket
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import nbformat
import pytest
import yaml
from jupyter_client.manager import start_new_kernel
from lab_server import jupyter_lab
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from peft_edu_app.__main__ import main as command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("peft_edu", "peft_edu_app")
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
REQUIREMENTS = [Requirement(line) for line in sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_dependency_is_pinned_within_its_bounds(requirement):
    pins = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert len(pins) == 1, f"constraints.txt pins {requirement.name} {len(pins)} times, once is needed"
    (specifier,) = pins[0].specifier
    assert specifier.operator == "=="
    assert requirement.specifier.contains(specifier.version)


def test_everything_that_is_imported_is_declared():
    """A package that comes with another one goes when that one no longer needs it."""
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn"}  # that are called otherwise than what is imported
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    found = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    packages = found - set(sys.stdlib_module_names) - {*PACKAGES, "data"}
    lists = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["classroom"]
    declared = {canonicalize_name(Requirement(line).name) for line in lists}
    assert {canonicalize_name(distributions.get(name, name)) for name in packages} <= declared


def test_everything_installed_has_the_pinned_version():
    """A package that came in beside the pins would be another one next month."""
    frozen = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in PINS}
    for name, version in re.findall(r"^(\S+)==(\S+)$", frozen, re.MULTILINE):
        if name.startswith(("nvidia-", "cuda-", "triton")):  # torch with CUDA says itself which it needs
            continue
        assert canonicalize_name(name) in pinned, f"constraints.txt does not pin {name}, which is installed ({version})"
        pin = pinned[canonicalize_name(name)]
        assert pin.contains(version), f"{name} is installed as {version}, constraints.txt says {pin}"


def test_conda_and_binder_install_what_pyproject_says():
    """The project itself, at the pinned versions, and nothing beside it that could come apart from pyproject.toml."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, from_pip = environment["dependencies"]
    assert [package.partition("=")[0] for package in conda] == ["python", "pip"]
    assert Requirement("python" + PROJECT["requires-python"]).specifier.contains(conda[0].partition("=")[2])
    options = dict(line.split(" ", 1) for line in from_pip["pip"])
    assert options.pop("--extra-index-url").endswith("/cpu")
    assert options == {"--constraint": "constraints.txt", "--editable": "."}


def connect(host):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect((host, server.getsockname()[1]))
    return "connected"


def test_this_machine_answers_and_no_other_does():
    assert connect("127.0.0.1") == connect("localhost") == "connected"
    with pytest.raises(ConnectionRefusedError, match="without a network"):
        connect("192.0.2.1")  # reserved for documentation: nobody is there
    with pytest.raises(ConnectionRefusedError, match="without a network"):
        socket.getaddrinfo("example.org", 443)


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_in(kernel, code):
    outputs = []
    reply = kernel.execute_interactive(code, timeout=60, output_hook=lambda m: outputs.append(m["content"]))
    return reply["content"], "".join(output.get("text", "") for output in outputs)


def test_a_notebook_kernel_has_no_network_either(kernel):
    here, text = run_in(
        kernel,
        "import socket; s = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(s.getsockname()); print('connected')",
    )
    assert (here["status"], text) == ("ok", "connected\n")
    away, _ = run_in(kernel, "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)")
    assert away["ename"] == "ConnectionRefusedError" and "without a network" in away["evalue"]


def test_a_click_is_heard_after_the_text_that_was_typed_before_it(kernel):
    """JupyterLab sends what widgets say to a subshell; ipykernel 7.4.0 lets a message there overtake another."""
    _, text = run_in(
        kernel,
        "import ipywidgets\n"
        "box, button, heard = ipywidgets.Text(), ipywidgets.Button(), []\n"
        "button.on_click(lambda _: heard.append(box.value))\n"
        "print(box.model_id, button.model_id)",
    )
    box, button = text.split()
    kernel.control_channel.send(kernel.session.msg("create_subshell_request"))
    subshell = kernel.get_control_msg(timeout=60)["content"]["subshell_id"]

    def say(widget, **data):
        message = kernel.session.msg("comm_msg", {"comm_id": widget, "data": data})
        message["header"]["subshell_id"] = subshell
        kernel.shell_channel.send(message)

    typed = [str(number) for number in range(50)]
    for text in typed:
        say(box, method="update", state={"value": text}, buffer_paths=[])
        say(button, method="custom", content={"event": "click"})
    waiting = f"import time\nend = time.monotonic() + 30\nwhile len(heard) < {len(typed)} and time.monotonic() < end:\n"
    _, text = run_in(kernel, f"{waiting}    time.sleep(0.01)\nprint(*heard)")
    assert text.split() == typed


def set_up(folder, **machine):
    install = ["sh", str(ROOT / "tools" / "install.sh"), ".", "stamp"]
    return subprocess.run(install, cwd=folder, env=os.environ | machine, capture_output=True, text=True)


@pytest.mark.parametrize(
    "machine, sentence",
    [
        ({"PYTHON3": "no-such-python"}, "peft_edu: Python 3.11 to 3.14 is needed and was not found"),
        ({"NEEDED_MB": "999999999"}, "peft_edu: 999999999 MB of free disk are needed in"),
        ({"NEEDED_MB": "abc"}, "peft_edu: NEEDED_MB is 'abc', but must be a number of megabytes."),
        ({"NEEDED_MB": "-5"}, "peft_edu: NEEDED_MB is '-5', but must be a number of megabytes."),
    ],
)
def test_setup_says_in_one_sentence_what_is_missing(tmp_path, machine, sentence):
    run = set_up(tmp_path, **machine)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(sentence) and run.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_setup_names_the_package_that_debian_leaves_out(tmp_path):
    python = tmp_path / "python-without-venv"
    python.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    run = set_up(tmp_path, PYTHON3=str(python))
    assert run.returncode == 1 and "apt install python3-venv" in run.stderr


def test_make_installs_once(tmp_path):
    """With the stamp newer than the pins, `make lab` goes straight to JupyterLab."""
    (tmp_path / ".venv").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "install.sh").write_bytes((ROOT / "tools" / "install.sh").read_bytes())
    before = subprocess.run(["make", "-n", "lab"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (tmp_path / ".venv" / ".lab").touch()
    after = subprocess.run(["make", "-n", "lab"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "install.sh" in before and "install.sh" not in after
    assert "-m peft_edu_app lab" in after


def test_make_says_that_a_python_is_empty():
    run = subprocess.run(["make", "-n", "lab", "PYTHON="], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "PYTHON is empty: leave it out" in run.stderr and run.stderr.count("\n") == 1


def tool(name, *words, **options):
    return subprocess.run([sys.executable, ROOT / "tools" / name, *words], capture_output=True, text=True, **options)


@pytest.mark.parametrize("words", [["--help"], [], ["play"]])
def test_the_command_says_what_it_can_do(words, capsys):
    assert command(words) == (2 if words == ["play"] else 0)
    told = capsys.readouterr()
    assert "peft-edu lab [LESSON]" in told.out and ("no command 'play'" in told.err) == (words == ["play"])


def test_copies_are_laid_out_without_opening_anything(tmp_path, capsys):
    assert command(["workbook", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "07_lora.ipynb").is_file() and str(tmp_path / "mine") in capsys.readouterr().out


def test_the_command_is_found_by_its_name():
    assert PROJECT["scripts"] == {"peft-edu": "peft_edu_app.__main__:main"}


def test_the_lab_starts_without_pytorch():
    code = "import sys; import peft_edu_app.__main__, peft_edu_app.lab; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


EXECUTE = runpy.run_path(str(ROOT / "tools" / "execute_notebooks.py"))


def lesson(folder, *cells):
    path = folder / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


@pytest.mark.parametrize("content", ["# no notebook", "", "{}", "[]", None])
def test_what_is_no_notebook_is_told_in_a_sentence(tmp_path, content):
    path = tmp_path / "bad.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match=f"{path}(: no file that can be written| is no notebook)") as left:
        EXECUTE["read"](path)
    assert "\n" not in str(left.value)


def test_nothing_runs_where_one_of_the_notebooks_is_none(tmp_path):
    path = lesson(tmp_path, "1")
    before = path.read_bytes()
    run = tool("execute_notebooks.py", path, tmp_path / "nope.ipynb")
    assert (run.returncode, run.stdout) == (1, "") and path.read_bytes() == before


def test_a_folder_and_a_device_are_no_notebooks(tmp_path):
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(SystemExit, match=f"{path}: no file that can be written"):
            EXECUTE["read"](path)


def test_a_cell_that_raises_leaves_the_lesson_as_it_was(tmp_path):
    path = lesson(tmp_path, "1 / 0")
    before = path.read_bytes()
    run = tool("execute_notebooks.py", path)
    assert run.returncode == 1 and "ZeroDivisionError" in run.stderr and "execute_notebooks.py" not in run.stderr
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_lesson_as_it_was(tmp_path, monkeypatch):
    path = lesson(tmp_path, "1")
    before = path.read_bytes()

    def full(notebook, place):
        Path(place).write_text("half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nbformat, "write", full)
    with pytest.raises(SystemExit, match="lesson.ipynb stays as it was: .*No space left"):
        EXECUTE["write"](nbformat.v4.new_notebook(), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_lesson_is_saved_with_what_it_said(tmp_path):
    path = lesson(tmp_path, "1 + 1")
    run = tool("execute_notebooks.py", path)
    assert run.returncode == 0 and run.stdout.startswith("lesson.ipynb: ")
    assert nbformat.read(path, 4).cells[0].outputs[0]["data"]["text/plain"] == "2"
    assert list(tmp_path.iterdir()) == [path]


def test_make_lab_prints_an_address_that_answers(tmp_path):
    """On a machine with no browser this line is all that a learner has."""
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / "lesson.ipynb")
    with jupyter_lab(tmp_path, "notebooks/lesson.ipynb", home=tmp_path / "home") as address:
        assert "/doc/tree/lesson.ipynb?token=" in address
        with urllib.request.urlopen(address, timeout=30) as page:
            assert page.status == 200 and b"JupyterLab" in page.read()


def test_links_in_the_readme_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page} links to {target}, which is not there"


def test_the_readme_has_a_row_for_each_lesson():
    listed = re.findall(r"\]\(notebooks/(\d\d_\w+\.ipynb)\)", (ROOT / "README.md").read_text())
    assert listed == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == PROJECT["version"]
