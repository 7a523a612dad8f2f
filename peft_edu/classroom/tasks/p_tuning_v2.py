"""Exercise 06: sizes at depth, entities and their F1, deep prompts under a head that tags, a figure, a hunt, and which
blocks need a prompt."""

from functools import partial
from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from transformers import AutoConfig, AutoModel, PreTrainedModel

from peft_edu.anatomy import attentions, key_value_shape
from peft_edu.attention import ATTENTION, attention
from peft_edu.classroom.figure import Bars, floor
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.smallest import ROUNDED
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.classroom.tower import BLOCKS, WIDTH, lost_without, prompted
from peft_edu.lab.exercises.check import Misconception, NotWritten, same, shape
from peft_edu.prefix_tuning import Prefix

# Sizes at depth ----------------------------------------------------------------------------------------------------


def _model(draw: Random) -> dict:
    blocks = draw.randint(14, 36)
    return {
        "blocks": blocks,
        "chosen": tuple(sorted(draw.sample(range(blocks), draw.randint(5, 11)))),
        "width": 64 * draw.choice((5, 6, 9, 10, 12, 16)),
        "length": draw.choice((3, 5, 6, 7, 9)),
        "labels": draw.choice((5, 7, 9, 13, 17)),
    }


def _prompt_numbers(n: SimpleNamespace) -> int:
    return 2 * n.length * len(n.chosen) * n.width


def _trained(answer: object, n: SimpleNamespace) -> None:
    prompts, head = _prompt_numbers(n), n.labels * (n.width + 1)
    wrong = {
        "the task head is left out: it is trained, too": prompts,
        "this is the head alone": head,
        "the head's biases are left out: one for each label": prompts + n.labels * n.width,
        "each position has a key and a value: the prompts are twice as many": prompts // 2 + head,
        "this counts all blocks: only those in `chosen` have a prompt": 2 * n.length * n.blocks * n.width + head,
        "this is the prompt of one block: each chosen block has its own": 2 * n.length * n.width + head,
        "the blocks are counted up to the highest one that is chosen: how many are chosen?": 2
        * n.length
        * n.chosen[-1]
        * n.width
        + head,
        "there is one head for all tokens: it does not grow with the length": prompts + n.length * head,
    }
    expect(item(answer, "trained"), prompts + head, wrong, "the prompts of the chosen blocks, and a linear head")


def _share(answer: object, n: SimpleNamespace) -> None:
    prompts, head = _prompt_numbers(n), n.labels * (n.width + 1)
    right = 100 * head / (prompts + head)
    wrong = {
        "this is a fraction: the answer is asked for in per cent": right / 100,
        "the head is set against the prompts: set it against all that is trained": 100 * head / prompts,
        "this is the share of the prompts": 100 - right,
    }
    expect(item(answer, "share"), right, wrong, "parameters of the head / all that is trained, times 100", 0.01)


def _at_the_input(answer: object, n: SimpleNamespace) -> None:
    right = 2 * n.length * len(n.chosen)
    wrong = {
        "a position at the input is one vector; one in a block is a key and a value": right / 2,
        "this is the number of parameters: how many vectors of `width` are that?": right * n.width,
        "this counts all blocks: only those in `chosen` have a prompt": 2 * n.length * n.blocks,
        "the length is left out: there are several positions in each chosen block": 2 * len(n.chosen),
    }
    expect(item(answer, "input_length"), right, wrong, "the prompts' parameters, without the head, cut into vectors")


SIZES = Task(
    "p_tuning_v2.sizes",
    "Sizes at depth",
    _model,
    {_trained: 2, _share: 1, _at_the_input: 1},
    (
        "A position has a key and a value in each block that is chosen.",
        "A linear head has `width` weights and a bias for each label.",
        "A position at the input is one vector of `width` numbers.",
    ),
    stars=1,
    minutes=8,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# From tags to entities, and their F1 ---------------------------------------------------------------------------------

BEGINS, IS_O = "begins an entity of its own", "counts as O"
KINDS = ("DISH", "PLACE", "PRICE", "STAFF", "ROOM", "NAME", "DATE")


def _scheme(draw: Random) -> dict:
    return {"kinds": tuple(draw.sample(KINDS, 2)), "stray": draw.choice((BEGINS, IS_O))}


def _entities(tags: list[str], stray: str) -> set:
    found, begun = set(), None  # begun: (first, kind)
    for place, tag in enumerate([*tags, "O"]):
        mark, _, kind = tag.partition("-")
        if mark == "I" and begun and begun[1] == kind:
            continue
        if begun:
            found.add((begun[0], place, begun[1]))
        begun = (place, kind) if mark == "B" or (mark == "I" and stray == BEGINS) else None
    return found


def _tags(text: str, n: SimpleNamespace) -> list[str]:
    """ "Bx Ix O By" with the student's own kinds."""
    names = dict(zip("xy", n.kinds, strict=True))
    return [tag if tag == "O" else f"{tag[0]}-{names[tag[1]]}" for tag in text.split()]


def _given(answer: object, tags: list[str]) -> set:
    given = _called(item(answer, "entities"), "entities", list(tags))
    if not isinstance(given, set):
        raise Misconception(f"entities is to give a set, and gives a {type(given).__name__}")
    if odd := [each for each in given if not isinstance(each, tuple) or len(each) != 3]:
        raise Misconception(f"an entity is (first word, the word after the last, kind); yours has {odd[0]!r:.60}")
    return given


def _called(f: object, name: str, *inputs: object) -> object:
    if not callable(f):
        raise Misconception(f"{name} is to be a function, without brackets behind it; got a {type(f).__name__}")
    given = f(*inputs)
    if given is None:
        raise NotWritten(f"{name} gives nothing yet")
    return given


def _expect_entities(answer: object, texts: tuple[str, ...], n: SimpleNamespace, wrong: dict[str, str]) -> None:
    for text in texts:
        tags = _tags(text, n)
        given, right = _given(answer, tags), _entities(tags, n.stray)
        if given == right:
            continue
        told = [why for why, other in wrong.items() if given == other(tags)]
        also = "you give one that is none" if given - right else "one is missing"
        raise Misconception(f"{' '.join(tags) or 'no words at all'}: {told[0] if told else also}")


def _spans(answer: object, n: SimpleNamespace) -> None:
    def ends_with(tags: list[str]) -> set:  # the last word in place of the one after it
        return {(first, end - 1, kind) for first, end, kind in _entities(tags, n.stray)}

    def joined(tags: list[str]) -> set:  # B goes on, as I does
        text = [tag.replace("B-", "I-") for tag in tags]
        return _entities(text, BEGINS)

    def unended(tags: list[str]) -> set:
        return {each for each in _entities(tags, n.stray) if each[1] < len(tags)}

    def word_by_word(tags: list[str]) -> set:
        return {(i, i + 1, tag[2:]) for i, tag in enumerate(tags) if tag != "O"}

    wrong = {
        "the end is the last word: give the word after it": ends_with,
        "two entities that touch are run together: B begins a new one": joined,
        "what reaches the end of the text is lost": unended,
        "each word is an entity of its own: I goes on with the one before": word_by_word,
    }
    texts = ("Bx Ix O By O", "O Bx Bx Ix O", "Bx By Iy O", "O O By Iy", "Bx", "O O", "")
    _expect_entities(answer, texts, n, wrong)


def _strays(answer: object, n: SimpleNamespace) -> None:
    other = IS_O if n.stray == BEGINS else BEGINS

    def same_entity(tags: list[str]) -> set:  # I goes on, whatever its kind
        kind, text = "", []
        for tag in tags:
            kind = tag[2:] if tag[0] == "B" else kind
            text.append(f"I-{kind}" if tag[0] == "I" and kind else tag)
        return _entities(text, n.stray)

    wrong = {
        f"an I- without an entity of its kind right before it {n.stray}: n.stray": lambda tags: _entities(tags, other),
        "an I- of another kind does not go on with the entity before it": same_entity,
    }
    _expect_entities(answer, ("Bx O Ix Ix O By", "Bx Iy Iy O", "Ix O By", "By Ix Iy Bx"), n, wrong)


GIVEN = ("Bx Ix O By O", "O O O", "Bx O O", "O Bx", "By O Bx O")
RIGHT = ("Bx O O By O", "O By O", "Bx O O", "Bx O", "By O Bx O")


def _corpus(answer: object, n: SimpleNamespace) -> None:
    """By the student's own entities, so that a wrong set is told there alone."""
    given, right = ([_tags(text, n) for text in texts] for texts in (GIVEN, RIGHT))
    own = [[_given(answer, tags) for tags in texts] for texts in (given, right)]
    pairs = list(zip(*own, strict=True))
    hits, sizes = sum(len(a & b) for a, b in pairs), sum(len(a) + len(b) for a, b in pairs)
    if not 0 < hits < sizes / 2:
        raise Misconception("entities gives all or none of these texts the same: mend it first, then F1 can be told")
    every = [set().union(*each) for each in own]
    alone = [2 * len(a & b) / max(1, len(a) + len(b)) for a, b in pairs]
    words = [a == b for one, two in zip(given, right, strict=True) for a, b in zip(one, two, strict=True)]
    wrong = {
        "this is the mean of the texts' F1: count over all texts first": sum(alone) / len(alone),
        "all texts are thrown into one set: there word 0 of one text is word 0 of another": 2
        * len(every[0] & every[1])
        / max(1, sum(map(len, every))),
        "this is the share of right tags: entities are counted, not words": sum(words) / len(words),
        "this is the precision": hits / max(1, sum(map(len, own[0]))),
        "this is the recall": hits / max(1, sum(map(len, own[1]))),
        "this is in per cent: give a number between 0 and 1": 200 * hits / max(1, sizes),
    }
    found = _called(item(answer, "f1"), "f1", given, right)
    expect(found, 2 * hits / max(1, sizes), wrong, "2 x hits / (given + right), each counted over all texts", 1e-6)
    nothing = [_tags("O O", n)]
    if plain_number(_called(item(answer, "f1"), "f1", nothing, nothing)) != 0:
        raise Misconception("where no text has an entity, F1 is to be 0 here")


ENTITIES = Task(
    "p_tuning_v2.entities",
    "From tags to entities",
    _scheme,
    {_spans: 2, _strays: 1, _corpus: 2},
    (
        'Go through the tags once, with one "O" more behind them: then every entity ends before the end.',
        "Remember where the entity that is open began, and its kind. What closes it? What opens a new one?",
        "F1 over many texts: sum the hits, the given and the right ones of all texts, then divide once.",
    ),
    stars=2,
    minutes=20,
    errors={"not enough values to unpack": '"O" has no kind: tag.partition("-") gives three parts of each tag'},
)

# Deep prompts under a head that tags ---------------------------------------------------------------------------------


def _tagger(draw: Random) -> dict:
    blocks = draw.sample(range(5), draw.choice((2, 3)))
    return {
        "lengths": {
            block: length for block, length in zip(blocks, draw.sample((2, 3, 4, 5), len(blocks)), strict=True)
        },
        "labels": draw.choice((3, 4, 5)),
        "o_weight": draw.choice((0.1, 0.2, 0.25, 0.5)),
    }


def _bert() -> PreTrainedModel:
    sizes = {"hidden_size": 12, "intermediate_size": 12, "num_hidden_layers": 5, "num_attention_heads": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=9, **sizes), attn_implementation="eager")
        for parameter in model.parameters():  # far from the tiny numbers that BERT begins with
            nn.init.normal_(parameter, std=0.4)
        return model.double().eval()


IDS = torch.tensor([[3, 4, 5, 6, 7], [7, 8, 1, 0, 0]])
KEEP = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
LABELS = torch.tensor([[-100, 1, -100, 0, 2], [0, 2, -100, -100, -100]])


def _made(cls: object, n: SimpleNamespace) -> tuple[nn.Module, PreTrainedModel, dict[int, nn.Parameter]]:
    """A tagger, its model, and the prompt of each block, filled with other numbers, as the head is."""
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise Misconception("a class is asked for, class DeepTagger(nn.Module)")
    model = _bert()
    tagger, modules = cls(model), attentions(model)[0]
    there = {block: module.prefix for block, module in enumerate(modules) if hasattr(module, "prefix")}
    head = getattr(tagger, "head", None)
    if not there and head is None:
        raise NotWritten("the tagger has no prompts and no head yet")
    if not isinstance(head, nn.Linear) or (head.in_features, head.out_features) != (12, n.labels):
        raise Misconception("self.head is asked for: an nn.Linear from the model's hidden_size to n.labels")
    if not there:
        raise Misconception("no attention module has a prefix: attentions(model)[0][block].prefix = Prefix(...)")
    prompts = {}
    for block, prefix in there.items():
        own = list(prefix.parameters()) if isinstance(prefix, nn.Module) else []
        if len(own) != 1:
            raise Misconception(f"the prefix of block {block} is to be a Prefix(...), with one tensor that is trained")
        prompts[block] = own[0]
    with torch.no_grad():
        for p in (*prompts.values(), head.weight, head.bias):
            p.copy_(torch.randn(p.shape))
    return tagger.double(), model, prompts


def _in_place(cls: object, n: SimpleNamespace) -> None:
    """The other parts take the blocks and the lengths as they are."""
    _, model, prompts = _made(cls, n)
    if sorted(prompts) != sorted(n.lengths):
        raise Misconception(
            f"blocks {sorted(prompts)} have a prompt, and yours are {sorted(n.lengths)}, counted from 0"
        )
    for block, own in prompts.items():
        shape(own, (2, 3, n.lengths[block], 4), f"block {block} gets (2, heads, p, w), and p is n.lengths[{block}]")
    if len({id(own) for own in prompts.values()}) < len(prompts):
        raise Misconception("two blocks share one prompt: each has its own")
    if model.config._attn_implementation != ATTENTION:
        raise Misconception(
            "the prompts are there, but the model does not ask for them: model.config._attn_implementation = ATTENTION"
        )


def _only_these(cls: object, n: SimpleNamespace) -> None:
    tagger, model, prompts = _made(cls, n)
    wanted = {id(p) for p in (*prompts.values(), *tagger.head.parameters())}
    if any(p.requires_grad for p in model.parameters() if id(p) not in wanted):
        raise Misconception("the model would be trained as well: requires_grad_(False), before the prompts come in")
    held = {id(p) for p in tagger.parameters() if p.requires_grad}
    if held != wanted:
        raise Misconception(
            "prompts and head are to be trained, and tagger.parameters() has others: is the model kept in self, and is "
            "the model frozen before the prompts come in?"
        )
    if not (scores := _logits(tagger)).requires_grad:
        raise Misconception("no gradient comes through forward: is there a detach or a no_grad?")
    scores.square().sum().backward()
    if any(p.grad is None or not p.grad.any() for p in (*prompts.values(), *tagger.head.parameters())):
        raise Misconception("no gradient reaches a prompt or the head: is there a detach or a no_grad?")


def _logits(tagger: nn.Module) -> Tensor:
    given = tagger(IDS, KEEP)
    if given is None:
        raise NotWritten("forward gives nothing yet")
    if not isinstance(given, Tensor):
        raise Misconception(f"forward is to give a tensor, and gives a {type(given).__name__}")
    return given


def _features(prompts: dict[int, Tensor], keep: Tensor | None = KEEP) -> Tensor:
    """What the same model gives for each token, with the package's own prompts."""
    model = _bert()
    model.config._attn_implementation = ATTENTION
    for block, own in prompts.items():
        attentions(model)[0][block].prefix = Prefix(own.detach().clone())
    return model(IDS, attention_mask=torch.ones_like(IDS) if keep is None else keep).last_hidden_state


@torch.no_grad()
def _scores(cls: object, n: SimpleNamespace) -> None:
    tagger, _, prompts = _made(cls, n)
    given, head = _logits(tagger), tagger.head
    if given.shape == (2, n.labels):
        raise Misconception("this is one row of scores for a text: a tagger gives one for each token")
    shape(given, (2, 5, n.labels), "a row of scores for each token, and none for the prompts")
    right, text = head(_features(prompts)), KEEP == 1
    wrong = {
        "the prompts do nothing: does the model call them?": head(_features({})),
        "padding is seen: hand the mask on to the model": head(_features(prompts, None)),
        "these are probabilities: the loss takes the scores themselves": right.softmax(-1),
    }
    same(
        given[text], right[text], {why: other[text] for why, other in wrong.items()}, "these are not the head's scores"
    )


def _loss(cls: object, n: SimpleNamespace) -> None:
    """By the student's own scores, so that a wrong forward is told there alone."""
    tagger, _, _ = _made(cls, n)
    scores = _logits(tagger).detach()
    given = _called(getattr(tagger, "loss", None), "loss", IDS, KEEP, LABELS.clone())
    if not isinstance(given, Tensor) or given.ndim:
        raise Misconception("loss is to give one number, as a tensor: the mean over the tokens that have a label")
    each = cross_entropy(scores.transpose(1, 2), LABELS.clamp(min=0), reduction="none")
    asked, as_o = (LABELS >= 0).double(), torch.ones_like(each)
    weight = torch.where(LABELS.clamp(min=0) == 0, n.o_weight, 1.0).double()
    wrong = {
        "a label of O counts as much as the others: it weighs n.o_weight": (each * asked).sum() / asked.sum(),
        "the weighted losses are divided by their number: divide by the sum of the weights": (
            (each * asked * weight).sum() / asked.sum()
        ),
        "this is a sum: the weighted mean is asked for": (each * asked * weight).sum(),
        "a label of -100 is no O: such a token is left out": (each * weight).sum() / weight.sum(),
        "a label of -100 is no O, and O weighs n.o_weight": (each * as_o).mean(),
        "the mean is over all tokens: those without a label do not count": (each * asked * weight).mean(),
    }
    right = (each * asked * weight).sum() / (asked * weight).sum()
    same(given.detach(), right, wrong, "this is not the weighted mean of the labelled tokens' cross entropy")
    if not given.requires_grad:
        raise Misconception("no gradient comes through the loss")


TAGGER = Task(
    "p_tuning_v2.tagger",
    "Deep prompts under a head that tags",
    _tagger,
    {_in_place: 2, _only_these: 1, _scores: 2, _loss: 2},
    (
        "attentions(model)[0][block].prefix = Prefix(torch.randn(2, heads, p, w)) puts a prompt into a block.",
        "model(ids, attention_mask=mask).last_hidden_state is (b, t, hidden_size): the prompts do not come out again.",
        "cross_entropy has an argument `weight`, a number for each label, and leaves out -100 by itself. "
        "It wants (n, labels) and (n,): flatten.",
    ),
    stars=2,
    minutes=25,
    errors={
        "expected scalar type": "the model is float64 here: weights and prompts of dtype=torch.float64",
        "got an unexpected keyword": "model(ids, attention_mask=mask): the bare model takes no labels",
    },
)

# A figure ----------------------------------------------------------------------------------------------------------

FIGURE = floor(
    "p_tuning_v2.figure",
    Bars(
        "deep",
        {
            "reviews deep p=1": "1 in each block",
            "reviews deep p=2": "2 in each block",
            "reviews deep p=4": "4 in each block",
            "reviews deep p=20": "20 in each block",
            "reviews top 1": "4, top block",
            "reviews top 2": "4, top two",
            "reviews bottom 2": "4, bottom two",
            "reviews bottom 3": "4, bottom three",
            "reviews shallow p=8": "8, at the input",
            "reviews shallow p=64": "64, at the input",
        },
        "Prompts on reviews, tiny-bert (four blocks)",
        lowest=50,
    ),
)

# A hunt ------------------------------------------------------------------------------------------------------------

CODE = """\
def in_front(prompt, query, key, value, mask, **options):
    keys, values = prompt[:, None].expand(-1, len(query), -1, -1, -1)
    mask = None if mask is None else pad(mask, (prompt.shape[2], 0))
    return attention(query, torch.cat([keys, key], 2), torch.cat([values, value], 2), mask, **options)

class Tagger(nn.Module):
    def __init__(self, model, layers, length, labels):
        super().__init__()
        self.model, (self.heads, width) = model.requires_grad_(False), key_value_shape(model)
        self.table = nn.Parameter(torch.randn(length, len(layers) * 2 * self.heads * width))
        self.blocks = [attentions(model)[0][layer] for layer in layers]
        self.head, model.config._attn_implementation = nn.Linear(model.config.hidden_size, labels), ATTENTION

    def forward(self, ids, mask):  # (b, t) both -> (b, t, labels)
        rows = self.table.unflatten(1, (len(self.blocks), 2, self.heads, -1))
        for block, prompt in zip(self.blocks, rows.permute(1, 2, 3, 0, 4)):
            block.prefix = partial(in_front, prompt)
        return self.head(self.model(ids, attention_mask=mask).last_hidden_state)

    def loss(self, ids, mask, labels):  # labels (b, t): -100 where no word begins
        return cross_entropy(self(ids, mask).flatten(0, 1), labels.flatten())"""
EXPAND = "keys, values = prompt[:, None].expand(-1, len(query), -1, -1, -1)"
MASK = "mask = None if mask is None else pad(mask, (prompt.shape[2], 0))"
FREEZE = "self.model, (self.heads, width) = model.requires_grad_(False), key_value_shape(model)"
TABLE = "self.table = nn.Parameter(torch.randn(length, len(layers) * 2 * self.heads * width))"
FOUND = "self.blocks = [attentions(model)[0][layer] for layer in layers]"
OPEN = "rows = self.table.unflatten(1, (len(self.blocks), 2, self.heads, -1))"
PART = "block.prefix = partial(in_front, prompt)"
HEAD = "return self.head(self.model(ids, attention_mask=mask).last_hidden_state)"
LOSS = "return cross_entropy(self(ids, mask).flatten(0, 1), labels.flatten())"
MOVES = "Look at the gradient of each parameter after one backward: which should have one, and which should not?"
ROWS = "Call in_front with one query, and a prompt whose keys and values you know: what comes out?"
ALIKE = "Compare the rows of the table with each other, before training and after some steps"
WHERE = "Which attention modules have a prefix after one forward? Try it with layers (0, 3), and with (1, 2)"
OTHERS = "Are the prompts of two blocks different? Look at the gradient of each column of the table"
PADDING = "Ask a text alone, and again with two places of padding behind it: its scores must stay what they were"
ASKED = "Change the scores of a token whose label is -100: the loss must not move. And the same batch twice: what then?"
FAULTS = (
    Fault(EXPAND, "keys, values = prompt[[0, 0], None].expand(-1, len(query), -1, -1, -1)", ROWS),
    Fault(EXPAND, EXPAND.replace("prompt[", "prompt.detach()["), MOVES),
    Fault(MASK, "mask = None if mask is None else pad(mask, (prompt.shape[2], 0), value=-1e9)", MOVES),
    Fault(FREEZE, FREEZE.replace("model.requires_grad_(False)", "model"), MOVES),
    Fault(TABLE, TABLE.replace("randn", "zeros"), ALIKE),
    Fault(
        TABLE, "self.table = nn.Parameter(torch.randn(len(layers) * 2 * self.heads * width).repeat(length, 1))", ALIKE
    ),
    Fault(FOUND, "self.blocks = [attentions(model)[0][layer - 1] for layer in layers]", WHERE),
    Fault(FOUND, "self.blocks = attentions(model)[0][: len(layers)]", WHERE),
    Fault(OPEN, OPEN.replace("self.table", "self.table.detach()"), MOVES),
    Fault(PART, "block.prefix = partial(in_front, rows[:, 0].permute(1, 2, 0, 3))", OTHERS),
    Fault(HEAD, "return self.head(self.model(ids).last_hidden_state)", PADDING),
    Fault(HEAD, HEAD.replace("last_hidden_state)", "last_hidden_state.detach())"), MOVES),
    Fault(LOSS, LOSS.replace("labels.flatten()", "labels.flatten().clamp(min=0)"), ASKED),
    Fault(LOSS, LOSS.replace("labels.flatten()", 'labels.flatten(), reduction="sum"'), ASKED),
)


def _works(found: dict) -> None:
    for layers in ((0, 3), (2, 1, 4)):
        _works_at(found["Tagger"], layers)


def _works_at(cls, layers: tuple[int, ...]) -> None:
    model = _bert().requires_grad_(True)
    tagger = cls(model, layers, 3, 4).double()
    if any(p.requires_grad for p in model.parameters()):
        raise Misconception("the model would be trained")
    if not isinstance(tagger.table, nn.Parameter) or tagger.table.shape != (3, len(layers) * 24):
        raise Misconception("the table is no parameter of (length, len(layers) * 2 * heads * w)")
    if torch.pdist(tagger.table.detach()).min() < 0.01:
        raise Misconception("the rows of the table start alike, and would stay alike")
    scores, prompts = tagger(IDS, KEEP), tagger.table.detach().unflatten(1, (len(layers), 2, 3, 4))
    there = [block for block, module in enumerate(attentions(model)[0]) if hasattr(module, "prefix")]
    if there != sorted(layers):
        raise Misconception(f"with layers={layers} the blocks {there} have a prompt")
    with torch.no_grad():
        right = tagger.head(_features(dict(zip(layers, prompts.permute(1, 2, 3, 0, 4), strict=True))))
    if not torch.allclose(scores[KEEP == 1], right[KEEP == 1]):
        raise Misconception("the scores are not those of a model with these prompts")
    loss = tagger.loss(IDS, KEEP, LABELS)
    if not torch.allclose(loss, cross_entropy(right[LABELS >= 0], LABELS[LABELS >= 0])):
        raise Misconception("the loss is not the mean over the tokens that have a label")
    loss.backward()
    if tagger.table.grad is None or not tagger.table.grad.any(0).all():
        raise Misconception("a part of the table gets no gradient")


LISTING = Listing(
    CODE,
    FAULTS,
    _works,
    {
        "torch": torch,
        "nn": nn,
        "pad": pad,
        "partial": partial,
        "cross_entropy": cross_entropy,
        "attention": attention,
        "attentions": attentions,
        "key_value_shape": key_value_shape,
        "ATTENTION": ATTENTION,
    },
)
HUNT = LISTING.task(
    "p_tuning_v2.hunt",
    (
        "What can be measured: gradients, how the table starts, which blocks have a prompt, padding, the loss by hand.",
        "Measure one at a time: a fault in one line may hide another.",
        "Compare each line with what it is to do. Which of your measurements would notice if it did not?",
    ),
)


# Which blocks need a prompt? -----------------------------------------------------------------------------------------


def _needed(draw: Random) -> dict:
    needed = tuple(sorted(draw.sample(range(BLOCKS), draw.choice((2, 3, 4)))))
    return {"data_seed": draw.randrange(10**6), "needed": needed, "length": draw.choice((4, 5, 6))}


def _set_of(blocks: object, what: str) -> frozenset[int]:
    blocks = (blocks,) if isinstance(blocks, int) else blocks
    if isinstance(blocks, str) or not hasattr(blocks, "__iter__"):
        raise Misconception(f"{what}: expected the numbers of blocks, as in (0, 4); got {blocks!r:.60}")
    numbers = frozenset(int(plain_number(block, what)) for block in blocks)
    if not numbers <= set(range(BLOCKS)):
        raise Misconception(f"{what}: the blocks are 0 to {BLOCKS - 1}; got {sorted(numbers)}")
    return numbers


def _smallest(answer: object, n: SimpleNamespace) -> None:
    given, right = _set_of(item(answer, "blocks"), "blocks"), frozenset(n.needed)
    if given == right:
        return
    if given > right:
        raise Misconception("a smaller set reaches the goal, too: does each block earn its prompt?")
    raise Misconception(
        "with this set the loss cannot get below the goal: a block that is needed has no prompt, or you count from 1"
    )


def _measured(answer: object, n: SimpleNamespace) -> None:
    given, goal, lost = item(answer, "losses"), prompted(n)[3], lost_without(n)
    if not isinstance(given, dict) or not given:
        raise Misconception("`losses` is a dict of sets of blocks and their losses at the end, {(0, 4): 0.2, ...}")
    losses = {_set_of(blocks, "losses"): plain_number(loss, f"the loss of {blocks}") for blocks, loss in given.items()}
    for blocks, loss in losses.items():
        if loss < 0.98 * sum(lost[block] for block in range(BLOCKS) if block not in blocks) - ROUNDED:  # rounded
            raise Misconception(
                f"with prompts in {sorted(blocks)} the loss cannot get so low: is it the mean over all numbers of y?"
            )
    reached = [blocks for blocks, loss in losses.items() if loss < goal]
    if not reached:
        raise Misconception("none of these losses is below the goal: prompts in more blocks, or more steps")
    least = min(reached, key=len)
    if missing := [block for block in least if least - {block} not in losses]:
        raise Misconception(
            f"{sorted(least)} reaches the goal. Can it do without block {missing[0]}? That set was not measured"
        )


def _cost(answer: object, n: SimpleNamespace) -> None:
    blocks = len(_set_of(item(answer, "blocks"), "blocks"))
    right = 2 * n.length * WIDTH * blocks
    wrong = {
        "only keys are counted, or only values": right / 2,
        "this is what prompts in all blocks take": 2 * n.length * WIDTH * BLOCKS,
        "this is the prompt of one block": 2 * n.length * WIDTH,
    }
    expect(
        item(answer, "parameters"), right, wrong, f"keys and values, n.length rows of {WIDTH}, in each of your blocks"
    )


WHICH = Task(
    "p_tuning_v2.which",
    "Which blocks?",
    _needed,
    {_smallest: 2, _measured: 2, _cost: 1},
    (
        "Adam over the prompts of a set, learning rate 0.2, 150 steps, each prompt 0.3 * torch.randn: a second a set.",
        "Begin with prompts in all blocks. Then leave out one block at a time: whose absence costs much?",
        "A set is the smallest if it reaches the goal, and no longer does once any one of its blocks is left out.",
    ),
    stars=2,
    minutes=20,
    errors={
        "optimizer got an empty parameter list": "without a block nothing is trained: its loss is that of model(x)",
        "can't optimize a non-leaf Tensor": "put requires_grad_() last: (0.3 * torch.randn(...)).requires_grad_()",
    },
    shown=("length",),
    hidden=("needed",),
)

put_on_the_list(SIZES, ENTITIES, TAGGER, FIGURE, HUNT, WHICH)
