"""Folders from strangers and folders for strangers: read with suspicion, written all or nothing.

Only JSON and safetensors are read, which hold no code, and no path is ever taken from a file. So what is damaged or
made up can do no more than be refused.
"""

import ctypes
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

MEGABYTE = 2**20
README = "README.md"
GUESTS = (README, ".ipynb_checkpoints", ".DS_Store")  # may stand beside our files; only the first is worth keeping


def place(folder: str | Path) -> Path:
    """The absolute path that is meant: ~ is the home folder, and a link is what it leads to."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"expected the path of a folder, got {type(folder).__name__}")
    try:
        return Path(folder).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a letter 0, links in a circle, the ~ of nobody
        raise ValueError(f"there can be no folder {str(folder)!r}: {error}") from error


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    for name, tensor in tensors.items():
        if tensor.is_meta or not tensor.isfinite().all():
            raise ValueError(f"nothing was saved: {name} holds nan or inf, or (on meta) no numbers at all")
    return safetensors.torch.save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def read_tensors(data: bytes, file: Path) -> dict[str, Tensor]:
    """Read safetensors: numbers only, in shapes that must add up to the length of the data."""
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a number format that torch does not have
        raise ValueError(f"{file} is not a complete safetensors file: {error}") from error


def json_bytes(content: dict) -> bytes:
    return json.dumps(content, indent=2).encode()


def read_json(file: Path) -> dict:
    data = read_bytes(file, MEGABYTE)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, but a JSON object was expected")
    return content


def read_bytes(file: Path, most: int) -> bytes:
    with _told(f"{file} cannot be read"):
        if not file.parent.exists():
            _tidy(file.parent)
        if not file.is_file():
            hint = "save writes such a folder, and to_peft one for from_peft"
            if file.with_suffix(".bin").is_file():
                hint = "its .bin is a pickle, which may hold code, and is not read: save it again with a newer peft"
            elif below := sorted(file.parent.glob(f"*/{file.name}")):
                hint = f"there is one in {below[0].parent}"
            raise FileNotFoundError(f"{file} does not exist, or is no regular file: {hint}")
        with file.open("rb") as opened:
            data = opened.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{file} is larger than the {most:,} bytes that it could need for this model")
    return data


def place_for(folder: str | Path, names: set[str]) -> Path:
    """The absolute path of a folder that can be replaced by files of these names without loss. It need not exist."""
    folder = place(folder)
    if Path.cwd().is_relative_to(folder):
        raise ValueError(f"{folder} is where this program works, and would be replaced: name a folder inside it")
    with _told(f"nothing can be kept in {folder}"):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is a file, so there can be no folder {folder}: name another")
        there = there.parent if there == folder else there  # what is replaced is written beside the old
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(f"{there} cannot be written, so nothing can be kept in {folder}: name another folder")
        os.rmdir(tempfile.mkdtemp(dir=there))  # not all that forbids it shows in the permissions
        for path in folder.iterdir() if folder.exists() else ():
            if path.name not in (*names, *GUESTS) or (path.name in (*names, README) and not path.is_file()):
                raise FileExistsError(f"{folder} holds other things ({path.name}), which would be lost: name a new one")
    return folder


def write_folder(folder: str | Path, files: dict[str, bytes]) -> Path:
    """Write the files beside the folder, then give them its name: whoever looks finds all the old or all the new."""
    folder = place_for(folder, set(files))
    with _told(f"nothing was saved in {folder}, where all is as it was"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        hidden = f".{folder.name[:40]}-{os.getpid()}-"
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=hidden, ignore_cleanup_errors=True) as beside:
            new = Path(beside, ".new")
            new.mkdir()
            if (folder / README).is_file():
                files = {README: (folder / README).read_bytes()} | files
            for name, content in files.items():
                (new / name).write_bytes(content)
                _to_disk(new / name)
            _to_disk(new)
            _put(new, folder)
            _to_disk(folder.parent)
    return folder


def write_file(file: Path, content: bytes) -> None:
    """Write it under another name beside, then give it its own: whoever looks finds all the old or all the new."""
    with _told(f"{file} was not written, and is as it was"):
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.new")
        new.write_bytes(content)
        _to_disk(new)
        os.replace(new, file)
        _to_disk(file.parent)


def _put(new: Path, folder: Path) -> None:
    """Linux can exchange two folders in one step. Elsewhere the name is empty between two, and `_tidy` cares for it."""
    old = new.with_name(folder.name)
    try:
        new.rename(folder)
    except OSError:  # one has the name already, perhaps since this moment, from another process
        linux = ctypes.CDLL(None) if sys.platform == "linux" else None
        if linux and linux.renameat2(-100, os.fsencode(new), -100, os.fsencode(folder), 2) == 0:  # 2: exchange
            return
        folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise


def _to_disk(path: Path) -> None:
    """So that a power cut leaves no empty file under a new name."""
    if os.name == "posix":  # Windows opens no folders
        opened = os.open(path, os.O_RDONLY)
        os.fsync(opened)
        os.close(opened)


def _tidy(folder: Path) -> None:
    """Remove what a killed process left beside a folder, and give the old one its name back if that is empty."""
    for hidden in folder.parent.glob(".*-*-*") if os.name == "posix" else ():
        name, process, _ = hidden.name.rsplit("-", 2)
        if name == f".{folder.name[:40]}" and process.isdigit():
            try:
                os.kill(int(process), 0)  # no signal: it only asks whether the process runs
            except (PermissionError, OverflowError):  # it runs, for another user; it can be none
                continue
            except ProcessLookupError:
                if (hidden / folder.name).exists() and not folder.exists():
                    (hidden / folder.name).rename(folder)
                shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """The system's own errors do not say what was tried and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        mend = "free some space, ask for the right to use it, or name another"
        raise OSError(error.errno, f"{what} ({error.strerror}): {mend}") from error
