"""What was learned: which parameters, how many, and how they are kept in a folder.

    recipe.json            the method and its fields, the model that it was trained on, a checksum of the other file
    learned.safetensors    the trained parameters, those of the task head included

No pickle and no path is ever read from a folder, so that a folder from a stranger can do no more than be refused.
Writing puts a complete folder in place in one step: a failure leaves behind what was there before.
"""

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, head
from peft_edu.method import METHODS, Method, attached

FORMAT = 1
RECIPE, LEARNED = "recipe.json", "learned.safetensors"


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name. What several modules share appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


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
    heads = {parameter for part in head(model) for parameter in part.parameters()}
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
    learned = pack(trainable(model))
    recipe = {
        "format": FORMAT,
        "method": type(method).__name__,
        "fields": asdict(method),
        "model": _describe(model),
        "sha256": hashlib.sha256(learned).hexdigest(),
    }
    return write_folder(folder, {RECIPE: as_json(recipe), LEARNED: learned})


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
    return attach_and_fill(method, model, unpack(data, learned_file))


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
    if torch.promote_types(value.dtype, parameter.dtype) != parameter.dtype:  # bfloat16 into float32 loses nothing
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


def make_method(name: str, fields: dict, source: Path) -> Method:
    """The method of that name with these fields, which come from a file and may be anything."""
    if str(name) not in METHODS:
        raise ValueError(f"{source} names the method {name!r}; peft_edu has {', '.join(METHODS)}")
    try:
        return METHODS[name](**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source} does not describe a {name}: {error}") from error


def pack(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def unpack(data: bytes, source: Path) -> dict[str, Tensor]:
    """Read safetensors: numbers only, in shapes that must add up to the length of the data."""
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(f"{source} is not a complete safetensors file: {error}") from error


def as_json(content: dict) -> bytes:
    return json.dumps(content, indent=2).encode()


def read_json(file: Path) -> dict:
    try:
        content = json.loads(read_bytes(file))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, but a JSON object was expected")
    return content


def read_bytes(file: Path) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: save writes such a folder, and to_peft one for from_peft")
    return file.read_bytes()


def write_folder(folder: str | Path, files: dict[str, bytes]) -> Path:
    """Write the files beside the folder, then move them into its place, all or none."""
    folder = Path(folder).absolute()
    others = {path.name for path in folder.iterdir()} - set(files) if folder.exists() else set()
    if others:
        raise FileExistsError(f"{folder} holds other things ({min(others)}), which would be lost: name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    return folder
