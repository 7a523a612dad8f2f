"""The calls that docstrings show are run: what a reader copies works."""

import doctest

import pytest
import torch

import peft_edu
from peft_edu import lab
from peft_edu.classroom.numbers import canonical
from peft_edu.classroom.submissions import PurePosixPath, student_of
from peft_edu.lab.tasks.task import Task
from peft_edu.method import Method
from peft_edu.quantization import pack, quantize
from peft_edu.train import Checkpoint

PUBLIC = {name: getattr(module, name) for module in (peft_edu, lab) for name in module.__all__}
EXAMPLES = {name: public for name, public in PUBLIC.items() if ">>>" in (getattr(public, "__doc__", None) or "")}
EXAMPLES |= {
    "Checkpoint": Checkpoint,
    "canonical": canonical,
    "student_of": student_of,
    "pack": pack,
    "quantize": quantize,
    "Method.off": Method.off,
    "Task.as_chat": Task.as_chat,
}
NAMES = PUBLIC | EXAMPLES | {"torch": torch, "PurePosixPath": PurePosixPath}
FIRST = "LoRA Adapter PrefixTuning PromptTuning PTuning PTuningV2 TopBlocks fit save template_ids backbone task recipe"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_call_in_a_docstring_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder(recurse=False).find(EXAMPLES[name], name, globs=NAMES)
    failed, tried = doctest.DocTestRunner().run(found[0])
    assert tried and not failed


def test_what_a_reader_meets_first_shows_a_call():
    assert set(FIRST.split()) <= EXAMPLES.keys()
