"""Pretrained models by name: bundled ones, folders of yours, and the Hugging Face hub, all the same way."""

import os
import re
import socket
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from peft_edu.lab.paths import bundled, data_path

HEADS = {
    "classify": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
}


class Text(str):
    """A string that a notebook shows line by line when it is a cell's result."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def backbone(
    name: str | os.PathLike,
    head: str | None = None,
    labels: int | Sequence[str] = 2,
    pretrained: bool = True,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer: `model, tokenizer = backbone("tiny-gpt2")`.

    `head`: None keeps the language-model head; "classify" and "tag" put a new classifier over the text or over each
    token, with `labels` a number or the names. `pretrained=False` is the same network with random weights; `seed` draws
    what is new.
    `dtype`: bundled models come in float64, so that every machine prints the same numbers; others as they were stored.
    """
    place, bundle = _locate(name)
    auto = _auto_class(place, head)
    if dtype is None:
        dtype = torch.float64 if bundle else "auto"
    config = AutoConfig.from_pretrained(place, local_files_only=True, **_label_names(head, labels))
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if pretrained:
            model, report = auto.from_pretrained(
                place, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
            )
            _warn_of_gaps(name, model, report["missing_keys"])
        else:
            model = auto.from_config(config, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    return model.eval(), _fit_tokenizer(tokenizer, model)


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
    readme = _locate(name)[0] / "README.md"
    words = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    lines += [f"pretrained on: {about}" for about in re.findall(r"^Pretrained on: (.+)$", words, re.M)[:1]]
    for example in re.findall(r"^Example: `(.+)`", words, re.M)[:1]:
        lines.append(f"{example}  ->  {complete(model, tokenizer, example)}")
    return Text("\n".join(lines))


@torch.no_grad()
def complete(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, tokens: int = 12) -> str:
    """The model's own words: the likeliest continuation, or for a masked model the likeliest filling of each mask."""
    batch = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    if tokenizer.mask_token and tokenizer.mask_token in text:
        masked = batch["input_ids"][0] == tokenizer.mask_token_id
        return tokenizer.decode(model(**batch).logits[0, masked].argmax(-1))
    out = model.generate(**batch, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    start = 0 if model.config.is_encoder_decoder else batch["input_ids"].shape[1]
    return tokenizer.decode(out[0, start:], skip_special_tokens=True).strip()


def _locate(name) -> tuple[Path, bool]:
    """The folder that holds the model, downloaded if need be, and whether it is a bundled one."""
    place = data_path("models", name)
    if isinstance(name, str) and (place / "config.json").is_file() and data_path("models") in place.parents:
        return place, True
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"the folder {folder} holds no config.json: it is no saved Hugging Face model")
        return folder, False
    online = _hub_answers()
    try:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "README.md"]
        return Path(snapshot_download(str(name), allow_patterns=wanted, local_files_only=not online)), False
    except Exception as error:
        hub = (
            f"the Hugging Face hub has none either ({type(error).__name__})"
            if online
            else ("the Hugging Face hub does not answer: offline, only models in its cache can be used")
        )
        listed = ", ".join(bundled("models", "config.json")) or "none yet"
        raise ValueError(f"no backbone {str(name)!r}. Bundled: {listed}. It is no folder here, and {hub}") from error


def _hub_answers() -> bool:
    """Ask once and briefly: the hub's own client retries for half a minute before it admits that it is offline."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        url = urlparse(constants.ENDPOINT)
        socket.create_connection((url.hostname, url.port or 443), timeout=3).close()
        return True
    except OSError:
        return False


def _auto_class(place: Path, head: str | None):
    if head in HEADS:
        return HEADS[head]
    if head is not None:
        raise ValueError(f"no head {head!r}; choose None, {', '.join(map(repr, HEADS))}")
    config = AutoConfig.from_pretrained(place, local_files_only=True)
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    if type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM


def _label_names(head, labels) -> dict:
    if head is None:
        return {}
    names = [f"LABEL_{i}" for i in range(labels)] if isinstance(labels, int) else list(labels)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"labels={labels!r}: a classifier needs two or more different labels, a number or their names")
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def _fit_tokenizer(tokenizer, model):
    """What batches rely on: something to pad with, a length that the model can read, and the kind of model."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    room = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    tokenizer.model_max_length = min(tokenizer.model_max_length, room)
    tokenizer.encoder_decoder = model.config.is_encoder_decoder
    return tokenizer


def _warn_of_gaps(name, model, missing) -> None:
    """A new head is expected to be missing from the file; weights of the network itself are not."""
    prefix = model.base_model_prefix + "."
    gaps = sorted(key for key in missing if key.startswith(prefix) and "pooler" not in key)
    if gaps:
        warnings.warn(
            f"{name}: {len(gaps)} weights of the network are not in its file and stay random, {gaps[0]} first",
            stacklevel=3,
        )


@contextmanager
def _quiet():
    """No load report and no bar: that the head is new is what was asked for."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
