"""The model answers and hints of each lesson: importing them puts them on the list of `explain` and `predict`."""

from . import adapter, lora, start  # noqa: F401
