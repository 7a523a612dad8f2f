"""Prompt tuning: trained embeddings in front of those of the text, at the input of a frozen transformer.

    model([P; E(x)])         P (p, d) trained, E(x) (t, d) the embeddings of the text

The virtual tokens are seen by attention alone. They are spliced in after the embedding and taken out after the last
block, so head, pooler, labels and padding never know of them.

Lester et al. 2021, https://arxiv.org/abs/2104.08691, section 2.
"""

from dataclasses import InitVar, dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.anatomy import default_positions, first_position, input_stack, max_tokens
from peft_edu.checks import token_ids, whole_number
from peft_edu.method import Method
from peft_edu.splice import behind, in_front, leading_pads

COMMON = 5_000  # tokenizers number their tokens by frequency: a start is drawn from the most common ones


class Prompt(nn.Module):
    """Virtual tokens (n, p, d): one prompt, or n of them for an ensemble, and where they go in and out."""

    def __init__(self, embeddings: Tensor, max_tokens: float):
        super().__init__()
        self.embeddings = nn.Parameter(embeddings)
        self.max_tokens, self.inside, self.pads = max_tokens, False, None

    def forward(self, rows: int) -> Tensor:
        """A prompt for each row of a batch (b, p, d): the first b / n rows get the first one, and so on."""
        if rows % len(self.embeddings):
            raise ValueError(f"a batch of {rows} rows cannot be shared out among {len(self.embeddings)} prompts")
        return self.embeddings.repeat_interleave(rows // len(self.embeddings), 0)

    def splice(self, stack: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict]:
        """The pre-hook of the stack: the text's embeddings become [P; E(x)], and all that belongs to them fits."""
        named = dict(zip(("input_ids",), inputs, strict=False)) | named
        ids, text = named.pop("input_ids", None), named.pop("inputs_embeds", None)
        text = stack.get_input_embeddings()(ids) if text is None else text
        rows, length, p = *text.shape[:2], self.embeddings.shape[1]
        mask, positions = named.get("attention_mask"), named.get("position_ids")
        positions = default_positions(stack, ids) if positions is None else positions
        cache = named.get("past_key_values")
        self.inside = cache is None or cache.get_seq_length() == 0  # later the cache holds the prompt already
        self.pads = None if mask is None else leading_pads(mask)

        def fit(virtual: Tensor, given: Tensor) -> Tensor:
            return in_front(virtual.expand(rows, *virtual.shape[1:]), given.expand(rows, *given.shape[1:]), self.pads)

        if mask is not None:
            named["attention_mask"] = fit(mask.new_ones(1, p), mask)
        if not self.inside:
            return (), named | {"inputs_embeds": text} | ({} if positions is None else {"position_ids": positions + p})
        if length + p > self.max_tokens:
            raise ValueError(f"{length} tokens and a prompt of {p} do not fit into {self.max_tokens} positions")
        if positions is not None:
            first = first_position(stack)
            named["position_ids"] = fit(torch.arange(first, first + p, device=text.device)[None], positions + p)
        if named.get("token_type_ids") is not None:
            named["token_type_ids"] = fit(named["token_type_ids"].new_zeros(1, p), named["token_type_ids"])
        return (), named | {"inputs_embeds": fit(self(rows), text)}

    def take_out(self, stack: nn.Module, inputs: tuple, output):
        """The hook behind the last block: what follows sees the text alone."""
        if self.inside:
            output["last_hidden_state"] = behind(output["last_hidden_state"], self.embeddings.shape[1], self.pads)
        return output

    def widen(self, decoder: nn.Module, inputs: tuple, named: dict) -> tuple[tuple, dict]:
        """The pre-hook of T5's decoder, which attends to the virtual tokens of the encoder, too."""
        mask = named.get("encoder_attention_mask")
        if mask is not None:
            virtual = mask.new_ones(len(mask), self.embeddings.shape[1])
            named = named | {"encoder_attention_mask": in_front(virtual, mask, leading_pads(mask))}
        return inputs, named


@dataclass
class PromptTuning(Method):
    """A prompt of `length` virtual tokens at the input; on T5 at the encoder's.

    init: "vocabulary" (embeddings of common tokens, no token twice), "random" (uniform in [-0.5, 0.5]), a text
        (repeated to the length), or label words, a position for each (the mean of its tokens) and common tokens for the
        rest. Words need the `tokenizer`, or are given as token ids.
    members: several prompts, an ensemble on one model: a batch of members x b rows gives each prompt b rows.
    """

    length: int = 20
    init: str | tuple = "vocabulary"
    members: int = 1
    tokenizer: InitVar[PreTrainedTokenizerBase | None] = None

    starts_at_base = False  # the text attends to the virtual tokens from the first step on

    def __post_init__(self, tokenizer: PreTrainedTokenizerBase | None):
        whole_number("length", self.length)
        whole_number("members", self.members)
        if self.init in ("vocabulary", "random"):
            return
        if isinstance(self.init, str) or all(isinstance(each, int) for each in self.init):
            self.init = token_ids("init", self.init, tokenizer)
        else:
            self.init = tuple(token_ids("a label word", word, tokenizer) for word in self.init)
            if len(self.init) > self.length:
                raise ValueError(f"{len(self.init)} label words need as many positions, but length is {self.length}")

    def insert(self, model: PreTrainedModel) -> None:
        if self.length >= (most := max_tokens(model)):
            raise ValueError(f"length {self.length} leaves no room for text: the model has {most} positions")
        stack, last, decoder = input_stack(model)
        words = stack.get_input_embeddings().weight.detach()
        prompt = Prompt(torch.stack([self._start(words) for _ in range(self.members)]), max_tokens(model))
        self.add(stack, "prompt", prompt)
        self.hook(stack.register_forward_pre_hook(prompt.splice, with_kwargs=True))
        if decoder is None:
            self.hook(last.register_forward_hook(prompt.take_out))
        else:
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
            return words[list((self.init * self.length)[: self.length])]
        labels = torch.stack([words[list(word)].mean(0) for word in self.init])
        return torch.cat([labels, words[common[len(labels) :]]])
