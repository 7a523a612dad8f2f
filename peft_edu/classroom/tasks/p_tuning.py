"""Exercise 05: what an encoder trains, a template as ids, an encoder by one's own rule, a figure, a hunt, a choice."""

from dataclasses import replace
from functools import cache
from itertools import permutations
from random import Random
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from peft_edu import PTuning
from peft_edu.classroom.figure import Bars, floor
from peft_edu.classroom.hunt import Fault, Listing
from peft_edu.classroom.task import Task, expect, item, plain_number, put_on_the_list
from peft_edu.lab.exercises.check import Misconception, NotWritten, same
from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.study.run import data_of, problem_of, recipe

# What the encoder trains, and what is kept ------------------------------------------------------------------------

GATES = {"LSTM": 4, "GRU": 3}


def _encoder(draw: Random) -> dict:
    return {
        "cell": draw.choice(list(GATES)),
        "layers": draw.choice((1, 2, 3)),
        "hidden": 8 * draw.randint(7, 29),
        "width": 64 * draw.randint(6, 16),
        "pseudo": draw.randint(5, 14),
        "relations": draw.randint(21, 60),
    }


def _one_way(n: SimpleNamespace, read: int, gates: int, biases: int = 2) -> int:
    return gates * (n.hidden * read + n.hidden * n.hidden + biases * n.hidden)


def _net(n: SimpleNamespace, gates: int = 0, ways: int = 2, biases: int = 2) -> int:
    gates = gates or GATES[n.cell]
    later = (n.layers - 1) * _one_way(n, ways * n.hidden, gates, biases)
    return ways * (_one_way(n, n.width, gates, biases) + later)


def _mlp(n: SimpleNamespace) -> int:
    return 2 * n.hidden * n.width + n.width + n.width * n.width + n.width


def _recurrent(answer: object, n: SimpleNamespace) -> None:
    other = next(cell for cell in GATES if cell != n.cell)
    narrow = 2 * n.layers * _one_way(n, n.width, GATES[n.cell])
    wrong = {
        f"these are the gates of {'an' if other == 'LSTM' else 'a'} {other}: yours is n.cell": _net(n, GATES[other]),
        "this is one gate: an LSTM has four, a GRU three": _net(n, 1),
        "this is one direction: it reads from both ends": _net(n) / 2,
        "this is one direction, and its later layers read that one alone": _net(n, ways=1),
        "PyTorch has two biases a gate, one for the input and one for the state": _net(n, biases=1),
        "the biases are left out: two a gate": _net(n, biases=0),
    }
    if n.layers > 1:
        wrong |= {
            "this is the first layer alone": 2 * _one_way(n, n.width, GATES[n.cell]),
            "only the first layer reads n.width numbers: the next ones read both directions of the layer below": narrow,
        }
    otherwise = "for each layer and direction: gates x (hidden x read + hidden x hidden + 2 hidden)"
    expect(item(answer, "recurrent"), _net(n), wrong, otherwise)


def _trained(answer: object, n: SimpleNamespace) -> None:
    """With the student's own count of the recurrent net, right or not."""
    net, start = plain_number(item(answer, "recurrent"), "recurrent"), n.pseudo * n.width
    right = net + _mlp(n) + start
    wrong = {
        "the start is left out: what goes into the encoder is trained, too": net + _mlp(n),
        "the MLP is left out": net + start,
        "the biases of the MLP are left out": right - 2 * n.width,
        "the first map of the MLP reads both directions": right - n.hidden * n.width,
        "the MLP has two maps": right - n.width * n.width - n.width,
        "the encoder is there once, not once for each pseudo token": n.pseudo * (net + _mlp(n)) + start,
        "one relation is asked for here": n.relations * right,
    }
    expect(item(answer, "trained"), right, wrong, "three parts: the start, your recurrent net, the two maps of the MLP")


def _kept(answer: object, n: SimpleNamespace) -> None:
    right = n.relations * n.pseudo * n.width * 4 / 1e6
    wrong = {
        "this is one relation: each has its own embeddings": right / n.relations,
        "this counts numbers, not bytes: float32 takes 4": right / 4,
        "this is in bytes": right * 1e6,
        "1 MB is 1,000,000 bytes here": right * 1e6 / 2**20,
        "the start is kept as well: what comes out of the encoder is enough": 2 * right,
        "the encoders are kept as well: what comes out of them is enough": right
        + n.relations * 4 * (_net(n) + _mlp(n)) / 1e6,
        "one encoder is kept as well: what comes out of it is enough": right + 4 * (_net(n) + _mlp(n)) / 1e6,
    }
    expect(item(answer, "kept"), right, wrong, "relations x pseudo tokens x width, 4 bytes each, in MB", 0.01)


SIZES = Task(
    "p_tuning.sizes",
    "What is trained, and what is kept?",
    _encoder,
    {_recurrent: 2, _trained: 1, _kept: 1},
    (
        "A gate reads the input and its own state. How many numbers is that for one gate of one direction?",
        "The second layer reads what both directions of the first one give.",
        "When all is trained, the encoder gives the same embeddings at every call. What of it is still needed?",
    ),
    stars=2,
    minutes=12,
    errors={"expected a number, got str": "give numbers, without units and without commas"},
    telling=True,
)

# A template as ids ------------------------------------------------------------------------------------------------

VOCABULARY = {"[PAD]": 7, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, ".": 9, "of": 0, "in": 11, "from": 12, "at": 13}
VOCABULARY |= {"Anna": 21, "Georg": 22, "Balford": 23, "van": 24, "Bo": 25, "Oakham": 31, "Belmere": 32, "Dunwick": 33}
PEOPLE = (
    (["Georg Balford", "Anna", "Bo van Balford"], ["Oakham", "Dunwick", "Oakham"]),
    (["Anna Balford", "Bo Balford"], ["Belmere", "Dunwick"]),
)


def _template(draw: Random) -> dict:
    front, behind = draw.randint(1, 3), draw.randint(1, 2)
    middle = ["[P]"] * draw.randint(1, 3)
    middle.insert(draw.randint(0, len(middle)), draw.choice(("of", "in", "from", "at")))
    pieces = ["[P]"] * front + ["{subject}"] + middle + ["[MASK]"] + ["[P]"] * behind + ["."]
    return {"template": " ".join(pieces)}


def _texts(n: SimpleNamespace, names: list[str], first: int = -1, step: int = -1) -> list[list[int]]:
    """The ids of each text, not padded; the pseudo tokens are first, first + step, ..."""
    texts = []
    for name in names:
        pieces, pseudo, ids = ["[CLS]", *n.template.replace("{subject}", name).split(), "[SEP]"], first, []
        for piece in pieces:
            ids.append(pseudo if piece == "[P]" else VOCABULARY[piece])
            pseudo += step * (piece == "[P]")
        texts.append(ids)
    return texts


def _padded(texts: list[list[int]], by: int) -> Tensor:
    most = max(map(len, texts))
    return torch.tensor([text + [by] * (most - len(text)) for text in texts])


def _gap_of(texts: list[list[int]]) -> list[int]:
    return [text.index(VOCABULARY["[MASK]"]) for text in texts]


def _encoded(f: object, n: SimpleNamespace, names: list[str], answers: list[str]) -> tuple:
    if not callable(f):
        raise Misconception("a function is asked for: give it by its name alone, without brackets behind it")
    result = f(list(names), list(answers), dict(VOCABULARY))
    if result is None:
        raise NotWritten("encoded gives nothing back yet")
    if not isinstance(result, (tuple, list)) or len(result) != 4:
        raise Misconception("four things are asked for, in this order: return ids, mask, labels, gaps")
    if any(not isinstance(each, Tensor) for each in result):
        kinds = ", ".join(type(each).__name__ for each in result)
        raise Misconception(f"four tensors are asked for, got {kinds}")
    return tuple(result)


def _whole(given: Tensor, right: Tensor, wrong: dict[str, Tensor], otherwise: str) -> None:
    wrong = {why: each.double() for why, each in wrong.items() if each.shape == right.shape}
    if given.ndim == 2 and given.shape[1] == right.shape[1] - 2:
        raise Misconception("two places are missing: a text begins with [CLS] and ends with [SEP]")
    same(given, right.double(), wrong, otherwise)


def _ids(f: object, n: SimpleNamespace) -> None:
    for names, answers in PEOPLE:
        texts, pad = _texts(n, names), VOCABULARY["[PAD]"]
        count, right = n.template.count("[P]"), _padded(texts, pad)
        told = [
            [VOCABULARY[a] if i == VOCABULARY["[MASK]"] else i for i in t] for a, t in zip(answers, texts, strict=True)
        ]
        wrong = {
            "every pseudo token has the id -1: the second one is -2": _padded(_texts(n, names, step=0), pad),
            "the first pseudo token has the id -1, not 0": _padded(_texts(n, names, first=0), pad),
            "the pseudo tokens are counted from the end: the first one is -1": _padded(
                _texts(n, names, -count, 1), pad
            ),
            "the ids of pseudo tokens are above 0, where words have theirs": _padded(_texts(n, names, 1, 1), pad),
            "the answer stands in the text: the model is to find it, [MASK] stays": _padded(told, pad),
            "padding is 0: the vocabulary says which id [PAD] has": _padded(texts, 0),
            "the padding stands in front: it belongs behind the text": torch.tensor(
                [[pad] * (right.shape[1] - len(text)) + text for text in texts]
            ),
        }
        _whole(_encoded(f, n, names, answers)[0], right, wrong, "the ids are not those of the texts")


def _attended(f: object, n: SimpleNamespace) -> None:
    for names, answers in PEOPLE:
        texts = _texts(n, names)
        ids, right = _padded(texts, VOCABULARY["[PAD]"]), _padded([[1] * len(text) for text in texts], 0)
        wrong = {
            "padding is to be attended to: it is 0 in the mask": torch.ones_like(right),
            "the pseudo tokens are masked: nobody could attend to them": right * (ids >= 0),
            "ids below 0 are masked: these are the pseudo tokens, and [PAD] has an id of its own": (ids >= 0) * 1,
            "ids up to 0 are masked: there are pseudo tokens and a word, and [PAD] has an id of its own": (ids > 0) * 1,
            "only ids above 0 are read: below are the pseudo tokens, and 0 is a word": (ids > 0) * right,
            "the id 0 is masked, which is a word here: the vocabulary says which id [PAD] has": (ids != 0) * 1,
            "the mask is upside down: 1 is for what is read": 1 - right,
            "the gap is masked: the model answers there": right * (ids != VOCABULARY["[MASK]"]),
        }
        _whole(_encoded(f, n, names, answers)[1], right, wrong, "the mask is not 1 for text and 0 for padding")


def _labels(f: object, n: SimpleNamespace) -> None:
    for names, answers in PEOPLE:
        ids = _padded(_texts(n, names), VOCABULARY["[PAD]"])
        gap, own = ids == VOCABULARY["[MASK]"], torch.tensor([[VOCABULARY[each]] for each in answers])
        right = torch.where(gap, own, -100)
        wrong = {
            "the label at the gap is [MASK] itself: the answer's id belongs there": torch.where(gap, ids, -100),
            "the model is to write the answer at every place: -100 is for all but the gap": own.expand_as(ids),
            "the words of the text are to be written as well: -100 leaves them out": torch.where(gap, own, ids),
            "where nothing is to be written stands 0: -100 leaves a place out of the loss": torch.where(gap, own, 0),
            "each text has the first answer": torch.where(gap, own[:1], -100),
        }
        _whole(
            _encoded(f, n, names, answers)[2], right, wrong, "the labels are not the answer at the gap, -100 elsewhere"
        )


def _gaps(f: object, n: SimpleNamespace) -> None:
    for names, answers in PEOPLE:
        given, right = _encoded(f, n, names, answers)[3], torch.tensor(_gap_of(_texts(n, names)))
        in_template = torch.full_like(right, n.template.split().index("[MASK]"))
        wrong = {
            "[CLS] is not counted: the first place of a text is 0": right - 1,
            "they are counted from 1: the first place of a text is 0": right + 1,
            "the place is counted in the template, without [CLS], and a name is one piece there": in_template,
            "the place is counted in the template: there a name is one piece, in a text it is several": in_template + 1,
            "the gap of the first text is taken for all": right[:1].expand_as(right),
        }
        same(given, right.double(), {why: each.double() for why, each in wrong.items()}, "the gaps are elsewhere")


TEMPLATE = Task(
    "p_tuning.template",
    "A template becomes ids",
    _template,
    {_ids: 3, _attended: 1, _labels: 2, _gaps: 1},
    (
        "Put the name into the template as text first, and then split at the blanks: each piece is one token.",
        "Go through the pieces with a counter for the pseudo tokens: the first [P] is -1, the second -2.",
        "Mask, labels and gaps follow from the padded ids: compare them with the ids of [PAD] and [MASK].",
    ),
    stars=2,
    minutes=20,
    errors={
        "KeyError: '[P]'": "[P] is in no vocabulary: it gets the next id below 0",
        "KeyError: '{subject}'": "put the name in the place of {subject} before you look up the pieces",
        "expected sequence of length": "pad all texts to the longest before torch.tensor(...)",
    },
)

# An encoder -------------------------------------------------------------------------------------------------------

BETWEEN = {"Tanh": nn.Tanh(), "ReLU": nn.ReLU(), "GELU": nn.GELU()}
RULES = {"MLP(RNN(x))": False, "x + MLP(RNN(x))": True}
N, D = 5, 8


def _own_rule(draw: Random) -> dict:
    return {"cell": draw.choice(list(GATES)), "between": draw.choice(list(BETWEEN)), "rule": draw.choice(list(RULES))}


def _made(cls: object) -> tuple[nn.Module, nn.Parameter]:
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise Misconception("a class is asked for, class OwnEncoder(nn.Module)")
    encoder = cls(N, D)
    if not list(encoder.parameters()):
        raise NotWritten("it has no parameters yet: start, a recurrent net and two maps")
    inside = {
        p for module in encoder.modules() if isinstance(module, (nn.RNNBase, nn.Linear)) for p in module.parameters()
    }
    own = [p for p in encoder.parameters() if p not in inside]
    if len(own) != 1 or own[0].shape != (N, D):
        shapes = ", ".join(str(tuple(p.shape)) for p in own) or "nothing"
        raise Misconception(f"beside net and maps it holds {shapes}: `start` is one nn.Parameter (n, d)")
    return encoder.double(), own[0]


def _parts(encoder: nn.Module, n: SimpleNamespace) -> tuple[nn.RNNBase, list[nn.Linear]]:
    nets = [module for module in encoder.modules() if isinstance(module, nn.RNNBase)]
    maps = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    if len(nets) != 1 or type(nets[0]).__name__ != n.cell:
        found = ", ".join(type(net).__name__ for net in nets) or "none"
        raise Misconception(f"one recurrent net is asked for, your n.cell; there is {found}")
    (net,) = nets
    if not net.bidirectional or net.hidden_size != D // 2 or net.num_layers != 1:
        told = f"hidden {net.hidden_size}, layers {net.num_layers}, bidirectional {net.bidirectional}"
        raise Misconception(f"for d = {D} the net has {told}: one layer, both directions, d // 2 in each")
    if len(maps) != 2 or any(tuple(each.weight.shape) != (D, D) for each in maps):
        shapes = ", ".join(str(tuple(each.weight.shape)) for each in maps) or "nothing"
        raise Misconception(f"the MLP has two maps ({D}, {D}); there is {shapes}")
    return net, maps


def _holds(cls: object, n: SimpleNamespace) -> None:
    encoder, start = _made(cls)
    _parts(encoder, n)
    if any(not p.requires_grad for p in encoder.parameters()):
        raise Misconception("a part of it is frozen: start, net and maps are all trained")
    if torch.linalg.matrix_rank(start.detach()) < N:
        raise Misconception("rows of start are alike: begin with random numbers, or pseudo tokens begin alike")
    if torch.equal(start, _made(cls)[1]):
        raise Misconception("two encoders begin with the same start: draw it")


@torch.no_grad()
def _gives(cls: object, n: SimpleNamespace) -> None:
    encoder, start = _made(cls)
    net, maps = _parts(encoder, n)
    given, again = encoder(), encoder()
    if given is None:
        raise NotWritten("forward gives nothing back yet")
    if isinstance(given, tuple):
        raise Misconception(
            "forward gives a pair: a recurrent net gives its outputs and its last state, take the first"
        )
    if isinstance(given, Tensor) and given.shape == again.shape and not torch.equal(given, again):
        raise Misconception("two calls give different embeddings: something is drawn in forward")
    read = net(start)[0]

    def by(between: nn.Module, x: Tensor, plus: Tensor | int, order: tuple) -> Tensor:
        first, second = order
        return plus + second(between(first(x)))

    plus = start if RULES[n.rule] else 0
    rights = [by(BETWEEN[n.between], read, plus, order) for order in permutations(maps)]
    if isinstance(given, Tensor) and any(given.shape == each.shape and torch.allclose(given, each) for each in rights):
        return
    each = start[:, None] if net.batch_first else start[None]  # n texts of one token
    by_itself, between = net(each)[0].reshape(N, D), BETWEEN[n.between]
    other = 0 if RULES[n.rule] else start
    for order in permutations(maps):
        wrong = {
            f"{name} stands between the maps: yours is n.between": by(each, read, plus, order)
            for name, each in BETWEEN.items()
            if name != n.between
        }
        wrong |= {
            "nothing stands between the two maps": by(nn.Identity(), read, plus, order),
            "the recurrent net takes no part": by(between, start, plus, order),
            "the recurrent net takes no part, and your n.rule says whether x is added": by(
                between, start, other, order
            ),
            "x is added or left out: your n.rule says which": by(between, read, other, order),
            "each pseudo token is read by itself: the net is to read (n, d) as one text": by(
                between, by_itself, plus, order
            ),
            "the second map is left out": plus + between(order[0](read)),
            "the MLP is left out": plus + read,
        }
        for why, made in wrong.items():
            if isinstance(given, Tensor) and given.shape == made.shape and torch.allclose(given, made):
                raise Misconception(why)
    same(given, rights[0], {}, "the embeddings are not those of n.rule")


def _reaches(cls: object, n: SimpleNamespace) -> None:
    encoder, _ = _made(cls)
    _parts(encoder, n)
    made = encoder()
    if made is None:
        raise NotWritten("forward gives nothing back yet")
    if not isinstance(made, Tensor) or not made.requires_grad:
        raise Misconception("what forward gives is no tensor, or hangs on no parameter")
    made.square().sum().backward()
    for name, p in encoder.named_parameters():
        if p.grad is None or not p.grad.any():
            raise Misconception(
                f"no gradient reaches {name}: is there a detach, a .data or a no_grad, or is it not used?"
            )


ENCODER = Task(
    "p_tuning.encoder",
    "An encoder by your own rule",
    _own_rule,
    {_holds: 2, _gives: 3, _reaches: 1},
    (
        "`nn.LSTM(d, d // 2, bidirectional=True)` reads (n, d) as one text; nn.GRU takes the same.",
        "Both give a pair: what they made at each place, (n, d), and their last state.",
        "x in your rule is `start`, what goes in.",
    ),
    stars=2,
    minutes=15,
    errors={
        "'tuple' object has no attribute": "a recurrent net gives a pair: take the first part",
        "linear(): argument 'input'": "a recurrent net gives a pair: the MLP reads the first part",
    },
)

# A figure ---------------------------------------------------------------------------------------------------------

FIGURE = floor(
    "p_tuning.figure",
    Bars(
        "facts",
        {
            "birthplace lstm": "BiLSTM, 44 people",
            "birthplace in front": "BiLSTM in front, 44 people",
            "birthplace joint": "all trained, 44 people",
            "birthplace lstm, n=5": "BiLSTM, 5 people",
            "birthplace mlp, n=5": "MLP, 5 people",
            "birthplace none, n=5": "no encoder, 5 people",
            "birthplace in front, n=5": "BiLSTM in front, 5 people",
            "birthplace joint, n=5": "all trained, 5 people",
        },
        "Birthplaces that a learned template finds",
        "right, of people held out (%)",
    ),
)

# A hunt -----------------------------------------------------------------------------------------------------------

CODE = """\
class PseudoTokens(nn.Module):
    def __init__(self, n, d):
        super().__init__()
        self.x = nn.Parameter(torch.randn(n, d))
        self.lstm = nn.LSTM(d, d // 2, num_layers=2, bidirectional=True)
        self.mlp = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def forward(self, table, ids):
        made = self.mlp(self.lstm(self.x)[0])
        rows = made[(-1 - ids).clamp(min=0)]
        words = table(ids.clamp(min=0))
        return torch.where((ids < 0)[..., None], rows, words)

    def labels(self, ids, answers, mask):
        return torch.where(ids == mask, answers[:, None], -100)

    def answer(self, logits, ids, mask, candidates):
        scores = logits[ids == mask][:, candidates]
        return torch.tensor(candidates)[scores.argmax(-1)]"""
X, LSTM = "self.x = nn.Parameter(torch.randn(n, d))", "self.lstm = nn.LSTM(d, d // 2, num_layers=2, bidirectional=True)"
MLP, MADE = (
    "self.mlp = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))",
    "made = self.mlp(self.lstm(self.x)[0])",
)
ROWS, PUT = "rows = made[(-1 - ids).clamp(min=0)]", "return torch.where((ids < 0)[..., None], rows, words)"
LABELS, SCORES = (
    "return torch.where(ids == mask, answers[:, None], -100)",
    "scores = logits[ids == mask][:, candidates]",
)
CHOSEN = "return torch.tensor(candidates)[scores.argmax(-1)]"
BEGINS = (
    "Look at x before training, and at its gradient after one step: does each row begin elsewhere, does each learn?"
)
NEIGHBOURS = "Change one row of x alone. Which rows of what the encoder makes move?"
SHAPE = "What does the encoder make for many inputs: numbers above and below 0? And is it one map, in two pieces?"
PLACES = "Feed ids in which the pseudo tokens stand in another order, beside the word 0. What stands at each place?"
WANTED = "Write the labels of two texts under their ids, place by place: which are left out of the loss?"
READ = "Make logits by hand in which each gap likes another word best. Which ids come out?"
FAULTS = (
    Fault(X, "self.x = nn.Parameter(torch.randn(1, d).repeat(n, 1))", BEGINS),
    Fault(X, "self.x = torch.randn(n, d)", BEGINS),
    Fault(LSTM, "self.lstm = nn.LSTM(d, d, num_layers=2)", NEIGHBOURS),
    Fault(MLP, "self.mlp = nn.Sequential(nn.Linear(d, d), nn.Linear(d, d))", SHAPE),
    Fault(MLP, "self.mlp = nn.Sequential(nn.Linear(d, d), nn.Linear(d, d), nn.ReLU())", SHAPE),
    Fault(MADE, "made = self.mlp(self.lstm(self.x[None])[0][0])", NEIGHBOURS),
    Fault(MADE, "made = self.mlp(self.x)", NEIGHBOURS),
    Fault(MADE, "made = self.mlp(self.lstm(self.x)[0]).detach()", BEGINS),
    Fault(ROWS, "rows = made[ids.clamp(max=-1)]", PLACES),
    Fault(ROWS, "rows = made[(ids < 0).cumsum(-1) - 1]", PLACES),
    Fault(PUT, "return torch.where((ids <= 0)[..., None], rows, words)", PLACES),
    Fault(PUT, "return words + (ids < 0)[..., None] * rows", PLACES),
    Fault(LABELS, "return torch.where(ids == mask, answers[:, None], 0)", WANTED),
    Fault(LABELS, "return torch.where(ids == mask, answers[:, None], ids)", WANTED),
    Fault(SCORES, "scores = logits[:, -1][:, candidates]", READ),
    Fault(SCORES, "scores = logits[ids == mask][:, sorted(candidates)]", READ),
    Fault(CHOSEN, "return scores.argmax(-1)", READ),
)


def _works(found: dict) -> None:
    pseudo, table = found["PseudoTokens"](3, 8), nn.Embedding(12, 8).requires_grad_(False)
    if "x" not in dict(pseudo.named_parameters()) or torch.linalg.matrix_rank(pseudo.x.detach()) < 3:
        raise Misconception("x is not trained, or its rows do not begin apart")
    if not pseudo.lstm.bidirectional or pseudo.lstm.num_layers != 2 or pseudo.lstm.hidden_size != 4:
        raise Misconception("the encoder's LSTM does not read from both ends in two layers, d // 2 in each direction")
    ids = torch.tensor([[2, -3, 0, -1, 4, -2], [0, -2, 4, 5, -1, -3]])
    given = pseudo(table, ids)
    first, *_, last = [module for module in pseudo.mlp if isinstance(module, nn.Linear)]
    made = last(torch.relu(first(pseudo.lstm(pseudo.x)[0])))
    right = table(ids.clamp(min=0)).clone()
    for i in range(3):
        right[ids == -1 - i] = made[i]
    if not torch.allclose(given[ids >= 0], right[ids >= 0]):
        raise Misconception("words do not stay as the table has them")
    if not torch.allclose(given, right, atol=1e-6):
        raise Misconception("in the pseudo tokens' places does not stand what the encoder makes for each of them")
    if not given.requires_grad:
        raise Misconception("no gradient reaches the encoder")
    labels = pseudo.labels(ids, torch.tensor([7, 9]), 4)
    if labels.tolist() != [[-100, -100, -100, -100, 7, -100], [-100, -100, 9, -100, -100, -100]]:
        raise Misconception("the labels are not each text's own answer at its gap, and -100 elsewhere")
    logits = torch.zeros(2, 6, 12)
    logits[0, 4, 5], logits[0, 4, 1], logits[1, 2, 8], logits[:, -1, 3] = 2, 9, 2, 5
    if pseudo.answer(logits, ids, 4, [8, 3, 5]).tolist() != [5, 8]:
        raise Misconception("answer does not give, for each text, the candidate that is likeliest at its gap")


LISTING = Listing(CODE, FAULTS, _works, {"torch": torch, "nn": nn})
HUNT = LISTING.task(
    "p_tuning.hunt",
    (
        "What can be measured: where x begins, which rows move together, what stands in each place, labels, answers.",
        "Take a text by hand in which the pseudo tokens do not stand in their order, and in which the word 0 stands.",
        "Measure one at a time: a fault in one line may hide another.",
    ),
)


# Three templates, of which one is chosen --------------------------------------------------------------------------

TEMPLATES = (
    "{subject} [P] [P] [MASK]",
    "[P] [P] {subject} [MASK]",
    "{subject} [P] [MASK] [P]",
    "[P] {subject} [P] [MASK]",
    "{subject} [MASK] [P] [P]",
    "[P] {subject} [MASK] [P]",
)
WIDE, SPLITS = 128, ("train", "validation", "test")
TRAINED = 0.6  # the share of the loss that is left after 16 steps, at most


def _asked(draw: Random) -> dict:
    return {
        "relation": draw.choice(("birthplace", "employer", "language")),
        "seed": draw.randrange(3),
        "templates": draw.sample(TEMPLATES, 3),
    }


@cache
def _found(relation: str, seed: int, template: str, numbers: tuple[float, ...]) -> dict[str, float]:
    """Per cent of each split's people whose fact these two vectors find, in the frozen tiny-bert; and the loss on those
    that were learned from."""
    how = replace(recipe("facts", f"{relation} none"), method=PTuning(template, encoder="none"))
    data, (model, tokenizer) = data_of(problem_of("facts", how), how, seed), backbone("tiny-bert")
    how.method.attach(model)
    with torch.no_grad():
        how.method.added[0].start.copy_(torch.tensor(numbers, dtype=torch.float64).reshape(2, WIDE))
        (batch,) = data.batches(tokenizer, "train", 44)
        loss = model(**batch).loss.item()
    return {split: 100 * data.evaluate(model, tokenizer, split)["accuracy"] for split in SPLITS} | {"loss": loss}


def _measured(answer: object, n: SimpleNamespace) -> dict[str, dict[str, float]]:
    """What the student's own vectors find, for each of the templates."""
    given = item(answer, "vectors")
    if not isinstance(given, dict) or not set(given) <= set(n.templates):
        raise Misconception(
            "`vectors` is a dict: for each template of n.templates, as it stands there, its two vectors"
        )
    if missing := [template for template in n.templates if template not in given]:
        raise Misconception(f"the vectors of {missing[0]!r} are missing: all three are to be compared")
    for template, rows in given.items():
        if isinstance(rows, Tensor) and not torch.isfinite(rows).all():
            raise Misconception(f"{template!r}: its vectors hold something that is no number")
        if not isinstance(rows, Tensor) or tuple(rows.shape) != (2, WIDE):
            told = f"a tensor {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise Misconception(
                f"{template!r}: a tensor (2, {WIDE}) of its two trained vectors is asked for, got {told}"
            )
    return {t: _found(n.relation, n.seed, t, tuple(given[t].detach().double().flatten().tolist())) for t in n.templates}


def _learned(answer: object, n: SimpleNamespace) -> None:
    for template, found in _measured(answer, n).items():
        untrained = _found(n.relation, n.seed, template, (0.0,) * 2 * WIDE)["loss"]
        if found["loss"] > TRAINED * untrained:
            raise Misconception(
                f"{template!r}: with these vectors the loss on the people that it learned from is {found['loss']:.2f}, "
                f"with zeros {untrained:.2f}: was it trained for 16 steps, with the seed n.seed?"
            )


def _chosen(answer: object, n: SimpleNamespace) -> None:
    measured, given = _measured(answer, n), item(answer, "chosen")
    if not isinstance(given, str) or given not in measured:
        raise Misconception("`chosen` is one of n.templates, as it stands there")
    most = {split: max(found[split] for found in measured.values()) for split in SPLITS}
    if measured[given]["validation"] == most["validation"]:
        return
    if measured[given]["test"] == most["test"]:
        raise Misconception("this one finds most of the test people: they are there for the end, choose on validation")
    if measured[given]["train"] == most["train"]:
        raise Misconception("this one finds most of those that it learned from: it may know them by heart")
    raise Misconception("with your own vectors another one finds more of the validation people")


def _held_out(answer: object, n: SimpleNamespace) -> None:
    measured, given = _measured(answer, n), item(answer, "chosen")
    if not isinstance(given, str) or given not in measured:
        raise Misconception("`held_out` is a share of the template in `chosen`, which is none of n.templates")
    found, share = measured[given], plain_number(item(answer, "held_out"), "held_out")
    if abs(share - found["test"]) < 1:
        return
    wrong = {
        "this is a fraction: it is asked for in per cent": found["test"] / 100,
        "these are the people that it learned from": found["train"],
        "these are the people by which you chose: the best of three is no honest score": found["validation"],
    }
    expect(
        share, found["test"], wrong, "with your own vectors the chosen template finds another share of the test people"
    )


CHOICE = Task(
    "p_tuning.choice",
    "Three templates, one choice",
    _asked,
    {_learned: 2, _chosen: 2, _held_out: 1},
    (
        'recipe("facts", f"{n6.relation} none") is how the lesson trained pseudo tokens without an encoder.',
        'replace(..., method=PTuning(template, encoder="none"), lr=0.1, steps=16) makes it yours.',
        "run.method.added[0].start are the vectors, and run.score(split) is a share between 0 and 1.",
    ),
    stars=2,
    minutes=20,
    errors={"no row": "the relation alone is no row: the rows are called 'birthplace none' and the like"},
)

put_on_the_list(SIZES, TEMPLATE, ENCODER, FIGURE, HUNT, CHOICE)
