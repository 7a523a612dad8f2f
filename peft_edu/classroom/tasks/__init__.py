"""The tasks of the exercises, a file for each: importing them puts them on the list."""

from importlib import import_module
from pkgutil import iter_modules

for _found in iter_modules(__path__):
    import_module(f"{__name__}.{_found.name}")
