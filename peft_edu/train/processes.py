"""The work of a step, in one process or in several: each takes its share of the rows of every batch.

    loss = sum_i n_i / n loss_i          n_i of the step's n labels that count, loss_i the mean over them

So a run ends with the same parameters, in however many processes and batches a step is cut. A plain mean of the
losses would give a label more weight where there are few.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import islice

import torch
from torch import Tensor, nn
from transformers import set_seed

from peft_edu.anatomy import blocks
from peft_edu.method import trainable, unwrapped
from peft_edu.train.batches import Batch, tensors

# Where launchers tell how many processes there are, and which one this is.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


class Alone:
    """One process, with nobody to agree with."""

    rank, size = 0, 1

    def place(self, model: nn.Module) -> nn.Module:
        """The model that runs here."""
        return model

    def put_back(self, model: nn.Module, running: nn.Module) -> None:
        """What was learned, into the model."""

    def read(self, batches: Iterator[Batch], number: int) -> list[Batch]:
        """The batches of a step; none at the end."""
        return list(islice(batches, number))

    def rows(self, batch: Batch) -> Batch:
        """Those of a batch that are worked on here."""
        return batch

    def mean(self, number: float) -> float:
        """Of the numbers of all processes."""
        return number

    def average_gradients(self, learned: Iterable[nn.Parameter]) -> None:
        """Over all processes."""

    def all(self, value: object) -> list:
        """The values of all processes."""
        return [value]

    def stop(self, wanted: object) -> bool:
        """Whether one of them wants to stop after this step."""
        return bool(wanted)

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_) -> None:
        pass


class Together(Alone):
    """One of several processes that `accelerate launch` or `torchrun` started, on its own GPU where there are some.

    The first reads the batches and tells the others, so that all know the same step. An interrupt waits for its end.
    """

    def __init__(self):
        from accelerate import Accelerator  # here, so that a lesson does not wait for it

        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        self.sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
        if (precision := self.accelerator.mixed_precision) != "no":
            mend = "open the model itself in bfloat16 (--dtype bfloat16), and launch with --mixed_precision no"
            raise ValueError(f"accelerate launch asks for the mixed precision {precision}, which fit has not: {mend}")
        set_seed(torch.randint(2**31, ()).item() + self.rank)  # what dropout leaves out differs between the rows
        self.interrupted = False
        self._before = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_) -> None:
        self.interrupted = True

    def place(self, model: nn.Module) -> nn.Module:
        from accelerate.utils import broadcast

        if not self.sharded:
            model.to(self.accelerator.device)
        for parameter in trainable(model).values():
            parameter.data.copy_(broadcast(parameter.detach().to(self.accelerator.device)))
        return self._shards(model) if self.sharded else model

    def _shards(self, model: nn.Module) -> nn.Module:
        """A copy of which each process holds a share of every frozen matrix, and block by block has it for a moment.

        What is learned is small, and whole: a method may use it anywhere. The model itself stays as and where it is,
        so `save`, `merge` and `detach` know nothing of shards.
        """
        from accelerate.utils import FullyShardedDataParallelPlugin
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
        mesh = init_device_mesh(self.accelerator.device.type, (self.size,))
        options = {"reshard_after_forward": plugin.reshard_after_forward, "offload_policy": plugin.cpu_offload}
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        same = {id(each): nn.Parameter(each.detach(), requires_grad=False) for each in frozen}  # no second copy of them
        shards = deepcopy(model, same)
        learned = set(trainable(shards).values())
        for parameter in learned:
            parameter.data = parameter.to(self.accelerator.device)
        for part in (*blocks(unwrapped(shards)), shards):
            fully_shard(part, mesh=mesh, ignored_params=learned, **options)
        return shards

    @torch.no_grad()
    def put_back(self, model: nn.Module, running: nn.Module) -> None:
        learned = trainable(running)
        for name, parameter in trainable(model).items() if self.sharded else ():
            parameter.copy_(learned[name])

    def read(self, batches: Iterator[Batch], number: int) -> list[Batch]:
        from accelerate.utils import broadcast_object_list

        found = [None]
        if self.rank == 0:
            try:
                found = [[{name: each.cpu() for name, each in tensors(batch).items()}
                          for batch in islice(batches, number)]]  # fmt: skip
            except Exception as error:  # the others would wait
                found = [error]
        (step,) = broadcast_object_list(found)
        if isinstance(step, Exception):
            raise step
        return step

    def rows(self, batch: Batch) -> Batch:
        count = len(next(iter(batch.values())))
        share = slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)
        return {name: each[share] if each.dim() and len(each) == count else each for name, each in batch.items()}

    def mean(self, number: float) -> float:
        return self._mean(torch.tensor(number, dtype=torch.float64, device=self.accelerator.device)).item()

    def _mean(self, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor, "mean")

    def average_gradients(self, learned: Iterable[nn.Parameter]) -> None:
        learned = list(learned)
        used = torch.tensor([parameter.grad is not None for parameter in learned], device=self.accelerator.device)
        for parameter, anywhere in zip(learned, self._mean(used.double()), strict=True):
            if anywhere:  # what has no gradient is not to decay either
                parameter.grad = self._mean(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)

    def all(self, value: object) -> list:
        from accelerate.utils import gather_object

        return gather_object([value])

    def stop(self, wanted: object) -> bool:
        return self.mean(bool(wanted) or self.interrupted) > 0

    def __exit__(self, *_) -> None:
        # Of an interrupt, the launcher tells its processes a second time: what was learned is being saved by then.
        signal.signal(signal.SIGINT, signal.SIG_IGN if self.interrupted else self._before)


def start() -> Alone:
    several = any(int(os.environ.get(name, 1)) > 1 for name in SIZES)
    return Together() if several else Alone()


def is_first() -> bool:
    """Whether this process is the one that prints and keeps."""
    return all(int(os.environ.get(name, 0)) == 0 for name in RANKS)


def shares(batches: list[Batch], weight: Callable[[Batch], int], work: Alone) -> Iterator[tuple[Batch, float]]:
    """Of each batch of a step the rows that are worked on here, and how much their loss weighs: as `weight` counts."""
    if work.size == len(batches) == 1:
        yield batches[0], 1.0
        return
    batches = [tensors(batch) for batch in batches]
    total = sum(weight(batch) for batch in batches)
    for batch in batches:
        mine = work.rows(batch)
        count = weight(mine)
        if total and not count:  # the mean over no labels is no number: a row with others, which weighs nothing
            mine = {name: torch.zeros_like(each) if name == "labels" else each for name, each in batch.items()}
        yield mine, work.size * count / total if total else 1.0  # gradients are averaged over the processes
