"""Every row of every study: what is attached to which model, and what it learns from.

Steps and rate are no part of a row: `sweep` tries those of its grid, and `recipe` takes what did best on validation.
What rows share stands once, so that a row differs from its neighbour in one thing.
"""

import json
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
from peft_edu.lab.study.recipe import NOTE, Problem, Row, lora
from peft_edu.method import Method

REVIEWS = Problem("reviews", "tiny-bert", 32, answers=("bad", "good"))
TOPICS = Problem("topics", "tiny-bert", 32, answers=("sailors", "fans", "bankers", "dancers", "nurses", "parents"))
PAIRS = Problem("pairs", "tiny-bert", 32, answers=("no", "yes"))
FACTS = Problem("facts", "tiny-bert", 44)
OWNERS = Problem("owners", "tiny-bert", 32)
ASPECTS = Problem("aspects", "tiny-bert", 32)
TABLES = Problem("tables", "tiny-gpt2", 16)
SUMMARIES = Problem("summaries", "tiny-gpt2", 16)
RESTAURANTS = Problem("restaurants", "tiny-gpt2", 16, as_text=True, answers=("Sad", "Happy"))
SENTENCES = Problem("restaurants", "tiny-gpt2", 32)  # under a classification head
# Of a study whose rows are all about the same.
PROBLEMS = {"reviews": REVIEWS, "tables": TABLES, "aspects": ASPECTS, "ladder": RESTAURANTS, "facts": FACTS}
HEAD = 1e-2  # the rate of a task head beside a method that needs another
JUDGED = "The soup was good but the bed was bad, and the staff was not nice."  # a text to start prompts from


def prefix(length: int, words: str = NOTE, limit: int | None = None) -> Row:
    """A prefix without the MLP."""
    return Row(PrefixTuning(length, hidden=0), words=words, limit=limit)


ROWS: dict[str, dict[str, Row]] = {
    "reviews": {
        "from scratch": Row(FullFineTuning(), pretrained=False),
        "head only": Row(HeadOnly()),
        "BitFit": Row(BitFit()),
        **{f"top {n}": Row(TopBlocks(n)) for n in (1, 2, 3, 4)},
        "full": Row(FullFineTuning()),
        **{f"LoRA r={r}": Row(lora(r)) for r in (1, 2, 4, 8, 16, 64)},
        # One budget, spent on other maps than query and value at r=8.
        **{f"LoRA {target} r=16": Row(lora(16, target)) for target in ("query", "key", "value", "output")},
        "LoRA all four r=4": Row(lora(4, "query", "key", "value", "output")),
        **{f"adapter m={m}": Row(Adapter(m)) for m in (1, 2, 4, 8, 16, 32, 64)},
        "adapter m=16, Pfeiffer": Row(Adapter(16, placement="pfeiffer")),
        "adapter m=16, norms frozen": Row(Adapter(16, norms=False)),
        "norms only": Row(Adapter(16, blocks=())),
    },
    "tables": {
        "from scratch": Row(FullFineTuning(), pretrained=False),
        "full": Row(FullFineTuning()),
        **{f"LoRA r={r}": Row(lora(r)) for r in (1, 2, 4, 8, 16)},
        **{f"prefix p={p}": prefix(p) for p in (1, 2, 5, 10, 20)},
        **{f"prefix p={p}, 2x": prefix(p) for p in (1, 2, 5, 10, 20)},  # the grid gives it twice the steps
        "prefix p=20, random": prefix(20, words=""),
        "prefix p=20, MLP": Row(PrefixTuning(20, hidden=128)),
        **{f"prefix p=20, n={n}": prefix(20, limit=n) for n in (25, 100)},
        **{f"prefix p=20, random, n={n}": prefix(20, words="", limit=n) for n in (25, 100)},
        **{f"full, n={n}": Row(FullFineTuning(), limit=n) for n in (25, 100)},
        "prompt p=20": Row(PromptTuning(20)),
        "prompt p=20, 2x": Row(PromptTuning(20)),
        "prompt p=20, 2x, no start token": Row(PromptTuning(20), start_token=False),
    },
    "aspects": {
        "head only": Row(HeadOnly()),
        "full": Row(FullFineTuning(), head_lr=HEAD),
        **{f"deep p={p}": Row(PTuningV2(p), head_lr=HEAD, words=JUDGED) for p in (2, 8)},
        **{f"shallow p={p}": Row(PromptTuning(p), head_lr=HEAD, words=JUDGED) for p in (16, 64)},
        **{f"shallow p={p}, common words": Row(PromptTuning(p), head_lr=HEAD) for p in (16, 64)},
        **{f"LoRA r={r}": Row(lora(r), head_lr=HEAD) for r in (1, 4, 16)},
        **{f"adapter m={m}": Row(Adapter(m), head_lr=HEAD) for m in (1, 16)},
    },
}

# Prompt tuning on models of seven widths; on a small and on the largest one also a long prompt, and other starts.
LADDER = tuple(f"w{width}-seed{seed}" for width in (24, 32, 40, 48, 64, 80, 128) for seed in (0, 1))
PROMPTED = {"full": Row(FullFineTuning()), **{f"p={p}": Row(PromptTuning(p)) for p in (1, 5, 20)}}
STARTED = {
    "p=100": Row(PromptTuning(100)),
    "p=5, random": Row(PromptTuning(5, init="random")),
    "p=5, labels": Row(PromptTuning(5), words=("Sad", "Happy")),
    "p=5, question": Row(PromptTuning(5), words="How was it?"),
}
ROWS["ladder"] = {
    f"{rung} {name}": replace(row, start_token=False, backbone=f"ladder/{rung}")
    for rungs, rows in ((LADDER, PROMPTED), (("w48-seed1", "w128-seed0"), STARTED))
    for rung in rungs
    for name, row in rows.items()
}

# P-tuning with its nine pseudo tokens where the paper puts them, and all in front.
AROUND = "[P] [P] [P] {subject} [P] [P] [P] [MASK] [P] [P] [P]"
IN_FRONT = "[P] [P] [P] [P] [P] [P] [P] [P] [P] {subject} [MASK]"
ASKED = {kind: PTuning(AROUND, kind) for kind in ("lstm", "mlp", "none")}
ASKED |= {"in front": PTuning(IN_FRONT, "lstm"), "joint": PTuning(AROUND, "lstm", joint=True)}
ROWS["facts"] = {
    f"{relation} {name}{few}": Row(method, relation=relation, limit=limit)
    for relation in ("birthplace", "employer", "language")
    for name, method in ASKED.items()
    for few, limit in (("", None), (", n=5", 5))
}


HEADED = (REVIEWS, TOPICS, PAIRS, OWNERS, ASPECTS)  # a head answers; in the other comparisons the model says it


def compared(problem: Problem, methods: dict[str, Method], relation: str = "") -> dict[str, Row]:
    """A row for each method. Beside a method the head has its own rate; a prefix begins as a text of the corpus."""
    rows = {}
    for name, method in methods.items():
        rate = HEAD if problem in HEADED and not isinstance(method, HeadOnly | PTuning) else None
        words = NOTE if type(method) is PrefixTuning else ()
        rows[f"{problem.task} {name}"] = Row(method, head_lr=rate, words=words, relation=relation, problem=problem)
    return rows


def prompts(deep: tuple[int, ...], shallow: tuple[int, ...] = ()) -> dict[str, Method]:
    return {f"deep p={p}": PTuningV2(p) for p in deep} | {f"shallow p={p}": PromptTuning(p) for p in shallow}


# Prompts in every layer beside prompts at the input.
ENDS = {"head only": HeadOnly(), "full": FullFineTuning()}
MLP = {"MLP": PTuningV2(8, hidden=128)}
TOP = {f"top {n}": PTuningV2(4, layers=(1, 2, 3)[-n:]) for n in (1, 2, 3)}
BOTTOM = {f"bottom {n}": PTuningV2(4, layers=(0, 1, 2)[:n]) for n in (1, 2, 3)}
RUNGS = ("w24-seed0", "w40-seed0", "w64-seed0", "w128-seed0")
ON_RUNGS = {"full": FullFineTuning(), "deep": PTuningV2(8), "shallow": PromptTuning(20)}
ROWS["deep"] = {
    **compared(REVIEWS, ENDS | prompts((1, 2, 4, 8, 20), (8, 16, 32, 64)) | TOP | BOTTOM | MLP),
    **compared(TOPICS, ENDS | prompts((1, 4, 8, 20)) | MLP),
    **compared(OWNERS, ENDS),
    "owners from scratch": Row(FullFineTuning(), pretrained=False, head_lr=HEAD, problem=OWNERS),
    **compared(OWNERS, prompts((1, 4, 8, 20), (32,))),
    **{
        f"{rung} {name}": Row(method, backbone=f"ladder/{rung}", head_lr=HEAD, problem=SENTENCES)
        for name, method in ON_RUNGS.items()
        for rung in RUNGS
    },
}

# Every method on every task.
METHODS: dict[str, Method] = {
    "full": FullFineTuning(),
    "top 2": TopBlocks(2),
    "BitFit": BitFit(),
    "adapter": Adapter(16),
    "LoRA": lora(8),
    "prefix": PTuningV2(8),
    "prompt": PromptTuning(20),
}
TEMPLATES = {  # of P-tuning, where one word answers
    REVIEWS: "[P] [P] [P] {text} [P] [P] [P] [MASK] [P] [P] [P]",
    TOPICS: "[P] [P] [P] {text} [P] [P] [P] [MASK] [P] [P] [P]",
    PAIRS: "[P] [P] [P] {text} [P] [MASK] [P] {second} [P] [P] [P]",
    FACTS: AROUND,
    RESTAURANTS: "[P] [P] [P] {text} [P] [P] [P] [MASK]",  # a decoder's gap stands last
}
ROWS["methods"] = {}
for problem in (REVIEWS, TOPICS, PAIRS, FACTS, OWNERS, ASPECTS, TABLES, SUMMARIES, RESTAURANTS):
    asked = {"P-tuning": PTuning(TEMPLATES[problem])} if problem in TEMPLATES else {}
    methods = METHODS | ({"prefix": PrefixTuning(8, hidden=0)} if problem.backbone == "tiny-gpt2" else {}) | asked
    ROWS["methods"] |= compared(problem, methods, relation="birthplace" if problem is FACTS else "")

# How wide a range of rates works, and what few examples are worth: on reviews.
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
ROWS["rates"] = {f"{name} at {rate:g}": ROWS["methods"][f"reviews {name}"] for name in METHODS for rate in RATES}
ROWS["few"] = {
    f"{name} n={n}": replace(ROWS["methods"][f"reviews {name}"], limit=n) for name in METHODS for n in (25, 50, 100)
}

# The same methods on models that people use, with the steps that two cores allow.
INSTRUCTION = "Read about a visit. Answer with a JSON record of name, venue, town, day and verdict (liked or disliked)."


def asked_of_visit(row: dict) -> str:
    return f"{INSTRUCTION}\n\n{row['source']}"


def record_of_visit(row: dict) -> str:
    return json.dumps(row["slots"])


VISITS = Problem("summaries", "smollm2-135m-instruct", 2, chat=(asked_of_visit, record_of_visit), measured=16)
REAL_REVIEWS = Problem("reviews", "minilm-l6", 16)
ROWS["minilm"] = {row: replace(each, head_lr=HEAD / 3) for row, each in compared(REAL_REVIEWS, METHODS).items()}
ALL_MAPS = ("query", "key", "value", "output", "gate", "up", "down")
BEGUN = {"prefix": PrefixTuning(20, hidden=0), "prompt": PromptTuning(20)}  # from the words of the instruction
ROWS["smollm2"] = {
    f"visits {name}": Row(method, words=INSTRUCTION if name in BEGUN else (), problem=VISITS)
    for name, method in (METHODS | BEGUN | {"LoRA r=1": lora(1), "LoRA all": lora(8, *ALL_MAPS)}).items()
    if name != "BitFit"  # a Llama has no biases
}

# LoRA beside weights of 4 bits: QLoRA. The same beside the weights as they are is in `reviews` and `aspects`.
ROWS["four_bits"] = {
    "reviews QLoRA r=4": Row(lora(4), packed="nf4", problem=REVIEWS),
    "aspects QLoRA r=4": Row(lora(4), packed="nf4", head_lr=HEAD, problem=ASPECTS),
}
