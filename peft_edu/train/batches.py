"""What a step is given: batches, pass after pass, and where in them and in the random numbers a run stands."""

import random
import warnings
from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]
END = object()


class Passes:
    """The batches, pass after pass, until one is empty: a stream may end for good."""

    def __init__(self, batches: Iterable[Batch]):
        self.batches, self.rest = batches, iter(())
        self.seen, self.place = 0, 0  # batches so far, and of them those of this pass
        self.random = None  # the state in which this pass began: a loader that shuffles draws the order then

    def __iter__(self) -> "Passes":
        return self

    def __next__(self) -> Batch:
        batch = next(self.rest, END)
        if batch is END and (self.place or self.random is None):
            self.random, self.place, self.rest = random_state(), 0, iter(self.batches)
            batch = next(self.rest, END)
        if batch is END:
            if not self.seen:
                raise ValueError("there are no batches")
            told = f"the batches have ended for good after {self.seen} of them, and the training with them"
            warnings.warn(told, stacklevel=3)
            raise StopIteration
        self.seen, self.place = self.seen + 1, self.place + 1
        return batch

    def kept(self) -> dict[str, object]:
        """What `go_on` needs to stand in the same place again."""
        return {"seen": self.seen, "place": self.place, "random": self.random}

    def go_on(self, seen: int, place: int, random: dict[str, object]) -> None:
        """The pass begins with the same order again, and what was gone through of it is left out."""
        set_random_state(random)
        self.seen, self.place, self.random, self.rest = seen, place, random, iter(self.batches)
        for _ in islice(self.rest, place):
            pass


def random_state() -> dict[str, object]:
    """Where the random numbers of Python, numpy, torch and this process's GPU stand, in what JSON knows."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    cuda = torch.cuda.get_rng_state().tolist() if torch.cuda.is_initialized() else None
    return {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state().tolist(), "cuda": cuda}


def set_random_state(state: dict[str, object]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"]:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


def tensors(batch: Batch) -> Batch:
    """The tensors of a batch; texts beside them are left out."""
    of_kind(Mapping, batch=batch)
    return {name: each for name, each in batch.items() if isinstance(each, Tensor)}


def rows_in(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def labels_that_count(batch: Batch, ahead: bool) -> int:
    """Over how many labels the model takes the mean. A causal model is not asked for the first token: `ahead`."""
    labels = batch.get("labels")
    if labels is None:
        return rows_in(batch)
    if labels.is_floating_point():
        return labels.numel()
    return int((labels[:, 1:] if ahead and labels.dim() > 1 else labels).ne(-100).sum())


def of_kind(kind: type, **values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {type(value).__name__}, but must be of the kind {kind.__name__}")
