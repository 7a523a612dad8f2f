"""What was learned: which parameters, how many, and how they are kept in a folder.

    recipe.json            the method and its fields, the model that it was trained on, a checksum of the other file
    learned.safetensors    the trained parameters, those of the task head included

The caller supplies the model, the folder supplies the rest: base weights are never written, but for a few numbers by
which they are known again.
"""

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_edu.anatomy import blocks, family, head, head_parameters
from peft_edu.method import METHODS, Method, attached, trainable, unwrapped
from peft_edu.storage import folder as files

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
    model = unwrapped(model)
    heads = head_parameters(model)
    learned = list(trainable(model).values())
    return Count(
        trainable=sum(parameter.numel() for parameter in learned),
        total=sum(parameter.numel() for parameter in model.parameters()),
        head=sum(parameter.numel() for parameter in learned if parameter in heads),
    )


def save(model: PreTrainedModel, folder: str | Path) -> Path:
    """Write the recipe of the attached method, and what it learned; what was trained beside it, too.

    >>> folder = save(LoRA(rank=4).attach(backbone("tiny-gpt2")[0]), "my-lora")
    >>> model = load(backbone("tiny-gpt2")[0], "my-lora")
    """
    model = unwrapped(model)
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
    kept, tensors = method.saved()
    data, learned = files.tensor_bytes(tensors), method.learned()
    recipe = {
        "format": FORMAT,
        "method": type(method).__name__,
        "fields": asdict(kept),
        "beside": [name for name, parameter in learned.items() if parameter not in method.own],
        "model": _describe(model),
        "weights": _sample({name: weight for name, weight in model.named_parameters() if name not in learned}),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return files.write_folder(folder, {RECIPE: files.json_bytes(recipe), LEARNED: data})


def load(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Attach the method that a folder describes, and fill in what it learned. If it fails, the model is untouched.

    Numbers are rounded to the model's precision. Labels may have another order here; a head without names of its own
    takes those of the file while the method is attached, so that one base can serve several tasks.
    """
    refuse_to_fill(model)
    recipe_file, learned_file = files.place(folder) / RECIPE, files.place(folder) / LEARNED
    recipe = {"beside": [], "weights": {}} | files.read_json(recipe_file)  # which older folders do not have
    parts = {"format", "method", "fields", "beside", "model", "weights", "sha256"}
    if recipe.get("format") != FORMAT or set(recipe) != parts:
        raise ValueError(f"{recipe_file} is not a recipe of format {FORMAT}: it holds {', '.join(recipe)}")
    method = make_method(recipe["method"], recipe["fields"], recipe_file)
    try:
        order = _compare(recipe["model"], recipe["weights"], model, recipe_file)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{recipe_file} does not describe a model: {error}") from error
    data = files.read_bytes(learned_file, room(model))
    if hashlib.sha256(data).hexdigest() != recipe["sha256"]:
        raise ValueError(f"{learned_file} is not the file that its recipe was written with: damaged, or exchanged")
    attach_and_fill(method, model, files.read_tensors(data, learned_file), recipe["beside"])
    if order:
        maps = [module for part in head(model) for module in part.modules() if isinstance(module, nn.Linear)]
        for parameter in maps[-1].parameters():  # with a row for each label
            parameter.data = parameter.data[order]
    elif _nameless(_describe(model)["labels"]) and (labels := recipe["model"].get("labels")):
        method.configure(model.config, "id2label", dict(enumerate(labels)))
        method.configure(model.config, "label2id", {label: i for i, label in enumerate(labels)})
    return model


def room(model: PreTrainedModel) -> int:
    """The bytes that what was learned may need: in float64 all that the model has, and more beside a toy."""
    return 64 * files.MEGABYTE + 9 * sum(parameter.numel() for parameter in model.parameters())


def refuse_to_fill(model: PreTrainedModel) -> None:
    family(model)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"this {type(model).__name__} is on meta, where nothing has numbers: load its weights first")


def attach_and_fill(method: Method, model: PreTrainedModel, learned: dict[str, Tensor], beside: list[str]):
    """Attach a method and give its parameters these values, or leave the model untouched.

    Of the model's own parameters, those that `beside` names are trained with it.
    """
    base = dict(model.named_parameters())
    method.attach(model)
    try:
        for name in base.keys() & set(map(str, beside)):
            method.unfreeze(base[name])
        wanted = method.learned()
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
    rounded = value.to(parameter.dtype)
    if not value.is_floating_point() or not rounded.isfinite().all():
        raise ValueError(f"{name} is {value.dtype} in the file, and not all of it is a finite {parameter.dtype}")
    parameter.data.copy_(rounded)


def _describe(model: PreTrainedModel) -> dict[str, object]:
    """What a model must share with another to take over what the other learned."""
    config = model.config
    return {
        "class": type(model).__name__,
        "family": config.model_type,
        "blocks": len(blocks(model)),
        "width": config.hidden_size,
        "vocabulary": config.vocab_size,
        "labels": list(config.id2label.values()) if head(model) else [],
    }


def _nameless(labels: list[str]) -> bool:
    """Whether a head has only the names that transformers gives it."""
    return bool(labels) and labels == [f"LABEL_{i}" for i in range(len(labels))]


def _sample(weights: dict[str, nn.Parameter]) -> dict[str, list[float]]:
    """Of the last row of every matrix the largest number, how exactly its precision knows it, and the sum of all sizes.

    Every matrix: a base into which another update was merged differs in the maps of that update alone. And the sum:
    in a fused map the largest number may be a key's, where the update is a value's.
    """
    rows = {name: weight.detach()[-1].abs() for name, weight in weights.items() if weight.ndim == 2}
    return {name: [row.max().item(), torch.finfo(row.dtype).eps, math.fsum(row.tolist())] for name, row in rows.items()}


def _compare(there: dict, weights: dict, model: PreTrainedModel, source: Path) -> list[int] | None:
    """Refuse a model that is not the one described there. If its labels have another order alone, tell which."""
    here = _describe(model)
    labels = there.get("labels", here["labels"])
    ours = labels if _nameless(here["labels"]) and len(labels) == len(here["labels"]) else here["labels"]
    if there | {"labels": sorted(labels)} != here | {"labels": sorted(ours)}:
        raise ValueError(f"{source} was trained on {there}, but this model is {here}: take one that is the same")
    for name, (number, eps, total) in _sample({n: p for n, p in model.named_parameters() if n in weights}).items():
        theirs = (*weights[name], total)  # older folders have no sum
        for does, was, now in (("goes", theirs[0], number), ("sums", theirs[2], total)):
            if not math.isclose(was, now, rel_tol=max(eps, theirs[1])):
                raise ValueError(
                    f"{source} was trained on other weights: the last row of {name} {does} up to {was}, here to {now}. "
                    "Take the same base. New words start at random: unfreeze their embedding, and it is kept too"
                )
    return None if labels == ours else [labels.index(label) for label in ours]


def make_method(name: str, fields: dict, source: object) -> Method:
    """The method of that name with these fields, which come from a file and may be anything."""
    if str(name) not in METHODS:
        raise ValueError(f"{source} names the method {name!r}; peft_edu has {', '.join(METHODS)}")
    if not isinstance(fields, dict):
        raise ValueError(f"{source} does not describe a {name}: its fields are {fields!r}, no names with values")
    try:
        method = METHODS[name](**{field: _tuples(value) for field, value in fields.items()})
        asdict(method)  # as `attach` will: it must not be nested without end
        return method
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source} does not describe a {name}: {error}") from error


def _tuples(value: object) -> object:
    """JSON has lists only, and the fields of a method have tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
