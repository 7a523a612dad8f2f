"""The rows of lessons 06 and 08: deep prompts beside shallow ones, and all methods on every task.

What rows share stands once, so that a row differs from its neighbour in one thing.
"""

from dataclasses import replace

from peft_edu import (
    Adapter,
    BitFit,
    FullFineTuning,
    HeadOnly,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
    TopBlocks,
)
from peft_edu.lab.study.recipe import AROUND, NOTE, Recipe, Setting, lora
from peft_edu.method import Method

HEAD = 1e-2  # the rate of a task head beside a method that needs another
JUDGED = "The soup was good but the bed was bad, and the staff was not nice."  # a text to start prompts from

REVIEWS = Setting("reviews", "tiny-bert", 32, answers=("bad", "good"))
TOPICS = Setting("topics", "tiny-bert", 32, answers=("sailors", "fans", "bankers", "dancers", "nurses", "parents"))
PAIRS = Setting("pairs", "tiny-bert", 32, answers=("no", "yes"))
OWNERS = Setting("owners", "tiny-bert", 32)
ASPECTS = Setting("aspects", "tiny-bert", 32)
FACTS = Setting("facts", "tiny-bert", 44)
TABLES = Setting("tables", "tiny-gpt2", 16)
SUMMARIES = Setting("summaries", "tiny-gpt2", 16)
RESTAURANTS = Setting("restaurants", "tiny-gpt2", 16, as_text=True)
SENTENCES = Setting("restaurants", "tiny-gpt2", 32)  # on the ladder, under a classification head


def deep(setting: Setting, p: int, steps: int, lr: float, **more) -> Recipe:
    fields = {key: more.pop(key) for key in ("layers", "hidden") if key in more}
    return Recipe(PTuningV2(p, **fields), steps, lr, head_lr=HEAD, setting=setting, **more)


def shallow(setting: Setting, p: int, steps: int, lr: float, **more) -> Recipe:
    return Recipe(PromptTuning(p), steps, lr, head_lr=HEAD, setting=setting, **more)


def full(setting: Setting, steps: int, lr: float, **more) -> Recipe:
    return Recipe(FullFineTuning(), steps, lr, head_lr=HEAD, setting=setting, **more)


def head(setting: Setting, steps: int, lr: float, **more) -> Recipe:
    return Recipe(HeadOnly(), steps, lr, setting=setting, **more)


TOP = {"top 1": (3,), "top 2": (2, 3), "top 3": (1, 2, 3), "bottom 1": (0,), "bottom 2": (0, 1), "bottom 3": (0, 1, 2)}
RUNGS = ("w24-seed0", "w40-seed0", "w64-seed0", "w128-seed0")
RECIPES: dict[str, dict[str, Recipe]] = {
    "aspects": {
        "head only": head(ASPECTS, 300, 3e-2),
        "full": full(ASPECTS, 600, 1e-3),
        **{f"deep p={p}": deep(ASPECTS, p, 1200, 0.1, words=JUDGED) for p in (2, 8)},
        **{f"shallow p={p}": shallow(ASPECTS, p, 1200, 0.1, words=JUDGED) for p in (16, 64)},
        "shallow p=16, normal": shallow(ASPECTS, 16, 1200, 0.03),
        "shallow p=64, normal": shallow(ASPECTS, 64, 1200, 0.1),
    },
    "deep": {
        "reviews head only": head(REVIEWS, 150, 3e-2),
        "reviews full": full(REVIEWS, 150, 1e-3),
        **{f"reviews deep p={p}": deep(REVIEWS, p, 150, 0.1) for p in (1, 2, 4, 8, 20)},
        **{f"reviews shallow p={p}": shallow(REVIEWS, p, 150, 0.03) for p in (8, 16, 32, 64)},
        **{f"reviews {name}": deep(REVIEWS, 4, 150, 0.1, layers=layers) for name, layers in TOP.items()},
        "reviews MLP": deep(REVIEWS, 8, 150, 1e-2, hidden=128),
        "topics head only": head(TOPICS, 150, 3e-2),
        "topics full": full(TOPICS, 150, 1e-3),
        **{f"topics deep p={p}": deep(TOPICS, p, 150, 0.1) for p in (1, 4, 8, 20)},
        "topics MLP": deep(TOPICS, 8, 150, 1e-2, hidden=128),
        "owners head only": head(OWNERS, 300, 3e-2),
        "owners full": full(OWNERS, 300, 1e-3),
        "owners from scratch": full(OWNERS, 300, 1e-3, pretrained=False),
        **{f"owners deep p={p}": deep(OWNERS, p, 300, 0.1) for p in (1, 4, 8, 20)},
        "owners shallow p=32": shallow(OWNERS, 32, 300, 0.03),
        **{f"{rung} full": full(SENTENCES, 150, 1e-3, backbone=f"ladder/{rung}") for rung in RUNGS},
        **{f"{rung} deep": deep(SENTENCES, 8, 150, 0.1, backbone=f"ladder/{rung}") for rung in RUNGS},
        **{f"{rung} shallow": shallow(SENTENCES, 20, 150, 0.1, backbone=f"ladder/{rung}") for rung in RUNGS},
    },
}

# The rates that validation chose, where it was the other one of the two.
CHOSEN = {
    5e-4: ("reviews full", "topics full", "owners full", "w40-seed0 full", "w64-seed0 full"),
    3e-3: ("reviews MLP", "topics MLP"),
    3e-2: (
        *(f"reviews deep p={p}" for p in (1, 4, 8)),
        *(f"topics deep p={p}" for p in (1, 20)),
        "reviews top 1",
        *(f"w{width}-seed0 deep" for width in (24, 64, 128)),
        *(f"w{width}-seed0 shallow" for width in (24, 64)),
    ),
    0.1: ("reviews shallow p=32", "owners shallow p=32"),
}
RECIPES["deep"] |= {row: replace(RECIPES["deep"][row], lr=lr) for lr, rows in CHOSEN.items() for row in rows}

# Every method on every task: all rows of a task have the same number of steps.
METHODS: dict[str, Method] = {
    "full": FullFineTuning(),
    "top 2": TopBlocks(2),
    "BitFit": BitFit(),
    "adapter": Adapter(16),
    "LoRA": lora(8),
    "prefix": PTuningV2(8),
    "prompt": PromptTuning(20),
}
SEQUENCE = "[P] [P] [P] {text} [P] [P] [P] [MASK] [P] [P] [P]"
CONTINUED = "[P] [P] [P] {text} [P] [P] [P] [MASK]"  # for a decoder, whose gap stands last
PAIR = "[P] [P] [P] {text} [P] [MASK] [P] {second} [P] [P] [P]"
BUDGETS: dict[str, tuple[Setting, int, tuple[float, ...], str]] = {  # steps, rates of the methods, P-tuning's template
    "reviews": (REVIEWS, 150, (5e-4, 5e-4, 1e-2, 1e-3, 3e-3, 3e-2, 0.1, 1e-3), SEQUENCE),
    "topics": (TOPICS, 150, (3e-4, 5e-4, 1e-2, 3e-3, 1e-2, 1e-2, 3e-2, 3e-3), SEQUENCE),
    "pairs": (PAIRS, 1500, (3e-4, 1e-3, 3e-3, 1e-3, 3e-3, 3e-2, 3e-2, 3e-4), PAIR),
    "facts": (FACTS, 40, (3e-4, 5e-4, 3e-3, 1e-3, 3e-3, 0.1, 3e-2, 3e-3), AROUND),
    "owners": (OWNERS, 300, (5e-4, 3e-3, 3e-2, 3e-3, 3e-3, 0.1, 0.1), ""),
    "aspects": (ASPECTS, 600, (1e-3, 1e-3, 1e-2, 1e-3, 3e-3, 0.1, 0.1), ""),
    "tables": (TABLES, 150, (1e-3, 1e-3, 3e-2, 1e-2, 1e-2, 0.3, 0.3), ""),
    "summaries": (SUMMARIES, 150, (1e-3, 3e-3, 1e-2, 1e-3, 1e-2, 0.1, 0.3), ""),
    "restaurants": (RESTAURANTS, 150, (3e-4, 5e-4, 3e-3, 1e-3, 1e-3, 0.1, 0.3, 1e-3), CONTINUED),
}
HEADED = ("reviews", "topics", "pairs", "owners", "aspects")  # a head answers; elsewhere the model says it


def compared(task: str) -> dict[str, Recipe]:
    """A row for each method. Where the model speaks, prompts in every layer begin as a text of the corpus."""
    shared, steps, rates, template = BUDGETS[task]
    common = {"steps": steps, "setting": shared, "relation": "birthplace" if task == "facts" else ""}
    headed = {"head_lr": HEAD} if task in HEADED else {}
    rows = {
        f"{task} {name}": Recipe(method, lr=lr, **headed, **common)
        for (name, method), lr in zip(METHODS.items(), rates, strict=False)
    }
    if shared.backbone == "tiny-gpt2":
        rows[f"{task} prefix"] = replace(rows[f"{task} prefix"], method=PrefixTuning(8, hidden=0), words=NOTE)
    if template:
        shared = replace(shared, as_text=False, answers=shared.answers or ("Sad", "Happy") * shared.as_text)
        rows[f"{task} P-tuning"] = Recipe(PTuning(template), lr=rates[-1], **common | {"setting": shared})
    return rows


RECIPES["methods"] = {row: made for task in BUDGETS for row, made in compared(task).items()}

# How wide a range of rates works, and what few examples are worth: on reviews, three seeds.
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
RECIPES["rates"] = {
    f"{name} at {rate:g}": replace(RECIPES["methods"][f"reviews {name}"], lr=rate) for name in METHODS for rate in RATES
}
FEW = (25, 50, 100)
FEW_RATES = {  # with so many reviews
    "full": (3e-4, 1e-3, 5e-4),
    "top 2": (5e-4, 1e-3, 3e-3),
    "BitFit": (1e-2, 3e-2, 3e-2),
    "adapter": (1e-3, 3e-3, 1e-2),
    "LoRA": (1e-2, 3e-3, 1e-2),
    "prefix": (3e-2, 1e-2, 1e-2),
    "prompt": (3e-2, 1e-2, 1e-2),
}
RECIPES["few"] = {
    f"{name} n={n}": replace(RECIPES["methods"][f"reviews {name}"], limit=n, lr=rate)
    for name, rates in FEW_RATES.items()
    for n, rate in zip(FEW, rates, strict=True)
}
