"""Exercise 08: what customers cost, a rule that chooses with reasons, a figure, an unfair comparison, one customer."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import isclose
from random import Random
from statistics import fmean, median
from types import SimpleNamespace

from peft_edu.classroom.figure import Bars, apart
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.stack import DETAILS, OUT, WIDTH, changed_block
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab.exercises.check import Misconception, NotWritten

# What many customers cost ----------------------------------------------------------------------------------------


def _service(draw: Random) -> dict:
    return {
        "base": 10**6 * draw.randint(110, 900),
        "blocks": draw.randint(12, 36),
        "width": 64 * draw.randint(12, 31),
        "rank": draw.choice((3, 5, 6, 7, 9, 10, 12)),
        "customers": draw.randint(60, 900),
        "room": draw.choice((4, 6, 8, 12)),
    }


def _each(answer: object, n: SimpleNamespace) -> None:
    right = n.blocks * 4 * n.rank * n.width
    wrong = {
        "only A is counted, or only B, or only one of the two maps": right / 2,
        "a block has two maps, and beside each of them stand A and B": right / 4,
        "the blocks are left out: each has its own A and B": right / n.blocks,
        "this is the size of the frozen maps": n.blocks * 2 * n.width**2,
    }
    expect(item(answer, "each"), right, wrong, "A (r, width) and B (width, r), beside two maps of each block")


def _own(answer: object) -> float:
    """The student's own count, right or not: what follows from it is judged by itself."""
    return plain_number(item(answer, "each"), "each")


def _training(answer: object, n: SimpleNamespace) -> None:
    each = _own(answer)
    right = (4 * n.base + 16 * each) / 1e6
    wrong = {
        "gradients and moments of the base are counted: it is frozen": 16 * (n.base + each) / 1e6,
        "the base is left out: its weights are in memory as well": 16 * each / 1e6,
        "the weights alone are counted: A and B also have gradients and two moments": 4 * (n.base + each) / 1e6,
        "these are 2 bytes a number: in training it is float32, which takes 4": right / 2,
        "this is in bytes": right * 1e6,
        "this is in GB": right / 1e3,
    }
    expect(item(answer, "training"), right, wrong, "4 bytes a weight; A and B have three numbers more each", 1e-4)


def _copies(answer: object, n: SimpleNamespace) -> None:
    right = 2 * n.base * n.customers / 1e9
    wrong = {
        "these are 4 bytes a number: it is served in 16 bits, which are 2": 2 * right,
        "these are numbers: in 16 bits each takes 2 bytes": right / 2,
        "this is one copy: each customer has one": right / n.customers,
        "1 GB is 1,000,000,000 bytes here": right * 1e9 / 2**30,
        "this is in MB": right * 1e3,
        "this is in bytes": right * 1e9,
    }
    expect(item(answer, "copies"), right, wrong, "2 bytes a parameter, and a copy for each customer", 1e-3)


def _beside(answer: object, n: SimpleNamespace) -> None:
    each = _own(answer)
    right = 2 * (n.base + n.customers * each) / 1e9
    wrong = {
        "the base is counted for each customer: they share one": 2 * n.customers * (n.base + each) / 1e9,
        "the base is left out: it has to be there, once": 2 * n.customers * each / 1e9,
        "this is for one customer": 2 * (n.base + each) / 1e9,
        "1 GB is 1,000,000,000 bytes here": right * 1e9 / 2**30,
        "these are 4 bytes a number: it is served in 16 bits, which are 2": 2 * right,
        "this is in MB": right * 1e3,
        "this is in bytes": right * 1e9,
    }
    expect(item(answer, "beside"), right, wrong, "one base for all, and A and B of each customer, 2 bytes each", 1e-3)


def _most(answer: object, n: SimpleNamespace) -> None:
    each = max(_own(answer), 1)
    exact = (n.room * 1e9 / 2 - n.base) / each
    wrong = {
        "that is one too many: part of a customer cannot be served": int(exact) + 1,
        "customers come in whole numbers: round down": exact,
        "the base is left out: it takes its room first": int(n.room * 1e9 / 2 / each),
        "these are 4 bytes a number: it is served in 16 bits, which are 2": int((n.room * 1e9 / 4 - n.base) / each),
        "this is with a full copy for each": int(n.room * 1e9 / 2 / n.base),
    }
    expect(item(answer, "most"), int(exact), wrong, "take the base from the room first, then divide by one customer")


BILL = Task(
    "choosing.bill",
    "What many customers cost",
    _service,
    {_each: 1, _training: 1, _copies: 1, _beside: 1, _most: 2},
    (
        "Beside one map of width x width stand A (rank, width) and B (width, rank).",
        "Training: every weight is there. Only A and B have a gradient and two moments besides.",
        "Serving: what do all customers share, and what does each have alone? 16 bits are 2 bytes.",
    ),
    stars=1,
    minutes=12,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# A rule that gives reasons ---------------------------------------------------------------------------------------

Candidates = dict[str, dict]
LARGE, SLOW, LOW, BEHIND = "too large", "too slow", "too low", "behind"
JUDGES: dict[str, Callable[[Sequence[float]], float]] = {"worst seed": min, "median": median}
OTHER = {"worst seed": "median", "median": "worst seed", "bytes": "delay", "delay": "bytes"}


def _rule(draw: Random) -> dict:
    return {
        "bytes": 1000 * draw.randint(20, 60),
        "delay": draw.randint(5, 20),
        "within": draw.choice((1.5, 2, 2.5, 3)),
        "judge": draw.choice(list(JUDGES)),
        "prefer": draw.choice(("bytes", "delay")),
    }


def _decided(candidates: Candidates, n: SimpleNamespace) -> tuple[str | None, dict[str, str]]:
    fits = {name: each for name, each in candidates.items() if each["bytes"] <= n.bytes and each["delay"] <= n.delay}
    judged = {name: JUDGES[n.judge](each["seeds"]) for name, each in candidates.items()}
    level = max((judged[name] for name in fits), default=0) - n.within
    good = [name for name in fits if judged[name] >= level]
    chosen = min(good, key=lambda name: fits[name][n.prefer], default=None)
    reasons = {}
    for name, each in candidates.items():
        why = LARGE if each["bytes"] > n.bytes else SLOW if each["delay"] > n.delay else LOW
        reasons[name] = BEHIND if name in good else why
    reasons.pop(chosen, None)
    return chosen, reasons


def _tables(n: SimpleNamespace, number: int = 60) -> list[Candidates]:
    """Some lie at a limit exactly, and some exactly at the level."""
    draw, tables = Random(5), []
    for _ in range(number):
        sizes = draw.sample([n.bytes + 1000 * step for step in range(-15, 4)], 6)
        delays = draw.sample([n.delay + step for step in range(-4, 3)], 6)
        seeds = [[80 + n.within * draw.randint(0, 6) / 2 for _ in range(3)] for _ in range(6)]
        every = zip("ABCDEF", sizes, delays, seeds, strict=True)
        tables.append({name: {"bytes": size, "delay": delay, "seeds": own} for name, size, delay, own in every})
    return tables


def _answered(f: object, candidates: Candidates) -> tuple[object, object]:
    if not callable(f) or isinstance(f, type):
        raise Misconception(f"a function is asked for, decide(candidates), and this is {f!r:.60}")
    given = f(copy := deepcopy(candidates))
    if given is None:
        raise NotWritten("decide gives nothing back")
    if copy != candidates:
        raise Misconception("the candidates were changed: somebody may still need them. Make a new dict")
    if isinstance(given, str) or not isinstance(given, tuple | list) or len(given) != 2:
        raise Misconception(f"expected two things, a name and the dict of reasons, got {given!r:.60}")
    return given[0], given[1]


def _mistaken(candidates: Candidates, n: SimpleNamespace) -> dict[str, str | None]:
    """What another rule would choose."""
    all_fit = vars(n) | {"bytes": 10**9, "delay": 10**9}
    judged = {name: JUDGES[n.judge](each["seeds"]) for name, each in candidates.items()}
    fits = [name for name, each in candidates.items() if each["bytes"] <= n.bytes and each["delay"] <= n.delay]

    def with_(**other) -> str | None:
        return _decided(candidates, SimpleNamespace(**vars(n) | other))[0]

    level = max(judged.values()) - n.within
    means = {name: each | {"seeds": [fmean(each["seeds"])]} for name, each in candidates.items()}
    return {
        f"you judge by the {OTHER[n.judge]}, and n2.judge is {n.judge}": with_(judge=OTHER[n.judge]),
        f"you judge by the mean, and n2.judge is {n.judge}": _decided(means, n)[0],
        f"you take the least {OTHER[n.prefer]}, and n2.prefer is {n.prefer}": with_(prefer=OTHER[n.prefer]),
        "you take the best score: of those that are good enough the preferred one is asked for": max(
            fits, key=judged.get, default=None
        ),
        "the level is left out: first leave out who is too far below the best": with_(within=10**9),
        "you compare with the best of all: it may not fit. Compare with the best of those that fit": min(
            (name for name in fits if judged[name] >= level), key=lambda name: candidates[name][n.prefer], default=None
        ),
        "the limits are not used": _decided(candidates, SimpleNamespace(**all_fit))[0],
        "who lies at both limits exactly, or at one, still fits": with_(bytes=n.bytes - 1, delay=n.delay - 1),
        "who has exactly n2.bytes still fits": with_(bytes=n.bytes - 1),
        "who has exactly n2.delay still fits": with_(delay=n.delay - 1),
        "the limit of bytes is not used": with_(bytes=10**9),
        "the limit of the delay is not used": with_(delay=10**9),
        "who lies exactly n2.within below the best is still good enough": with_(within=n.within - 1e-9),
    }


def _chooses(f: object, n: SimpleNamespace) -> None:
    tables = [each for each in _tables(n) if _decided(each, n)[0]]
    given = [_answered(f, each)[0] for each in tables]
    right = [_decided(each, n)[0] for each in tables]
    if given == right:
        return
    others = [_mistaken(each, n) for each in tables]
    for why in others[0]:
        if given == [each[why] for each in others]:
            raise Misconception(why)
    at = next(i for i, (one, two) in enumerate(zip(given, right, strict=True)) if one != two)
    raise Misconception(f"here it gives {given[at]!r}, which is not what the rule says: {tables[at]}")


def _nothing(f: object, n: SimpleNamespace) -> None:
    candidates = {
        "A": {"bytes": n.bytes + 1, "delay": 1, "seeds": [90.0, 91.0, 92.0]},
        "B": {"bytes": 1000, "delay": n.delay + 1, "seeds": [99.0, 98.0, 97.0]},
    }
    try:
        chosen, reasons = _answered(f, candidates)
    except (ValueError, IndexError) as error:
        raise Misconception(f"where nothing fits it stops, {type(error).__name__}: {error}. Give None") from error
    if chosen is not None:
        raise Misconception(f"where nothing fits it gives {chosen!r}: give None")
    if reasons != {"A": LARGE, "B": SLOW}:
        raise Misconception("where nothing fits each still has its reason")


def _reasons(f: object, n: SimpleNamespace) -> None:
    """By the limits and the level; who is behind is judged by the student's own choice."""
    for candidates in _tables(n):
        best, right = _decided(candidates, n)
        if best is None:
            continue
        chosen, given = _answered(f, candidates)
        right = right | dict.fromkeys(candidates.keys() - right.keys(), BEHIND)
        if not isinstance(given, dict) or not set(given.values()) <= {LARGE, SLOW, LOW, BEHIND}:
            raise Misconception(f"the reasons are a dict: a name, and one of the four reasons; got {given!r:.80}")
        if chosen in given:
            raise Misconception("the one that is chosen is in the dict: the others have a reason")
        if missing := candidates.keys() - given.keys() - {chosen}:
            raise Misconception(f"{len(missing)} of the others have no reason: each that is not chosen has one")
        for name, why in given.items():
            each = candidates[name]
            if why == right[name]:
                continue
            if why == SLOW and each["bytes"] > n.bytes:
                raise Misconception(f"who is {LARGE} and {SLOW} gets the first of the two")
            raise Misconception(f"{each} is told to be {why}: by the rule it is not")


RULE = Task(
    "choosing.rule",
    "A rule that gives reasons",
    _rule,
    {_chooses: 3, _nothing: 1, _reasons: 2},
    (
        "Go in the order of the rule: who fits; the best of these; who is near to it; the preferred one.",
        "Keep a dict of those that are left. Who drops out is written into the reasons with why.",
        "max(..., default=...) and min(..., default=None) do not stop where nothing is left.",
    ),
    stars=2,
    minutes=20,
    errors={"max() arg is an empty sequence": "nothing fits: what is to come back then?"},
)

# A figure ----------------------------------------------------------------------------------------------------------

METHODS = ("full", "top 2", "BitFit", "adapter", "LoRA", "prefix", "prompt")
FIGURE = apart(
    "choosing.figure",
    Bars("minilm", {f"reviews {name}": name for name in METHODS}, "Reviews, MiniLM: seven methods", lowest=45),
)

# A hunt ------------------------------------------------------------------------------------------------------------

CODE = """\
def compare(methods, rates, seeds, data, train):
    table = {}
    for name in methods:
        tried = {}
        for lr in rates:
            models = [train(name, data["train"], lr, seed) for seed in seeds]
            tried[lr] = fmean(model(data["validation"]) for model in models)
        best = max(tried, key=tried.get)
        models = [train(name, data["train"], best, seed) for seed in seeds]
        found = [model(data["test"]) for model in models]
        table[name] = {"lr": best, "mean": fmean(found), "worst": min(found), "seeds": found}
    first = table[methods[0]]["seeds"]
    for row in table.values():
        row["ahead"] = [one - other for one, other in zip(row["seeds"], first)]
    return table"""
TRY = 'models = [train(name, data["train"], lr, seed) for seed in seeds]'
JUDGE, BEST = 'tried[lr] = fmean(model(data["validation"]) for model in models)', "best = max(tried, key=tried.get)"
AGAIN = 'models = [train(name, data["train"], best, seed) for seed in seeds]'
TEST = 'found = [model(data["test"]) for model in models]'
ROW = 'table[name] = {"lr": best, "mean": fmean(found), "worst": min(found), "seeds": found}'
AGAINST = 'first = table[methods[0]]["seeds"]'
AHEAD = 'row["ahead"] = [one - other for one, other in zip(row["seeds"], first)]'
ROWS = "Let train print which rows it gets, and model which rows it is asked: what is test for, and when?"
EVERY = "Let train print its seed and its rate: is each rate tried with every seed, before and after the choice?"
RATE = "Work the choice out by hand: the mean validation score of each rate, for each method. Is it that of the table?"
SCORES = "Train by hand at the rate in the table, each seed, and compare with the row: seeds, mean, worst"
PAIRS = "Take one seed: its score, less that of methods[0] with the same seed. Is it the number in `ahead`?"
FAULTS = (
    Fault(TRY, 'models = [train(name, data["train"] + data["validation"], lr, seed) for seed in seeds]', ROWS),
    Fault(TRY, 'models = [train(name, data["train"], lr, seeds[0]) for seed in seeds]', EVERY),
    Fault(JUDGE, 'tried[lr] = fmean(model(data["test"]) for model in models)', ROWS),
    Fault(JUDGE, 'tried[lr] = max(model(data["validation"]) for model in models)', RATE),
    Fault(JUDGE, 'tried[lr] = fmean(model(data["train"]) for model in models)', ROWS),
    Fault(BEST, "best = min(tried, key=tried.get)", RATE),
    Fault(BEST, "best = max(tried)", RATE),
    Fault(AGAIN, 'models = [train(name, data["train"], rates[0], seed) for seed in seeds]', EVERY),
    Fault(AGAIN, 'models = [train(name, data["train"] + data["test"], best, seed) for seed in seeds]', ROWS),
    Fault(TEST, 'found = [model(data["validation"]) for model in models]', ROWS),
    Fault(TEST, 'found = [model(data["test"]) for model in models if model(data["test"]) > 60]', SCORES),
    Fault(ROW, 'table[name] = {"lr": best, "mean": max(found), "worst": min(found), "seeds": found}', SCORES),
    Fault(ROW, 'table[name] = {"lr": best, "mean": fmean(found), "worst": found[0], "seeds": found}', SCORES),
    Fault(AGAINST, 'first = table[methods[-1]]["seeds"]', PAIRS),
    Fault(AGAINST, 'first = sorted(table[methods[0]]["seeds"])', PAIRS),
    Fault(AHEAD, 'row["ahead"] = [one - other for one, other in zip(sorted(row["seeds"]), first)]', PAIRS),
    Fault(AHEAD, 'row["ahead"] = [other - one for one, other in zip(row["seeds"], first)]', PAIRS),
)


def pretended() -> tuple[list[str], list[float], list[int], dict[str, list[int]], Callable]:
    """Methods, rates, seeds, data, and a `train` that trains nothing: the scores of a model are drawn, always alike."""

    def train(name: str, rows: list[int], lr: float, seed: int) -> Callable[[list[int]], float]:
        drawn = f"2 {name} {list(rows)} {lr} {seed}"  # of the draws 0 to 59 the one in which each fault shows most
        return lambda asked: round(Random(f"{drawn} {list(asked)}").uniform(50, 99), 1)

    data = {"train": [1, 2, 3, 4], "validation": [5, 6], "test": [7, 8]}
    return ["full", "BitFit", "LoRA", "prefix"], [0.001, 0.003, 0.01], [0, 1, 2, 3], data, train


def _fair(found: dict) -> None:
    methods, rates, seeds, data, train = pretended()
    seen: list[list[int]] = []

    def watched(name: str, rows: list[int], lr: float, seed: int) -> Callable:
        seen.append(list(rows))
        return train(name, rows, lr, seed)

    table, right = found["compare"](methods, rates, seeds, data, watched), _table(*pretended())
    if not isinstance(table, dict) or table.keys() != right.keys():
        raise Misconception("the table has no row for each method")
    if any(rows != data["train"] for rows in seen):
        raise Misconception("it is trained on other rows than data['train']")
    told = {"lr": "the rate is not that with the best mean on validation", "seeds": "these are not its test scores"}
    for key in ("lr", "seeds", "mean", "worst", "ahead"):
        if any(table[name].keys() != right[name].keys() for name in methods):
            raise Misconception("a row of the table has other names than lr, mean, worst, seeds and ahead")
        if not all(_alike(table[name][key], right[name][key]) for name in methods):
            raise Misconception(told.get(key, f"`{key}` is not what it says"))


def _alike(one: float | list[float], two: float | list[float]) -> bool:
    both = (one if isinstance(one, list | tuple) else [one], two if isinstance(two, list) else [two])
    return len(both[0]) == len(both[1]) and all(map(isclose, *both))


def _table(methods: list[str], rates: list[float], seeds: list[int], data: dict, train: Callable) -> dict[str, dict]:
    table = {}
    for name in methods:

        def asked(lr: float, split: str, name: str = name) -> list[float]:
            return [train(name, data["train"], lr, seed)(data[split]) for seed in seeds]

        lr = max(rates, key=lambda lr: fmean(asked(lr, "validation")))
        own = asked(lr, "test")
        table[name] = {"lr": lr, "seeds": own, "mean": fmean(own), "worst": min(own)}
    for row in table.values():
        row["ahead"] = [a - b for a, b in zip(row["seeds"], table[methods[0]]["seeds"], strict=True)]
    return table


LISTING = Listing(CODE, FAULTS, _fair, {"fmean": fmean})
HUNT = LISTING.task(
    "choosing.hunt",
    (
        "What can be measured: which rows are trained on, which are asked, which rate is taken, each number of a row.",
        "Write a train of your own that prints what it is given, and calls the one that you have.",
        "Work out one row of the table by hand. Where does the listing's begin to differ?",
    ),
)


# A method for this customer --------------------------------------------------------------------------------------

NOISE, GOAL = 0.15, 0.6  # the least noise that makes a task; and the goal, of the noise
BLOCK, HEAD = 2 * WIDTH * (WIDTH + 1), OUT * (WIDTH + 1)
HIGH, LARGER = "too high", "larger"


def _trained(name: str, n: SimpleNamespace) -> int:
    kind, depth = name.split(", ")
    of_a_block = {"all": BLOCK, "low rank": 2 * WIDTH * n.rank, "biases": 2 * WIDTH}[kind]
    return int(depth[4:]) * of_a_block + HEAD


def _can(name: str, n: SimpleNamespace) -> bool:
    """Whether it can learn to use the detail: weights of a block that still has it are trained."""
    kind, depth = name.split(", ")
    return kind != "biases" and int(depth[4:]) > DETAILS - n.changed


def _customer(draw: Random) -> dict:
    wanted = draw.choice(("low rank", "low rank", "all"))
    while True:
        some, low = (draw.randint(2, DETAILS - 1) for _ in range(2))
        methods = [f"all, top {DETAILS}", f"all, top {some}", f"low rank, top {low}", f"biases, top {DETAILS}"]
        n = SimpleNamespace(
            data_seed=draw.randrange(10**6),
            changed=draw.randint(2, 5),
            rows=draw.choice((300, 350, 400)),
            rank=draw.choice((1, 2)),
            kept=draw.choice((2000, 3000, 4500, 6000, 8000)),
            methods=draw.sample(methods, 4),
        )
        served = [name for name in methods if _can(name, n) and 4 * _trained(name, n) <= n.kept]
        smallest = min(served, key=lambda name: _trained(name, n), default="")
        if smallest.startswith(wanted) and (noise := changed_block(n)[2]) > NOISE:
            return vars(n) | {"goal": round(GOAL * noise, 4), "noise": noise}


def _all_four(answer: object, key: str, n: SimpleNamespace) -> dict[str, float]:
    given = item(answer, key)
    if not isinstance(given, dict) or set(given) != set(n.methods):
        raise Misconception(f"`{key}` is a dict with the four names of n5.methods, and a number for each")
    return {name: plain_number(value, f"{key} of {name!r}") for name, value in given.items()}


def _counts(answer: object, n: SimpleNamespace) -> None:
    given = _all_four(answer, "bytes", n)
    right = {name: 4 * _trained(name, n) for name in n.methods}
    if given == right:
        return
    if given == {name: each / 4 for name, each in right.items()}:
        raise Misconception("these are numbers: in float32 each takes 4 bytes")
    if given == {name: each - 4 * HEAD for name, each in right.items()}:
        raise Misconception("the head is trained for each customer, too")
    name = next(name for name in n.methods if given[name] != right[name])
    raise Misconception(f"the bytes of {name!r} are not 4 for each trained parameter, the head's included")


def _measured(answer: object, n: SimpleNamespace) -> None:
    losses = _all_four(answer, "validation", n)
    for name, loss in losses.items():
        if not _can(name, n) and loss < 0.75 * n.noise:
            raise Misconception(f"so small a loss {name!r} has on no new rows: are these the validation rows?")
        if _can(name, n) and loss > n.noise:
            raise Misconception(f"{name!r} was not trained to its end, or at another rate than it needs")
        if loss < 1e-9 * n.noise:
            raise Misconception("a loss of zero is no measurement: give what the training reached")


def _choice(answer: object, n: SimpleNamespace) -> dict[str, str]:
    """What the rule makes of the student's own losses; the one without a reason is chosen."""
    losses, size = _all_four(answer, "validation", n), {name: 4 * _trained(name, n) for name in n.methods}
    why = {name: LARGE if size[name] > n.kept else HIGH for name in n.methods}
    good = [name for name in n.methods if size[name] <= n.kept and losses[name] < n.goal]
    if not good:
        raise Misconception("by your own losses none that fits reaches the goal: train them longer, or at another rate")
    smallest = min(good, key=size.get)
    return why | dict.fromkeys(good, LARGER) | {smallest: ""}


def _chosen(answer: object, n: SimpleNamespace) -> None:
    given = item(answer, "chosen")
    if given not in n.methods:
        raise Misconception(f"`chosen` is one of the names of n5.methods, got {given!r:.60}")
    told = {
        LARGE: "the customer cannot keep so many bytes",
        HIGH: "by your own losses it does not reach the goal",
        LARGER: "by your own losses a smaller one reaches the goal, too",
    }
    if why := _choice(answer, n)[given]:
        raise Misconception(told[why])


def _left_out(answer: object, n: SimpleNamespace) -> None:
    given, right = item(answer, "left_out"), {name: why for name, why in _choice(answer, n).items() if why}
    if not isinstance(given, dict) or not set(given.values()) <= {LARGE, HIGH, LARGER}:
        raise Misconception(f"`left_out` is a dict: a name, and {LARGE!r}, {HIGH!r} or {LARGER!r}; got {given!r:.80}")
    if given.keys() != right.keys():
        raise Misconception("each of the three that are not chosen has its reason, and no other")
    for name, why in given.items():
        if why == HIGH and right[name] == LARGE:
            raise Misconception(f"{name!r} does not fit at all, whatever its loss: that comes first")
        if why != right[name]:
            raise Misconception(f"{name!r} is not left out because it is {why}, by your losses and its bytes")


def _told(answer: object, n: SimpleNamespace) -> None:
    given, losses = plain_number(item(answer, "test"), "test"), _all_four(answer, "validation", n)
    own = losses.get(item(answer, "chosen"))
    if own is None:
        raise Misconception("`chosen` is none of the four: whose test loss is this?")
    if abs(given - own) < 1e-9 * own:
        raise Misconception("this is the validation loss: it has chosen already. Ask the test rows, once")
    if not own / 4 < given < 4 * own:
        raise Misconception("this is far from the validation loss of the one you chose: is it the same model?")


CUSTOMER = Task(
    "choosing.customer",
    "A method for this customer",
    _customer,
    {_counts: 1, _measured: 2, _chosen: 2, _left_out: 1, _told: 1},
    (
        "Adam, learning rate 0.02, 150 steps over all training rows: about a second for each method.",
        "Low rank: a module that keeps the linear map `up` and adds x @ A.T @ B.T; put in by block.up = Low(block.up).",
        "Bytes first, then the goal on validation, then the size. The test rows are asked when all is decided.",
    ),
    stars=3,
    minutes=30,
    errors={"expected m1 and m2 to have the same dtype": "all is float64: torch.zeros(..., dtype=torch.float64)"},
    shown=("methods", "rank", "rows", "kept", "goal"),
    hidden=("changed", "noise"),
)

put_on_the_list(BILL, RULE, FIGURE, HUNT, CUSTOMER)
