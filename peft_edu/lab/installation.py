"""Does this installation do all that the lessons need? One line for each thing, and what to do where it fails."""

from collections.abc import Callable
from importlib.metadata import version

from peft_edu import LoRA, fit
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.paths import bundled
from peft_edu.lab.tasks.task import task


def self_check() -> None:
    """Print what was found, thing by thing."""
    for name, find, mend in CHECKS:
        try:
            print(f"ok       {name}: {find()}")
        except Exception as error:
            print(f"missing  {name}: {error}. {mend}")


def _packages() -> str:
    names = ("torch", "transformers", "peft", "ipywidgets", "matplotlib")
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in names)


def _bundled() -> str:
    models, tasks = bundled("models", "config.json"), bundled("tasks", "task.json")
    if not models or not tasks:
        raise FileNotFoundError("the folder `data` holds no models or no tasks")
    return f"{', '.join(models)}; {', '.join(tasks)}"


def _step() -> str:
    data = task("tables")
    model, tokenizer = backbone("tiny-gpt2")
    loss = fit(LoRA(rank=1).attach(model), data.batches(tokenizer, "train", size=4), steps=1, lr=1e-3).loss[0]
    return f"the loss is {loss:.4f}"


CHECKS: list[tuple[str, Callable[[], str], str]] = [
    ("packages", _packages, "Run `make lab` again: it installs what the lessons were tested with"),
    ("models and tasks", _bundled, "Clone the whole repository: they lie in its folder `data`"),
    ("one training step", _step, "Run `make test`, and open an issue with what it says"),
]
