"""What a model answers to a text, and what the token that answers attends to: virtual tokens, and the words.

Any token can be switched off: no query, in no layer, attends to it any more. The model is not edited for this. Whatever
is attached to it, its attention ends in torch's scaled_dot_product_attention; a TorchFunctionMode stands before that
function while the model runs, reads the scores, and puts the lowest number there is on the keys that are off.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from peft_edu.anatomy import attentions, evaluating, head
from peft_edu.attention import ATTENTION
from peft_edu.lab.models.backbones import reads_text
from peft_edu.method import attached
from peft_edu.p_tuning import MASK, PSEUDO

ANSWERS, TOKENS = 5, 4  # how many of the likeliest answers, and how long a text that is written


@dataclass(frozen=True, eq=False)
class Reply:
    """What a model answers, and what the asked token attends to.

    The columns of `attention` are the `front` virtual tokens that stand before the text, then the tokens of the text.
    """

    answers: dict[str, float]  # all labels, or the likeliest words, with their probabilities
    written: str  # the first words of a model that writes; else ""
    attention: np.ndarray  # (layers, front + t), the mean over heads; nan for a token that this model does not read
    front: int

    @property
    def answer(self) -> str:
        return max(self.answers, key=self.answers.get)


@dataclass(eq=False)
class Ear(TorchFunctionMode):
    """Stands before scaled_dot_product_attention: hears each layer's shares, and hides what is off.

    `lengths`: for each kind of attention module, how many of its keys are the text's; those before are virtual.
    """

    lengths: Sequence[int]
    off: Sequence[int] = ()  # virtual tokens, counted from 0
    inside: Sequence[int] = ()  # where pseudo tokens stand in the text
    heard: dict[int, list[Tensor]] = field(default_factory=dict)  # kind -> (q, k) of each layer
    kind: int | None = None  # of the module that runs now

    def __post_init__(self):
        super().__init__()

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is scaled_dot_product_attention and self.kind is not None:
            return self.attend(*arguments, **(options or {}))
        return function(*arguments, **(options or {}))

    def attend(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        """The same as torch's. `peft_edu.attention` is its caller: a mask is added, and says itself what is causal."""
        if columns := self.hidden(key.shape[2] - self.lengths[self.kind]):
            mask = query.new_zeros(1, 1, query.shape[2], key.shape[2]) if attn_mask is None else attn_mask
            attn_mask = mask.index_fill(-1, torch.tensor(columns, device=mask.device), torch.finfo(mask.dtype).min)
        keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)  # in Llama, queries share keys
        scores = query @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
        scores = scores if attn_mask is None else scores + attn_mask
        self.heard.setdefault(self.kind, []).append(scores.softmax(-1)[0].mean(0))
        options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return scaled_dot_product_attention(query, key, value, attn_mask, **options)

    def hidden(self, front: int) -> list[int]:
        """The columns of what is off, where so many virtual tokens stand before the text."""
        places = range(front) if front else self.inside if self.kind != 1 else ()
        return [places[i] for i in self.off if i < len(places)]

    def comes(self, kind: int, module: nn.Module, inputs: tuple) -> None:
        """The pre-hook of the attention modules of this kind."""
        self.kind = kind


@contextmanager
def listening(model: PreTrainedModel, ear: Ear) -> Iterator[Ear]:
    """The model as it is, and what its attention does heard by `ear`; afterwards nothing of it is left."""
    kinds = attentions(model)
    configs = {id(module.config): module.config for kind in kinds for module in kind}.values()
    before = [config._attn_implementation for config in configs]
    with ExitStack() as stack:
        for number, modules in enumerate(kinds):
            for module in modules:
                stack.callback(module.register_forward_pre_hook(partial(ear.comes, number)).remove)
        for config, name in zip(configs, before, strict=True):
            stack.callback(setattr, config, "_attn_implementation", name)
            config._attn_implementation = ATTENTION
        stack.enter_context(ear)
        yield ear


@torch.no_grad()
def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    place: int | None = None,
    off: Sequence[int] = (),
) -> Reply:
    """Ask for the answer to these token ids; a pseudo token has an id below 0, as `template_ids` gives it.

    A masked model answers at its mask, a causal one behind the text, an encoder-decoder in its first word, and a
    classifier with its labels. `place`: which token's attention (default: the one that answers). A model to which
    nothing is attached knows no pseudo tokens, and reads the text without them.
    """
    kept = [i for i, each in enumerate(ids) if each >= 0 or attached(model) is not None]
    own = [ids[i] for i in kept]
    if len(own) > tokenizer.model_max_length:
        raise ValueError(f"{len(own)} tokens; the model reads {tokenizer.model_max_length}")
    inside = [i for i, each in enumerate(own) if each < 0]
    asked = kept.index(place) if place in kept else None
    try:
        with evaluating(model):
            answers, written, shares, front = _asked(model, tokenizer, own, asked, off, inside)
    except IndexError as error:
        if inside:
            raise ValueError(f"this model knows no {PSEUDO}: P-tuning has to be attached to it") from error
        raise
    whole = np.full((len(shares), front + len(ids)), np.nan)
    if place is None or asked is not None:
        whole[:, [*range(front), *(front + i for i in kept)]] = shares
    return Reply(answers, written, whole, front)


def _asked(model, tokenizer, ids, place, off, inside) -> tuple[dict[str, float], str, np.ndarray, int]:
    both = bool(model.config.is_encoder_decoder) and not head(model)
    text = torch.tensor([ids], device=model.device)
    inputs = {"input_ids": text, "attention_mask": torch.ones_like(text)}
    if both:
        inputs["decoder_input_ids"] = torch.full_like(text[:, :1], model.config.decoder_start_token_id)
    answers_at = _answers_at(model, tokenizer, ids)
    ear = Ear([len(ids), 1 if both else len(ids), len(ids)], off, inside)
    output = _run(model, ear, inputs)
    logits = output.logits[0] if output.logits.ndim == 3 else output.logits
    row = 0 if len(logits) == 1 else answers_at if not _tags(model) or place is None else place
    probabilities = logits[row].softmax(-1)
    if head(model):
        answers, written = {model.config.id2label[i]: p for i, p in enumerate(probabilities.tolist())}, ""
    else:
        best = probabilities.topk(ANSWERS)
        answers = {}
        for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            answers[_shown(tokenizer, i, answers)] = p
        if both:  # the encoder has read the text, and need not again
            inputs["encoder_outputs"] = (output.encoder_last_hidden_state,)
            del inputs["input_ids"]
        written = _written(model, tokenizer, ear, inputs, int(best.indices[0])) if model.can_generate() else ""
    row = (answers_at if place is None else place) - len(ids)  # from the end: virtual tokens may stand before
    cross = both and place is None  # the decoder's first token has the encoder's to attend to
    shares = [layer[-1 if cross else row] for layer in ear.heard.get(2 if cross else 0, [])]
    return answers, written, *_table(shares, len(ids))


def _table(shares: Sequence[Tensor], length: int) -> tuple[np.ndarray, int]:
    """Layers as rows, in which a layer without virtual tokens has nan for them; and how many there are."""
    front = max((len(share) - length for share in shares), default=0)
    table = np.full((len(shares), front + length), np.nan)
    for row, share in zip(table, shares, strict=True):
        row[-len(share) :] = share.double().cpu().numpy()
    return table, front


def _run(model: PreTrainedModel, ear: Ear, inputs: Mapping[str, object]) -> ModelOutput:
    more = {"use_cache": False} if model.can_generate() else {}
    try:
        attentions(model)
    except ValueError:  # attention of its own kind, as DeBERTa's: it answers, and nothing is heard
        return model(**inputs, **more)
    with listening(model, ear):
        return model(**inputs, **more)


def _answers_at(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int:
    """The place of the token whose output is the answer."""
    if head(model):
        last = model.can_generate() or model.config.is_encoder_decoder or not _both_ways(model)
        return len(ids) - 1 if last else 1 if _tags(model) and len(ids) > 1 else 0
    reads_text(model, tokenizer)
    if model.can_generate():
        return len(ids) - 1
    if tokenizer.mask_token_id not in ids:
        raise ValueError(f"write {MASK} where the answer is to stand: {type(model).__name__} fills gaps")
    return list(ids).index(tokenizer.mask_token_id)


def _both_ways(model: PreTrainedModel) -> bool:
    """Whether each token sees those behind it, so that the first one can answer."""
    return model.config.model_type in ("bert", "roberta", "deberta-v2")


def _tags(model: PreTrainedModel) -> bool:
    return type(model).__name__.endswith("ForTokenClassification")


def _shown(tokenizer: PreTrainedTokenizerBase, i: int, taken: dict[str, float]) -> str:
    """A token as people read it; two that look the same are told apart by their ids."""
    word = tokenizer.decode([i]).strip() or repr(tokenizer.decode([i]))
    return word if word not in taken else f"{word} ({i})"


def _written(model, tokenizer, ear: Ear, inputs: dict[str, Tensor], first: int) -> str:
    """The likeliest words, one after the other, with the same tokens switched off."""
    both, said = "decoder_input_ids" in inputs, [first]
    name = "decoder_input_ids" if both else "input_ids"
    for _ in range(TOKENS - 1):
        if said[-1] == tokenizer.eos_token_id or inputs[name].shape[1] >= tokenizer.model_max_length:
            break
        longer = torch.cat([inputs[name], torch.tensor([[said[-1]]], device=inputs[name].device)], 1)
        inputs = inputs | {name: longer}
        if not both:
            inputs["attention_mask"] = torch.ones_like(longer)
        lengths = [ear.lengths[0], longer.shape[1], ear.lengths[2]] if both else [longer.shape[1]] * 3
        said.append(int(_run(model, Ear(lengths, ear.off, ear.inside), inputs).logits[0, -1].argmax()))
    return tokenizer.decode(said, skip_special_tokens=True).strip()
