"""The folder that a model lies in: a bundled one, yours, or the hub's cache; and what may be read from it.

It may be a stranger's. Nothing in it is executed (no code, no pickle), and nothing outside of it is read.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from peft_edu.lab.models import hub, real
from peft_edu.lab.paths import bundled, data_path

BLOCKS = 1_000  # that a model may have: more would be built for minutes before anything is seen to be wrong


def locate(name: str | os.PathLike, whole: bool = True) -> tuple[Path, torch.dtype | None]:
    """The folder that holds the model, downloaded if need be, and the precision in which it opens; None: as stored.

    Without `whole` only the configuration is downloaded.

    Real models open in float32: a processor without bfloat16 arithmetic takes 2.5 times as long for a step in it.
    """
    if not isinstance(name, (str, os.PathLike)) or not str(name):
        raise TypeError(f"the model is {name!r}, but must be its name or its folder, as in backbone('tiny-bert')")
    place, folder = data_path("models", name), Path(name).expanduser()
    try:
        if isinstance(name, str) and (place / "config.json").is_file() and data_path("models") in place.parents:
            return place, torch.float64
        if name in real.real_models():
            return real.real_model(name), torch.float32
        return (folder if folder.is_dir() else hub.fetch(str(name), whole)), None
    except OSError as error:  # a name may also be too long for a file
        listed = ", ".join(bundled("models", "config.json")) or "none yet"
        known = ", ".join(real.real_models()) or "none"
        name = f"{name!s:.80}"
        raise ValueError(
            f"no backbone {name!r}. Bundled: {listed}; they need no network. After `make real`: {known}. It is "
            f"no folder here, and {error}. To go on without it, take a bundled one: backbone('tiny-gpt2')"
        ) from error


def check(folder: Path) -> None:
    """Refuse what would be misread, read from elsewhere, or built without end; each error names the file."""
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"the folder {folder} holds no config.json: it is no saved Hugging Face model")
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder} holds an adapter beside the model (adapter_config.json): give it a folder of its own"
        )
    for each in (*folder.glob("*.json"), *folder.glob("*.safetensors")):
        if not each.is_file():
            raise ValueError(f"{each} is no regular file")
    config = read_json(path)
    for key in ("attn_implementation", "_attn_implementation", "transformers_weights"):
        if "/" in (value := str(config.get(key, ""))) or (value and key == "transformers_weights"):
            raise ValueError(f"{path} takes {key} from {value!r}: only the folder's own files are read, and no code")
    for key in ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"):
        if isinstance(value := config.get(key), int) and value > BLOCKS:
            raise ValueError(f"{path} asks for {value:,} blocks ({key}); at most {BLOCKS:,} are built")


def read_json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} holds no JSON object ({error})") from error


def shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of every weight that the folder's files hold, from their headers alone."""
    found: dict[str, list[int]] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                found |= {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            cut = "half a file, or what git-lfs leaves in its place until `git lfs pull`?"
            raise ValueError(f"{path} cannot be read as weights ({error}): {cut}") from error
    return found


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if not index.exists():
        raise FileNotFoundError(
            f"{folder} holds no model.safetensors, and a .bin is not read: it can hold code that runs"
        )
    names = {str(name) for name in read_json(index).get("weight_map", {}).values()}
    if not names or any(name != Path(name).name or not name.endswith(".safetensors") for name in names):
        raise ValueError(f"{index} must name files *.safetensors that lie beside it; it names {', '.join(names)}")
    return [folder / name for name in names]
