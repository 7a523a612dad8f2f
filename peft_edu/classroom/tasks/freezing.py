"""Exercise 01: a model's sizes, freezing in any family, a step over several batches, a figure, a hunt, how far down."""

from collections.abc import Callable
from copy import deepcopy
from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from peft_edu.classroom.figure import Bars, floor
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.stack import DETAILS, OUT, PAD, WIDTH, changed_block, writer
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab.exercises.check import Misconception, NotWritten
from peft_edu.lab.exercises.freezing_method import LR, Spied, modes_of, state

# Where the parameters are ----------------------------------------------------------------------------------------


def _model(draw: Random) -> dict:
    width = 64 * draw.randint(3, 15)
    return {
        "vocabulary": 100 * draw.randint(50, 400),
        "positions": draw.choice((128, 256, 512)),
        "width": width,
        "inner": draw.choice((2, 3, 4)) * width,
        "blocks": draw.randint(6, 24),
        "labels": draw.randint(3, 12),
        "top": draw.randint(2, 5),
    }


def _embeddings(answer: object, n: SimpleNamespace) -> None:
    right = (n.vocabulary + n.positions + 2) * n.width
    wrong = {
        "the LayerNorm is left out: it has a scale and a bias, each as long as the stream is wide": right - 2 * n.width,
        "the LayerNorm has a scale and a bias: one of them is left out": right - n.width,
        "the table of positions is left out": right - n.positions * n.width,
        "these are the rows of the tables: each row has so many numbers as the stream is wide": n.vocabulary
        + n.positions,
    }
    expect(item(answer, "embeddings"), right, wrong, "two tables with `width` numbers a row, and a LayerNorm")


def _block(answer: object, n: SimpleNamespace) -> None:
    d, f = n.width, n.inner
    right = 4 * d * (d + 1) + 2 * d * f + f + d + 4 * d
    wrong = {
        "the biases of the six maps are left out": right - 5 * d - f,
        "the two LayerNorms are left out": right - 4 * d,
        "a block has two LayerNorms, and each a scale and a bias: half of that is counted": right - 2 * d,
        "biases and LayerNorms are left out": 4 * d * d + 2 * d * f,
        "attention has four maps, the one behind it (output) is left out": right - d * (d + 1),
        "the way down in the feed-forward is left out: it has two maps": right - d * f - d,
    }
    expect(item(answer, "block"), right, wrong, "six maps with their biases, and two LayerNorms: count them one by one")


def _own(answer: object, *names: str) -> list[float]:
    """The student's own numbers, right or not: what follows from them is judged by itself."""
    return [plain_number(item(answer, name), name) for name in names]


def _trained(answer: object, n: SimpleNamespace) -> None:
    (block,), head = _own(answer, "block"), n.labels * (n.width + 1)
    wrong = {
        "the head is left out: it is new, and always trained": n.top * block,
        "the head has a bias for each label, too": n.top * block + n.labels * n.width,
        "all blocks are counted: only the top ones are trained": n.blocks * block + head,
        "these are the frozen blocks": (n.blocks - n.top) * block + head,
    }
    expect(item(answer, "trained"), n.top * block + head, wrong, "n1.top times your `block`, and the head")


def _share(answer: object, n: SimpleNamespace) -> None:
    embeddings, block, trained = _own(answer, "embeddings", "block", "trained")
    total = embeddings + n.blocks * block + n.labels * (n.width + 1)
    right = 100 * trained / total
    wrong = {
        "this is a fraction: the answer is asked for in per cent": right / 100,
        "trained is divided by frozen: it is divided by all parameters": 100 * trained / max(total - trained, 1),
        "the embeddings are parameters as well": 100 * trained / max(total - embeddings, 1),
        "this is the frozen share": 100 - right,
        "the trained ones are counted twice below the line: all blocks hold them already": 100
        * trained
        / (total + trained),
    }
    how = "your `trained`, divided by embeddings, all blocks and the head, times 100"
    expect(item(answer, "share"), right, wrong, how, 0.01)


def _memory(answer: object, n: SimpleNamespace) -> None:
    embeddings, block, trained = _own(answer, "embeddings", "block", "trained")
    total = embeddings + n.blocks * block + n.labels * (n.width + 1)
    right = 4 * (total + 3 * trained) / 1e6
    wrong = {
        "gradients and moments of all parameters are counted: a frozen one has neither": 16 * total / 1e6,
        "the frozen weights are left out: they are in memory as well": 16 * trained / 1e6,
        "one number is missing for each trained parameter: its gradient, or one of AdamW's two moments": 4
        * (total + 2 * trained)
        / 1e6,
        "the moments are left out: AdamW keeps two for each trained parameter": 4 * (total + trained) / 1e6,
        "the weights are left out": 12 * trained / 1e6,
        "these are numbers, not bytes: float32 takes 4": right / 4,
        "these are 8 bytes a number: float32 takes 4": 2 * right,
        "1 MB is 1,000,000 bytes here": right * 1e6 / 2**20,
        "this is in bytes": right * 1e6,
    }
    how = "4 bytes for each weight, and for each trained one three numbers more"
    expect(item(answer, "memory"), right, wrong, how, 0.01)


SIZES = Task(
    "freezing.sizes",
    "Where the parameters are",
    _model,
    {_embeddings: 1, _block: 2, _trained: 1, _share: 1, _memory: 1},
    (
        "A map from a to b with a bias has a b + b parameters. A LayerNorm has a scale and a bias for each number.",
        "All six maps of a block: query, key, value, output; then up (width to inner) and down (inner to width).",
        "In memory: every weight. For each trained one a gradient and AdamW's two moments besides.",
    ),
    stars=1,
    minutes=12,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# Freezing in any family ------------------------------------------------------------------------------------------

LESSONS, OTHERS = ("bert", "gpt2"), ("distilbert", "opt", "mistral")
BLOCKS = 4
Freeze = Callable[[PreTrainedModel, int], object]


def _tiny(kind: str) -> tuple[PreTrainedModel, list[nn.Module]]:
    """A random classifier of this family, and its blocks: they are the only nn.ModuleList in it."""
    sizes = {"hidden_size": 8, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "num_key_value_heads": 2}
    inner = {"intermediate_size": 8, "hidden_dim": 8, "ffn_dim": 8, "word_embed_proj_dim": 8}
    tokens = {"vocab_size": 9, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    config = AutoConfig.for_model(kind, num_labels=2, **tokens, **sizes, **inner)
    model = AutoModelForSequenceClassification.from_config(config)
    (blocks,) = (each for each in model.modules() if isinstance(each, nn.ModuleList) and len(each) == BLOCKS)
    return model, list(blocks)


def _frozen(f: Freeze, kind: str, n: int) -> tuple[PreTrainedModel, list[nn.Module], object]:
    model, blocks = _tiny(kind)
    before = state(model)
    try:
        given = _called(f, "freeze(model, n)", model, n)
    except (ValueError, AttributeError, TypeError) as error:
        raise Misconception(f"in a {kind} it stops: {type(error).__name__}: {error}") from error
    if given is None and all(p.requires_grad for p in model.parameters()):
        hidden = any("requires_grad" in vars(module) for module in model.modules())
        if hidden:
            raise Misconception("module.requires_grad = ... does nothing: call module.requires_grad_(False)")
        raise NotWritten("freeze leaves all as it was, and gives nothing back")
    if any(not torch.equal(p, before[name]) for name, p in model.named_parameters()):
        raise Misconception("weights were changed: freezing sets requires_grad, and nothing else")
    return model, blocks, given


def _called(f: object, form: str, *arguments) -> object:
    if not callable(f) or isinstance(f, type):
        raise Misconception(f"a function is asked for, {form}, and this is {f!r:.60}")
    return f(*arguments)


def _trained_in(part: nn.Module) -> set[nn.Parameter]:
    return {p for p in part.parameters() if p.requires_grad}


def _own_kind(block: nn.Module, also: str) -> set[nn.Parameter]:
    """The biases of a block, or the parameters of its norms."""
    if also == "biases":
        return {p for name, p in block.named_parameters() if name.endswith("bias")}
    norms = (each for each in block.modules() if type(each).__name__.endswith("Norm"))
    return {p for each in norms for p in each.parameters()}


def _top_alone(f: Freeze, kind: str) -> None:
    """The top n blocks are trained whole, those below at most in their biases or norms."""
    for n in (2, 0, BLOCKS):
        model, blocks, _ = _frozen(f, kind, n)
        whole = [_trained_in(block) == set(block.parameters()) for block in blocks]
        if whole == [i >= BLOCKS - n for i in range(BLOCKS)]:
            if below := [i for i, block in enumerate(blocks[: BLOCKS - n], 1) if _more_than_allowed(block)]:
                raise Misconception(f"in a {kind}, n = {n}, matrices of block {below[0]} (from 1, below) are trained")
            continue
        if n == 0 and all(whole):
            raise Misconception("n = 0 trains every block: in Python blocks[-0:] is the whole list")
        if n and whole == [i < n for i in range(BLOCKS)]:
            raise Misconception("these are the n blocks at the bottom: the top ones stand at the end of the list")
        if all(whole):
            raise Misconception(f"in a {kind}, n = {n}, every block is trained: freeze all of the model first")
        numbers = ", ".join(str(i) for i, on in enumerate(whole, 1) if on) or "none"
        raise Misconception(f"in a {kind} of {BLOCKS} blocks, n = {n}, trained whole are (from 1, below): {numbers}")


def _more_than_allowed(block: nn.Module) -> bool:
    """Whether a matrix is trained: biases and norms are vectors."""
    return any(p.ndim > 1 for p in _trained_in(block))


def _outside(f: Freeze, kind: str) -> None:
    """Outside of the blocks the head, and the head alone."""
    model, _, _ = _frozen(f, kind, 2)
    base = set(model.base_model.parameters())
    if asleep := [name for name, p in model.named_parameters() if p not in base and not p.requires_grad]:
        raise Misconception(f"in a {kind} {asleep[0]} is frozen: it is outside of base_model, so it is of the head")
    inside = {p for block in _blocks_of(model) for p in block.parameters()}
    if more := [name for name, p in model.named_parameters() if p in base - inside and p.requires_grad]:
        raise Misconception(f"in a {kind} {more[0]} is trained: it is in no block and not in the head")


def _blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    return [b for each in model.modules() if isinstance(each, nn.ModuleList) and len(each) == BLOCKS for b in each]


def _in_the_lessons(f: object, n: SimpleNamespace) -> None:
    for kind in LESSONS:
        _top_alone(f, kind)
    model, blocks, _ = _frozen(f, "bert", 3)
    f(model, 1)
    if any(p.ndim > 1 and p.requires_grad for block in blocks[: BLOCKS - 1] for p in block.parameters()):
        raise Misconception("called with n = 3 and then with n = 1 it leaves 3 blocks trained: freeze all at its start")


def _head(f: object, n: SimpleNamespace) -> None:
    for kind in LESSONS:
        _outside(f, kind)


def _also(f: object, n: SimpleNamespace) -> None:
    for kind in LESSONS:
        _, blocks, _ = _frozen(f, kind, 1)
        for block in blocks[:-1]:
            right, given = _own_kind(block, n.also), _trained_in(block)
            other = "norms" if n.also == "biases" else "biases"
            if given == right:
                continue
            if not given:
                raise Misconception(f"the {n.also} of the lower blocks are frozen: yours are to be trained, too")
            if given == _own_kind(block, other):
                raise Misconception(f"these are the {other} of the lower blocks: yours are the {n.also}")
            if right - given:
                raise Misconception(f"some {n.also} of a lower block are frozen, in a {kind}: a norm has a bias, too")
            raise Misconception(f"in a lower block of a {kind} more is trained than its {n.also}")


def _for_an_optimizer(f: object, n: SimpleNamespace) -> None:
    model, _, given = _frozen(f, "gpt2", 2)
    if given is None or isinstance(given, set | dict | int | float | str | Tensor | nn.Module):
        raise Misconception(f"freeze gives a list of the trained parameters, got {type(given).__name__}")
    listed = list(given)
    if not all(isinstance(p, nn.Parameter) for p in listed):
        raise Misconception("the list is to hold the parameters themselves, not their names or modules")
    if len(listed) != len(set(listed)):
        raise Misconception("a parameter stands twice in the list: an optimizer warns of that, and may refuse it")
    if frozen := [p for p in listed if not p.requires_grad]:
        raise Misconception(f"{len(frozen)} parameters in the list are frozen: make the list after all is set")
    if set(listed) != _trained_in(model):
        raise Misconception("a trained parameter is not in the list: the optimizer would leave it as it is")


def _in_any_family(f: object, n: SimpleNamespace) -> None:
    for kind in OTHERS:
        _top_alone(f, kind)
        _outside(f, kind)


FREEZE = Task(
    "freezing.anywhere",
    "Freezing in any family",
    lambda draw: {"also": draw.choice(("biases", "norms"))},
    {_in_the_lessons: 2, _head: 1, _also: 1, _for_an_optimizer: 1, _in_any_family: 2},
    (
        "`model.modules()` gives every module. Which lists, nn.ModuleList, are there in a BERT, in a GPT-2?",
        "What is trained outside of `model.base_model`? A set of its parameters tells you which ones are not in it.",
        "First freeze all, then walk over the blocks with their numbers. The list comes last, when all is set.",
    ),
    stars=3,
    minutes=25,
    errors={
        "'BertForSequenceClassification' object has no attribute": "a name of one family: look for what they share",
        "known are bert": "`blocks` of peft_edu.anatomy knows the families of the lessons alone",
    },
)

# A step over several batches -------------------------------------------------------------------------------------

Batches = list[dict[str, Tensor]]
RULES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "length": lambda gradient, limit: gradient * min(1.0, limit / gradient.norm().item()),
    "each number": lambda gradient, limit: gradient.clamp(-limit, limit),
}


def _step_of(draw: Random) -> dict:
    return {
        "rows": draw.sample(range(2, 9), 3),
        "limit": draw.choice((0.2, 0.3, 0.4, 0.6)),
        "rule": draw.choice(list(RULES)),
    }


class Scaled(nn.Module):
    """A frozen map and a trained one, and a loss that is `strength` times as strong: so are its gradients."""

    def __init__(self, strength: float):
        super().__init__()
        self.first, self.head, self.strength = nn.Linear(5, 4), nn.Linear(4, 1), strength
        self.first.requires_grad_(False)
        self.double()

    def forward(self, x: Tensor, labels: Tensor) -> SimpleNamespace:
        out = self.head(torch.tanh(self.first(x))).squeeze(-1)
        return SimpleNamespace(loss=self.strength * (out - labels).square().mean())


def _scaled(strength: float, n: SimpleNamespace) -> tuple[Scaled, Batches]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Scaled(strength)
        x = [torch.randn(rows, 5, dtype=torch.float64) for rows in n.rows]
        return model, [{"x": each, "labels": 2 * i + each[:, 0]} for i, each in enumerate(x)]


def _gradients(model: Scaled, batches: Batches) -> list[Tensor]:
    """Of the mean loss of each batch, as one row of numbers: of the head's weight, then of its bias."""
    head = list(model.head.parameters())
    return [torch.cat([g.flatten() for g in torch.autograd.grad(model(**b).loss, head)]) for b in batches]


def _moved(f: object, strength: float, n: SimpleNamespace) -> Tensor:
    """How far the head moved, as a gradient."""
    model, batches = _scaled(strength, n)
    before, optimizer = _flat(model), Spied(model.head.parameters())
    given = _called(f, "step(model, batches, optimizer)", model, batches, optimizer)
    if torch.equal(before, _flat(model)):
        if given is None:
            raise NotWritten("nothing has moved, and nothing comes back")
        raise Misconception("nothing has moved: backward() for each batch, and then optimizer.step()")
    if not torch.equal(model.first.weight, _scaled(strength, n)[0].first.weight):
        raise Misconception("a frozen parameter has moved")
    if len(optimizer.asked) > 1:
        raise Misconception(f"{len(optimizer.asked)} steps are made: one step for all batches, behind the loop")
    return (before - _flat(model)) / LR


def _flat(model: Scaled) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.head.parameters()])


def _weak_and_strong(n: SimpleNamespace) -> tuple[float, float]:
    """Strengths with which no gradient reaches the limit, and with which each number of the gradient is above it."""
    model, batches = _scaled(1, n)
    every = torch.stack(_gradients(model, batches))
    return 0.01 * n.limit / every.norm().item(), 20 * n.limit / _whole(list(every), n).abs().min().item()


def _shares(of_batches: list, n: SimpleNamespace) -> list:
    """What each batch gives to the mean over all rows."""
    return [each * rows / sum(n.rows) for each, rows in zip(of_batches, n.rows, strict=True)]


def _whole(of_batches: list, n: SimpleNamespace):
    return sum(_shares(of_batches, n))


def _near(one: Tensor, two: Tensor) -> bool:
    return bool((one - two).norm() < 1e-4 * two.norm())


def _adds_up(f: object, n: SimpleNamespace) -> None:
    weak, _ = _weak_and_strong(n)
    model, batches = _scaled(weak, n)
    every = _gradients(model, batches)
    given, right = _moved(f, weak, n), _whole(every, n)
    wrong = {
        "each batch counts the same here: in one large batch each row does": sum(every) / 3,
        "the gradients of the batches are added: the loss of all rows together is a mean": sum(every),
        "only the last batch counts: zero_grad() between the batches throws away what was added": every[-1],
        "the last batch alone, with its share: zero_grad() stands between the batches": _shares(every, n)[-1],
        "only the first batch counts": every[0],
        "the gradient is a sum over rows: divide by the number of all rows": right * sum(n.rows),
        "this goes up: step() moves against the gradient by itself": -right,
    }
    if not _near(given, right):
        told = [why for why, other in wrong.items() if _near(given, other)]
        along = torch.cosine_similarity(given, right, dim=0) > 1 - 1e-9
        otherwise = "the direction is right, its length is not" if along else "each row is to count the same"
        raise Misconception(
            told[0] if told else f"far below the limit this is not the step of one large batch: {otherwise}"
        )


def _limited(f: object, n: SimpleNamespace) -> None:
    """By the student's own gradient, so that a wrong mean is told there alone."""
    weak, strong = _weak_and_strong(n)
    own = _moved(f, weak, n) * (strong / weak)
    given, (other,) = _moved(f, strong, n), [rule for rule in RULES if rule != n.rule]
    model, batches = _scaled(strong, n)
    running = 0
    for g in _shares(_gradients(model, batches), n):
        running = RULES[n.rule](running + g, n.limit)
    wrong = {
        "nothing is limited: a large gradient makes a large step": own,
        f"this is the rule `{other}`, and n3.rule is `{n.rule}`": RULES[other](own, n.limit),
        "it is limited after each batch: limit once, when all are added": running,
    }
    if not _near(given, RULES[n.rule](own, n.limit)):
        told = [why for why, moved in wrong.items() if _near(given, moved)]
        otherwise = f"a large gradient is not limited to n3.limit by the rule `{n.rule}` before the step"
        raise Misconception(told[0] if told else otherwise)


def _again(f: object, n: SimpleNamespace) -> None:
    """A second step is that of a model which never made the first."""
    weak, _ = _weak_and_strong(n)
    _moved(f, weak, n)
    model, batches = _scaled(weak, n)
    f(model, batches, optimizer := Spied(model.head.parameters()))
    other = deepcopy(model)
    other.zero_grad()
    f(model, batches, optimizer)
    f(other, batches, Spied(other.head.parameters()))
    if not torch.allclose(_flat(model), _flat(other), rtol=1e-9):
        raise Misconception(
            "the second step still has gradients of the first: zero_grad() once a step, outside the loop"
        )


def _mean_loss(f: object, n: SimpleNamespace) -> None:
    weak, _ = _weak_and_strong(n)
    _moved(f, weak, n)
    model, batches = _scaled(weak, n)
    losses = [model(**b).loss.item() for b in batches]
    given = f(model, batches, Spied(model.head.parameters()))
    if given is None:
        raise Misconception("nothing comes back: give the mean loss over all rows")
    if isinstance(given, Tensor) and given.requires_grad:
        raise Misconception("the loss still holds all that forward computed: give a plain number, loss.item()")
    after = _whole([model(**b).loss.detach() for b in batches], n).item()
    wrong = {
        "this is the mean of the batches: each row is to count the same": sum(losses) / 3,
        "this is the sum of the batches' losses": sum(losses),
        "this is the loss of the last batch": losses[-1],
        "this is the share of the last batch": _shares(losses, n)[-1],
        "this is the loss after the step: forward had it before": after,
        "this is a sum over rows: divide by the number of all rows": _whole(losses, n) * sum(n.rows),
    }
    right = _whole(losses, n)
    if abs(plain_number(given, "the loss") - right) > 1e-6 * right:
        expect(given, right, wrong, "it is not the mean loss over all rows, before the step", 1e-5)


STEP = Task(
    "freezing.step",
    "A step over several batches",
    _step_of,
    {_adds_up: 2, _limited: 2, _again: 1, _mean_loss: 1},
    (
        "backward() adds to the gradients that are there. What has each batch's loss to be multiplied by?",
        "The limit belongs between the last backward() and step(): torch.nn.utils has a function for each rule.",
        "A small batch with the mean loss m and k rows of K adds m k / K to the mean over all rows.",
    ),
    stars=2,
    minutes=20,
    errors={"Trying to backward through the graph a second time": "each batch has a forward and a backward of its own"},
)

# A figure ----------------------------------------------------------------------------------------------------------

ROWS = ("top 1", "top 2", "top 3", "top 4", "full", "BitFit", "norms only")
FIGURE = floor(
    "freezing.figure",
    Bars("reviews", {row: row for row in ROWS}, "Reviews, tiny-bert: what is trained?", lowest=70),
)

# A hunt ------------------------------------------------------------------------------------------------------------

CODE = """\
def train(model, batches, lr):
    model.requires_grad_(False)
    for part in (*model.blocks[-2:], model.head):
        part.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    model.train()
    losses = []
    for i, ids in enumerate(batches):
        optimizer.param_groups[0]["lr"] = lr * (1 - i / len(batches))
        logits = model(ids)[:, :-1]
        targets = ids[:, 1:]
        loss = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses"""
ALL, PARTS = "model.requires_grad_(False)", "for part in (*model.blocks[-2:], model.head):"
TRAINED, TRAIN = "trained = [p for p in model.parameters() if p.requires_grad]", "model.train()"
RATE = 'optimizer.param_groups[0]["lr"] = lr * (1 - i / len(batches))'
LOGITS, TARGETS = "logits = model(ids)[:, :-1]", "targets = ids[:, 1:]"
LOSS = "loss = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=PAD)"
ZERO, KEPT, EVAL = "optimizer.zero_grad()", "losses.append(loss.item())", "model.eval()"
MOVED = "Which tensors have moved? Compare each with what it was: the top two blocks and the head should, no other"
MODE = "Print model.training in the loop and behind the call. Dropout is to be on in training, and only there"
SHIFT = "Take one row of ids. Which token stands at each place of targets, and which had the model read there?"
PADDED = "Two batches that differ in their padding alone should have the same loss"
FIRST = "A model that knows nothing gives each of 12 tokens the same chance: its loss is ln 12. Set the head to zero"
RISES = 'Print optimizer.param_groups[0]["lr"] in each step: it should fall from lr in even steps'
ADDED = "Print the length of a gradient of the head and of a block before and after zero_grad"
HELD = "What is the type of losses[0], and what does it keep in memory?"
FAULTS = (
    Fault(ALL, "model.requires_grad_(True)", MOVED),
    Fault(PARTS, "for part in model.blocks[-2:]:", MOVED),
    Fault(PARTS, "for part in (*model.blocks[2:], model.head):", MOVED),
    Fault(TRAINED, "trained = [p.data for p in model.parameters() if p.requires_grad]", MOVED),
    Fault(TRAINED, "trained = list(model.head.parameters())", MOVED),
    Fault(TRAIN, "model.eval()", MODE),
    Fault(RATE, 'optimizer.param_groups[0]["lr"] = lr * i / len(batches)', RISES),
    Fault(RATE, 'optimizer.param_groups[0]["lr"] *= 1 - i / len(batches)', RISES),
    Fault(LOGITS, "logits = model(ids)[:, 1:]", SHIFT),
    Fault(TARGETS, "targets = ids[:, :-1]", SHIFT),
    Fault(LOSS, "loss = F.cross_entropy(logits.transpose(1, 2), targets)", PADDED),
    Fault(LOSS, 'loss = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=PAD, reduction="sum")', FIRST),
    Fault(LOSS, "loss = F.cross_entropy(logits.softmax(-1).transpose(1, 2), targets, ignore_index=PAD)", FIRST),
    Fault(ZERO, "optimizer.zero_grad", ADDED),
    Fault(ZERO, "model.head.zero_grad()", ADDED),
    Fault(KEPT, "losses.append(loss)", HELD),
    Fault(EVAL, "model.train()", MODE),
)
NAMES = {"torch": torch, "F": F, "PAD": PAD}


def _trains(found: dict) -> None:
    """Without dropout its losses and weights are those of the right listing; the modes are heard."""
    model, batches = writer(dropout=0)
    before = state(model)
    with modes_of(model) as modes:
        losses = found["train"](model, batches, 0.05)
    if not isinstance(losses, list) or len(losses) != len(batches):
        raise Misconception("it does not give a loss for each batch")
    if any(isinstance(each, Tensor) and each.requires_grad for each in losses):
        raise Misconception("each loss keeps the whole graph of its step in memory")
    if not all(modes):
        raise Misconception("the model is in eval() while it trains")
    if model.training:
        raise Misconception("the model is left in train()")
    right, _ = writer(dropout=0)
    wanted = LISTING.run(CODE)["train"](right, batches, 0.05)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    if moved != {name for name, p in right.named_parameters() if not torch.equal(p, before[name])}:
        raise Misconception("what has moved is not the top two blocks and the head")
    if abs(float(losses[0]) - wanted[0]) > 1e-6:
        raise Misconception("the first loss is not the mean loss of the next token, over what is no padding")
    if not all(torch.allclose(p, right.get_parameter(name)) for name, p in model.named_parameters()):
        raise Misconception("the weights at the end are not those that AdamW gives")
    if any(abs(float(one) - two) > 1e-6 for one, two in zip(losses, wanted, strict=True)):
        raise Misconception("the losses are not those of the steps")


LISTING = Listing(CODE, FAULTS, _trains, NAMES)
HUNT = LISTING.task(
    "freezing.hunt",
    (
        "What can be measured: what moves, the learning rate, the mode, the first loss, the gradients, the targets.",
        "Put print(...) into the loop, one question at a time: a fault in one line may hide another.",
        "Write down for each line what should be seen if it works. Then look whether you see it.",
    ),
)


# How far down ------------------------------------------------------------------------------------------------------

GOAL, NOISE = 0.6, 0.12  # of the noise; and the least noise that makes a task


def _changed(draw: Random) -> dict:
    changed = draw.randint(2, 5)
    while True:
        n = SimpleNamespace(data_seed=draw.randrange(10**6), changed=changed)
        if (noise := changed_block(n)[2]) > NOISE:
            return vars(n) | {"goal": round(GOAL * noise, 4), "noise": noise}


def _fewest(answer: object, n: SimpleNamespace) -> None:
    given = plain_number(item(answer, "blocks"), "blocks")
    right = DETAILS - n.changed + 1
    wrong = {"this is the number of a block, counted from the bottom: how many are trained?": n.changed}
    low = "its loss on the test rows does not get below the goal: measure it, with steps enough"
    expect(given, right, wrong, low if given < right else "a smaller number reaches the goal, too")


def _measured(answer: object, n: SimpleNamespace) -> None:
    given = item(answer, "losses")
    if not isinstance(given, dict) or not given or not set(given) <= set(range(DETAILS + 1)):
        raise Misconception(f"`losses` is a dict, for numbers of top blocks, 0 to {DETAILS}, the test loss: {{2: 0.1}}")
    losses = {top: plain_number(loss, f"the loss with {top} blocks") for top, loss in given.items()}
    if low := [top for top, loss in losses.items() if top <= DETAILS - n.changed and loss < 0.8 * n.noise]:
        raise Misconception(
            f"with {low[0]} top blocks no model has so small a loss on rows that it was not trained on: is this "
            "`test`, and the mean over all numbers of y?"
        )
    reached = min((top for top, loss in losses.items() if loss < n.goal), default=None)
    if reached is None:
        raise Misconception("none of these losses is below the goal: more blocks, more steps, or a lower rate")
    if losses[reached] < 1e-9 * n.noise:
        raise Misconception("a loss of zero is no measurement: give what the training reached")
    if reached - 1 not in losses:
        raise Misconception(
            "two measurements decide: the smallest number that reaches the goal, and the one below it, which does not"
        )
    if losses[reached - 1] > 6 * n.noise:
        raise Misconception(f"with {reached - 1} blocks the loss is that of a training that failed: a lower rate?")


def _cost(answer: object, n: SimpleNamespace) -> None:
    (blocks,) = _own(answer, "blocks")
    block, head = 2 * WIDTH * (WIDTH + 1), OUT * (WIDTH + 1)
    wrong = {
        "the head is trained as well": blocks * block,
        "the biases are left out": 2 * blocks * WIDTH**2 + OUT * WIDTH,
        "a block has two maps, up and down": blocks * block / 2 + head,
        "these are all parameters of the model": DETAILS * block + head,
    }
    expect(
        item(answer, "parameters"), blocks * block + head, wrong, "your top blocks and the head: count with p.numel()"
    )


HOW_FAR = Task(
    "freezing.howfar",
    "How far down?",
    _changed,
    {_fewest: 2, _measured: 2, _cost: 1},
    (
        "Adam, learning rate 0.02, 150 steps over all training rows: a second or less. A new `make()` for each number.",
        "The optimizer gets what has requires_grad; the test loss is one forward pass under torch.no_grad().",
        "The training loss falls with every block more. Which number does the test loss need?",
    ),
    stars=2,
    minutes=20,
    errors={"expected m1 and m2 to have the same dtype": "the model and the rows are float64: leave them so"},
    shown=("goal",),
    hidden=("changed", "noise"),
)

put_on_the_list(SIZES, FREEZE, STEP, FIGURE, HUNT, HOW_FAR)
