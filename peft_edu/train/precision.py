"""What the optimizer moves: of each parameter that is learned in half precision, a twin in float32.

bfloat16 keeps 8 bits of a number. A step of less than 1/512 of a weight would be rounded away, and most are smaller.
"""

import torch
from torch import nn


class Twins(dict[nn.Parameter, nn.Parameter]):
    """Parameter -> its twin, which is the parameter itself where that is precise enough."""

    def __init__(self, learned: dict[str, nn.Parameter]):
        every = learned.values()
        super().__init__({p: nn.Parameter(p.detach().float()) if p.element_size() < 4 else p for p in every})
        self.named = dict(zip(learned, self.values(), strict=True))
        self._pairs = [(parameter, twin) for parameter, twin in self.items() if twin is not parameter]

    def add_gradients(self) -> None:
        """After each backward: many small gradients add up in float32."""
        for parameter, twin in self._pairs:
            if parameter.grad is not None:
                gradient = parameter.grad.float()
                twin.grad = gradient if twin.grad is None else twin.grad + gradient
                parameter.grad = None

    @torch.no_grad()
    def round(self) -> None:
        """After each step, the model computes with what is learned, rounded to its own precision."""
        for parameter, twin in self._pairs:
            parameter.copy_(twin)
