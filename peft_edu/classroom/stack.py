"""A small model of blocks in float64, for tasks in which parts of a model are frozen and trained in a second."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

DETAILS, WIDTH, OUT, ROWS = 6, 12, 3, 800  # as many blocks as details
PAD = 0
Rows = tuple[Tensor, Tensor]


class Block(nn.Module):
    """h <- h + down(tanh(up(h))), of which `keep` is passed on."""

    def __init__(self, width: int, keep: Tensor, dropout: float = 0.0):
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("keep", keep)

    def forward(self, h: Tensor) -> Tensor:
        return self.keep * (h + self.dropout(self.down(torch.tanh(self.up(h)))))


class Stack(nn.Module):
    """What it reads, the blocks from the bottom up, and a head."""

    def __init__(self, first: nn.Module, blocks: list[Block], head: nn.Module):
        super().__init__()
        self.first, self.blocks, self.head = first, nn.ModuleList(blocks), head

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


def forgetful(data_seed: int) -> Stack:
    """The pretrained model of `changed_block`: after block i (counted from 0) number i of the stream is cleared.

    These numbers, the details, it has never used: no block reads one, and the head does not.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data_seed)
        clear = [(torch.arange(WIDTH) != i).double() for i in range(DETAILS)]
        model = Stack(nn.Identity(), [Block(WIDTH, keep) for keep in clear], nn.Linear(WIDTH, OUT)).double()
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight)
    with torch.no_grad():
        for block in model.blocks:
            block.up.weight[:, :DETAILS] = 0
        model.head.weight[:, :DETAILS] = 0
    return model


def changed_block(n: SimpleNamespace) -> tuple[Rows, Rows, float]:
    """Rows to train on, rows to test with, and the loss that a model without its detail cannot get below.

    The task is what the pretrained model does, if block `n.changed` (from 1, at the bottom) also uses the detail that
    is cleared behind it. To all above the detail is noise: the least mean square loss is what noise leaves.
    """
    model, generator = forgetful(n.data_seed), torch.Generator().manual_seed(n.data_seed)
    detail = n.changed - 1
    with torch.no_grad():
        column = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
        model.blocks[detail].up.weight[:, detail] = 2 * column / column.square().mean().sqrt()
        x, other = torch.randn(2, 2 * ROWS, WIDTH, generator=generator, dtype=torch.float64)
        y = model(x)
        other[:, [i for i in range(WIDTH) if i != detail]] = x[:, [i for i in range(WIDTH) if i != detail]]
        noise = (model(other) - y).square().mean().item() / 2
    return (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:]), noise


def writer(dropout: float = 0.2) -> tuple[Stack, list[Tensor]]:
    """A model that writes the next token, five blocks deep, and eight batches of token ids, padded with PAD."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [Block(8, torch.ones(8), dropout) for _ in range(5)]
        model = Stack(nn.Embedding(12, 8), blocks, nn.Linear(8, 12)).double().eval()
        batches = torch.randint(1, 12, (8, 4, 7))
        lengths = torch.randint(3, 8, (8, 4, 1))
    return model, list(batches.masked_fill(torch.arange(7) >= lengths, PAD))
