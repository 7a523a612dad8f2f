"""Where the lessons and the bundled data lie: inside the installed package, or in the checkout that it is part of."""

from importlib.util import find_spec
from pathlib import Path


def root() -> Path:
    package = Path(find_spec("peft_edu").origin).parent
    inside = package / "bundled"
    return inside if inside.is_dir() else package.parent


NOTEBOOKS = root() / "notebooks"
DATA = root() / "data"
