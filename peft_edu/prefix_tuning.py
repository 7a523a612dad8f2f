"""Prefix tuning: trained keys and values in front of those of the text, in every layer of a frozen transformer.

    head = softmax(Q [P_K; K]^T / sqrt(w)) [P_V; V]         P_K, P_V (p, w) trained, for each head of each layer

Text cannot see where a key came from: it attends to p positions more. While training, the prefix may be made by an MLP
that all layers share, P = MLP(P'); what it gives at the end is kept, and the MLP is thrown away.

Li & Liang 2021, https://arxiv.org/abs/2101.00190, section 4.
"""

import math
from dataclasses import InitVar, dataclass, field, replace
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.anatomy import attentions, key_value_shape, max_tokens, positions, sliding_window
from peft_edu.attention import ATTENTION, activations, attention
from peft_edu.checks import affordable, in_vocabulary, indices, number, token_ids, whole_number, yes_or_no
from peft_edu.method import Method


class Prefix(nn.Module):
    """The prefix of one layer as free numbers: keys and values (2, heads, p, w)."""

    def __init__(self, keys_values: Tensor, dropout: float = 0.0):
        super().__init__()
        self.keys_values, self.dropout = nn.Parameter(keys_values), nn.Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options) -> Tensor:
        """Attention over the prefix and the text."""
        prefix_key, prefix_value = self.dropout(self.keys_values.expand(len(query), -1, -1, -1, -1)).unbind(1)
        key, value = torch.cat([prefix_key, key], 2), torch.cat([prefix_value, value], 2)
        if mask is not None:
            mask = pad(mask, (prefix_key.shape[2], 0))  # added to the scores: 0, so that every query sees the prefix
        return attention(query, key, value, mask, **options)


class Trunk(nn.Module):
    """The part of the MLP that all layers share: P' (p, d) -> tanh(W P' + b) (p, hidden)."""

    def __init__(self, length: int, width: int, hidden: int):
        super().__init__()
        self.start = nn.Parameter(torch.randn(length, width))
        self.down = nn.Linear(width, hidden)

    def forward(self) -> Tensor:
        return self.down(self.start).tanh()


class MLPPrefix(Prefix):
    """The prefix of one layer as an MLP gives it: the shared trunk, then a linear map of this layer's own."""

    def __init__(self, trunk: Trunk, first: bool, heads: int, width: int, dropout: float = 0.0):
        nn.Module.__init__(self)  # not Prefix's: here the keys and values are no parameter
        self.shared, self.heads, self.dropout = (trunk,), heads, nn.Dropout(dropout)
        if first:  # the model holds the trunk once: transformers refuses to save what stands in it twice
            self.trunk = trunk
        self.up = nn.Linear(trunk.down.out_features, 2 * heads * width)

    @property
    def keys_values(self) -> Tensor:
        flat = self.up(self.shared[0]())  # (p, hidden) -> (p, 2 heads w)
        return flat.view(len(flat), 2, self.heads, -1).transpose(0, 2).transpose(0, 1)  # -> (2, heads, p, w)


@dataclass
class PrefixTuning(Method):
    """A prefix of `length` positions in every attention module; T5 has three kinds, each with a prefix of its own.

    hidden: the width of the MLP that makes the prefix while it is trained (the paper: 512 for tables, 800 for
        summaries); 0 for free keys and values. `save` keeps the prefix alone, so what is loaded has hidden=0.
    init: "normal" (N(0, 1), as in the authors' code), or words whose activations the free prefix starts from: a text,
        with the `tokenizer`, or token ids. Fewer words than `length` are repeated.
    shift: whether the text's positions start at `length`, as in the authors' code and in HF peft, or at 0.
    layers: which layers get a prefix, counted from 0 at the bottom (default: all).
    dropout: on the prefix while training, each row of a batch on its own, as in P-tuning v2's code.

    >>> model, tokenizer = backbone("tiny-gpt2")
    >>> model = PrefixTuning(length=5, hidden=0, init="Good food.", tokenizer=tokenizer).attach(model)
    """

    length: int = 10
    hidden: int = 512
    init: str | tuple[int, ...] = "normal"
    shift: bool = True
    layers: tuple[int, ...] | None = None
    dropout: float = 0.0
    tokenizer: InitVar[PreTrainedTokenizerBase | None] = field(default=None, kw_only=True)

    starts_at_base = False  # not even with a prefix of zeros: it takes its share of the softmax

    def __post_init__(self, tokenizer: PreTrainedTokenizerBase | None):
        whole_number("length", self.length)
        whole_number("hidden", self.hidden, at_least=0)
        yes_or_no("shift", self.shift)
        number("dropout", self.dropout, "at least 0 and below 1", lambda share: 0 <= share < 1)
        self.layers = indices("layers", self.layers)
        if self.layers == ():
            raise ValueError("layers is empty: name one layer or more, or leave it out for all")
        if self.init != "normal":
            self.init = token_ids("init", self.init, tokenizer)
            if self.hidden:
                raise ValueError("words are a start for free keys and values: set hidden=0")

    def insert(self, model: PreTrainedModel) -> None:
        kinds, (heads, width) = self._chosen(model), key_value_shape(model)
        if self.shift and self.length >= (most := max_tokens(model)):
            raise ValueError(f"length {self.length} leaves no room for text: the model has {most} positions")
        numbers = (self.length + self.hidden) * 2 * heads * width * sum(map(len, kinds))
        affordable(f"length {self.length} with hidden {self.hidden}", numbers, model)
        # transformers' public set_attn_implementation has no counterpart that tells what to go back to.
        for config in {id(module.config): module.config for kind in kinds for module in kind}.values():
            self.configure(config, "_attn_implementation", ATTENTION)
        starts = self._starts(model, kinds, heads, width)
        for kind in kinds:
            trunk = Trunk(self.length, model.config.hidden_size, self.hidden) if self.hidden else None
            for module in kind:
                made = trunk and MLPPrefix(trunk, module is kind[0], heads, width, self.dropout)
                self.add(module, "prefix", made or Prefix(next(starts), self.dropout))
        if self.shift and positions(model) is not None:
            self.hook(positions(model).register_forward_pre_hook(self._shift, with_kwargs=True))

    def _chosen(self, model: PreTrainedModel) -> list[list[nn.Module]]:
        """The attention modules of the layers that get a prefix, a list for each kind."""
        kinds = attentions(model)
        layers = indices("layers", self.layers, min(map(len, kinds)), type(model).__name__)
        kinds = kinds if layers is None else [[kind[index] for index in layers] for kind in kinds]
        for window in filter(None, (sliding_window(module) for kind in kinds for module in kind)):
            what = f"{type(model).__name__} sees {window} tokens back, and all of them would have to see the prefix"
            raise ValueError(f"{what}: set use_sliding_window=False, or name layers without a window")
        return kinds

    def _starts(self, model: PreTrainedModel, kinds: list[list[nn.Module]], heads: int, width: int):
        """The keys and values that each prefix starts from."""
        modules = [module for kind in kinds for module in kind]
        if self.init == "normal":
            return (torch.randn(2, heads, self.length, width) for _ in modules)
        in_vocabulary("init", self.init, model)
        words = list(islice(cycle(self.init), self.length))
        return iter(activations(model, modules, torch.tensor([words], device=model.device)))

    def _shift(self, module: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict]:
        """The pre-hook of what is given positions: all that comes in whole numbers. A table of them has a last row."""
        rows, p = getattr(module, "num_embeddings", math.inf), self.length

        def later(given: object) -> object:
            if not isinstance(given, Tensor) or given.is_floating_point():
                return given
            if rows < math.inf and given.numel() and (last := int(given.max()) + p) >= rows:
                raise ValueError(f"the text and a prefix of {p} need position {last}, but the model has {rows}")
            return given + p

        return tuple(map(later, inputs)), {name: later(each) for name, each in named.items()}

    def saved(self) -> tuple[Method, dict[str, Tensor]]:
        """Without the MLP: p L 2 d numbers, and the head."""
        return replace(self, hidden=0), self.finished("keys_values", "keys_values")
