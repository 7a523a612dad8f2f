"""The rows of lesson 06: deep prompts beside shallow ones, with what both stand between.

What rows share stands once, so that a row differs from its neighbour in one thing.
"""

from dataclasses import replace

from peft_edu import FullFineTuning, HeadOnly, PromptTuning, PTuningV2
from peft_edu.lab.settings import Recipe, Setting

HEAD = 1e-2  # the rate of a task head beside a method that needs another
JUDGED = "The soup was good but the bed was bad, and the staff was not nice."  # a text to start prompts from

REVIEWS = Setting("reviews", "tiny-bert", 32)
TOPICS = Setting("topics", "tiny-bert", 32)
OWNERS = Setting("owners", "tiny-bert", 32)
ASPECTS = Setting("aspects", "tiny-bert", 32)
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
