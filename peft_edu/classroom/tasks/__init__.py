"""The tasks of the exercises, a file for each: importing them puts them on the list."""

from . import lora  # noqa: F401
