"""Methods such as a learner writes, in the manner of IA3: what a linear map gives is multiplied by a trained vector."""

from dataclasses import dataclass

import torch
from torch import nn

from peft_edu.anatomy import linear_maps
from peft_edu.method import Method


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.by = nn.Parameter(torch.ones(width))

    def rescale(self, module, inputs, output):
        return self.by * output


@dataclass
class OwnIA3(Method):
    roles: tuple[str, ...] = ("key", "value", "up")

    def insert(self, model):
        for module in {target.module: None for target in linear_maps(model, self.roles)}:
            scale = Scale(module.bias.numel())
            self.add(module, "scale", scale)
            self.hook(module.register_forward_hook(scale.rescale))
