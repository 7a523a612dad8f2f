"""The checks of the lessons' exercises, a file for each method: importing them puts them on the list of `check`."""

from . import (  # noqa: F401
    adapter,
    adapter_method,
    answers,
    choosing,
    freezing,
    lora,
    lora_hunt,
    lora_method,
    lora_open,
    p_tuning,
    p_tuning_v2,
    prefix_tuning,
    prompt_tuning,
)
