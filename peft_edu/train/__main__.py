"""Train a method on a task from the command line, keep what it learned, and measure it on the test split."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from ast import literal_eval
from hashlib import sha256
from re import fullmatch
from typing import TYPE_CHECKING

import torch

from peft_edu import count, fit, save, seed
from peft_edu.checks import whole_number
from peft_edu.method import METHODS
from peft_edu.preferences import DPO, reward_loss
from peft_edu.storage.checkpoint import LEARNED, RECIPE, make_method
from peft_edu.storage.folder import place_for
from peft_edu.storage.several_loras import SeveralLoRAs
from peft_edu.train import Objective
from peft_edu.train.checkpoint import Checkpoint
from peft_edu.train.log import Log
from peft_edu.train.processes import is_first

if TYPE_CHECKING:
    from peft_edu.lab.tasks.task import Task


def field(text: str) -> tuple[str, object]:
    """'rank=4' -> ('rank', 4), 'joint=true' -> ('joint', True); words with commas are a tuple: 'targets=query,value',
    'targets=value,'; with anything else between them they are a text: 'init=good, or bad'."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ArgumentTypeError(f"{text!r} is not of the form field=value")
    try:
        return name, literal_eval(value.capitalize() if value.lower() in ("true", "false", "none") else value)
    except (ValueError, SyntaxError):
        return name, tuple(filter(None, value.split(","))) if fullmatch(r"(\w+,)+\w*", value) else value


def column(text: str) -> tuple[str, str]:
    """'text=body' -> ('text', 'body'): what a task calls text is called body in the file."""
    ours, equals, theirs = text.partition("=")
    if not equals or not theirs:
        raise ArgumentTypeError(f"{text!r} is not of the form text=body")
    return ours, theirs


def run(options: Namespace) -> None:
    from peft_edu.lab import backbone, memory_of_training, task  # here, so that the core does not need the lab

    keeps = options.save_every is not None or options.resume
    if options.out is not None:
        place_for(options.out, {RECIPE, LEARNED})  # an hour of training is too late to learn that it cannot be kept
    elif keeps:
        raise ValueError("--save-every and --resume need --out: the checkpoint lies beside that folder")
    fields = dict(options.fields)
    method = make_method(options.method, {name: fields[name] for name in fields if name != "init"}, "the command line")
    if options.template is not None and hasattr(method, "template"):
        raise ValueError(f"{options.method} has a template of its own: give template=... in the place of --template")
    data = task(options.task, columns=dict(options.column))
    data = data.asked_by(options).asked_by(method)  # with the template that one of them has
    data, objective = _asked_for(options, data)
    head = {"head": "score"} if objective is reward_loss else data.head
    dtype = options.dtype and getattr(torch, options.dtype)
    model, tokenizer = backbone(options.backbone, **head, dtype=dtype)
    if "init" in fields:  # words, which the model's tokenizer reads
        method = make_method(options.method, fields | {"tokenizer": tokenizer}, "the command line")
    whole_number("max-tokens", options.max_tokens)
    tokenizer.model_max_length = min(tokenizer.model_max_length, options.max_tokens)  # a prompt needs room as well
    seed(options.seed)
    method.attach(model)
    say = print if is_first() else lambda *_: None
    say(count(model))
    if data.columns:  # guessed, or said: to be seen before an hour of training
        say("columns: " + ", ".join(f"{ours} is {theirs!r}" for ours, theirs in data.columns.items()))
    batches = data.batches(tokenizer, "train", size=options.batch_size, seed=options.seed)
    if options.dry_run:
        longest = max(batches, key=lambda batch: batch["input_ids"].numel())
        if data.kind == "prefer":  # both answers of each pair go through the model
            longest = {name: each.flatten(0, 1) for name, each in longest.items()}
        say(memory_of_training(options.backbone, method, longest, **head, dtype=dtype))
        return
    checkpoint = log = None
    if keeps:
        names = ("backbone", "task", "template", "batch_size", "max_tokens", "dtype", "seed")
        settings = {name.replace("_", "-"): getattr(options, name) for name in names}
        settings["rows"] = sha256(repr(batches.examples).encode()).hexdigest()[:8]
        every = 100 if options.save_every is None else options.save_every
        checkpoint = Checkpoint(f"{options.out.rstrip('/')}.checkpoint", every, options.resume, settings)
        if options.resume and not checkpoint.file.exists():
            say(f"there is no {checkpoint.file}: the run begins")
    if options.log is not None:
        log = Log(options.log, options.resume)
    history = fit(
        model,
        batches,
        options.steps,
        options.lr,
        accumulate=options.accumulate,
        objective=objective,
        checkpoint=checkpoint,
        log=log,
    )
    if history.empty:
        raise KeyboardInterrupt
    if not is_first():
        return
    print(f"loss {history.loss.iloc[0]:.3f} -> {history.loss.iloc[-1]:.3f}")
    if options.out is not None:
        print(f"saved in {save(model, options.out)}")
    split = next(each for each in ("test", "validation", "train") if each in data.splits)  # a folder may lack a test
    print(f"{split} {data.metric} {data.evaluate(model, tokenizer, split)[data.metric]:.3f}")
    if keeps and len(history) == options.steps:
        checkpoint.file.unlink(missing_ok=True)


def _asked_for(options: Namespace, data: "Task") -> tuple["Task", Objective | None]:
    """The task in the form that its objective learns from, and the objective, if it is not the model's own."""
    if data.kind == "unlabelled":
        raise ValueError(f"{data.name} has no labels to train on: write rules for it, see peft_edu.weak")
    if options.beta is not None and options.objective != "dpo":
        raise ValueError("--beta is a setting of --objective dpo")
    if data.kind != "prefer":
        if options.objective in ("dpo", "reward"):
            needed = "prompt, chosen and rejected"
            raise ValueError(f"--objective {options.objective} learns from {needed}; {data.name} is to {data.kind}")
        return data, None
    if options.objective == "dpo":
        return data, DPO() if options.beta is None else DPO(options.beta)
    if options.objective == "reward":
        return data, reward_loss
    if options.objective == "supervised":
        return data.as_generate(), None
    raise ValueError(
        f"{data.name} holds preferences: --objective dpo, reward, or supervised for the chosen answers alone"
    )


EXAMPLES = """examples:
  %(prog)s --backbone tiny-bert --task reviews --method LoRA rank=4 targets=query,value
  %(prog)s --backbone ./my-model --task my.csv --dry-run
  %(prog)s --backbone tiny-gpt2 --task happy --objective dpo --beta 0.3
  %(prog)s --backbone tiny-gpt2 --task tables --out my-lora --save-every 50 --log my-log --resume
  accelerate launch --multi_gpu --num_processes 2 -m peft_edu.train --backbone tiny-bert --task reviews
  accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 -m peft_edu.train ...

Several processes share the rows of each batch, on a GPU each or on the CPU: the result is that of one process. With
FSDP each holds a share of what is frozen. Ctrl-C ends the training after a step and keeps what was learned so far.
"""


def main() -> None:
    parser = ArgumentParser("python -m peft_edu.train", formatter_class=RawDescriptionHelpFormatter)
    parser.description, parser.epilog = __doc__, EXAMPLES
    what = parser.add_argument_group("what is trained")
    what.add_argument("--backbone", required=True, help="a bundled model, a folder of yours, or a name on the hub")
    what.add_argument("--task", required=True, help="a bundled task, or a .jsonl, .csv or .tsv file of yours")
    what.add_argument("--column", type=column, action="append", default=[], metavar="text=body",
                      help="a column of your file that has another name; may be given several times")  # fmt: skip
    what.add_argument("--template", help="asks for the word in a gap, where the method has no template of its own")
    methods = [name for name, each in METHODS.items() if each is not SeveralLoRAs]  # which trains nothing
    what.add_argument("--objective", choices=("supervised", "dpo", "reward"),
                      help="what is made small; of preferences one must be named (others: supervised)")  # fmt: skip
    what.add_argument("--beta", type=float, help="of dpo: what it costs to leave the reference (default: 0.1)")
    what.add_argument("--method", default="LoRA", choices=methods, help="(default: LoRA)")
    what.add_argument("fields", nargs="*", type=field, metavar="field=value", help="settings of the method, as rank=4")
    what.add_argument("--dtype", choices=("float64", "float32", "bfloat16"),
                      help="of the model, what is learned aside (default: as it comes)")  # fmt: skip
    how = parser.add_argument_group("how")
    for name, default, about in (
        ("steps", 200, "how often the weights move"),
        ("lr", 1e-3, "the largest learning rate: it rises for a tenth of the steps, then falls to 0"),
        ("batch-size", 32, "rows of a batch, over all processes"),
        ("accumulate", 1, "batches of a step: as one batch so many times as large, in the memory of one"),
        ("max-tokens", 10**6, "what is longer is cut"),
        ("seed", 0, "of the start, the order of the rows, and dropout"),
    ):
        how.add_argument(f"--{name}", type=type(default), default=default, help=f"{about} (default: {default})")
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("--out", help="the folder for what was learned")
    kept.add_argument("--save-every", type=int, metavar="STEPS", help="also keep the run so often, in OUT.checkpoint")
    kept.add_argument("--resume", action="store_true", help="go on from there, to the result of a run never stopped")
    kept.add_argument("--log", metavar="FOLDER", help="history.csv as it goes; and for TensorBoard, if it is installed")
    kept.add_argument("--dry-run", action="store_true", help="say what would be trained and how much memory it takes")
    options = parser.parse_intermixed_args()
    try:
        run(options)
    except KeyboardInterrupt:
        parser.exit(130, "interrupted\n")
    except (ArithmeticError, OSError, TypeError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
