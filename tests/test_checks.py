"""The checks that several methods share, at their bounds."""

import pytest
from torch import nn

from peft_edu.checks import ALWAYS_FITS, affordable


class Large(nn.Linear):
    """More numbers than always fit."""

    def __init__(self):
        super().__init__(5000, 2001, bias=False, device="meta")


@pytest.mark.parametrize(("model", "most"), [(nn.Linear(2, 2), ALWAYS_FITS), (Large(), 5000 * 2001)])
def test_a_method_adds_at_most_what_the_model_has_or_what_always_fits(model, most):
    affordable("length 5", most, model)
    with pytest.raises(ValueError, match=f"^length 5 would add {most + 1:,} numbers to "):
        affordable("length 5", most + 1, model)
