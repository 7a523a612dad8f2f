"""From a supervised model to a happy one: DPO, reward models and policy gradients on tiny-gpt2, measured alike.

    python -m peft_edu.lab.study.preferences      trains, and writes data/results/preferences.csv (an hour of a core)

The supervised model is tiny-gpt2 after 150 steps on `tables`, its LoRA merged: it tells facts, and its reviews are as
often unhappy as happy. A second LoRA is to make them happy; switched off, it gives the supervised model back.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu import LoRA, fit, seed
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.paths import data_path
from peft_edu.lab.study.keep import keep, kept
from peft_edu.lab.study.results import lines_of, stored
from peft_edu.lab.tasks.judge import happy_judge
from peft_edu.lab.tasks.metrics import score_texts
from peft_edu.lab.tasks.task import Task, task
from peft_edu.preferences import (
    DPO,
    Batch,
    Samples,
    log_ratio,
    paired,
    policy_gradient,
    reference_log_probability,
    reward_loss,
    sample,
)

ALL_MAPS = ("query", "key", "value", "output", "up", "down")
SEEDS = (0, 1, 2, 3, 4)
BETAS = (0.03, 0.1, 0.3, 1.0, 3.0)
STEPS, LR = 100, 2e-3  # of all that learns from pairs
PRICES = (0.0, 0.05, 0.2)  # of a nat of KL, for the policy gradient
SIZES = (10, 25, 100, 300)  # pairs that a reward model learns from
DTYPE = torch.float32
Reward = Callable[[Sequence[str]], Tensor]


def supervised(number: int = 0, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """tiny-gpt2, tuned to tell the facts of `tables` in a sentence."""
    model, tokenizer = backbone("tiny-gpt2", dtype=dtype)
    data = task("tables")
    seed(number)
    method = LoRA(8, 16, targets=ALL_MAPS)
    method.attach(model)
    fit(model, data.batches(tokenizer, "train", size=16, steps=150, seed=number), steps=150, lr=2e-3)
    return method.merge(), tokenizer


def beginnings(tokenizer: PreTrainedTokenizerBase, split: str) -> list[list[int]]:
    """The beginnings of the reviews of `happy`, "The soup", as token ids, each once."""
    data = task("happy")
    rows = {row["prompt"]: row for row in data.rows(split)}
    return [data.prompt(row, tokenizer) for row in rows.values()]


def own_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: str = "train", each: int = 32
) -> Batch:
    """Pairs of what the model itself writes, the judge's choice first: (b, 2, t)."""
    judge = happy_judge()
    texts, batch = sample(model, tokenizer, beginnings(tokenizer, split), each=each)
    return paired(batch, [judge(text) for text in texts])


def shuffled(pairs: Batch, size: int = 16) -> list[Batch]:
    """Batches of pairs, in an order that torch's random numbers draw."""
    order = torch.randperm(len(pairs["labels"]))
    return [{name: each[rows] for name, each in pairs.items()} for rows in order.split(size)]


def of_chosen(batches: Iterable[Batch]) -> list[Batch]:
    """Of each pair the chosen text alone: (b, t)."""
    return [{name: each[:, 0] for name, each in batch.items()} for batch in batches]


class Measure:
    """What a policy has become, beside the supervised model: on beginnings that no training has seen."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, each: int = 16):
        self.tokenizer, self.each, self.judge = tokenizer, each, happy_judge()
        self.data, self.prompts = task("tables"), beginnings(tokenizer, "test")
        texts, _ = self._written(model)
        self.before = torch.tensor([self.judge(text) for text in texts])
        self.pairs = own_pairs(model, tokenizer, "test", each)

    def _written(self, model: PreTrainedModel) -> tuple[list[str], Batch]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000)  # whoever is measured draws by the same random numbers
            return sample(model, self.tokenizer, self.prompts, each=self.each)

    @torch.no_grad()
    def __call__(self, model: PreTrainedModel, reward: Reward | None = None, whole: bool = True) -> dict[str, object]:
        """happy: the share of texts with a verdict above 0.5. win: how often a text beats one of the supervised model,
        a tie counting half. KL in nats a text; fluency: the mean log-probability of a token under the supervised model.
        chosen, rejected: log_ratio of held-out pairs. text: three of them. slots, if the `whole` is asked for: what is
        left of `tables`."""
        texts, batch = self._written(model)
        verdicts = torch.tensor([self.judge(text) for text in texts])
        reference, tokens = reference_log_probability(model, batch), (batch["labels"] >= 0).sum()
        chosen, rejected = log_ratio(model, self.pairs).mean(0).tolist()
        found = {
            "happy": (verdicts > 0.5).double().mean().item(),
            "judge": verdicts.mean().item(),
            "win": ((verdicts > self.before).double() + (verdicts == self.before) / 2).mean().item(),
            "KL": log_ratio(model, batch).mean().item(),
            "fluency": (reference.sum() / tokens).item(),
            "chosen": chosen,
            "rejected": rejected,
        }
        if whole:
            found["slots"] = self.data.evaluate(model, self.tokenizer, "test")["slots"]
        if reward is not None:
            found["reward"] = torch.as_tensor(reward(texts)).mean().item()
        return found | {"text": " | ".join(texts[:: self.each][:3])}


def reward_model(size: int, number: int = 0, dtype: torch.dtype | None = None) -> tuple[Reward, float]:
    """A reward that tiny-bert learned from so many pairs of `happy`, and its share of right test pairs."""
    data = task("happy")
    model, tokenizer = backbone("tiny-bert", head="score", dtype=dtype, seed=number)
    seed(number)
    LoRA(8, 16).attach(model)
    rows = random.Random(number).sample(data.rows("train"), size)
    few = replace(data, splits=data.splits | {"train": rows})
    fit(model, few.batches(tokenizer, "train", size=32, seed=number, steps=100), steps=100, lr=3e-3, head_lr=1e-2,
        objective=reward_loss)  # fmt: skip

    @torch.no_grad()
    def reward(texts: Sequence[str]) -> Tensor:
        batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt", return_token_type_ids=False)
        return model(**batch).logits[:, 0]

    return reward, data.evaluate(model, tokenizer, "test")["accuracy"]


def judged(texts: Sequence[str]) -> Tensor:
    """The judge's verdicts as the reward."""
    judge = happy_judge()
    return torch.tensor([judge(text) for text in texts])


# ------------------------------------------------------------------------------------------------------- what is run
@cache
def _supervised(number: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return supervised(number, DTYPE)


@dataclass
class Start:
    """A supervised model with a new LoRA, and what it is measured by."""

    number: int

    def __post_init__(self):
        model, self.tokenizer = _supervised(self.number)
        self.model = deepcopy(model)
        seed(self.number)
        self.measure = Measure(self.model, self.tokenizer)
        self.pairs = shuffled(own_pairs(self.model, self.tokenizer))
        LoRA(8, 16).attach(self.model)


def untrained(start: Start) -> list[dict]:
    return [start.measure(start.model)]


def by_pairs(start: Start, beta: float) -> list[dict]:
    fit(start.model, start.pairs, STEPS, LR, objective=DPO(beta))
    return [start.measure(start.model)]


def by_pairs_of_another(start: Start, beta: float) -> list[dict]:
    """As many steps on the pairs of `happy`, which tiny-gpt2 wrote before it was tuned."""
    batches = task("happy").batches(start.tokenizer, "train", size=16, steps=STEPS, seed=start.number)
    fit(start.model, batches, STEPS, LR, objective=DPO(beta))
    return [start.measure(start.model)]


def by_chosen(start: Start) -> list[dict]:
    """Supervised fine-tuning on the chosen texts, which DPO is compared with."""
    fit(start.model, of_chosen(start.pairs), STEPS, LR)
    return [start.measure(start.model)]


def by_samples(start: Start, reward: Reward, beta: float, steps: int = 60, every: int = 20) -> list[dict]:
    """Policy gradients, measured on the way."""
    lines: list[dict] = []

    def measure(step: int, _loss: float) -> None:
        if step % every == 0:
            lines.append({"step": step} | start.measure(start.model, reward, whole=step == steps))

    samples = Samples(start.model, start.tokenizer, beginnings(start.tokenizer, "train"), reward, beta)
    fit(start.model, samples, steps, LR, schedule="constant", objective=policy_gradient, on_step=measure)
    return lines


def by_reward_model(start: Start, size: int, beta: float) -> list[dict]:
    reward, right = reward_model(size, start.number, DTYPE)
    seed(start.number)
    lines = by_samples(start, reward, beta, steps=90, every=30)
    return [line | {"right pairs": right} for line in lines]


# ------------------------------------------------------------------------------------ two answers that are nearly one
def price_pairs() -> Task:
    """Pairs of `tables`: a sentence without the price is chosen, rather than the same sentence with it."""
    data = task("tables")
    splits = {
        split: [_priced(row, data.separator) for row in data.rows(split) if "price" in row["slots"]]
        for split in ("train", "test")
    }
    return replace(task("happy"), name="no price", splits=splits)


def _priced(row: dict, separator: str) -> dict[str, str]:
    price, prompt = f"{row['slots']['price']} prices", row["source"] + separator
    chosen = row["target"].replace(f" and {price}", "").replace(price, "good food")  # as where no price is known
    return {"prompt": prompt, "source": prompt, "chosen": chosen, "rejected": row["target"]}


def told(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """What the sentences for test tables with a price say. price: the share that name it. slots: the share of all other
    facts. chosen, rejected: log_ratio of the pairs of these tables. text: three sentences."""
    data = task("tables")
    rows = [row for row in data.rows("test") if "price" in row["slots"]]
    others = [row | {"slots": {name: fact for name, fact in row["slots"].items() if name != "price"}} for row in rows]
    texts = data.generate(model, tokenizer, rows)
    with torch.no_grad():
        ratios = torch.cat([log_ratio(model, pairs) for pairs in price_pairs().batches(tokenizer, "test", size=50)])
    chosen, rejected = ratios.mean(0).tolist()
    return {
        "chosen": chosen,
        "rejected": rejected,
        "slots": score_texts(texts, others)["slots"],
        "price": score_texts(texts, rows)["by slot"]["price"],
        "text": " | ".join(texts[:3]),
    }


def with_price(start: Start) -> list[dict]:
    return [told(start.model, start.tokenizer)]


def without_price(start: Start, beta: float, lr: float = LR) -> list[dict]:
    batches = price_pairs().batches(start.tokenizer, "train", size=16, steps=STEPS, seed=start.number)
    fit(start.model, batches, STEPS, lr, objective=DPO(beta))
    return [told(start.model, start.tokenizer)]


def without_price_by_chosen(start: Start) -> list[dict]:
    """Supervised fine-tuning on the sentences without the price."""
    batches = price_pairs().batches(start.tokenizer, "train", size=16, steps=STEPS, seed=start.number)
    fit(start.model, of_chosen(batches), STEPS, LR)
    return [told(start.model, start.tokenizer)]


RUNS: dict[str, Callable[[Start], list[dict]]] = {
    "supervised": untrained,
    "chosen texts": by_chosen,
    **{f"DPO beta={beta:g}": partial(by_pairs, beta=beta) for beta in BETAS},
    "DPO beta=0.3, another's pairs": partial(by_pairs_of_another, beta=0.3),
    **{f"judge, KL x {beta:g}": partial(by_samples, reward=judged, beta=beta) for beta in PRICES},
    **{f"reward model of 25, KL x {beta:g}": partial(by_reward_model, size=25, beta=beta) for beta in (0.0, 0.1)},
    "price: supervised": with_price,
    "price: chosen sentences": without_price_by_chosen,
    "price: DPO beta=0.3": partial(without_price, beta=0.3),
    "price: DPO beta=0.3, lr / 4": partial(without_price, beta=0.3, lr=LR / 4),
}


def of_reward_models(number: int) -> list[dict]:
    """How many pairs a reward model needs."""
    found = {size: reward_model(size, number, DTYPE)[1] for size in SIZES}
    return [{"run": f"reward model of {size}", "seed": number, "right pairs": right} for size, right in found.items()]


# -------------------------------------------------------------------------------------------------- what was measured
SHARES = ["happy", "win", "slots", "price", "right pairs"]
OF_TEXTS = ["happy", "judge", "win", "KL", "fluency", "chosen", "rejected"]
COLUMNS = ["run", "seed", "step", *OF_TEXTS, "slots", "price", "reward", "right pairs", "text"]


def preference_runs(run: str, step: int | None = None) -> pd.DataFrame:
    """The stored lines of a run, one a seed, shares in per cent; of a run that was measured on its way at this step, or
    at its last one.

    >>> preference_runs("DPO beta=0.3").index.tolist()
    [0, 1, 2, 3, 4]
    """
    lines = lines_of(run, stored("preferences"), SHARES)
    steps = lines.step.dropna().unique()
    if step is not None and step not in steps:
        raise ValueError(f"{run} was measured at the steps {', '.join(f'{each:g}' for each in steps) or 'of its end'}")
    if len(steps):
        lines = lines[lines.step == (max(steps) if step is None else step)]
    return lines


def dpo_runs() -> dict[float, list[dict]]:
    """Of each beta the stored lines, one a seed."""
    return {beta: preference_runs(f"DPO beta={beta:g}").to_dict("records") for beta in BETAS}


def main() -> None:
    torch.set_num_threads(1)
    path = data_path("results", "preferences.csv")
    lines = kept(path)

    def note(found: list[dict]) -> None:
        lines.extend(found)
        table = pd.DataFrame(lines, columns=COLUMNS).sort_values(["run", "seed", "step"], key=_place)
        keep(path, table.round(4), "peft_edu.lab.study.preferences")

    have = {(line["run"], line["seed"]) for line in lines}
    waiting = [(run, number) for number in SEEDS for run in RUNS if (run, number) not in have]
    waiting.sort(key=lambda each: "model" in each[0])  # what takes longest comes last
    for number in (each for each in SEEDS if (f"reward model of {SIZES[0]}", each) not in have):
        note(of_reward_models(number))
    for run, number in tqdm(waiting, unit="run"):
        note([{"run": run, "seed": number} | line for line in RUNS[run](Start(number))])


def _place(column: pd.Series) -> pd.Series:
    order = [*RUNS, *(f"reward model of {size}" for size in SIZES)]
    return column.map(order.index) if column.name == "run" else column


if __name__ == "__main__":
    main()
