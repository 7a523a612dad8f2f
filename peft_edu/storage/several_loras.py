"""Several LoRAs on one base: one of them, a weighted sum, or in one batch another one for each row.

    h = W x + B diag(w) A x          A (n r, in): the n matrices A, one below the other
                                     B (out, n r): the n matrices (alpha / r) B, side by side
                                     w (b, n r): how much of each update a row gets

Whatever the rows want, it is one product: where a row's w is 0, the other updates leave it alone.
Sheng et al. 2023, S-LoRA, https://arxiv.org/abs/2311.03285, serve thousands of LoRAs, with kernels that skip the zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import LinearMap, head
from peft_edu.checks import choice, number
from peft_edu.lora import LoRA, LowRankUpdate, add_updates
from peft_edu.method import Method, attached
from peft_edu.storage.checkpoint import load
from peft_edu.storage.peft_format import from_peft

Choice = str | None | Mapping[str, float] | Sequence[str | None]


class StackedUpdates(LowRankUpdate):
    """B diag(w) A x for one linear map. `updates`: what each LoRA adds there, by its place in the stack."""

    def __init__(self, target: LinearMap, updates: Mapping[int, LowRankUpdate]):
        nn.Module.__init__(self)
        self.rows, places = target.rows, [torch.full((len(each.A),), place) for place, each in updates.items()]
        self.register_buffer("A", torch.cat([each.A.detach() for each in updates.values()]), persistent=False)
        scaled = [each.scale * each.B.detach() for each in updates.values()]
        self.register_buffer("B", torch.cat(scaled, dim=1), persistent=False)
        self.register_buffer("place", torch.cat(places), persistent=False)  # (n r): whose rank this is
        self.chosen = self.A.new_zeros(1 + max(updates))

    def forward(self, x: Tensor) -> Tensor:
        w = self.chosen.to(x)[..., self.place]  # (n r), or (b, n r)
        if w.ndim == 2:
            if len(w) != len(x):
                raise ValueError(f"LoRAs were chosen for {len(w)} rows, and the batch has {len(x)}")
            w = w.view(len(w), *(1 for _ in x.shape[2:]), -1)
        return x @ self.A.T * w @ self.B.T

    @property
    def weight(self) -> Tensor:
        """The change of W by the sum that is chosen, (out, in)."""
        return self.B * self.chosen.to(self.B)[self.place] @ self.A


@dataclass
class SeveralLoRAs(Method):
    """LoRAs that were saved, by names that you give, in folders of `save` or of HF peft. Nothing in them is trained.

    >>> base = backbone("tiny-gpt2")[0]
    >>> for name in ("a", "b"):
    ...     folder = save(LoRA(rank=2).attach(base), name)
    ...     base = attached(base).detach()
    >>> several = SeveralLoRAs({"a": "a", "b": "b"})
    >>> model = several.attach(base)
    >>> several.use(["a", None, "b"])  # three texts: the first as "a" has it, the second as the base has it
    """

    folders: dict[str, str]

    def __post_init__(self):
        known = isinstance(self.folders, Mapping) and all(isinstance(name, str) for name in self.folders)
        if not known or not self.folders:
            raise ValueError(f"folders is {self.folders!r}, but must be a dict: names, and the folder of each LoRA")
        self.folders = {name: str(folder) for name, folder in self.folders.items()}

    def attach(self, model: PreTrainedModel) -> PreTrainedModel:
        if head(model):
            kind = type(model).__name__
            raise ValueError(f"each LoRA of a {kind} comes with a task head of its own: switch by `load` and `detach`")
        self._updates = [self._read(model, folder) for folder in self.folders.values()]
        return super().attach(model)

    def _read(self, model: PreTrainedModel, folder: str) -> dict[tuple[nn.Module, str], tuple]:
        """What a LoRA adds, by the module and the role of the map."""
        opens = from_peft if (Path(folder).expanduser() / "adapter_config.json").is_file() else load
        method = attached(opens(model, folder))
        try:
            if not isinstance(method, LoRA):
                raise TypeError(f"{folder} holds {method}: only LoRAs add up")
            own = {parameter for _, update in method.updates for parameter in update.parameters()}
            if beside := [name for name, parameter in method.learned().items() if parameter not in own]:
                raise ValueError(f"in {folder} {beside[0]} was trained too, which the others would be given")
            return {(target.module, target.role): (target, update) for target, update in method.updates}
        finally:
            method.detach()

    def insert(self, model: PreTrainedModel) -> None:
        targets = {key: target for each in self._updates for key, (target, _) in each.items()}
        self.targets = []
        for (module, role), target in sorted(targets.items(), key=lambda each: each[1].rows.start):
            here = {i: each[module, role][1] for i, each in enumerate(self._updates) if (module, role) in each}
            self.add(module, f"loras_{role}", StackedUpdates(target, here))
            self.targets.append((target, self.added[-1]))
        for module in dict.fromkeys(target.module for target, _ in self.targets):
            self.hook(module.register_forward_hook(add_updates))
        del self._updates  # their numbers are stacked now
        self.use(next(iter(self.folders)))

    def _train_head(self, model: PreTrainedModel) -> None:
        """Nothing is trained, and there is no head."""

    def use(self, chosen: Choice) -> None:
        """One by its name; the base by None; a sum by {"a": 0.5, "b": 0.5}; a list names one, or None, for each row."""
        self._attached_to()
        if isinstance(chosen, (str, Mapping)) or chosen is None:
            weights = self._weights_of(chosen)
        elif not isinstance(chosen, (list, tuple)) or not chosen:
            raise ValueError(
                f"chosen is {chosen!r}, but must be a name, None, a dict of weights, or a list for the rows"
            )
        else:
            weights = torch.stack([self._weights_of(each) for each in chosen])
        for stacked in self.added:
            stacked.chosen = weights[..., : 1 + int(stacked.place.max())]

    def _weights_of(self, chosen: str | None | Mapping[str, float]) -> Tensor:
        parts = chosen if isinstance(chosen, Mapping) else {} if chosen is None else {chosen: 1.0}
        for name, share in parts.items():
            choice("the LoRA", name, tuple(self.folders))
            number(f"the weight of {name}", share, "", lambda share: True)
        return torch.tensor([float(parts.get(name, 0)) for name in self.folders], dtype=torch.float64)

    @torch.no_grad()
    def merge(self) -> PreTrainedModel:
        """Fold the one, or the sum, that is in use into the weights, and detach: a plain transformers model."""
        if any(stacked.chosen.ndim == 2 for stacked in self.added):
            raise ValueError("each row has a LoRA of its own: use one, or a sum, and merge that")
        model = self._attached_to()
        if any(hasattr(target.module, "packed") for target, _ in self.targets):
            raise ValueError("the weights are packed in 4 bits, which would round the updates away")
        merged = [(target.weight, target.weight + stacked.weight) for target, stacked in self.targets]
        self._leave()
        for weight, value in merged:
            weight.copy_(value)
        return model

    def saved(self):
        raise TypeError("each LoRA is kept in its own folder already; a sum is kept by merge and save_pretrained")
