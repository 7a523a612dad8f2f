"""What a browser test runs of a lesson: the cells that show a control, and those that they need.

Every cell is run by nbval already. A lesson trains for minutes what its controls do not need.
"""

import dis
import re
from types import CodeType

from IPython.core.inputtransformer2 import TransformerManager

SHOWS = re.compile(r"\b(predict|draw_guess|explain)\(|Card\(")  # a guess, an explanation, or a card


def only_controls(cells: list) -> list:
    """Text stays. From the last cell to the first: what shows a control, and the last to bind a name that is needed."""
    needed, kept = set(), []
    for cell in reversed(cells):
        if cell.cell_type == "code":
            reads, binds = names(python(cell.source))
            if not SHOWS.search(cell.source) and not binds & needed:
                continue
            needed = (needed - binds) | reads
        kept.insert(0, cell)
    return kept


def python(source: str) -> CodeType:
    return compile(TransformerManager().transform_cell(source), "cell", "exec")


def names(code: CodeType) -> tuple[set[str], set[str]]:
    """Those that a cell reads from the cells before it, and those that it binds."""
    reads, binds = set(), set()
    for instruction in dis.get_instructions(code):
        operation, argument = instruction.opname, instruction.argval
        if operation in ("LOAD_NAME", "LOAD_GLOBAL") and argument not in binds:
            reads.add(argument)
        elif operation in ("STORE_NAME", "STORE_GLOBAL"):
            binds.add(argument)
        elif isinstance(argument, CodeType):  # a function, or a class: what it reads of the world outside
            reads |= names(argument)[0] - binds
    return reads, binds
