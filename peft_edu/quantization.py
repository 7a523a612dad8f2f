"""NF4: weights in 4 bits, LoRA beside them in 16 bits or more. That is QLoRA.

    W = s * level[code]        code: 4 bits a weight;  s: the largest |w| of 64 weights that lie side by side
    h = W x + (alpha / r) B A x

The sixteen levels are quantiles of the normal distribution, after which trained weights are spread. Of a normal
distribution that fills the room from -1 to 1, each level would take about the same share. Weights that are divided by
the largest of 64 lie closer to 0: of them the levels in the middle take more than those outside. The scales s are
packed too ("double quantisation"): in 8 bits, with one scale for 256 of them.
So a weight takes 4 + 8/64 + 32/(64 * 256) = 4.127 bits instead of 32.

Dettmers et al. 2023, https://arxiv.org/abs/2305.14314, section 3.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from transformers import PreTrainedModel

from peft_edu.anatomy import linear_maps
from peft_edu.checks import choice
from peft_edu.method import attached

BLOCK, SCALES = 64, 256  # weights that share a scale, and scales that do
LEVELS = ("nf4", "fp4", "int4")


@cache
def levels(kind: str = "nf4") -> Tensor:
    """The numbers (n,) from -1 to 1 that a weight divided by its scale is rounded to, in rising order.

    "nf4": quantiles of the normal distribution, of which seven lie below 0 and eight above: 0 itself is one of them.
    "fp4": what a floating-point number of 4 bits can say (sign, two bits of exponent, one of fraction). "int4": steps.
    """
    choice("kind", kind, LEVELS)
    if kind == "int4":
        return torch.arange(-7, 8) / 7
    if kind == "fp4":
        positive = torch.tensor([0.0052083333, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1])
        return torch.cat([-positive.flip(0), torch.zeros(1), positive])
    outermost = 0.9677083  # 1 - (1/30 + 1/32) / 2, in the digits and the precisions that bitsandbytes takes
    above, below = (torch.special.ndtri(torch.linspace(outermost, 0.5, n)[:-1].double()).float() for n in (9, 8))
    quantiles = torch.cat([-below, torch.zeros(1), above.flip(0)])
    return quantiles / quantiles.max()


@cache
def _scale_levels() -> Tensor:
    """256 numbers from -1 to 1 that lie ten times as close around each tenth: how bitsandbytes rounds scales."""
    found = torch.tensor([0.0, 1.0])
    for i in range(7):
        borders = torch.linspace(0.1, 1, 2**i + 1)
        middles = 10.0 ** (i - 6) * (borders[:-1] + borders[1:]) / 2
        found = torch.cat([found, middles, -middles])
    return found.sort().values


def round_to_levels(x: Tensor, levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Numbers (n,) in blocks: the place of the nearest level (n,) for each, and the scale of each block."""
    rows = pad(x.float(), (0, -len(x) % block)).view(-1, block)
    scales = rows.abs().amax(1)
    relative = rows * (1 / scales.clamp(min=1e-38))[:, None]
    return torch.bucketize(relative, (levels[1:] + levels[:-1]) / 2).flatten()[: len(x)], scales


def from_levels(places: Tensor, scales: Tensor, levels: Tensor, block: int) -> Tensor:
    """The numbers (n,) that `round_to_levels` keeps."""
    return levels[places.long()] * scales.repeat_interleave(block)[: len(places)]


@dataclass
class Packed:
    """A tensor in 4 bits: two codes in a byte, the first one in its high half; a scale for 64, with `double` in 8 bits.

    Equal to what bitsandbytes packs, bit for bit; with `double` but for one scale in some hundred, where two of the 256
    are equally near within a hair and its CPU kernel takes the other.
    """

    codes: Tensor  # (n / 2) uint8
    scales: Tensor  # (n / 64), float32, or uint8
    above: Tensor | None  # with `double`: the mean of all scales, then a scale for each 256 of them
    kind: str
    shape: torch.Size
    dtype: torch.dtype

    def unpack(self) -> Tensor:
        """The numbers that the codes stand for."""
        table, scales = levels(self.kind).to(self.codes.device), self.scales
        if self.above is not None:
            fine = _scale_levels().to(scales.device)
            scales = from_levels(scales, self.above[1:], fine, SCALES) + self.above[0]
        codes = torch.stack([self.codes >> 4, self.codes & 15], 1).flatten()[: self.shape.numel()]
        return from_levels(codes, scales, table, BLOCK).view(self.shape).to(self.dtype)

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        parts = [self.codes, self.scales] + [self.above] * (self.above is not None)
        return 8 * sum(part.nbytes for part in parts) / self.shape.numel()


@torch.no_grad()
def pack(weight: Tensor, kind: str = "nf4", double: bool = True) -> Packed:
    """Round a tensor to 4 bits a number.

    >>> W = torch.randn(64, 512)
    >>> packed = pack(W)
    >>> round(packed.bits, 2), round(((packed.unpack() - W).square().mean() / W.square().mean()).sqrt().item(), 2)
    (4.13, 0.09)
    """
    table = levels(kind).to(weight.device)
    codes, scales = round_to_levels(weight.detach().flatten(), table, BLOCK)
    codes = pad(codes.to(torch.uint8), (0, len(codes) % 2), value=7).view(-1, 2)  # the level 0 of each kind
    above = None
    if double:
        mean = scales.mean()
        scales, largest = round_to_levels(scales - mean, _scale_levels().to(scales.device), SCALES)
        scales, above = scales.to(torch.uint8), torch.cat([mean[None], largest])
    return Packed(codes[:, 0] << 4 | codes[:, 1], scales, above, kind, weight.shape, weight.dtype)


class _Unpacked(torch.autograd.Function):
    """W x, for which autograd keeps no W until backward, as it would for `linear`: it is unpacked once more there."""

    @staticmethod
    def forward(context, x: Tensor, module: "FourBitLinear") -> Tensor:
        context.module = module
        return linear(x, module.weight.to(x.dtype))

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ context.module.weight.to(gradient.dtype), None  # (..., out) -> (..., in)


class FourBitLinear(nn.Module):
    """h = W x + bias, W (out, in) packed and frozen: it is unpacked where it is needed, and thrown away again."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: str, double: bool):
        super().__init__()
        packed = pack(weight, kind, double)
        self.out_features, self.in_features = weight.shape
        for name in ("codes", "scales", "above"):
            self.register_buffer(name, getattr(packed, name))
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.kind, self.dtype = kind, weight.dtype

    @property
    def packed(self) -> Packed:
        shape = torch.Size((self.out_features, self.in_features))
        return Packed(self.codes, self.scales, self.above, self.kind, shape, self.dtype)

    @property
    def weight(self) -> Tensor:
        """W (out, in) as the codes have it, made anew: writing to it changes nothing."""
        return self.packed.unpack()

    def forward(self, x: Tensor) -> Tensor:
        h = _Unpacked.apply(x, self)
        return h if self.bias is None else h + self.bias

    def _apply(self, function, recurse=True):
        """Moved like any module, but a cast leaves codes and scales alone, and changes what they are unpacked to."""
        kept = {name: getattr(self, name) for name in ("scales", "above")}
        super()._apply(function, recurse)
        for name, buffer in kept.items():
            if buffer is not None:
                setattr(self, name, buffer.to(self.codes.device))
        self.dtype = function(torch.empty(0, dtype=self.dtype)).dtype
        return self


def quantize(model: PreTrainedModel, kind: str = "nf4", double: bool = True) -> PreTrainedModel:
    """Pack every linear map of the blocks in 4 bits, in place; embeddings, norms and heads stay. Then attach a LoRA.

    >>> model = quantize(backbone("tiny-gpt2", dtype=torch.float32)[0])
    >>> model = LoRA(rank=4).attach(model)
    """
    if attached(model):
        raise RuntimeError(f"{attached(model)} is attached: pack the model first, then attach")
    maps = linear_maps(model)
    for module in dict.fromkeys(each.module for each in maps):
        if isinstance(module, FourBitLinear):
            raise RuntimeError(f"this {type(model).__name__} is packed already")
    parents = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    for module in dict.fromkeys(each.module for each in maps):
        rows = [each.weight for each in maps if each.module is module]
        parent, name = parents[module]
        setattr(parent, name, FourBitLinear(torch.cat(rows), module.bias, kind, double).train(module.training))
    return model
