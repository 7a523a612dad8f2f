"""Virtual tokens right in front of the first token of each row, and out again.

Padding on the left stays on the left: between prompt and text it would change their distance, which T5 measures.
"""

import torch
from torch import Tensor


def leading_pads(mask: Tensor) -> Tensor | None:
    """How many positions of each row (b, t) are padding on the left, (b, 1); None where no row starts with padding."""
    return None if mask[:, 0].all() else (mask.cumsum(1) == 0).sum(1, keepdim=True)


def in_front(virtual: Tensor, text: Tensor, pads: Tensor | None) -> Tensor:
    """(b, p, ...) and (b, t, ...) -> (b, p + t, ...): pads on the left, then the virtual tokens, then the text."""
    whole, p = torch.cat([virtual, text.expand(len(virtual), *text.shape[1:])], 1), virtual.shape[1]
    if pads is None:
        return whole
    place = torch.arange(whole.shape[1], device=whole.device)[None]
    order = torch.where(place < pads, place + p, torch.where(place < pads + p, place - pads, place))
    return whole[torch.arange(len(whole), device=whole.device)[:, None], order]


def behind(whole: Tensor, p: int, pads: Tensor | None) -> Tensor:
    """What `in_front` was given as text."""
    if pads is None:
        return whole[:, p:]
    place = torch.arange(whole.shape[1] - p, device=whole.device)[None]
    return whole[torch.arange(len(whole), device=whole.device)[:, None], place + p * (place >= pads)]
