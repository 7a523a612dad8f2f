"""Where a study keeps its runs while it goes on: a table behind a line that says how it was made."""

import platform
from pathlib import Path

import pandas as pd
import torch
import transformers


def kept(path: Path) -> list[dict]:
    """The lines that are there already; none before the first run."""
    return pd.read_csv(path, comment="#").to_dict("records") if path.is_file() else []


def keep(path: Path, table: pd.DataFrame, command: str, form: str = "float32", **options) -> None:
    """Write the whole file, or nothing: who is stopped in between has the one before. `form`: what was trained in."""
    made = (
        f"# python -m {command}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {form}, 1 thread\n"
    )
    unfinished = path.with_suffix(".part")
    unfinished.write_text(made + table.to_csv(index=False, **options), encoding="utf-8")
    unfinished.replace(path)
