"""What was learned: which parameters, how many, and how they are kept in a folder.

    recipe.json            the method and its fields, the model that it was trained on, a checksum of the other file
    learned.safetensors    the trained parameters, those of the task head included

The caller supplies the model, the folder supplies the rest: base weights are never written.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, head_parameters
from peft_edu.method import METHODS, Method, attached, trainable
from peft_edu.storage.folder import json_bytes, read_bytes, read_json, read_tensors, tensor_bytes, write_folder

FORMAT = 1
RECIPE, LEARNED = "recipe.json", "learned.safetensors"


@dataclass(frozen=True)
class Count:
    """Numbers of parameters. The papers' tables leave the task head out: `trainable - head`."""

    trainable: int
    total: int
    head: int  # trained, and part of the task head

    @property
    def share(self) -> float:
        return self.trainable / self.total

    def __repr__(self) -> str:
        of_head = f", {self.head:,} of them in the task head" if self.head else ""
        return f"{self.trainable:,} of {self.total:,} parameters are trained ({self.share:.4%}){of_head}"


def count(model: PreTrainedModel) -> Count:
    """Count the parameters, each once, those that a method added included."""
    heads = head_parameters(model)
    learned = list(trainable(model).values())
    return Count(
        trainable=sum(parameter.numel() for parameter in learned),
        total=sum(parameter.numel() for parameter in model.parameters()),
        head=sum(parameter.numel() for parameter in learned if parameter in heads),
    )


def save(model: PreTrainedModel, folder: str | Path) -> Path:
    """Write the recipe of the attached method, and what it learned."""
    method = attached(model)
    if method is None:
        raise RuntimeError(
            f"no method is attached to this {type(model).__name__}, so there is nothing to save; "
            "a merged model is a plain model again: keep it with model.save_pretrained"
        )
    if asdict(method) != method.fields:
        raise RuntimeError(f"{method} was attached with {method.fields}: a field that changes later changes nothing")
    if METHODS[type(method).__name__] is not type(method):
        raise TypeError(f"peft_edu has a {type(method).__name__} of its own, which load would take: rename yours")
    kept, learned = method.saved()
    learned = tensor_bytes(learned)
    recipe = {
        "format": FORMAT,
        "method": type(method).__name__,
        "fields": asdict(kept),
        "model": _describe(model),
        "sha256": hashlib.sha256(learned).hexdigest(),
    }
    return write_folder(folder, {RECIPE: json_bytes(recipe), LEARNED: learned})


def load(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Attach the method that a folder describes, and fill in what it learned. If it fails, the model is untouched."""
    recipe_file, learned_file = Path(folder) / RECIPE, Path(folder) / LEARNED
    recipe = read_json(recipe_file)
    if recipe.get("format") != FORMAT or set(recipe) != {"format", "method", "fields", "model", "sha256"}:
        raise ValueError(f"{recipe_file} is not a recipe of format {FORMAT}: it holds {', '.join(recipe) or 'nothing'}")
    method = make_method(recipe["method"], recipe["fields"], recipe_file)
    if recipe["model"] != _describe(model):
        raise ValueError(f"{folder} was trained on {recipe['model']}, but this model is {_describe(model)}")
    data = read_bytes(learned_file)
    if hashlib.sha256(data).hexdigest() != recipe["sha256"]:
        raise ValueError(f"{learned_file} is not the file that its recipe was written with: damaged, or exchanged")
    return attach_and_fill(method, model, read_tensors(data, learned_file))


def attach_and_fill(method: Method, model: PreTrainedModel, learned: dict[str, Tensor]) -> PreTrainedModel:
    """Attach a method and give its parameters these values, or leave the model untouched."""
    method.attach(model)
    try:
        wanted = trainable(model)
        if wrong := sorted(wanted.keys() ^ learned.keys()):
            where = "the model" if wrong[0] in wanted else "the file"
            raise ValueError(f"{method} does not fit the file: {wrong[0]} is only in {where} ({len(wrong)} such names)")
        for name, parameter in wanted.items():
            _fill(name, parameter, learned[name])
    except BaseException:
        method.detach()
        raise
    return model


def _fill(name: str, parameter: nn.Parameter, value: Tensor) -> None:
    if value.shape != parameter.shape:
        raise ValueError(f"{name} is {tuple(value.shape)} in the file, but {tuple(parameter.shape)} in the model")
    # bfloat16 into float32 loses no digit, the other way round does
    if not value.is_floating_point() or torch.promote_types(value.dtype, parameter.dtype) != parameter.dtype:
        raise ValueError(
            f"{name} is {value.dtype} in the file, and the model's {parameter.dtype} would lose digits: "
            f"model.to({value.dtype}) first"
        )
    parameter.data.copy_(value)


def _describe(model: PreTrainedModel) -> dict[str, str | int]:
    """What a model must share with another to take over what the other learned."""
    config = model.config
    return {
        "class": type(model).__name__,
        "family": config.model_type,
        "blocks": len(blocks(model)),
        "width": config.hidden_size,
        "vocabulary": config.vocab_size,
    }


def make_method(name: str, fields: dict, source: object) -> Method:
    """The method of that name with these fields, which come from a file and may be anything."""
    if str(name) not in METHODS:
        raise ValueError(f"{source} names the method {name!r}; peft_edu has {', '.join(METHODS)}")
    try:
        return METHODS[name](**{field: _tuples(value) for field, value in fields.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{source} does not describe a {name}: {error}") from error


def _tuples(value: object) -> object:
    """JSON has lists only, and the fields of a method have tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
