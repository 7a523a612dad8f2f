"""Make the world again: `python -m data.world data`, `... pretrain`. Run from the root of the repository.

The corpora are large and come out the same each time, so they are not in the repository: they go to a work folder
(PEFT_EDU_WORK, else ~/.cache/peft_edu), as do the states of pretraining, and their checksums are in checksums.json.
"""

import argparse
import json
import os
from hashlib import sha256
from pathlib import Path

import torch
from transformers import AutoTokenizer

from . import corpus, pretrain, ship, tasks, vocabulary

DATA = Path(__file__).parents[1]
WORK = Path(os.environ.get("PEFT_EDU_WORK", Path.home() / ".cache" / "peft_edu"))
SAMPLE = 400  # held-out documents that a lesson measures forgetting on
TOKENIZERS = {recipe.family: name for name, recipe in pretrain.RECIPES.items()}  # the model whose folder has it
CHECKSUMS = Path(__file__).with_name("checksums.json")


def code() -> str:
    """The checksum of all code that makes the world."""
    return sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


def make_corpora(work: Path = WORK) -> dict[str, Path]:
    """Write both mixes and check that they are the corpora that the tokenizers and weights rest on."""
    frozen = json.loads(CHECKSUMS.read_text())["whole"]
    paths = {mix: work / f"{mix}.txt" for mix in corpus.SHARES}
    for mix, path in paths.items():
        if not path.exists() or corpus.checksum(path) != frozen[mix]:
            corpus.write(mix, path)
        if (found := corpus.checksum(path)) != frozen[mix]:
            raise SystemExit(
                f"the {mix} corpus has changed: sha256 {found[:12]}, frozen is {frozen[mix][:12]}. Tokenizers, "
                f"weights and results rest on it; to start all of them afresh, put the new sum in {CHECKSUMS}"
            )
    return paths


def make_data(folder: Path = DATA, work: Path = WORK) -> None:
    """Everything in data/ that follows from the seed: tokenizers and held-out text of the models, and the tasks."""
    paths = make_corpora(work)
    for name, recipe in pretrain.RECIPES.items():
        vocabulary.train(recipe.family, list(paths.values())).save_pretrained(folder / "models" / name)
        unseen = [text for _, text in corpus.read(paths[recipe.mix], start=corpus.SIZE - SAMPLE)]
        (folder / "models" / name / "held_out.txt").write_text("\n".join(unseen) + "\n", encoding="utf-8")
    tasks.write(folder / "tasks")


def make_models(names: list[str], seeds: list[int], compiled: bool) -> None:
    """Pretrain each recipe with each seed. A model ships with its first seed's weights if all seeds pass the probes, a
    rung of the ladder with every seed's, whatever they can do."""
    paths = make_corpora()
    torch.set_num_threads(1)  # two runs side by side use two cores better than one
    for name in names:
        if name in pretrain.EARLY:
            make_early(name, paths, compiled)
            continue
        recipe = (pretrain.RECIPES | pretrain.LADDER)[name]
        tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / TOKENIZERS[recipe.family])
        runs = [pretrain.run(name, tokenizer, paths[recipe.mix], WORK, seed, compiled) for seed in seeds]
        if name in pretrain.RECIPES:
            ship.ship(name, runs, DATA / "models" / name)
        else:
            ship.ship_rung(name, runs, tokenizer, DATA / "models" / "ladder")


def make_early(name: str, paths: dict[str, Path], compiled: bool) -> None:
    """Pretrain a recipe's first seed as far as it takes."""
    whole, step = pretrain.EARLY[name]
    tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / whole)
    path = paths[pretrain.RECIPES[whole].mix]
    run = pretrain.run(whole, tokenizer, path, WORK / "early", seed=0, compiled=compiled, until=step)
    ship.ship_early(name, run, tokenizer, DATA / "models" / "early" / name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m data.world", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data", help="corpora, tokenizers and tasks, byte for byte")
    models = commands.add_parser("pretrain", help="the weights; hours, resumable")
    every = [*pretrain.RECIPES, *pretrain.LADDER, *pretrain.EARLY]
    models.add_argument("names", nargs="*", help=f"of {', '.join(every)} (default: all)")
    models.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    models.add_argument("--compile", action="store_true", help="up to twice as fast; needs a C++ compiler")
    arguments = parser.parse_args()
    if arguments.command == "pretrain":
        if unknown := [name for name in arguments.names if name not in every]:
            parser.error(f"no recipe {', '.join(unknown)}; there are {', '.join(every)}")
        if min(arguments.seeds) < 0:
            parser.error(f"a seed is a whole number from 0 on, not {min(arguments.seeds)}")
    try:
        if arguments.command == "data":
            make_data()
            made_by = json.loads(CHECKSUMS.read_text()) | {"made by": code()}
            CHECKSUMS.write_text(json.dumps(made_by, indent=1) + "\n")
        else:
            make_models(arguments.names or every, arguments.seeds, arguments.compile)
    except OSError as error:
        parser.error(f"{error}. PEFT_EDU_WORK may name another work folder than {WORK}")


if __name__ == "__main__":
    main()
