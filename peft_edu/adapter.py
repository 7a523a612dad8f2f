"""Adapters: small bottlenecks inside a frozen transformer.

    A(x) = x + W_up gelu(W_down x + b_down) + b_up         W_down (m, d) and W_up (d, m) trained

Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, section 2.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, norms, sublayer_outputs
from peft_edu.checks import affordable, choice, indices, number, whole_number, yes_or_no
from peft_edu.method import Method


class Bottleneck(nn.Module):
    """A(x) of one place in the model: 2 m d + m + d parameters, and 2 d more for a LayerNorm of its own."""

    def __init__(self, width: int, bottleneck: int, init_std: float, own_norm: bool, like: Tensor):
        super().__init__()
        kind = {"device": like.device, "dtype": like.dtype}
        self.norm = nn.LayerNorm(width, **kind) if own_norm else nn.Identity()
        self.down = nn.Linear(width, bottleneck, **kind)
        self.up = nn.Linear(bottleneck, width, **kind)
        for linear in (self.down, self.up):  # both near 0: training starts near, but not at, the base model
            nn.init.trunc_normal_(linear.weight, std=init_std, a=-2 * init_std, b=2 * init_std)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(gelu(self.down(self.norm(x))))  # (..., d) -> (..., m) -> (..., d)

    def replace_output(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """The forward hook of the module whose output would be added to the residual stream."""
        return self(output)


@dataclass
class Adapter(Method):
    """A bottleneck in every block, after projection and dropout and before the residual sum.

    "houlsby" puts one behind each sub-layer: two in a block, three in a decoder block of T5's, which has
    cross-attention. "pfeiffer" puts one behind the feed-forward network alone (Pfeiffer et al. 2020,
    https://arxiv.org/abs/2005.00247; the `adapters` library also adds the residual before it, this package does not).

    norms: train all LayerNorms too, as the paper does.
    own_norm: a LayerNorm before W_down (Bapna & Firat 2019, https://arxiv.org/abs/1909.08478; LoRA's "adapter-L").
    init_std: of the truncated normal start; the authors' code has 1e-3, the paper names 1e-2.
    blocks: which blocks get adapters, counted from 0 at the bottom (default: all).

    >>> model = Adapter(bottleneck=8, placement="pfeiffer").attach(backbone("tiny-bert")[0])
    """

    bottleneck: int = 64
    placement: str = "houlsby"
    init_std: float = 1e-3
    norms: bool = True
    own_norm: bool = False
    blocks: tuple[int, ...] | None = None

    starts_at_base = False

    def __post_init__(self):
        whole_number("bottleneck", self.bottleneck)
        choice("placement", self.placement, ("houlsby", "pfeiffer"))
        number("init_std", self.init_std, "at least 0", lambda std: std >= 0)
        yes_or_no("norms", self.norms)
        yes_or_no("own_norm", self.own_norm)
        self.blocks = indices("blocks", self.blocks)

    def insert(self, model: PreTrainedModel) -> None:
        available, width = blocks(model), model.config.hidden_size
        chosen = indices("blocks", self.blocks, len(available), type(model).__name__)
        affordable(f"bottleneck {self.bottleneck}", 2 * width * self.bottleneck * len(available), model)
        if self.norms:
            for norm in norms(model):
                self.unfreeze(norm)
        for block in available if chosen is None else [available[index] for index in chosen]:
            places, like = sublayer_outputs(model, block), next(block.parameters())
            for place in places if self.placement == "houlsby" else places[-1:]:
                adapter = Bottleneck(width, self.bottleneck, self.init_std, self.own_norm, like)
                self.add(place, "adapter", adapter)
                self.hook(place.register_forward_hook(adapter.replace_output))
