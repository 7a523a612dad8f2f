"""The model answers and hints of each lesson: importing them puts them on the list of `explain` and `predict`."""

from . import (  # noqa: F401
    adapter,
    chat,
    choosing,
    four_bits,
    freezing,
    lora,
    p_tuning,
    p_tuning_v2,
    preferences,
    prefix_tuning,
    prompt_tuning,
    start,
    weak,
)
