"""Prompt tuning: trained embeddings in front of those of the text, at the input of a frozen transformer.

    model([P; E(x)])         P (p, d) trained, E(x) (t, d) the embeddings of the text

The virtual tokens are seen by attention alone. They are spliced in after the embedding and taken out after the last
block, so head, pooler, labels and padding never know of them.

Lester et al. 2021, https://arxiv.org/abs/2104.08691, section 2.
"""

from dataclasses import InitVar, dataclass, field
from inspect import signature
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.anatomy import default_positions, first_position, input_stack, max_tokens
from peft_edu.checks import affordable, in_vocabulary, token_ids, whole_number
from peft_edu.method import Method
from peft_edu.splice import behind, in_front, leading_pads

NO_PLACE = "masks for each query, packed rows, static caches, and caches of an earlier generate() have no place for one"
COMMON = 5_000  # tokenizers number their tokens by frequency: a start is drawn from the most common ones


class Prompt(nn.Module):
    """Virtual tokens (n, p, d): one prompt, or n of them for an ensemble, and where they go in and out."""

    def __init__(self, embeddings: Tensor, max_tokens: float):
        super().__init__()
        self.embeddings = nn.Parameter(embeddings)
        self.p, self.max_tokens, self.inside = embeddings.shape[1], max_tokens, False

    def forward(self, rows: int) -> Tensor:
        """A prompt for each row of a batch (b, p, d): the first b / n rows get the first one, and so on."""
        if rows % len(self.embeddings):
            raise ValueError(f"a batch of {rows} rows cannot be shared out among {len(self.embeddings)} prompts")
        return self.embeddings.repeat_interleave(rows // len(self.embeddings), 0)

    def splice(self, stack: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict]:
        """The pre-hook of the stack: the text's embeddings become [P; E(x)], and all that belongs to them fits."""
        named = dict(zip(signature(stack.forward).parameters, inputs, strict=False)) | named
        ids, text = named.pop("input_ids", None), named.pop("inputs_embeds", None)
        if (ids is None) == (text is None):
            return (), named | {"input_ids": ids, "inputs_embeds": text}  # the model itself asks for one of the two
        text = stack.get_input_embeddings()(ids) if text is None else text
        mask, positions, types = map(named.get, ("attention_mask", "position_ids", "token_type_ids"))
        self._look(text, mask, positions, named.get("past_key_values"))
        positions = default_positions(stack, ids) if positions is None else positions
        if mask is not None:
            named["attention_mask"] = in_front(mask.new_ones(len(text), self.p), mask, self.pads)
        if positions is not None:
            named["position_ids"] = self._positions(positions, first_position(stack))
        if types is not None and self.inside:
            named["token_type_ids"] = in_front(types.new_zeros(len(types), self.p), types, self.pads)
        return (), named | {"inputs_embeds": in_front(self(len(text)), text, self.pads) if self.inside else text}

    def _look(self, text: Tensor, mask: Tensor | None, positions: Tensor | None, cache: Cache | None) -> None:
        """Where the text stands: how it is padded, and whether its beginning and the prompt are in a cache by now."""
        cached = 0 if cache is None else int(cache.get_seq_length())
        before, rows = cached - self.p if cached else 0, len(text)
        length, self.inside, self.whole = before + text.shape[1], not cached, self.p + text.shape[1]
        if length + self.p > self.max_tokens:
            raise ValueError(f"{length} tokens and a prompt of {self.p} do not fit into {self.max_tokens} positions")
        shape = tuple(getattr(mask, "shape", ())) or type(mask).__name__
        if mask is not None and shape not in ((rows, length), (1, length)):
            raise ValueError(f"attention_mask is {shape}, but with a prompt must be {(rows, length)}: {NO_PLACE}")
        alone = positions is not None and mask is None  # then it is the positions that tell
        if alone and ((positions.diff() < 0).any() or (cached and (positions[:, 0] != before).any())):
            raise ValueError(f"position_ids are {positions[0].tolist()}, but must count on from {before}: {NO_PLACE}")
        self.pads = None if mask is None else leading_pads(mask)

    def _positions(self, given: Tensor, first: int) -> Tensor:
        """The prompt has the first positions, and the text those behind."""
        virtual = torch.arange(first, first + self.p, device=given.device).expand(len(given), self.p)
        return in_front(virtual, given + self.p, self.pads) if self.inside else given + self.p

    def take_out(self, module: nn.Module, inputs: tuple, output):
        """The hook behind the last block, and behind the stack: all hidden states (b, p + t, d) become the text's."""
        if isinstance(output, tuple):  # of hidden states, or of everything with return_dict=False
            return tuple(self.take_out(module, inputs, each) for each in output)
        if isinstance(output, dict):
            for name in list(output):
                output[name] = self.take_out(module, inputs, output[name])
        elif self.inside and isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] == self.whole:
            return behind(output, self.p, self.pads)
        return output

    def widen(self, decoder: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict]:
        """The pre-hook of T5's decoder, which attends to the virtual tokens of the encoder, too."""
        if (mask := named.get("encoder_attention_mask")) is not None:
            whole = in_front(mask.new_ones(len(mask), self.p), mask, leading_pads(mask))
            named = named | {"encoder_attention_mask": whole}
        return inputs, named


@dataclass
class PromptTuning(Method):
    """A prompt of `length` virtual tokens at the input; on T5 at the encoder's.

    init: "vocabulary" (embeddings of common tokens, no token twice), "random" (uniform in [-0.5, 0.5]), a text
        (repeated to the length), or label words, a position for each (the mean of its tokens) and common tokens for the
        rest. Words need the `tokenizer`, or are given as token ids.
    members: several prompts, an ensemble on one model: a batch of members x b rows gives each prompt b rows.

    Hidden states are those of the text; T5's encoder alone also gives those of the prompt, which its decoder reads.

    >>> count(PromptTuning(length=5).attach(backbone("tiny-t5")[0])).trainable
    640
    """

    length: int = 20
    init: str | tuple = "vocabulary"
    members: int = 1
    tokenizer: InitVar[PreTrainedTokenizerBase | None] = field(default=None, kw_only=True)

    starts_at_base = False  # the text attends to the virtual tokens from the first step on

    def __post_init__(self, tokenizer: PreTrainedTokenizerBase | None):
        whole_number("length", self.length)
        whole_number("members", self.members)
        if self.init in ("vocabulary", "random"):
            return
        if isinstance(self.init, (tuple, list)) and not all(isinstance(each, int) for each in self.init):
            self.init = tuple(token_ids("a label word", word, tokenizer) for word in self.init)
            if len(self.init) > self.length:
                raise ValueError(f"{len(self.init)} label words need as many positions, but length is {self.length}")
        else:
            self.init = token_ids("init", self.init, tokenizer)

    def insert(self, model: PreTrainedModel) -> None:
        if self.length >= (most := max_tokens(model)):
            raise ValueError(f"length {self.length} leaves no room for text: the model has {most} positions")
        stack, last, decoder = input_stack(model)
        words = stack.get_input_embeddings().weight.detach()
        affordable(f"length {self.length} x members {self.members}", self.length * self.members * words.shape[1], model)
        if not isinstance(self.init, str):
            in_vocabulary("init", self.init, model)
        prompt = Prompt(torch.stack([self._start(words) for _ in range(self.members)]), max_tokens(model))
        self.add(stack, "prompt", prompt)
        self.hook(stack.register_forward_pre_hook(prompt.splice, with_kwargs=True))
        for module in {last, stack} if decoder is None else ():
            self.hook(module.register_forward_hook(prompt.take_out))
        if decoder is not None:
            self.hook(decoder.register_forward_pre_hook(prompt.widen, with_kwargs=True))

    def _start(self, words: Tensor) -> Tensor:
        """The embeddings (p, d) that one prompt starts from; `words` (v, d) are those of the vocabulary."""
        if self.init == "random":
            return words.new_empty(self.length, words.shape[1]).uniform_(-0.5, 0.5)
        common = torch.randperm(min(len(words), COMMON))[: self.length]
        if self.init == "vocabulary" and len(common) < self.length:
            raise ValueError(f"there are {len(common)} common tokens for {self.length} positions: take init='random'")
        if self.init == "vocabulary":
            return words[common]
        if isinstance(self.init[0], int):
            return words[list(islice(cycle(self.init), self.length))]
        labels = torch.stack([words[list(word)].mean(0) for word in self.init])
        return torch.cat([labels, words[common[len(labels) :]]])
