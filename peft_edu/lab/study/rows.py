"""How each row of a comparison is trained: method, steps and rate, in one place for the lessons and the study.

Steps and rates were chosen on the validation split, for each row on its own, by `make study`; a test compares them with
what the study stored.
"""

from peft_edu import (
    Adapter,
    BitFit,
    FullFineTuning,
    HeadOnly,
    PrefixTuning,
    PromptTuning,
    PTuning,
    TopBlocks,
)
from peft_edu.lab.study import comparison
from peft_edu.lab.study.recipe import AROUND, NOTE, Recipe, Setting, lora

SETTINGS = {
    "reviews": Setting("reviews", "tiny-bert", 32),
    "tables": Setting("tables", "tiny-gpt2", 16),
    "ladder": Setting("restaurants", "tiny-gpt2", 16, as_text=True),
    "facts": Setting("facts", "tiny-bert", 44),
}


def prefix(length: int, steps: int, lr: float, words: str = NOTE, limit: int | None = None) -> Recipe:
    """A prefix without the MLP."""
    return Recipe(PrefixTuning(length, hidden=0), steps, lr, words=words, limit=limit)


RECIPES: dict[str, dict[str, Recipe]] = {
    "reviews": {
        "from scratch": Recipe(FullFineTuning(), 150, 3e-3, pretrained=False),
        "head only": Recipe(HeadOnly(), 600, 1e-1),
        "BitFit": Recipe(BitFit(), 600, 3e-2),
        "top 1": Recipe(TopBlocks(1), 75, 2e-3),
        "top 2": Recipe(TopBlocks(2), 75, 1e-3),
        "top 3": Recipe(TopBlocks(3), 75, 1e-3),
        "top 4": Recipe(TopBlocks(4), 75, 3e-3),
        "full": Recipe(FullFineTuning(), 75, 3e-3),
        "LoRA r=1": Recipe(lora(1), 150, 1e-2),
        "LoRA r=2": Recipe(lora(2), 150, 2e-2),
        "LoRA r=4": Recipe(lora(4), 75, 2e-2),
        "LoRA r=8": Recipe(lora(8), 150, 5e-3),
        "LoRA r=16": Recipe(lora(16), 150, 1e-2),
        "LoRA r=64": Recipe(lora(64), 150, 3e-3),
        # One budget, spent on other maps than query and value at r=8.
        "LoRA query r=16": Recipe(lora(16, "query"), 150, 1e-2),
        "LoRA key r=16": Recipe(lora(16, "key"), 150, 1e-2),
        "LoRA value r=16": Recipe(lora(16, "value"), 150, 3e-3),
        "LoRA output r=16": Recipe(lora(16, "output"), 150, 5e-3),
        "LoRA all four r=4": Recipe(lora(4, "query", "key", "value", "output"), 150, 1e-2),
        "adapter m=1": Recipe(Adapter(1), 150, 1e-2),
        **{f"adapter m={m}": Recipe(Adapter(m), 150, 3e-3) for m in (2, 4, 8, 16, 32, 64)},
        "adapter m=16, Pfeiffer": Recipe(Adapter(16, placement="pfeiffer"), 150, 3e-3),
        "adapter m=16, norms frozen": Recipe(Adapter(16, norms=False), 150, 1e-2),
        "norms only": Recipe(Adapter(16, blocks=()), 150, 1e-2),
    },
    "tables": {
        "from scratch": Recipe(FullFineTuning(), 300, 2e-3, pretrained=False),
        "full": Recipe(FullFineTuning(), 150, 1e-3),
        **{f"LoRA r={r}": Recipe(lora(r), 150, 4e-2) for r in (1, 2, 4)},
        **{f"LoRA r={r}": Recipe(lora(r), 150, 2e-2) for r in (8, 16)},
        **{f"prefix p={p}": prefix(p, 150, lr) for p, lr in {1: 0.1, 2: 0.1, 5: 0.6, 10: 0.3, 20: 0.3}.items()},
        **{f"prefix p={p}, 2x": prefix(p, 300, 0.3) for p in (1, 2, 5, 10)},
        "prefix p=20, 2x": prefix(20, 300, 0.1),
        "prefix p=20, random": prefix(20, 300, 0.3, words=""),
        "prefix p=20, MLP": Recipe(PrefixTuning(20, hidden=128), 300, 1e-2),
        "prefix p=20, n=25": prefix(20, 150, 0.1, limit=25),
        "prefix p=20, n=100": prefix(20, 150, 0.3, limit=100),
        "prefix p=20, random, n=25": prefix(20, 150, 0.3, words="", limit=25),
        "prefix p=20, random, n=100": prefix(20, 150, 0.1, words="", limit=100),
        "full, n=25": Recipe(FullFineTuning(), 75, 1e-3, limit=25),
        "full, n=100": Recipe(FullFineTuning(), 75, 5e-4, limit=100),
        "prompt p=20": Recipe(PromptTuning(20), 150, 0.3),
        "prompt p=20, 2x": Recipe(PromptTuning(20), 300, 0.1),
        "prompt p=20, 2x, no start token": Recipe(PromptTuning(20), 300, 0.1, start_token=False),
    },
}

# Rate and steps of full fine-tuning and of prompts of 1, 5 and 20 virtual tokens on each rung of the ladder.
LADDER = {
    "w24-seed0": ((0.003, 400), (0.1, 100), (0.1, 400), (0.1, 100)),
    "w24-seed1": ((0.001, 400), (0.1, 400), (0.1, 400), (0.3, 400)),
    "w32-seed0": ((0.001, 400), (0.1, 400), (0.3, 100), (0.1, 100)),
    "w32-seed1": ((0.003, 400), (0.3, 400), (0.3, 100), (0.3, 400)),
    "w40-seed0": ((0.001, 100), (0.3, 400), (0.1, 400), (0.1, 400)),
    "w40-seed1": ((0.003, 400), (0.3, 400), (0.3, 400), (0.1, 400)),
    "w48-seed0": ((0.001, 400), (0.1, 100), (0.3, 400), (0.3, 400)),
    "w48-seed1": ((0.001, 100), (0.1, 400), (0.1, 400), (0.3, 400)),
    "w64-seed0": ((0.001, 100), (0.3, 400), (0.1, 400), (0.1, 100)),
    "w64-seed1": ((0.001, 100), (0.3, 400), (0.3, 400), (0.1, 100)),
    "w80-seed0": ((0.001, 100), (0.1, 400), (0.1, 400), (0.3, 100)),
    "w80-seed1": ((0.001, 100), (0.1, 400), (0.3, 400), (0.3, 100)),
    "w128-seed0": ((0.001, 100), (0.3, 400), (0.1, 400), (0.1, 100)),
    "w128-seed1": ((0.001, 100), (0.1, 400), (0.3, 400), (0.3, 100)),
}
LADDER_METHODS = {"full": FullFineTuning(), **{f"p={p}": PromptTuning(p) for p in (1, 5, 20)}}
RECIPES["ladder"] = {
    f"{rung} {name}": Recipe(method, steps, lr, start_token=False, backbone=f"ladder/{rung}")
    for rung, settings in LADDER.items()
    for (name, method), (lr, steps) in zip(LADDER_METHODS.items(), settings, strict=True)
}
# On a small and on the largest rung: a long prompt, and other starts than common words.
STARTS = {
    "p=100": (PromptTuning(100), ()),
    "p=5, random": (PromptTuning(5, init="random"), ()),
    "p=5, labels": (PromptTuning(5), ("Sad", "Happy")),
    "p=5, question": (PromptTuning(5), "How was it?"),
}
# Rate and steps of each.
START_SETTINGS = {
    "w48-seed1": ((0.1, 400), (0.1, 400), (0.3, 400), (0.3, 400)),
    "w128-seed0": ((0.1, 100), (0.1, 400), (0.1, 100), (0.1, 100)),
}
RECIPES["ladder"] |= {
    f"{rung} {name}": Recipe(method, steps, lr, words=words, start_token=False, backbone=f"ladder/{rung}")
    for rung, settings in START_SETTINGS.items()
    for (name, (method, words)), (lr, steps) in zip(STARTS.items(), settings, strict=True)
}

# All nine pseudo tokens of P-tuning in front.
IN_FRONT = "[P] [P] [P] [P] [P] [P] [P] [P] [P] {subject} [MASK]"
FACT_METHODS = {
    "lstm": PTuning(AROUND, "lstm"),
    "mlp": PTuning(AROUND, "mlp"),
    "none": PTuning(AROUND, "none"),
    "in front": PTuning(IN_FRONT, "lstm"),
    "joint": PTuning(AROUND, "lstm", joint=True),
}
FACTS = {  # rate and steps, with all 44 people and with five of them
    "birthplace": {
        "lstm": ((0.003, 40), (0.003, 40)),
        "mlp": ((0.001, 40), (0.001, 20)),
        "none": ((0.1, 40), (0.1, 40)),
        "in front": ((0.003, 40), (0.003, 40)),
        "joint": ((0.0003, 40), (0.0003, 40)),
    },
    "employer": {
        "lstm": ((0.003, 40), (0.001, 40)),
        "mlp": ((0.001, 40), (0.001, 40)),
        "none": ((0.01, 40), (0.1, 20)),
        "in front": ((0.003, 40), (0.003, 40)),
        "joint": ((0.0003, 40), (0.001, 20)),
    },
    "language": {
        "lstm": ((0.003, 20), (0.003, 20)),
        "mlp": ((0.001, 40), (0.003, 20)),
        "none": ((0.01, 40), (0.1, 40)),
        "in front": ((0.003, 40), (0.003, 20)),
        "joint": ((0.0003, 20), (0.0003, 20)),
    },
}
RECIPES["facts"] = {
    f"{relation} {name}{few}": Recipe(FACT_METHODS[name], steps, lr, relation=relation, limit=limit)
    for relation, settings in FACTS.items()
    for name, both in settings.items()
    for (few, limit), (lr, steps) in zip((("", None), (", n=5", 5)), both, strict=True)
}
RECIPES |= comparison.RECIPES
