"""Pretrained models by name: bundled ones, folders of yours, and the Hugging Face hub, all the same way."""

import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.anatomy import evaluating, first_position, quiet
from peft_edu.checks import choice, number, whole_number, yes_or_no
from peft_edu.lab.models.folder import check, locate, shapes

LOCAL = {"local_files_only": True, "trust_remote_code": False}  # of a stranger's folder no code is ever run
LABELS = 10_000
HEADS = {
    "classify": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "score": transformers.AutoModelForSequenceClassification,  # with one number a text, as a reward model has it
}


class Text(str):
    """A string that a notebook shows line by line when it is a cell's result."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def backbone(
    name: str | os.PathLike,
    head: str | None = None,
    labels: int | Sequence[str] | None = None,
    pretrained: bool = True,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer.

    >>> model, tokenizer = backbone("tiny-bert", head="classify", labels=["bad", "good"])

    `head`: None keeps the language-model head; "classify" and "tag" put a new classifier over the text or over each
    token, with `labels` a number (2) or the names; "score" gives a text one number, as a reward model does. A folder
    that was saved with such a head keeps it: its rows are put in the order of `labels`. `pretrained=False` is the same
    network with random weights; `seed` draws what is new.
    `dtype`: bundled models come in float64, so that every machine prints the same numbers; the real ones that `make
    real` gets in float32, which every processor is quick in; others as they were stored.
    """
    _check(head, labels, pretrained, dtype, seed)
    place, usual = locate(name)
    check(place)
    stored = shapes(place) if pretrained else {}
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # HF peft 0.21 with transformers 5
    with _reading(place), quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(place, **LOCAL)
        saved_as, dtype = config.architectures, dtype or usual
        auto, own = _configure(config, head, labels)
        if pretrained:
            model, missing = _load(place, auto, config, dtype or "auto", stored)
            new = {key for key in model.state_dict() if head and not key.startswith(model.base_model_prefix + ".")}
        else:
            model = auto.from_config(config, dtype=dtype or config.dtype or torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(place, **LOCAL)
    if pretrained:
        _warn_of_gaps(name, missing - new, saved_as)
        if new and not new & missing:
            _keep_head(place, model, own, saved_as)
    if usual is not torch.float64:  # bundled models are small, and the lessons say what they are
        size = f"{model.num_parameters():,} parameters in {str(model.dtype).removeprefix('torch.')}"
        print(f"{name}: {type(model).__name__}, {size}, on {model.device}", file=sys.stderr)
    return _name_loss(model).eval(), _fit_tokenizer(place, tokenizer, model)


def skeleton(
    name: str | os.PathLike | PreTrainedConfig,
    head: str | None = None,
    labels: int | Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """The model that `backbone` opens, on the meta device: its shapes, from its configuration alone."""
    _check(head, labels, True, dtype, 0)
    if isinstance(name, PreTrainedConfig):
        place, usual, config = type(name).__name__, None, deepcopy(name)
    else:
        place, usual = locate(name, whole=False)
        check(place)
        with _reading(place):
            config = AutoConfig.from_pretrained(place, **LOCAL)
    with _reading(place), quiet(), torch.device("meta"):
        auto, _ = _configure(config, head, labels)
        model = auto.from_config(config, dtype=dtype or usual or config.dtype or torch.float32)
    model.config.pad_token_id = model.config.pad_token_id or 0  # as after `backbone`, where the tokenizer names it
    return _name_loss(model)


def card(name: str | os.PathLike) -> Text:
    """What a model is, in a few lines: its size, what it was pretrained on, one example.

    The last two come from lines of the model's README: "Pretrained on: ..." and "Example: `a beginning or a [MASK]`".
    """
    model, tokenizer = backbone(name)
    config, count = model.config, sum(p.numel() for p in model.parameters())
    lines = [
        f"{Path(name).name}: {type(model).__name__}, {count:,} parameters",
        f"{config.num_hidden_layers} blocks of width {config.hidden_size}, {config.num_attention_heads} heads, "
        f"a vocabulary of {config.vocab_size:,} tokens",
    ]
    readme = Path(config.name_or_path) / "README.md"
    words = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    about = re.findall(r"^Pretrained on: (.+?)(?: \(see .*\))?$", words, re.M)  # a link leads from the README alone
    lines += [f"pretrained on: {text}" for text in about[:1]]
    for example in re.findall(r"^Example: `(.+)`", words, re.M)[:1]:
        lines.append(f"{example}  ->  {complete(model, tokenizer, example)}")
    return Text("\n".join(lines))


@torch.no_grad()
def complete(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, tokens: int = 12) -> str:
    """The model's own words: the likeliest continuation, or for a masked model the likeliest filling of each mask."""
    reads_text(model, tokenizer)
    whole_number("tokens", tokens)
    if not isinstance(text, str):
        raise TypeError(f"text is {text!r}, but must be one text")
    batch = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(model.device)
    mask, both = tokenizer.mask_token_id, model.config.is_encoder_decoder
    masked = batch["input_ids"][0] == (-1 if mask is None else mask)
    length = batch["input_ids"].shape[1] + (0 if both or masked.any() else tokens)
    if length > tokenizer.model_max_length:
        raise ValueError(f"{length} tokens, what is to follow included; the model reads {tokenizer.model_max_length}")
    with evaluating(model):
        if masked.any():
            return tokenizer.decode(model(**batch).logits[0, masked].argmax(-1))
        if not model.can_generate():
            raise ValueError(f"{type(model).__name__} fills gaps: the text {text!r} has no {tokenizer.mask_token}")
        out = model.generate(**batch, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.decode(out[0, 0 if both else batch["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def reads_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """A language model and its tokenizer, or an error: a classifier has no words of its own."""
    if not isinstance(model, torch.nn.Module) or not isinstance(tokenizer, PreTrainedTokenizerBase):
        found = f"{type(model).__name__} and {type(tokenizer).__name__}"
        raise TypeError(f"expected a model and its tokenizer, as `backbone` gives them, got {found}")
    if model.get_output_embeddings() is None:
        raise ValueError(f"{type(model).__name__} has no language-model head: backbone(name, head=None) gives one")


def _check(head, labels, pretrained, dtype, seed) -> None:
    choice("head", head, (None, *HEADS))
    yes_or_no("pretrained", pretrained)
    choice("dtype", dtype, (None, torch.float64, torch.float32, torch.bfloat16, torch.float16))
    whole_number("seed", seed, at_least=0)
    number("seed", seed, "below 2**63", lambda seed: seed < 2**63)
    if labels is None:
        return
    if head in (None, "score"):
        raise ValueError(f"labels={labels!r} need a head: head='classify' or head='tag'")
    named = isinstance(labels, (list, tuple)) and all(isinstance(name, str) for name in labels)
    count = labels if isinstance(labels, int) else len(set(labels)) if named else 0
    if not 2 <= count <= LABELS or (named and count < len(labels)):
        expected = f"two or more different labels, a number or their names, and at most {LABELS:,}"
        raise ValueError(f"labels={labels!r}: a classifier needs {expected}")


def _auto_class(config, head: str | None):
    if head is not None:
        return HEADS[head]
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    if type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM


def _configure(config, head: str | None, labels) -> tuple[type, list[str]]:
    """The class that builds the model, and the labels' names of its own, in whose place those asked for stand now."""
    auto, own = _auto_class(config, head), [name for _, name in sorted(config.id2label.items())]
    if head is not None:
        names = ["score"] if head == "score" else _names(labels, own)
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    return auto, own


def _name_loss(model: PreTrainedModel) -> PreTrainedModel:
    if getattr(model, "loss_type", None) is None:
        model.loss_type = "ForCausalLM"  # transformers 5.23 finds none by GPT-2's class name, says so, and takes this
    return model


def _names(labels, own: list[str]) -> list[str]:
    """The labels' names: the folder's own, where no names are given."""
    if labels is None or labels == len(own):
        return own
    return [f"LABEL_{i}" for i in range(labels)] if isinstance(labels, int) else list(labels)


def _load(place: Path, auto, config, dtype, stored) -> tuple[PreTrainedModel, set[str]]:
    """The model with its weights, and the names of those that no file holds."""
    try:
        told = {"use_safetensors": True, "output_loading_info": True}
        model, report = auto.from_pretrained(place, config=config, dtype=dtype, **told, **LOCAL)
    except RuntimeError:
        with torch.device("meta"):
            asked = {key: list(weight.shape) for key, weight in auto.from_config(config).state_dict().items()}
        for key in sorted(asked.keys() & stored.keys()):
            if asked[key] != stored[key]:
                by = f"by config.json and {config.num_labels} labels"
                raise ValueError(f"{key} is {stored[key]} in its file, and {asked[key]} {by}") from None
        raise
    for key, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(f"{key} holds numbers that are none (nan or inf)")
    return model, set(report["missing_keys"])


@torch.no_grad()
def _keep_head(place: Path, model, own: list[str], saved_as) -> None:
    """The head lies in the file: it must be of the kind asked for, and its i-th row is to answer the i-th label."""
    names, kind = list(model.config.id2label.values()), type(model).__name__
    nameless = own == [f"LABEL_{i}" for i in range(len(own))]  # such a head takes the names that are given
    if (saved_as and kind not in saved_as) or not (nameless or sorted(names) == sorted(own)):
        raise ValueError(
            f"{place} was saved as {', '.join(saved_as or [])} for {', '.join(own)}; asked for was {kind} for "
            f"{', '.join(names)}. To begin a new head, save the model's base_model to a folder of its own"
        )
    if not nameless:
        *_, last = (part for part in model.modules() if getattr(part, "out_features", None) == len(own))
        for rows in last.parameters():
            rows.copy_(rows[[own.index(name) for name in names]])


def _fit_tokenizer(place: Path, tokenizer, model):
    """What batches rely on: words, something to pad with, a length that the model can read, and the kind of model."""
    vocabulary, rows = tokenizer.get_vocab(), model.get_input_embeddings().num_embeddings
    if not any(letter.isalnum() for word in vocabulary.keys() - tokenizer.all_special_tokens for letter in word):
        raise ValueError(f"{place} holds no tokenizer with words: tokenizer.save_pretrained(folder) writes it there")
    if (last := max(vocabulary.values())) >= rows:
        mend = "model.resize_token_embeddings(len(tokenizer)), then save both"
        raise ValueError(f"the tokenizer in {place} has ids up to {last}, the model's embedding {rows} rows: {mend}")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ValueError(f"the tokenizer in {place} has neither a padding token nor an end: set tokenizer.pad_token")
    model.config.pad_token_id = tokenizer.pad_token_id
    table = getattr(model.config, "max_position_embeddings", None)
    room = table - first_position(model.base_model) if table else tokenizer.model_max_length
    tokenizer.model_max_length = min(tokenizer.model_max_length, room)
    tokenizer.encoder_decoder = model.config.is_encoder_decoder
    return tokenizer


def _warn_of_gaps(name, gaps: set[str], saved_as) -> None:
    """A new head is expected to be missing from the file; weights of the network, or of its words, are not."""
    if gaps := sorted(key for key in gaps if "pooler" not in key):
        warnings.warn(
            f"{name}: {len(gaps)} weights of the network are not in its file and stay random, {gaps[0]} first; it was "
            f"saved as {', '.join(saved_as or ['nothing that it names'])}",
            stacklevel=3,
        )


@contextmanager
def _reading(place: Path):
    """Whatever is said of a broken file: of which folder."""
    try:
        yield
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"the model or the tokenizer in {place} cannot be read; no code in it is run ({what:.400})"
        ) from error
