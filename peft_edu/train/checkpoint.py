"""Checkpoints: all that a run needs to go on after a kill as if nothing had happened.

    learned.*      what is learned, as precise as the optimizer has it
    optimizer.*    its moments
    history        step, loss, lr and seconds of each step so far

These are the tensors of one safetensors file. Its header holds, as JSON, the settings of the run, the place in the
batches, and where the random numbers of each process stand.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from peft_edu.checks import whole_number
from peft_edu.storage.folder import place, write_file
from peft_edu.train.batches import Passes, random_state, set_random_state
from peft_edu.train.precision import Twins
from peft_edu.train.processes import Alone

PARTS = {"settings", "numbers", "passes", "random"}


@dataclass
class Checkpoint:
    """Where a run is kept, and after how many steps again. A run with other settings is not gone on with.

    >>> data, (model, tokenizer) = task("tables"), backbone("tiny-gpt2")
    >>> batches, kept = data.batches(tokenizer, "train", size=4), Checkpoint("run.checkpoint", every=2)
    >>> history = fit(LoRA(rank=4).attach(model), batches, steps=4, lr=1e-3, checkpoint=kept)
    """

    file: str | Path
    every: int = 100
    resume: bool = False
    settings: dict[str, object] = field(default_factory=dict)  # beside those that `fit` knows

    def __post_init__(self):
        whole_number("every", self.every)
        self.file = place(self.file)

    def begin(
        self,
        settings: dict[str, object],
        twins: Twins,
        optimizer: torch.optim.Optimizer,
        passes: Passes,
        work: Alone,
    ) -> list[tuple]:
        """Remember what to keep, fill it with what is kept, and return the history so far."""
        self.twins, self.optimizer, self.passes, self.work = twins, optimizer, passes, work
        numbers = sum(parameter.numel() for parameter in twins)
        settings = self.settings | settings | {"learned": f"{numbers:,} numbers in {len(twins)} tensors"}
        self.all_settings = json.loads(json.dumps(settings, default=str))
        if not self.file.exists():
            return []
        tensors, kept = self._read()
        history = [(int(step), *rest) for step, *rest in tensors.pop("history").tolist()]
        if not self.resume:
            told = f"{self.file} holds a run up to step {len(history)}"
            raise FileExistsError(f"{told}: resume it, or delete the file to begin again")
        here, there = self.all_settings, kept["settings"]
        if other := [name for name in here | there if here.get(name) != there.get(name)]:
            told = ", ".join(f"{name} {there.get(name)}, not {here.get(name)}" for name in other)
            raise ValueError(f"{self.file} holds a run with {told}: give it the same, or begin another run elsewhere")
        self._fill(tensors, kept["numbers"])
        if work.rank == 0:
            passes.go_on(**kept["passes"])
        set_random_state(kept["random"][work.rank])
        return history

    def step(self, history: list[tuple]) -> None:
        """Keep the run if it is time to. All processes help: each knows its own chance."""
        if len(history) % self.every:
            return
        tensors, numbers = {"history": torch.tensor(history, dtype=torch.float64)}, {}
        tensors |= {f"learned.{name}": parameter for name, parameter in self.twins.named.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{i}.{key}"] = value
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        random = self.work.all(random_state())
        if self.work.rank == 0:
            run = {"settings": self.all_settings, "numbers": numbers, "passes": self.passes.kept(), "random": random}
            write_file(self.file, safetensors.torch.save(tensors, {"run": json.dumps(run)}))

    def _read(self) -> tuple[dict[str, Tensor], dict]:
        try:
            with safe_open(self.file, "pt") as opened:
                run, names = json.loads(opened.metadata()["run"]), opened.keys()
                if "history" not in names or run.keys() != PARTS:
                    raise ValueError(f"it holds {', '.join(run)}")
                return {name: opened.get_tensor(name) for name in names}, run
        except (AttributeError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.file} is no checkpoint of a run, or damaged: {error}") from error

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor], numbers: dict[str, object]) -> None:
        states = {}
        for name, value in (tensors | numbers).items():
            if name.startswith("learned."):
                self.twins.named[name.removeprefix("learned.")].copy_(value)
            else:
                _, i, key = name.split(".", 2)
                states.setdefault(int(i), {})[key] = value
        self.twins.round()
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})
