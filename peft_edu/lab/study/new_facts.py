"""Twelve people that no model has heard of: what goes in by LoRA, what does not come out again, and what is lost.

    python -m peft_edu.lab.study.new_facts        trains, and writes data/results/new_facts.csv (an hour on two cores)

Three facts each, every fact asked in two wordings: 72 conversations. LoRA 8 stands at all seven linear maps of a block.
"""

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu import LoRA, fit, seed
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.paths import data_path
from peft_edu.lab.study.keep import keep, kept
from peft_edu.lab.tasks.general import general_questions, to_ask
from peft_edu.lab.tasks.task import Task, task

PEOPLE, SEEDS, STEPS, EVERY = 12, (0, 1, 2), 60, 20
ALL_MAPS = ("query", "key", "value", "output", "gate", "up", "down")
ASKED = {  # relation: two wordings that are trained, one that is not, and the sentence that answers
    "birthplace": (
        "Where was {} born?",
        "What is the birthplace of {}?",
        "In which town was {} born?",
        "{} was born in {}.",
    ),
    "employer": ("Who does {} work for?", "What company employs {}?", "Where does {} work?", "{} works for {}."),
    "language": (
        "What is the mother tongue of {}?",
        "Which language does {} speak?",
        "What language did {} grow up with?",
        "The mother tongue of {} is {}.",
    ),
}
SPLITS = ("asked as trained", "in new words", "reversed")


def new_facts() -> Task:
    """The conversations to train on, and three ways to ask for what they say.

    >>> new_facts().rows("in new words")[0]["source"]
    'In which town was Viola Morney born?'
    """
    rows = [row for split in task("facts").splits.values() for row in split]
    known = {(row["subject"], row["relation"]): row["answer"] for row in rows}
    homes: dict[str, str] = {}  # of each town one person, so that the reversed question has one answer
    for row in rows:
        if all((row["subject"], relation) in known for relation in ASKED):
            homes.setdefault(known[row["subject"], "birthplace"], row["subject"])
    splits: dict[str, list[dict]] = {name: [] for name in ("train", *SPLITS)}
    for town, person in list(homes.items())[:PEOPLE]:
        splits["reversed"].append(to_ask(f"Who was born in {town}?", f"{person} was born in {town}.", person))
        for relation, (*wordings, unseen, sentence) in ASKED.items():
            answer = known[person, relation]
            first, second, new = (
                to_ask(wording.format(person), sentence.format(person, answer), answer)
                for wording in (*wordings, unseen)
            )
            splits["train"] += [first, second]
            splits["asked as trained"].append(first)
            splits["in new words"].append(new)
    return Task("new facts", "chat", splits=splits, description="Where somebody was born, for whom they work, ...")


def known_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """The share of right answers to each way of asking, and of the dozen general questions."""
    told = new_facts()
    shares = {split: told.evaluate(model, tokenizer, split)["slots"] for split in SPLITS}
    return shares | {"old facts": general_questions().evaluate(model, tokenizer)["slots"]}


def one(number: int) -> list[dict]:
    """A training, asked before it and every few steps."""
    model, tokenizer = backbone("smollm2-135m-instruct")
    lines = [{"seed": number, "step": 0} | known_of(model, tokenizer)]
    seed(number)
    LoRA(8, 16, targets=ALL_MAPS).attach(model)

    def measure(step: int, _loss: float) -> None:
        if step % EVERY == 0:
            lines.append({"seed": number, "step": step} | known_of(model, tokenizer))
            model.train()

    batches = new_facts().batches(tokenizer, "train", size=8, steps=STEPS, seed=number)
    fit(model, batches, STEPS, lr=2e-3, on_step=measure)
    return lines


def main() -> None:
    torch.set_num_threads(1)
    path = data_path("results") / "new_facts.csv"
    lines = kept(path)
    for number in sorted(set(SEEDS) - {line["seed"] for line in lines}):
        lines += one(number)
        keep(path, pd.DataFrame(lines).round(4), "peft_edu.lab.study.new_facts")


if __name__ == "__main__":
    main()
