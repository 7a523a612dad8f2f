"""The checks of the lessons' exercises, a file for each method."""

from peft_edu.lab.exercises import (
    adapter,
    choosing,
    freezing,
    lora,
    p_tuning,
    p_tuning_v2,
    prefix_tuning,
    prompt_tuning,
)

__all__ = ["adapter", "choosing", "freezing", "lora", "p_tuning", "p_tuning_v2", "prefix_tuning", "prompt_tuning"]
