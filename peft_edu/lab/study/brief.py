"""A preference for brief answers, on a real language model: what is learned, beside it, and what is lost.

    python -m peft_edu.lab.study.brief      trains, and writes data/results/brief.csv (two hours of a core)

SmolLM2-135M-Instruct with LoRA 8 at query and value learns from pairs of `brief`: the answer alone rather than the same
answer at length. DPO with two betas, and supervised fine-tuning on the chosen answers.
"""

from collections.abc import Sequence
from csv import QUOTE_NONNUMERIC
from statistics import fmean, median

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu import LoRA, fit, seed
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.paths import data_path
from peft_edu.lab.study.keep import keep, kept
from peft_edu.lab.study.preferences import of_chosen
from peft_edu.lab.study.results import lines_of, stored
from peft_edu.lab.tasks.answer import write
from peft_edu.lab.tasks.chat import conversation
from peft_edu.lab.tasks.encode import Format
from peft_edu.lab.tasks.general import general_questions
from peft_edu.lab.tasks.metrics import says, score_texts
from peft_edu.lab.tasks.task import task
from peft_edu.preferences import DPO, log_ratio, sample

MODEL = "smollm2-135m-instruct"
SEEDS, SIZE = (0, 1, 2, 3, 4), 2
TOKENS = 40  # of an answer, at most
OPEN = [  # which nobody wants to have answered in a word
    "Tell me about the sea.",
    "Tell me about dogs.",
    "Tell me about the city of Paris.",
    "Tell me about the history of bread.",
    "How does a bicycle work?",
    "Why do people sleep?",
    "Describe a walk in a forest.",
    "Write a short story about a cat.",
    "Explain what a computer does.",
    "How can I learn to cook?",
]


# ----------------------------------------------------------------------------------------------------- what is learned
CHOSEN = "chosen answers"  # supervised fine-tuning on them
RUNS: dict[str, float | None] = {CHOSEN: None, "DPO beta=0.1": 0.1, "DPO beta=0.3": 0.3}
TRIED = {  # learning rates, and the steps with each
    CHOSEN: ((3e-4, 30), (1e-3, 30), (2e-3, 30)),
    "DPO beta=0.1": ((1e-4, 30), (3e-4, 30), (1e-3, 30), (5e-4, 60), (2e-4, 90), (3e-4, 90)),  # beta=0.3 takes its best
}


def tuned(run: str, lr: float, steps: int, number: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2 after one of RUNS. The seed draws the LoRA and the order of the pairs."""
    model, tokenizer = backbone(MODEL)
    seed(number)
    LoRA(8, 16).attach(model)
    pairs, beta = task("brief").batches(tokenizer, "train", size=SIZE, steps=steps, seed=number), RUNS[run]
    if beta is None:
        fit(model, of_chosen(pairs), steps, lr=lr)
    else:
        fit(model, pairs, steps, lr=lr, objective=DPO(beta))
    return model, tokenizer


# ---------------------------------------------------------------------------------------------------- what is measured
def words(texts: Sequence[str]) -> float:
    """The median of the numbers of words."""
    return median(len(text.split()) for text in texts)


@torch.no_grad()
def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict]) -> tuple[list[str], dict]:
    """What the model says to questions of `brief`, greedily, and of these texts the number of `words` (median), the
    share that is `short` (three words or fewer), `right` (the answer is in it), and `both`."""
    texts = write(task("brief"), model, tokenizer, rows, TOKENS, 50, seq2seq=False)
    short = [len(text.split()) <= 3 for text in texts]
    right = [says(text, row["answer"]) for text, row in zip(texts, rows, strict=True)]
    both = [a and b for a, b in zip(short, right, strict=True)]
    return texts, {"words": words(texts), "short": fmean(short), "right": fmean(right), "both": fmean(both)}


@torch.no_grad()
def open_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the model says to requests that ask for a text."""
    rows = [conversation({"prompt": request, "completion": "-"}, request) for request in OPEN]
    return write(Format("open requests", "chat"), model, tokenizer, rows, TOKENS, 50, seq2seq=False)


@torch.no_grad()
def measured(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """A model beside itself without its method, on questions that no training has seen, and their texts.

    KL in nats an answer, over answers that the model itself draws; chosen, rejected: the mean log_ratio of the first
    40 test pairs. general: the share of right answers to a dozen other questions; words of these, and of the
    answers to requests that ask for a text."""
    data, general = task("brief"), general_questions()
    rows, others = data.rows("test"), general.rows("test")
    texts, found = answers(model, tokenizer, rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000)  # whoever is measured draws by the same random numbers
        _, drawn = sample(model, tokenizer, [data.prompt(row, tokenizer) for row in rows[:30]], TOKENS)
    pairs = data.batches(tokenizer, "test", size=10, limit=40)
    chosen, rejected = torch.cat([log_ratio(model, pair) for pair in pairs]).mean(0).tolist()
    said, told = general.generate(model, tokenizer, others), open_answers(model, tokenizer)
    return found | {
        "KL": log_ratio(model, drawn).mean().item(),
        "chosen": chosen,
        "rejected": rejected,
        "general": score_texts(said, others)["slots"],
        "general words": words(said),
        "open words": words(told),
        "text": texts[0],
        "general text": said[0],
        "open text": told[0],
    }


def before() -> dict[str, object]:
    """SmolLM2 as it is: its new LoRA does nothing yet."""
    model, tokenizer = backbone(MODEL)
    LoRA(8, 16).attach(model)
    return measured(model, tokenizer)


def one(run: str, lr: float, steps: int, number: int, split: str) -> dict[str, object]:
    model, tokenizer = tuned(run, lr, steps, number)
    if split == "test":
        return measured(model, tokenizer)
    return answers(model, tokenizer, task("brief").rows(split))[1]


# ------------------------------------------------------------------------------------------------------- what is run
SHARES = ["short", "right", "both", "general"]


def brief_runs(run: str) -> pd.DataFrame:
    """The stored lines of a run, measured on test questions, one a seed and shares in per cent. The run `before` is
    SmolLM2 as it is, on one line.

    >>> brief_runs("before").words.tolist()
    [16.0]
    """
    table = stored("brief")
    return lines_of(run, table[table.split == "test"].drop(columns="split"), SHARES)


def best(lines: list[dict], run: str) -> tuple[float, int]:
    """The learning rate and the steps after which most answers to validation questions are short and right."""
    as_run = run if run in TRIED else "DPO beta=0.1"
    tried = [line for line in lines if (line["split"], line["run"]) == ("validation", as_run)]
    first = max(tried, key=lambda line: line["both"])
    return first["lr"], first["steps"]


def main() -> None:
    torch.set_num_threads(1)
    path = data_path("results") / "brief.csv"
    lines = kept(path)

    def note(line: dict) -> None:
        lines.append(line)
        table = pd.DataFrame(lines).round(4)
        keep(path, table, "peft_edu.lab.study.brief", quoting=QUOTE_NONNUMERIC)  # a text may hold a #

    def run_each(runs: list[tuple]) -> None:
        have = {tuple(line[name] for name in ("split", "run", "seed", "lr", "steps")) for line in lines}
        for split, run, number, lr, steps in tqdm([each for each in runs if each not in have], unit="run"):
            setting = {"split": split, "run": run, "seed": number, "lr": lr, "steps": steps}
            note(setting | one(run, lr, steps, number, split))

    run_each([("validation", run, 0, *setting) for run, settings in TRIED.items() for setting in settings])
    if not any(line["run"] == "before" for line in lines):
        note({"split": "test", "run": "before", "seed": 0, "steps": 0} | before())
    run_each([("test", run, number, *best(lines, run)) for number in SEEDS for run in RUNS])


if __name__ == "__main__":
    main()
