"""Runs of the command that are killed and gone on with: `python killed.py FOLDER KILLS`, where a model and a task are.

Each run is a fork of this process, so that a start takes no time, and a kill may come at any moment of the run.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch.utils.tensorboard  # noqa: F401  this and the next: what the command imports late

import peft_edu.lab  # noqa: F401
from peft_edu.train.__main__ import main

GIVEN = "train --backbone model --task words.tsv --steps 100 --batch-size 3 --accumulate 2 --save-every 1 --resume"


def start(name):
    """A run of the command in a process of its own."""
    if child := os.fork():
        return child
    sys.argv = [*GIVEN.split(), "--out", name, "--log", f"{name}-log", "rank=2", "dropout=0.2"]
    with open("said.txt", "a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    main()
    os._exit(0)


def steps(name):
    try:
        return Path(f"{name}-log", "history.csv").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def kill_after(child, name, more, draw):
    """After some more steps than the checkpoint has, and a part of one. Whether it was alive until then."""
    goal, patience = steps(name) + more, time.monotonic() + 30
    while steps(name) < goal and time.monotonic() < patience and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(0.02 * draw.random())
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    draw = random.Random(0)
    assert os.waitpid(start("never"), 0)[1] == 0
    for kill in range(int(sys.argv[2])):
        assert kill_after(start("killed"), "killed", draw.randint(0, 4), draw), f"it had ended before kill {kill}"
    at = steps("killed") - 1
    assert os.waitpid(start("killed"), 0)[1] == 0
    print(f"{sys.argv[2]} kills, the last one at step {at}")
