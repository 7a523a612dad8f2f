"""What students believe, planted in the solution of a task, a file an exercise.

Each is the cell, the text that is replaced, what stands there instead, the points that are left, what is told.
"""

from importlib import import_module
from pkgutil import iter_modules

_files = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
PLANTED = {each.EXERCISE: each.PLANTED for each in _files}
