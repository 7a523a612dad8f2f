"""Where the bundled models, tasks and results lie: with the package, or in the folder that PEFT_EDU_DATA names."""

import os
from pathlib import Path

from peft_edu_app.places import DATA


def data_path(*parts: str) -> Path:
    """The path of something bundled; it need not exist. The `data` folder itself must."""
    folder = Path(os.environ.get("PEFT_EDU_DATA") or DATA)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}: the bundled models and tasks lie in `data` of the repository. Install the clone with "
            "`pip install -e .`, or set the environment variable PEFT_EDU_DATA to that folder"
        )
    return folder.joinpath(*parts)


def bundled(kind: str, marker: str) -> list[str]:
    """Names of the bundled things of a kind ("models", "tasks"): the folders that hold the marker file."""
    return sorted(path.parent.name for path in data_path(kind).glob(f"*/{marker}"))
