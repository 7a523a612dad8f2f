"""What rules teach: their votes on 2,000 sentences without labels become labels, and tiny-bert with LoRA learns these.

    python -m peft_edu.lab.study.weak        trains, and writes data/results/weak.csv (an hour of a core)

The rules know 22 words of praise, 22 of blame, and as many of the six negations of `reviews` as they are given. Whoever
knows all its words and negations is right on every sentence: so `truth` can say how good the labels are.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu import FullFineTuning, LoRA, fit, seed
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.paths import data_path
from peft_edu.lab.study.keep import keep, kept
from peft_edu.lab.study.results import stored
from peft_edu.lab.tasks.task import Task, task
from peft_edu.method import Method
from peft_edu.weak import ABSTAIN, LabelModel, covered, majority, soft_cross_entropy, vote

PRAISE = frozenset(
    "good great nice lovely excellent wonderful fine superb charming pleasant perfect delightful amazing fresh "
    "fantastic brilliant clean friendly impressive beautiful comfortable tidy".split()
)
BLAME = frozenset(
    "bad poor awful terrible horrible dreadful disgusting rude dirty bland noisy cold nasty ugly unpleasant boring "
    "dull shabby stale overpriced disappointing broken".split()
)
NEGATIONS = ("failed to be", "refused to be", "gave up being", "nowhere near", "the opposite of", "everything except")
PLEASURES = frozenset(
    "cake pie pizza wine beer dessert chicken steak pasta burger terrace garden view pool sauna".split()
)
COMPLAINTS = frozenset("price service staff waiter owner parking crowd location".split())

SEEDS = (0, 1, 2, 3, 4)
STEPS, LONG, EVERY = 150, 600, 75
LORA = (LoRA(8, 16), {"lr": 3e-3, "head_lr": 1e-2})
FULL = (FullFineTuning(), {"lr": 3e-4, "head_lr": 3e-3})  # of 3e-4, 1e-3 and 3e-3 what learns the labels first
GOLD = (25, 50, 100, 200)
ASKED, WORDS, CONFIDENT = " How was it? Answer:", (" terrible", " great"), 2.0  # nats between the two words
Rule = Callable[[str], int]


def clauses(text: str) -> tuple[str, str]:
    """The main clause of a sentence, which decides, and the other one; "" where there is none.

    >>> clauses("Although the tea was cold, the cake was great.")
    ('the cake was great', 'the tea was cold')
    """
    text = text.lower().rstrip(".")
    if text.startswith(("although ", "though ")):
        other, _, main = text.partition(" ")[2].partition(", ")
        return main, other
    found = re.fullmatch("(.*), (but|yet|even though|even if) (.*)", text)
    if not found:
        return text, ""
    before, link, after = found.groups()
    return (after, before) if link in ("but", "yet") else (before, after)


def words_in(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


def judged(
    clause: str,
    negations: Sequence[str],
    praise: frozenset[str] | set[str] = PRAISE,
    blame: frozenset[str] | set[str] = BLAME,
) -> int:
    """1 for a clause that praises, 0 for one that blames, the other way round behind a negation; else ABSTAIN.

    >>> judged("the soup failed to be good", ["failed to be"])
    0
    """
    found = words_in(clause)
    praises, blames = bool(found & praise), bool(found & blame)
    if praises == blames:
        return ABSTAIN
    return int(praises != _negated(clause, negations))


def _negated(clause: str, negations: Sequence[str]) -> bool:
    return any(negation in clause for negation in negations)


def review_rules(negations: Sequence[str]) -> list[Rule]:
    """Six labelling functions for `reviews`, by somebody who knows these negations."""

    def praise(text: str) -> int:
        main, _ = clauses(text)
        return 1 if words_in(main) & PRAISE and not _negated(main, negations) else ABSTAIN

    def blame(text: str) -> int:
        main, _ = clauses(text)
        return 0 if words_in(main) & BLAME and not _negated(main, negations) else ABSTAIN

    def negated(text: str) -> int:
        main, _ = clauses(text)
        return judged(main, negations) if _negated(main, negations) else ABSTAIN

    def but(text: str) -> int:
        return opposite(text) if re.search(", (but|yet) ", text) else ABSTAIN

    def although(text: str) -> int:
        return opposite(text) if re.search("though|even if", text.lower()) else ABSTAIN

    def very(text: str) -> int:
        found = re.search(r"(?:very|really|so|quite) (\w+)", clauses(text)[0])
        return judged(found[1], ()) if found else ABSTAIN

    def opposite(text: str) -> int:
        said = judged(clauses(text)[1], negations)
        return said if said == ABSTAIN else 1 - said

    return [praise, blame, negated, but, although, very]


def topic(text: str) -> int:
    """A wrong rule: who speaks of cake or of the garden praises, who speaks of the price or the staff blames."""
    words = words_in(text)
    praises, blames = bool(words & PLEASURES), bool(words & COMPLAINTS)
    return ABSTAIN if praises == blames else int(praises)


def anywhere(text: str) -> int:
    """A rule without grammar: words of praise and of blame, wherever they stand."""
    return judged(text, ())


@cache
def texts_of(split: str) -> tuple[str, ...]:
    """The sentences of a split of `reviews`; "pool": those without labels."""
    rows = task("unlabelled").rows("train") if split == "pool" else task("reviews").rows(split)
    return tuple(row["text"] for row in rows)


@cache
def truth(split: str = "pool") -> Tensor:
    """What the sentences mean (n,): of the pool by all words and all negations of the world."""
    if split != "pool":
        return torch.tensor([row["label"] for row in task("reviews").rows(split)])
    return torch.tensor([meaning(text) for text in texts_of("pool")])


def meaning(text: str) -> int:
    """What a sentence means, by all words of the world and all negations."""
    return judged(clauses(text)[0], NEGATIONS, *_all_words())


@cache
def _all_words() -> tuple[frozenset[str], frozenset[str]]:
    words = json.loads(data_path("tasks", "happy", "words.json").read_text(encoding="utf-8"))
    return frozenset(words["praise"]), frozenset(words["blame"])


@torch.no_grad()
def preference(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int = 100
) -> Tensor:
    """By how many nats "great" is a likelier answer than "terrible", for each text (n,). Nothing is trained for it."""
    worst, best = (tokenizer(word, add_special_tokens=False).input_ids[0] for word in WORDS)
    found = []
    for start in range(0, len(texts), size):
        asked = [text + ASKED for text in texts[start : start + size]]
        batch = tokenizer(asked, padding=True, return_tensors="pt")
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        last = logits[torch.arange(len(asked)), batch.attention_mask.sum(1) - 1]  # (b, words); the padding is behind
        found.append(last[:, best] - last[:, worst])
    return torch.cat(found)


@cache
def _preferences() -> dict[str, float]:
    model, tokenizer = backbone("tiny-gpt2", dtype=torch.float32)
    texts = texts_of("pool") + texts_of("test")
    return dict(zip(texts, preference(model, tokenizer, texts).tolist(), strict=True))


def tiny_gpt2(text: str) -> int:
    """A language model as a rule: it always votes."""
    return int(_preferences()[text] > 0)


def confident_gpt2(text: str) -> int:
    """The same, but it abstains where it is not sure."""
    return tiny_gpt2(text) if abs(_preferences()[text]) > CONFIDENT else ABSTAIN


def score(believed: Tensor, labels: Tensor) -> Tensor:
    """For each text 1 where the likeliest class is right, and a half where both are equally likely (n,)."""
    tied = (believed > believed.max(1, keepdim=True).values - 1e-6).double()  # also where float32 counted
    return (tied / tied.sum(1, keepdim=True)).gather(1, labels[:, None])[:, 0]


def decided(believed: Tensor) -> Tensor:
    """Which texts have one class that is likelier than the other (n,)."""
    return (believed[:, 0] - believed[:, 1]).abs() > 1e-9


@dataclass(frozen=True)
class Teacher:
    """Rules, who combines them (the label model or the majority), and whether the student sees the probabilities."""

    rules: tuple[Rule, ...]
    by: str = "label model"
    soft: bool = False

    def believed(self) -> tuple[Tensor, Tensor]:
        """What it says of the pool and of the test sentences (n, 2)."""
        votes, test = vote(self.rules, texts_of("pool")), vote(self.rules, texts_of("test"))
        if self.by == "majority":
            return majority(votes), majority(test)
        model = LabelModel()
        return model.fit(votes), model.probabilities(test)

    def facts(self) -> dict[str, float]:
        """Before any training: how many labels, how many of them are right, and how good the teacher itself is."""
        pool, test = self.believed()
        heard = covered(vote(self.rules, texts_of("test")))
        return {
            "labels": int(decided(pool).sum()),
            "right": score(pool, truth())[decided(pool)].mean().item(),
            "coverage": heard.double().mean().item(),
            "teacher": score(test, truth("test")).mean().item(),
        }

    def data(self) -> Task:
        """`reviews`, with what it says of the pool to train on."""
        pool, _ = self.believed()
        kept = decided(pool)
        texts = [text for text, keep in zip(texts_of("pool"), kept, strict=True) if keep]
        return task("reviews").with_train(texts, pool[kept] if self.soft else pool[kept].argmax(1))


def teachers() -> dict[str, Teacher]:
    none, three, six = (tuple(review_rules(NEGATIONS[:known])) for known in (0, 3, 6))
    return {
        "no negation": Teacher(none),
        "three negations": Teacher(three),
        "six negations": Teacher(six),
        "three negations, probabilities": Teacher(three, soft=True),
        "wrong rule, majority": Teacher((*six, topic), "majority"),
        "wrong rule": Teacher((*six, topic)),
        "wrong rule, probabilities": Teacher((*six, topic), soft=True),
        "wrong rule twice, majority": Teacher((*six, topic, topic), "majority"),
        "wrong rule twice": Teacher((*six, topic, topic)),
        "wrong rule twice, probabilities": Teacher((*six, topic, topic), soft=True),
        "anywhere, majority": Teacher((*six, anywhere), "majority"),
        "anywhere": Teacher((*six, anywhere)),
        "tiny-gpt2": Teacher((tiny_gpt2,)),
        "tiny-gpt2, confident": Teacher((confident_gpt2,)),
        "three negations and tiny-gpt2": Teacher((*three, confident_gpt2)),
    }


def train(
    data: Task,
    number: int,
    steps: int = STEPS,
    how: tuple[Method, dict[str, float]] = LORA,
    on_step: Callable | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """tiny-bert, trained on a task's labels or probabilities."""
    model, tokenizer = backbone("tiny-bert", seed=number, dtype=dtype, **data.head)
    seed(number)
    method, rates = how
    replace(method).attach(model)  # a method is attached once
    soft = soft_cross_entropy if isinstance(data.rows("train", 1)[0]["label"], list) else None
    batches = data.batches(tokenizer, "train", size=32, seed=number, steps=steps)
    watch = (lambda step, _: on_step(model, tokenizer, step)) if on_step else None
    fit(model, batches, steps, objective=soft, on_step=watch, **rates)
    return model, tokenizer


def right_answers(data: Task, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: str) -> Tensor:
    """For each row of a split 1 where the model says its label (n,)."""
    rows = data.rows(split)
    said = data.answers(model, tokenizer, rows)
    return torch.tensor([data.labels[row["label"]] == each for row, each in zip(rows, said, strict=True)]).double()


def student(name: str, number: int) -> list[dict]:
    """A student of one teacher, measured where some rule votes and where none does."""
    teacher = teachers()[name]
    right = right_answers(task("reviews"), *train(teacher.data(), number), "test")
    heard = covered(vote(teacher.rules, texts_of("test")))
    parts = {"test": right, "on covered": right[heard], "on others": right[~heard]}
    shares = {part: each.mean().item() for part, each in parts.items() if len(each)}
    return [{"run": name, "seed": number, "step": STEPS} | teacher.facts() | shares]


def gold(labels: int, number: int) -> list[dict]:
    """The same student with true labels: the first of those that `reviews` has."""
    data, rows = task("reviews"), task("reviews").rows("train", labels)
    told = data.with_train([row["text"] for row in rows], [row["label"] for row in rows])
    test = right_answers(data, *train(told, number), "test").mean().item()
    return [{"run": f"{labels} true labels", "seed": number, "step": STEPS, "labels": labels, "right": 1, "test": test}]


def noisy(kind: str, number: int) -> Task:
    """As many wrong labels on the same sentences: where the rules with three negations are wrong, or at random."""
    data, kept = teachers()["three negations"].data(), decided(teachers()["three negations"].believed()[0])
    right, said = truth()[kept], torch.tensor([row["label"] for row in data.rows("train")])
    if kind == "by rule":
        return data
    flipped = torch.randperm(len(right), generator=torch.Generator().manual_seed(number))[: int((said != right).sum())]
    labels = right.clone()
    labels[flipped] = 1 - labels[flipped]
    return data.with_train([row["text"] for row in data.rows("train")], labels)


def noise(kind: str, name: str, number: int) -> list[dict]:
    """Four times as many steps, measured on the way: how much of what it was told it says, and how much is right."""
    data, lines = noisy(kind, number), []

    def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, step: int) -> None:
        if step % EVERY == 0:
            fitted, test = (right_answers(data, model, tokenizer, split).mean().item() for split in ("train", "test"))
            line = {"run": f"{name}, noise {kind}", "seed": number, "step": step, "labels": len(data.rows("train"))}
            lines.append(line | {"fit": fitted, "test": test})
            model.train()

    train(data, number, LONG, LORA if name == "LoRA" else FULL, measure)
    return lines


def taught(*names: str, column: str = "test") -> dict[str, list[float]]:
    """What is stored of these runs, in per cent, one number a seed: of students after 150 steps. Columns: "test",
    "on covered" (by a rule), "on others", "teacher", "coverage", "right" (of the labels)."""
    table = stored("weak")
    if unknown := [name for name in names if name not in set(table.run)]:
        raise ValueError(f"weak has no run {unknown[0]!r}; it has {', '.join(dict.fromkeys(table.run))}")
    table = table[table.step == STEPS].set_index("run")[column]
    return {name: (100 * table.loc[[name]]).round(2).tolist() for name in names}


def under_noise(column: str) -> dict[str, dict[str, dict[int, list[float]]]]:
    """Of the runs on wrong labels, by noise and method and step: "fit" to what they were told, or "test"; per cent."""
    table = stored("weak").set_index("run")
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for kind in ("at random", "by rule"):
        found[f"wrong {kind}"] = {
            name: {
                int(step): (100 * each[column]).round(2).tolist()
                for step, each in table.loc[f"{name}, noise {kind}"].groupby("step")
            }
            for name in ("LoRA", "full")
        }
    return found


def runs() -> dict[str, Callable[[int], list[dict]]]:
    """What the study trains, by name: each gives its lines for a seed."""
    return (
        {name: partial(student, name) for name in teachers()}
        | {f"{labels} true labels": partial(gold, labels) for labels in GOLD}
        | {
            f"{name}, noise {kind}": partial(noise, kind, name)
            for name in ("LoRA", "full")
            for kind in ("at random", "by rule")
        }
    )


def main() -> None:
    torch.set_num_threads(1)
    path = data_path("results") / "weak.csv"
    lines = kept(path)
    order, done = list(runs()), {(line["run"], line["seed"]) for line in lines}
    asked = [(name, number) for number in SEEDS for name in order if (name, number) not in done]
    for name, number in tqdm(asked, unit="run"):
        lines += runs()[name](number)
        lines.sort(key=lambda line: (order.index(line["run"]), line["seed"], line["step"]))
        keep(path, pd.DataFrame(lines).round(4), "peft_edu.lab.study.weak")


if __name__ == "__main__":
    main()
