"""Exercise 04: what a prompt costs, tasks mixed in one batch, its start, a figure, a hunt, and the shortest one."""

from collections.abc import Callable
from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from peft_edu.classroom.figure import Bars, floor
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.problems import frozen_reader, least_read
from peft_edu.classroom.smallest import expect_measured, expect_smallest
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab.exercises.check import Misconception, NotWritten, same

# What it costs ----------------------------------------------------------------------------------------------------


def _service(draw: Random) -> dict:
    return {
        "customers": draw.randint(150, 400),
        "millions": draw.randint(40, 120),
        "blocks": draw.randint(7, 23),
        "width": 64 * draw.randint(8, 16),
        "length": draw.randint(31, 97),
        "positions": draw.choice((512, 1024, 2048)),
        "answer": draw.randint(11, 29),
    }


def _parameters(answer: object, n: SimpleNamespace) -> None:
    right = n.length * n.width
    wrong = {
        "a prompt stands at the input alone: the number of blocks does not matter": right * n.blocks,
        "this is a prefix, keys and values in every block: a prompt is embeddings at the input": 2 * right * n.blocks,
        "this is all customers together: one prompt is asked for here": right * n.customers,
        "this counts the virtual tokens: each is a row of numbers": n.length,
        "multiply: a virtual token is a row as wide as the model": n.length + n.width,
    }
    expect(item(answer, "parameters"), right, wrong, "how many rows has a prompt, and how many numbers has a row?")


def _times(answer: object, n: SimpleNamespace) -> None:
    frozen, prompts = n.millions * 1e6, n.customers * n.length * n.width
    right = n.customers * frozen / (frozen + prompts)
    wrong = {
        "the prompts are left out: they are stored as well": n.customers,
        "the frozen model is left out: it is stored once beside the prompts": n.customers * frozen / prompts,
        "this is upside down: how many times more do the full copies take?": 1 / right,
        "this is with one prompt for all: each customer has one": n.customers * frozen / (frozen + n.length * n.width),
        "a copy for each customer needs no frozen model beside the copies": (n.customers + 1)
        * frozen
        / (frozen + prompts),
    }
    otherwise = "numbers of all full copies / (numbers of one frozen model + numbers of all prompts)"
    expect(item(answer, "times"), right, wrong, otherwise, 0.003)


def _left(answer: object, n: SimpleNamespace) -> None:
    right = n.positions - n.length - n.answer
    wrong = {
        "the answer takes positions, too": n.positions - n.length,
        "the virtual tokens take positions, too": n.positions - n.answer,
        "this is the whole context: prompt and answer take a part of it": n.positions,
        "this is what prompt and answer take: what is left for the text?": n.length + n.answer,
        "one prompt stands in front of a text, not those of all blocks": n.positions - n.length * n.blocks - n.answer,
    }
    expect(item(answer, "left"), right, wrong, "prompt, text and answer share the positions")


SIZES = Task(
    "prompt.sizes",
    "What does it cost?",
    _service,
    {_parameters: 2, _times: 2, _left: 1},
    (
        "Which of your numbers do not matter for one prompt?",
        "Write down everything that lies on the disk, in the one case and in the other.",
        "A virtual token takes a position as a word does.",
    ),
    stars=1,
    minutes=8,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# Several tasks in one batch ---------------------------------------------------------------------------------------

Batch = tuple[Tensor, Tensor, Tensor, list[Tensor]]


def _mix(draw: Random) -> dict:
    return {
        "side": draw.choice(("left", "right")),
        "first": draw.choice((1, 2)),
        "lengths": draw.sample((1, 2, 3, 4, 5), 3),
        "tasks": [*draw.sample((0, 1, 2), 3), draw.randrange(3)],
    }


def _batches(n: SimpleNamespace) -> list[Batch]:
    """The student's own, and one without padding where the first prompts are not used."""
    generator = torch.Generator().manual_seed(1)
    prompts, many, few = (
        [torch.randn(*shape, 4, generator=generator, dtype=torch.float64) for shape in shapes]
        for shapes in ([(length,) for length in n.lengths], [(4, 5)], [(2, 3)])
    )
    mask = (torch.arange(5) < torch.tensor([[5], [2], [3], [1]])).long()
    mask = mask.flip(1) if n.side == "left" else mask
    own = many[0], mask, torch.tensor(n.tasks), prompts
    return [own, (few[0], torch.ones(2, 3, dtype=torch.long), torch.tensor([2, 2]), prompts)]


def _right(batch: Batch, n: SimpleNamespace, row: Callable, side: str = "") -> Tensor:
    """What row(i, its prompt, its text) makes of each row, padded to the longest: (b, m, ...)."""
    embeddings, mask, tasks, prompts = batch
    rows = [row(i, prompts[k], embeddings[i][mask[i].bool()]) for i, k in enumerate(tasks)]
    most = max(map(len, rows))
    gaps = [each.new_zeros(most - len(each), *each.shape[1:]) for each in rows]
    left = (side or n.side) == "left"
    return torch.stack([torch.cat([gap, r] if left else [r, gap]) for gap, r in zip(gaps, rows, strict=True)])


def _in_front(i: int, prompt: Tensor, text: Tensor) -> Tensor:
    return torch.cat([prompt, text])


def _seen(batch: Batch, n: SimpleNamespace) -> Tensor:
    return _right(batch, n, lambda *row: _in_front(*row)[:, 0] * 0 + 1).long()


def _made(f: object, batch: Batch, n: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor]:
    """What the student's function gives for a batch: three tensors as wide as its longest row."""
    if not callable(f):
        raise Misconception("a function is asked for: give it by its name alone, without brackets behind it")
    embeddings, mask, tasks, prompts = batch
    given = [embeddings, mask, tasks, *prompts]
    before = [each.detach().clone() for each in given]
    result = f(embeddings, mask, tasks, prompts)
    if result is None:
        raise NotWritten("mixed gives nothing back yet")
    if any(not torch.equal(each, old) for each, old in zip(given, before, strict=True)):
        raise Misconception("something that came in was changed in place: make new tensors")
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        raise Misconception("three things are asked for, in this order: return whole, seen, positions")
    if any(not isinstance(each, Tensor) for each in result):
        kinds = ", ".join(type(each).__name__ for each in result)
        raise Misconception(f"three tensors are asked for, got {kinds}")
    b, m, own = *_seen(batch, n).shape, embeddings.shape[1] + max(map(len, prompts))
    if any(tuple(each.shape[:2]) != (b, m) for each in result):
        shapes = ", ".join(str(tuple(each.shape)) for each in result)
        wide = result[0].ndim > 1 and m < result[0].shape[1] <= own
        more = ". The longest row decides, and not the longest text with the longest prompt" if wide else ""
        raise Misconception(f"the shapes are {shapes}: all begin with ({b}, {m}), rows and longest row{more}")
    return tuple(result)


def _rows(f: object, n: SimpleNamespace) -> None:
    for batch, more in zip(_batches(n), ("", "in a batch without padding: "), strict=True):
        whole, tasks, seen = _made(f, batch, n)[0], batch[2], _seen(batch, n)[..., None]
        other = "right" if n.side == "left" else "left"
        wrong = {
            "the prompts stand behind the texts": _right(batch, n, lambda i, p, x: torch.cat([x, p])),
            "row i gets prompt i: `tasks` says whose prompt a row gets": _right(
                batch, n, lambda i, p, x, k=batch[3]: torch.cat([k[i % 3], x])
            ),
            "all rows get the first row's prompt: `tasks` says whose prompt each row gets": _right(
                batch, n, lambda i, p, x, k=batch[3], t=tasks: torch.cat([k[t[0]], x])
            ),
            f"the padding stands on the {other}: yours is n.side": _right(batch, n, _in_front, other),
        }
        wrong = {why: each * seen for why, each in wrong.items() if each.shape == whole.shape}
        if not torch.isfinite(whole).all():
            raise Misconception("something in `whole` is no number: padding may be zero")
        otherwise = f"{more}`whole` does not have each row's own prompt directly in front of its own text"
        same(whole * seen, _right(batch, n, _in_front) * seen, wrong, otherwise)


def _mask(f: object, n: SimpleNamespace) -> None:
    for batch in _batches(n):
        seen, right = _made(f, batch, n)[1], _seen(batch, n)
        wrong = {
            "padding is to be attended to: it is 0 in the mask": torch.ones_like(right),
            "the mask is upside down: 1 is for what is read": 1 - right,
            "the virtual tokens are masked: nobody could attend to them": _right(
                batch, n, lambda i, p, x: torch.cat([0 * p[:, 0], 0 * x[:, 0] + 1])
            ),
            "the padding of the mask stands on the other side": right.flip(1),
        }
        same(seen, right.double(), {why: each.double() for why, each in wrong.items()}, "the mask is another one")


def _positions(f: object, n: SimpleNamespace) -> None:
    for batch in _batches(n):
        positions, seen = _made(f, batch, n)[2], _seen(batch, n)
        if positions.is_floating_point() or positions.dtype == torch.bool:
            raise Misconception(f"positions are whole numbers, these are {positions.dtype}")
        m = seen.shape[1]
        right, read = n.first + seen.cumsum(1) - 1, seen.bool()
        wrong = {
            "they count from 0: the first one is n.first": right - n.first,
            "they begin one too late: the first one is n.first": right + 1,
            "padding is counted: count the ones of the mask": (n.first + torch.arange(m)).expand_as(right),
            "padding is counted, and from 0: count the ones, from n.first": torch.arange(m).expand_as(right),
            "prompt and text both begin at the first position: the text goes on behind the prompt": _right(
                batch, n, lambda i, p, x: n.first + torch.cat([torch.arange(len(p)), torch.arange(len(x))])
            ),
        }
        for why, each in wrong.items():
            if torch.equal(positions[read], each[read]) and not torch.equal(each[read], right[read]):
                raise Misconception(why)
        if not torch.equal(positions[read], right[read]):
            row = int(((positions != right) & read).any(1).nonzero()[0])
            raise Misconception(f"in row {row}, with the mask {seen[row].tolist()}, they are {positions[row].tolist()}")
        if positions.min() < 0 or positions.max() >= n.first + m:
            raise Misconception("right where there is text, but padding has a position that may be in no table")


def _trains(f: object, n: SimpleNamespace) -> None:
    embeddings, mask, tasks, prompts = _batches(n)[0]
    prompts = [prompt.clone().requires_grad_() for prompt in prompts]
    whole, *_ = _made(f, (embeddings, mask, tasks, prompts), n)
    if not whole.requires_grad:
        raise Misconception("no gradient reaches the prompts: is there a detach, a .data, a torch.tensor or a no_grad?")
    whole.sum().backward()
    for k, prompt in enumerate(prompts):
        if prompt.grad is None or not prompt.grad.all():
            raise Misconception(f"no gradient reaches prompt {k}, or not all of it: is it cut, or left out?")


MIXED = Task(
    "prompt.mixed",
    "Several tasks in one batch",
    _mix,
    {_rows: 3, _mask: 1, _positions: 2, _trains: 1},
    (
        "Go row by row: `embeddings[i][mask[i].bool()]` is the text of row i, without its padding.",
        "Put a row together first. Then pad all rows to the longest of them; `x.new_zeros(...)` makes padding.",
        "The mask of a row without padding is all ones. Its positions follow from the padded mask by cumsum.",
    ),
    stars=3,
    minutes=25,
    errors={
        "stack expects each tensor to be equal size": "pad the rows to one length before torch.stack",
        "Sizes of tensors must match": "torch.cat along the first axis: a prompt is (p, d), a text (t, d)",
        "Index tensor must have the same number": "make the mask bool before you index by it: mask[i].bool()",
    },
)

# Where a prompt starts --------------------------------------------------------------------------------------------

JOINS = {"mean": lambda rows: rows.mean(0), "first token": lambda rows: rows[0], "last token": lambda rows: rows[-1]}
PLACES = ("in front", "at the end")
LABELS = [[25, 20, 28], [22, 27], [23, 29, 21, 24]]


def _rule(draw: Random) -> dict:
    return {"join": draw.choice(list(JOINS)), "place": draw.choice(PLACES), "common": draw.randint(9, 18)}


def _vocabulary() -> Tensor:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return nn.Parameter(rows)


def _started(f: object, n: SimpleNamespace, labels: int, drawn: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The prompt, its rows for the labels, and its other rows."""
    if not callable(f):
        raise Misconception("a function is asked for: give it by its name alone, without brackets behind it")
    words, length = _vocabulary(), labels + drawn
    before = words.detach().clone()
    start = f(words, [list(ids) for ids in LABELS[:labels]], length, torch.Generator().manual_seed(seed))
    if start is None:
        raise NotWritten("start gives nothing back yet")
    if not isinstance(start, Tensor):
        raise Misconception(f"expected an nn.Parameter, got {type(start).__name__}")
    if not torch.equal(words, before):
        raise Misconception("the vocabulary is changed in place: make a new tensor")
    if tuple(start.shape) != (length, 4):
        told = f"{labels} label words, length {length} and width 4"
        raise Misconception(f"for {told} the prompt is {tuple(start.shape)}: each label word has one row")
    rows = start.detach().double()
    front = n.place == "in front"
    return start, rows[:labels] if front else rows[drawn:], rows[labels:] if front else rows[:drawn]


def _of_labels(f: object, n: SimpleNamespace) -> None:
    words = _vocabulary().detach()
    for labels, drawn in ((3, 6), (2, 2), (3, 0)):
        _, own, others = _started(f, n, labels, drawn)
        joined = {name: torch.stack([join(words[ids]) for ids in LABELS[:labels]]) for name, join in JOINS.items()}
        wrong = {f"this is the {name} of each label word: yours is n.join": rows for name, rows in joined.items()}
        wrong |= {"the rows of a word's tokens are summed up: yours is n.join": torch.stack(
            [words[ids].sum(0) for ids in LABELS[:labels]])}  # fmt: skip
        wrong.pop(f"this is the {n.join} of each label word: yours is n.join")
        wrong |= {"the label words stand in another order than they came": joined[n.join].flip(0)}
        whole = [own, others] if n.place == "in front" else [others, own]
        ends = torch.cat(whole)[:labels], torch.cat(whole)[drawn:]
        if not torch.allclose(own, joined[n.join]) and any(torch.allclose(end, joined[n.join]) for end in ends):
            raise Misconception("the label words stand at the other end: yours is n.place")
        same(own, joined[n.join], wrong, "the label words' rows are not there")


def _drawn(f: object, n: SimpleNamespace) -> None:
    words = _vocabulary().detach()
    for seed in range(3):
        _, _, rows = _started(f, n, 2, n.common, seed)
        alike = torch.isclose(rows[:, None], words, rtol=0, atol=1e-6).all(-1)
        if not alike.any(1).all():
            raise Misconception("the other rows are not those of tokens, as they stand in words: is the place n.place?")
        ids = alike.long().argmax(1)
        if ids.max() >= n.common:
            raise Misconception("a token is drawn that is not among the first n.common rows of words")
        if len(set(ids.tolist())) < n.common:
            raise Misconception("a token is drawn twice: draw without putting back")
    first, again, other = (_started(f, n, 2, n.common - 1, seed)[2] for seed in (0, 0, 1))
    if torch.equal(first, other):
        raise Misconception("the same tokens in the same order for every generator: they are to be drawn")
    if not torch.equal(first, again):
        raise Misconception("the same generator gives another start: draw by the generator that comes in")


def _of_its_own(f: object, n: SimpleNamespace) -> None:
    start, *_ = _started(f, n, 3, 2)
    if not isinstance(start, nn.Parameter) or not start.requires_grad:
        raise Misconception("it would not be trained: an nn.Parameter that requires a gradient is asked for")
    if not start.is_leaf:
        raise Misconception("it hangs on the vocabulary by a gradient: make the nn.Parameter last")
    if start.dtype != torch.float64:
        raise Misconception(f"words is float64, and the prompt is {start.dtype}")


START = Task(
    "prompt.start",
    "Where it starts",
    _rule,
    {_of_labels: 2, _drawn: 2, _of_its_own: 1},
    (
        "`words[ids]` are the rows of a label word's tokens, (tokens, d): n.join makes one row of them.",
        "`torch.randperm(n, generator=generator)` gives the numbers below n in a drawn order, each once.",
        "Put the rows together by torch.stack and torch.cat, and make one nn.Parameter of the whole at the end.",
    ),
    stars=2,
    minutes=15,
    errors={
        "only integer tensors of a single element": "words is a tensor: index it by a list of ids, words[ids]",
        "randint": "randint puts back what it drew: take randperm",
    },
)

# A figure ---------------------------------------------------------------------------------------------------------

FIGURE = floor(
    "prompt.figure",
    Bars(
        "ladder",
        {
            "w48-seed1 p=1": "1 token, common words",
            "w48-seed1 p=5": "5 tokens, common words",
            "w48-seed1 p=5, random": "5 tokens, random numbers",
            "w48-seed1 p=5, labels": "5 tokens, the answers",
            "w48-seed1 p=5, question": "5 tokens, a question",
            "w48-seed1 p=20": "20 tokens, common words",
            "w48-seed1 full": "no prompt, all is trained",
        },
        "Prompts on a model of 0.24 million parameters",
        "right answers, %",
        lowest=50,
    ),
)

# A hunt -----------------------------------------------------------------------------------------------------------

CODE = """\
class TaskPrompts(nn.Module):
    def __init__(self, words, tasks, length):
        super().__init__()
        ids = [torch.randperm(len(words))[:length] for _ in range(tasks)]
        self.P = nn.Parameter(words.detach()[torch.stack(ids)])

    def forward(self, embeddings, mask, labels, task):
        rows, p = self.P[task], self.P.shape[1]
        seen = torch.cat([mask.new_ones(len(mask), p), mask], 1)
        ignored = labels.new_full((len(labels), p), -100)
        return {
            "inputs_embeds": torch.cat([rows, embeddings], 1),
            "attention_mask": seen,
            "position_ids": (seen.cumsum(1) - 1).clamp(min=0),
            "labels": torch.cat([ignored, labels], 1),
        }

    def of_the_text(self, states):
        return states[:, self.P.shape[1] :]"""
IDS = "ids = [torch.randperm(len(words))[:length] for _ in range(tasks)]"
P = "self.P = nn.Parameter(words.detach()[torch.stack(ids)])"
ROWS, SEEN = "rows, p = self.P[task], self.P.shape[1]", "seen = torch.cat([mask.new_ones(len(mask), p), mask], 1)"
IGNORED = "ignored = labels.new_full((len(labels), p), -100)"
EMBEDS = '"inputs_embeds": torch.cat([rows, embeddings], 1),'
COUNTED = '"position_ids": (seen.cumsum(1) - 1).clamp(min=0),'
TARGETS, TEXT = '"labels": torch.cat([ignored, labels], 1),', "return states[:, self.P.shape[1] :]"
TOKENS = "Which tokens does each prompt start as? Compare P with words, row by row, for a long prompt and two tasks"
LEARNS = "Train one step on a batch of two tasks. Which numbers of P change?"
READ = "Put other numbers into P and feed a batch of two tasks: what stands in front of each text?"
PADDED = "Feed a batch that is padded on the left. Which places does the mask let through, and what is each position?"
WANTED = "For each place, write down the label beside the embedding: which tokens is the model to write?"
OUT = "Give of_the_text what stands at each place, 0, 1, 2, ...: which places are left?"
FAULTS = (
    Fault(IDS, "ids = [torch.randint(len(words), (length,)) for _ in range(tasks)]", TOKENS),
    Fault(IDS, "ids = [torch.randperm(length) for _ in range(tasks)]", TOKENS),
    Fault(IDS, "ids = [torch.randperm(len(words))[:length]] * tasks", TOKENS),
    Fault(P, "self.P = words.detach()[torch.stack(ids)]", LEARNS),
    Fault(P, "self.P = nn.Parameter(words.detach()[torch.stack(ids)] * words.shape[1] ** 0.5)", TOKENS),
    Fault(ROWS, "rows, p = self.P[task[:1]].expand(len(task), -1, -1), self.P.shape[1]", READ),
    Fault(ROWS, "rows, p = self.P[task].detach(), self.P.shape[1]", LEARNS),
    Fault(SEEN, "seen = torch.cat([mask.new_zeros(len(mask), p), mask], 1)", PADDED),
    Fault(SEEN, "seen = torch.cat([mask, mask.new_ones(len(mask), p)], 1)", PADDED),
    Fault(SEEN, "seen = mask.new_ones(len(mask), p + mask.shape[1])", PADDED),
    Fault(IGNORED, "ignored = labels.new_zeros(len(labels), p)", WANTED),
    Fault(EMBEDS, '"inputs_embeds": torch.cat([embeddings, rows], 1),', READ),
    Fault(COUNTED, '"position_ids": torch.arange(seen.shape[1]).expand_as(seen),', PADDED),
    Fault(COUNTED, '"position_ids": seen.cumsum(1),', PADDED),
    Fault(TARGETS, '"labels": torch.cat([labels, ignored], 1),', WANTED),
    Fault(TEXT, "return states[:, : -self.P.shape[1]]", OUT),
    Fault(TEXT, "return states[:, len(self.P) :]", OUT),
)


def _works(found: dict) -> None:
    words, p = torch.randn(40, 6, dtype=torch.float64), 30
    prompts = found["TaskPrompts"](words, 3, p)
    if [tuple(each.shape) for each in prompts.parameters()] != [(3, p, 6)]:
        raise Misconception("P is not what is trained, one parameter (tasks, length, d)")
    alike = (prompts.P[:, :, None] == words).all(-1)
    if not alike.any(-1).all():
        raise Misconception("the prompts do not start as tokens")
    tokens = [tuple(each) for each in alike.long().argmax(-1).tolist()]
    if any(len(set(each)) < p for each in tokens):
        raise Misconception("a prompt starts with a token twice")
    if len(set(tokens)) < 3 or all(max(each) < p for each in tokens):
        raise Misconception("the start of each task's prompt is not drawn from all tokens")
    x, labels, task = torch.randn(4, 5, 6, dtype=torch.float64), torch.randint(9, (4, 5)), torch.tensor([2, 0, 0, 2])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]])
    named = prompts(x, mask, labels, task)
    if not torch.equal(named["inputs_embeds"], torch.cat([prompts.P[task], x], 1)):
        raise Misconception("inputs_embeds is not each row's own prompt in front of its text")
    whole = torch.cat([torch.ones(4, p, dtype=torch.long), mask], 1)
    if not torch.equal(named["attention_mask"], whole):
        raise Misconception("attention_mask does not let through prompt and text, and nothing else")
    if not torch.equal(named["position_ids"][whole.bool()], (whole.cumsum(1) - 1)[whole.bool()]):
        raise Misconception("position_ids do not count what the mask lets through, from 0")
    if named["position_ids"].min() < 0:
        raise Misconception("a position lies below 0")
    if not torch.equal(named["labels"], torch.cat([torch.full((4, p), -100), labels], 1)):
        raise Misconception("the labels are not those of the text, and none for the prompt")
    if not torch.equal(prompts.of_the_text(named["inputs_embeds"]), x):
        raise Misconception("of_the_text does not give the places of the text")
    if not named["inputs_embeds"].requires_grad:
        raise Misconception("no gradient reaches P")
    named["inputs_embeds"].sum().backward()
    if prompts.P.grad is None or not prompts.P.grad[[0, 2]].all() or prompts.P.grad[1].any():
        raise Misconception("the gradient does not reach the prompts of the tasks in the batch, and them alone")


LISTING = Listing(CODE, FAULTS, _works, {"torch": torch, "nn": nn})
HUNT = LISTING.task(
    "prompt.hunt",
    (
        "What can be measured: what is trained, what it starts as, and each of the four things that forward gives.",
        "Take a small batch of two tasks, padded on the left, and write down by hand what is to come out.",
        "Then a long prompt: are all its rows tokens, and no token twice? And what does of_the_text leave?",
    ),
)


# The shortest prompt ----------------------------------------------------------------------------------------------


def _reader(draw: Random) -> dict:
    return {"data_seed": draw.randrange(10**6), "shortest": draw.randint(3, 6)}


def _shortest(answer: object, n: SimpleNamespace) -> None:
    expect_smallest(answer, "length", n.shortest)


def _measured(answer: object, n: SimpleNamespace) -> None:
    *_, y, goal = frozen_reader(n)
    expect_measured(answer, "length", least_read(y)[:8].tolist(), goal, slack=3)


def _cost(answer: object, n: SimpleNamespace) -> None:
    length = plain_number(item(answer, "length"), "length")
    wrong = {
        "keys and values are made by the frozen layer: the prompt alone is trained": 2 * length * 24,
        "a virtual token is as wide as P, not as its key": length * 12,
        "the frozen maps are counted as well": length * 24 + 2 * 12 * 24,
        "this is the number of virtual tokens: each is a row of P": length,
    }
    expect(item(answer, "parameters"), length * 24, wrong, "count the numbers of P, (length, 24)")


SHORTEST = Task(
    "prompt.shortest",
    "The shortest prompt",
    _reader,
    {_shortest: 2, _measured: 2, _cost: 1},
    (
        "Adam, learning rate 0.1, 500 steps, a start of torch.randn(p, 24) / 2: about a second. P alone is trained.",
        "A length that is not far above the goal? Give it more steps, or another start, and keep the smallest loss.",
        "Answers are weighted means of the p values: of two they lie on a line, of three on a plane.",
    ),
    stars=2,
    minutes=20,
    errors={"expected m1 and m2 to have the same dtype": "all is float64: torch.randn(..., dtype=torch.float64)"},
    shown=(),
    hidden=("shortest",),
)

put_on_the_list(SIZES, MIXED, START, FIGURE, HUNT, SHORTEST)
