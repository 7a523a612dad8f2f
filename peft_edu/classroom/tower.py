"""A frozen model of attention blocks in float64, some of which need a prompt: which ones can be computed."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

BLOCKS, OWN, WIDTH = 6, 2, 16  # a model's blocks, the numbers that each adds for a token, and the width of a token


class Tower(nn.Module):
    """Texts (b, t, 16) -> (b, t, 12). `prompts`: for some blocks, counted from 0 at the bottom, a tensor (2, p, 16),
    the keys and values that stand there in front of the text's.

    Each block writes what no other reads, so a prompt changes what its own block writes, and nothing else.
    """

    def __init__(self, draw: torch.Generator):
        super().__init__()
        for name, shape in {"maps": (BLOCKS, 3, WIDTH, WIDTH), "writes": (BLOCKS, WIDTH, OWN)}.items():
            self.register_buffer(name, torch.randn(shape, generator=draw, dtype=torch.float64) / WIDTH**0.5)
        turned = torch.randn(BLOCKS * OWN, BLOCKS * OWN, generator=draw, dtype=torch.float64)
        self.register_buffer("turned", torch.linalg.qr(turned)[0])

    def forward(self, x: Tensor, prompts: dict[int, Tensor] | None = None) -> Tensor:
        """What all blocks wrote, turned: no column of it is one block's, and a mean square stays what it was."""
        return self.written(x, prompts or {}).flatten(-2) @ self.turned

    def written(self, x: Tensor, prompts: dict[int, Tensor]) -> Tensor:
        if strange := set(prompts) - set(range(BLOCKS)):
            raise ValueError(f"there is no block {strange.pop()!r}: the blocks are 0 to {BLOCKS - 1}")
        parts = []
        for block in range(BLOCKS):
            q, k, v = (x @ each for each in self.maps[block])  # (b, t, 16)
            if block in prompts:
                prompt_k, prompt_v = prompts[block][:, None].expand(-1, len(x), -1, -1)  # (b, p, 16)
                k, v = torch.cat([prompt_k, k], 1), torch.cat([prompt_v, v], 1)
            parts.append(torch.softmax(q @ k.mT / WIDTH**0.5, -1) @ v @ self.writes[block])
        return torch.stack(parts, -2)  # (b, t, blocks, 2)


def prompted(n: SimpleNamespace) -> tuple[Tower, Tensor, Tensor, float]:
    """A model, x (20, 6, 16), y (20, 6, 12), and the loss to get below: what the model gives with prompts of two
    positions that nobody shows. In n.needed they change much, elsewhere so little that it is worth no prompt."""
    model, x, wanted = _task(n)
    losses = lost_without(n)
    worth = min(losses[block] for block in n.needed)
    return model, x, wanted.flatten(-2) @ model.turned, 0.5 * worth + sum(losses) - sum(losses[b] for b in n.needed)


def lost_without(n: SimpleNamespace) -> list[float]:
    """For each block what it adds to the mean square loss for as long as it has no prompt, whatever the others have."""
    model, x, wanted = _task(n)
    return ((wanted - model.written(x, {})).square().mean((0, 1, 3)) / BLOCKS).tolist()


def _task(n: SimpleNamespace) -> tuple[Tower, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n.data_seed)
    model, x = Tower(draw), torch.randn(20, 6, WIDTH, generator=draw, dtype=torch.float64)
    hidden = 3 * torch.randn(BLOCKS, 2, 2, WIDTH, generator=draw, dtype=torch.float64)
    bare = model.written(x, {})
    change = model.written(x, dict(enumerate(hidden))) - bare
    size = change.square().mean((0, 1, 3)).sqrt()
    least = size[list(n.needed)].min()
    share = torch.tensor([1.0 if block in n.needed else 0.15 * least / size[block] for block in range(BLOCKS)])
    return model, x, bare + share[:, None] * change
