"""Train a method on a task from the command line, keep what it learned, and measure it on the test split."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, Namespace
from ast import literal_eval
from re import fullmatch

from peft_edu import count, fit, save, seed
from peft_edu.checks import whole_number
from peft_edu.method import METHODS
from peft_edu.storage.checkpoint import LEARNED, RECIPE, make_method
from peft_edu.storage.folder import place_for


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


def run(options: Namespace) -> None:
    from peft_edu.lab import backbone, task  # here, so that the core does not need the lab

    if options.out is not None:
        place_for(options.out, {RECIPE, LEARNED})  # an hour of training is too late to learn that it cannot be kept
    fields = dict(options.fields)
    method = make_method(options.method, {name: fields[name] for name in fields if name != "init"}, "the command line")
    if options.template is not None and hasattr(method, "template"):
        raise ValueError(f"{options.method} has a template of its own: give template=... in the place of --template")
    data = task(options.task).asked_by(options).asked_by(method)  # with the template that one of them has
    model, tokenizer = backbone(options.backbone, **data.head)
    if "init" in fields:  # words, which the model's tokenizer reads
        method = make_method(options.method, fields | {"tokenizer": tokenizer}, "the command line")
    whole_number("max-tokens", options.max_tokens)
    tokenizer.model_max_length = min(tokenizer.model_max_length, options.max_tokens)  # a prompt needs room as well
    seed(options.seed)
    method.attach(model)
    print(count(model))
    batches = data.batches(tokenizer, "train", size=options.batch_size, seed=options.seed)
    history = fit(model, batches, steps=options.steps, lr=options.lr)
    if history.empty:
        raise KeyboardInterrupt
    print(f"loss {history.loss.iloc[0]:.3f} -> {history.loss.iloc[-1]:.3f}")
    if options.out is not None:
        print(f"saved in {save(model, options.out)}")
    split = next(each for each in ("test", "validation", "train") if each in data.splits)  # a folder may lack a test
    print(f"{split} {data.metric} {data.evaluate(model, tokenizer, split)[data.metric]:.3f}")


def main() -> None:
    parser = ArgumentParser("python -m peft_edu.train", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.description = __doc__
    parser.epilog = "example: %(prog)s --backbone tiny-bert --task reviews --method LoRA rank=4 targets=query,value"
    parser.add_argument("--backbone", required=True, help="a bundled model, a folder of yours, or a name on the hub")
    parser.add_argument("--task", required=True, help="a bundled task, or a .jsonl, .csv or .tsv file of yours")
    parser.add_argument("--template", help="asks for the word in a gap, where the method has no template of its own")
    parser.add_argument("--method", default="LoRA", choices=METHODS)
    parser.add_argument("fields", nargs="*", type=field, metavar="field=value", help="settings of the method")
    for name, default in {"steps": 200, "batch-size": 32, "max-tokens": 10**6, "lr": 1e-3, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="a number")
    parser.add_argument("--out", help="the folder for what was learned")
    options = parser.parse_intermixed_args()
    try:
        run(options)
    except KeyboardInterrupt:
        parser.exit(130, "interrupted\n")
    except (ArithmeticError, OSError, TypeError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
