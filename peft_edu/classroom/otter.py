"""An exercise for Otter-Grader: the notebook that `otter assign` (version 7) takes, made from the same source.

Each part of a task is a test of its own, so that part of the answer has part of the points there too.
"""

import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_raw_cell

from peft_edu.classroom.restore import as_cell, marked
from peft_edu.classroom.task import known_task

ASSIGNMENT = """# ASSIGNMENT CONFIG
name: {name}
requirements: [peft-edu]
export_cell: false
generate: true"""
POINTS = '''""" # BEGIN TEST CONFIG
points: {points}
hidden: false
""" # END TEST CONFIG
from peft_edu.classroom.notebook import part

part("{task}", {answer}, {number})'''


def as_otter(source: NotebookNode, name: str) -> NotebookNode:
    cells, question = [new_raw_cell(ASSIGNMENT.format(name=name))], []
    for cell in source.cells:
        kind = as_cell(cell).kind if marked(cell) else None
        if kind == "own" and "### BEGIN SOLUTION" in cell.source:
            text = cell.source.replace("### BEGIN SOLUTION", "# BEGIN SOLUTION")
            text = text.replace("### END SOLUTION", "# END SOLUTION")
            question = [*_raw("# BEGIN SOLUTION"), new_code_cell(text), *_raw("# END SOLUTION")]
        elif kind == "graded":
            task, answer = re.fullmatch(r'graded\("([\w.]+)", (\w+)\)', cell.source.strip()).groups()
            begin = f"# BEGIN QUESTION\nname: {task.replace('.', '_')}\npoints: {known_task(task).points}"
            tests = [
                new_code_cell(POINTS.format(points=worth, task=task, answer=answer, number=number))
                for number, worth in enumerate(known_task(task).parts.values())
            ]
            cells += [*_raw(begin), *question, *_raw("# BEGIN TESTS"), *tests, *_raw("# END TESTS", "# END QUESTION")]
        else:
            cells.append(new_code_cell(cell.source) if cell.cell_type == "code" else cell)
    return new_notebook(cells=cells, metadata=source.metadata)


def _raw(*texts: str) -> list[NotebookNode]:
    return [new_raw_cell(text) for text in texts]
