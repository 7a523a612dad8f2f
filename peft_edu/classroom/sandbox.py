"""One submission, run in a process of its own: without a network, in a folder that is thrown away, within limits.

What a student writes may run for ever, fill the memory or the disk, print without end, or end Python. A cell that does
so is given up, and the others are run again without it in a new process, so that each task gets what it deserves.

This guards against accidents. It does not guard against somebody who attacks: the process has the rights of whoever
grades. Where that matters, grade in a container or a virtual machine (notebooks/exercises/README.md says how).
"""

import ctypes
import io
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from IPython.core.interactiveshell import InteractiveShell

from peft_edu.classroom.notebook import GRADED_AS
from peft_edu.classroom.restore import Cell
from peft_edu.classroom.task import Mark, known_task

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # of Linux's unshare(2)
GIB = 2**30
# Python with PyTorch and the lessons is loaded once, and each submission's process is forked from there.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "peft_edu.classroom.tasks"])


@dataclass(frozen=True)
class Limits:
    """For each submission. `cell` and `whole` in seconds; `memory` in GiB, beside what Python with PyTorch has;
    `output` of a cell in characters."""

    cell: float = 60
    whole: float = 300
    memory: float = 4
    output: int = 10_000_000


@dataclass
class Outcome:
    """The marks of each task that came so far; of each of the student's cells with a name what stopped it; and what
    else there is to tell, a sentence each."""

    marks: dict[str, list[Mark]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run(cells: list[Cell], student: str, classmates: list[str], limits: Limits = Limits()) -> Outcome:
    """Run the cells, until all that can be run are, or the time is over."""
    outcome, given_up, deadline = Outcome(), set(), time.monotonic() + limits.whole
    while ended := _attempt(cells, given_up, (student, classmates, limits), deadline, outcome):
        place, why = ended
        if place is None:  # no cell had begun
            outcome.notes.append(f"It was stopped before a cell was run: {why}.")
            break
        given_up.add(place)
        name = cells[place].id
        outcome.stopped[name] = why
        outcome.notes.append(f"{f'The cell {name}' if name else 'A cell of your own'} was left out: {why}.")
        if time.monotonic() > deadline:
            outcome.notes.append(f"After {limits.whole:.0f} seconds it was stopped: what comes later was not run.")
            break
    return outcome


def _attempt(cells, given_up, about, deadline, outcome) -> tuple[int | None, str] | None:
    """One process. Returns the cell that ended it, and why; None when all cells were run."""
    ours, theirs = PROCESSES.Pipe()
    todo = [(place, cell) for place, cell in enumerate(cells) if place not in given_up]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = PROCESSES.Process(target=_child, args=(theirs, todo, folder, *about), daemon=True)
        process.start()
        theirs.close()
        limit, place = about[-1].cell, None
        try:
            while ours.poll(max(0, min(limit, deadline - time.monotonic()))):
                kind, *facts = ours.recv()
                if kind == "done":
                    return None
                if kind == "begins":
                    (place,) = facts
                else:
                    getattr(outcome, kind)[facts[0]] = facts[1]
            return place, f"it ran longer than {limit:.0f} seconds"
        except EOFError:
            process.join()
            return place, _ending(process.exitcode)
        finally:
            _end(process)


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the system ended it, as it does when the memory is full"
    return f"it ended Python ({signal.Signals(-code).name})" if code < 0 else f"it ended Python (exit code {code})"


def _end(process) -> None:
    """The process, and whatever it began."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()  # it had no group of its own yet, or is gone
    process.join()


def _child(parent: Connection, cells, folder: str, student: str, classmates: list[str], limits: Limits) -> None:
    os.setsid()
    _fence_in(folder, limits)
    os.environ[GRADED_AS] = student

    def graded(name: str, answer: object) -> int:
        marks = known_task(name).marks(answer, student, classmates)
        parent.send(("marks", name, marks))
        return sum(mark.points for mark in marks)

    shell = InteractiveShell.instance()
    for place, cell in cells:
        parent.send(("begins", place))
        if cell.kind == "graded":
            shell.user_ns["graded"] = graded  # whatever that name became
        sys.stdout = sys.stderr = Output(limits.output)
        result = shell.run_cell(cell.source)
        error = result.error_before_exec or result.error_in_exec
        if error is not None and cell.id and cell.kind == "own":
            parent.send(("stopped", cell.id, f"{type(error).__name__}: {error}"[:300]))
    parent.send(("done",))
    os._exit(0)  # whatever threads are left


def _fence_in(folder: str, limits: Limits) -> None:
    os.chdir(folder)
    os.environ |= {"HOME": folder, "TMPDIR": folder, "MPLBACKEND": "Agg", "PEFT_EDU_WORKBOOK": folder}
    tempfile.tempdir = folder
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    torch.set_num_threads(1)
    _without_network()
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    memory = int(pages * resource.getpagesize() + limits.memory * GIB)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (GIB, GIB))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing raises OSError


def _without_network() -> None:
    """A network of its own with nothing in it, where Linux allows it; else Python's sockets do not connect."""
    if sys.platform == "linux":
        unshare = ctypes.CDLL(None).unshare
        if unshare(CLONE_NEWNET) == 0 or unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
            return

    def connect(self, address):
        raise OSError("there is no network while submissions are graded")

    socket.socket.connect = socket.socket.connect_ex = connect


class Output(io.TextIOBase):
    """Takes what is printed, up to a limit."""

    def __init__(self, limit: int):
        self.left = limit

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.left -= len(text)
        if self.left < 0:
            raise RuntimeError("the cell prints without end")
        return len(text)
