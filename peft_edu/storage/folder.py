"""Folders from strangers and folders for strangers: read with suspicion, written all or nothing.

Only JSON and safetensors are read, which hold no code, and no path is ever taken from a file. So what is damaged or
made up can do no more than be refused.
"""

import json
import os
import tempfile
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def read_tensors(data: bytes, source: Path) -> dict[str, Tensor]:
    """Read safetensors: numbers only, in shapes that must add up to the length of the data."""
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a number format that torch does not have
        raise ValueError(f"{source} is not a complete safetensors file: {error}") from error


def json_bytes(content: dict) -> bytes:
    return json.dumps(content, indent=2).encode()


def read_json(file: Path) -> dict:
    try:
        content = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, but a JSON object was expected")
    return content


def read_bytes(file: Path) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: save writes such a folder, and to_peft one for from_peft")
    return file.read_bytes()


def place_for(folder: str | Path, names: set[str]) -> Path:
    """The absolute path of a folder that can be replaced by files of these names without loss. It need not exist."""
    folder = Path(folder).absolute()
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file, so there can be no such folder: name another")
    there = next(path for path in folder.parents if path.exists())  # what is replaced is written beside the old
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, so there can be no folder {folder}: name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{there} cannot be written, so nothing can be kept in {folder}: name another folder")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder} is where this program works, and would be replaced: name a folder inside it")
    others = {path.name for path in folder.iterdir()} - names if folder.exists() else set()
    if others:
        raise FileExistsError(f"{folder} holds other things ({min(others)}), which would be lost: name a new folder")
    return folder


def write_folder(folder: str | Path, files: dict[str, bytes]) -> Path:
    """Write the files beside the folder, then move them into its place, all or none."""
    folder = place_for(folder, set(files))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    return folder
