"""Train a method on a task from the command line, measure it on the test split, and keep what it learned."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError
from ast import literal_eval
from dataclasses import replace

from peft_edu import count, fit, save, seed
from peft_edu.method import METHODS
from peft_edu.storage.checkpoint import LEARNED, RECIPE, make_method
from peft_edu.storage.folder import place_for

EXAMPLE = "python -m peft_edu.train --backbone tiny-bert --task reviews --method LoRA rank=4 targets=query,value"


def field(text: str) -> tuple[str, object]:
    """'rank=4' -> ('rank', 4); a comma makes a tuple: 'targets=query,value', 'targets=value,'"""
    name, equals, value = text.partition("=")
    if not equals:
        raise ArgumentTypeError(f"{text!r} is not of the form field=value")
    try:
        return name, literal_eval(value)
    except (ValueError, SyntaxError):
        return name, tuple(filter(None, value.split(","))) if "," in value else value


def main() -> None:
    parser = ArgumentParser(
        "python -m peft_edu.train",
        description=__doc__,
        epilog=f"for example: {EXAMPLE}",
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backbone", required=True, help="a bundled model, a folder of yours, or a name on the hub")
    parser.add_argument("--task", required=True, help="a bundled task, or a .jsonl, .csv or .tsv file of yours")
    parser.add_argument("--method", default="LoRA", choices=METHODS)
    parser.add_argument("fields", nargs="*", type=field, metavar="field=value", help="settings of the method")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="the folder for what was learned")
    options = parser.parse_intermixed_args()
    if options.out:
        place_for(options.out, {RECIPE, LEARNED})  # an hour of training is too late to learn that it cannot be kept

    from peft_edu.lab import backbone, task  # here, so that the core does not need the lab

    method = make_method(options.method, dict(options.fields), "the command line")
    data = task(options.task)
    if data.kind == "fill":
        data = replace(data, template=getattr(method, "template", data.template))
    model, tokenizer = backbone(options.backbone, **({"head": data.kind, "labels": data.labels} if data.labels else {}))
    seed(options.seed)
    method.attach(model)
    print(count(model))
    batches = data.batches(tokenizer, "train", size=options.batch_size, seed=options.seed)
    history = fit(model, batches, steps=options.steps, lr=options.lr)
    print(f"loss {history.loss.iloc[0]:.3f} -> {history.loss.iloc[-1]:.3f}")
    print(f"test {data.metric} {data.evaluate(model, tokenizer, 'test')[data.metric]:.3f}")
    if options.out:
        print(f"saved in {save(model, options.out)}")


if __name__ == "__main__":
    main()
