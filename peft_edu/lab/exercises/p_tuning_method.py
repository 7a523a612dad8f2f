"""Lesson 05: what the learner builds and trains: the encoder of the pseudo tokens, the two hooks around the table of
embeddings, the method that puts them in place, and what is kept when the encoder goes.

The checks look at what comes out. Three names are asked for, as later cells read them: start, lstm and mlp.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from peft_edu.lab.exercises.check import NOTHING, Misconception, NotWritten, exercise, same, shape
from peft_edu.lab.exercises.p_tuning import encoder_count, put_in
from peft_edu.lab.exercises.whole_method import expect_a_method, tiny_model, weights
from peft_edu.lab.exercises.whole_method import put_in as attached_to
from peft_edu.method import METHODS, Method

AROUND = "[P] [P] [P] {subject} [P] [P] [P] [MASK] [P] [P] [P]"  # the paper's places for a masked model
N, D = 5, 8  # in the checks of the encoder: no two of its shapes are alike
PAIR = "an nn.LSTM gives two things, what it made at each place, and its last state"


class PromptEncoder(nn.Module):
    """The embeddings e (n, d) of n pseudo tokens: MLP(BiLSTM(x))."""

    def __init__(self, n, d):
        super().__init__()
        self.start = nn.Parameter(torch.randn(n, d))
        self.lstm = nn.LSTM(d, d // 2, num_layers=2, bidirectional=True)
        self.mlp = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def forward(self):
        neighbours, _ = self.lstm(self.start)
        return self.mlp(neighbours)


@exercise(
    "p_tuning.encoder",
    reference=PromptEncoder,
    hints=(
        "What goes in is trained, too: `nn.Parameter(torch.randn(n, d))`.",
        "`nn.LSTM(d, d // 2, num_layers=2, bidirectional=True)` gives a pair; its first part is (n, d), half from "
        "each direction.",
        "`nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))` is the MLP. It reads what the LSTM gives.",
    ),
)
def _encoder(cls) -> None:
    """class PromptEncoder(nn.Module): PromptEncoder(n, d) holds start (n, d), random and trained, lstm, with two
    layers, two directions and d // 2 in each, and mlp, two maps d -> d with a ReLU between; forward() gives the
    embeddings (n, d)"""
    if not issubclass(cls, nn.Module):
        raise Misconception("PromptEncoder is no nn.Module: write class PromptEncoder(nn.Module)")
    encoder = cls(N, D)
    start = _start_of(encoder)
    for dtype in (torch.float32, torch.float64):
        _expect_embeddings(_made(encoder.to(dtype)), dtype)
    _expect_steady(encoder)
    _expect_neighbours(encoder, start)
    _expect_parts(encoder, start)
    _made(encoder).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            raise Misconception(f"no gradient reaches {name}: is there a detach(), a .data or a no_grad?")
    _expect_names(encoder)


def _start_of(encoder: nn.Module) -> nn.Parameter:
    every = list(encoder.parameters())
    if not every:
        raise Misconception("nothing in it would be trained: set start, an nn.Parameter, lstm and mlp on self")
    starts = [each for each in every if each.shape == (N, D)]
    if not starts:
        raise Misconception(
            f"no parameter has the shape ({N}, {D}) of what goes in for PromptEncoder({N}, {D}): start is an "
            "nn.Parameter, set on self"
        )
    if len(starts) > 1:
        raise Misconception(f"{len(starts)} parameters have the shape (n, d): there is one start")
    if any(not each.requires_grad for each in every):
        raise Misconception("a parameter is frozen: the start, the LSTM and the MLP are all trained")
    if torch.linalg.matrix_rank(starts[0].double()) < min(N, D):
        raise Misconception("rows of start are alike, so pseudo tokens begin alike: begin with random numbers")
    return starts[0]


def _made(encoder: nn.Module) -> Tensor:
    try:
        return encoder()
    except RuntimeError as error:
        if "dtype" in str(error) or "same type" in str(error):
            raise Misconception(
                f"it works in float32 alone ({error}): make no tensor in forward, so that encoder.to(...) moves all"
            ) from error
        raise
    except TypeError as error:
        if "not tuple" in str(error):
            raise Misconception(f"{PAIR}. The MLP reads the first alone") from error
        raise


def _expect_embeddings(output: object, dtype: torch.dtype) -> None:
    if output is None:
        raise Misconception(NOTHING)
    if isinstance(output, tuple):
        raise Misconception(f"forward gives a pair. {PAIR}. Take the first")
    if not isinstance(output, Tensor):
        raise Misconception(f"forward gives a {type(output).__name__}, but must give a tensor")
    if output.shape == (1, N, D) or output.shape == (N, 1, D):
        raise Misconception(f"the result is {tuple(output.shape)}: take the axis of the batch off again, (n, d)")
    shape(output, (N, D), "one embedding (d) for each of the n pseudo tokens")


@torch.no_grad()
def _expect_steady(encoder: nn.Module) -> None:
    if not torch.equal(encoder(), encoder()):
        raise Misconception("two calls give different embeddings: something is drawn anew in forward")


@torch.no_grad()
def _expect_neighbours(encoder: nn.Module, start: nn.Parameter) -> None:
    """Which embeddings move when one row of the start does."""
    moves = []
    for row in (0, N - 1):
        before, kept = encoder(), start[row].clone()
        start[row] += 1
        moves.append(encoder().ne(before).any(-1).nonzero().flatten().tolist())
        start[row] = kept
    first, last = moves
    if not first and not last:
        raise Misconception("start changes nothing: the LSTM reads it")
    if first == [0] and last == [N - 1]:
        raise Misconception(
            "each embedding follows from its own row alone: does the LSTM take part, and does it read (n, d) as one "
            "text? (1, n, d) are n texts of one token to it, unless it has batch_first=True"
        )
    if 0 not in last:
        raise Misconception("the first embedding does not know of the last row: bidirectional=True reads both ways")


def _expect_parts(encoder: nn.Module, start: nn.Parameter) -> None:
    """Two layers both ways and an MLP with a ReLU: what comes out is computed once more from the parts."""
    lstms = [module for module in encoder.modules() if isinstance(module, nn.LSTM)]
    if not lstms:
        raise Misconception("there is no nn.LSTM in it")
    inside = {parameter for lstm in lstms for parameter in lstm.parameters()} | {start}
    wrong_size = {4: "each of the two directions makes half of d", 1: "two are asked for"}
    numbers, wanted = sum(each.numel() for each in encoder.parameters()), encoder_count(N, D)
    if sum(lstm.num_layers for lstm in lstms) < 2:
        raise Misconception(f"the LSTM has one layer: {wrong_size[1]}")
    if any(lstm.hidden_size * (1 + lstm.bidirectional) != D for lstm in lstms):
        raise Misconception(f"the LSTM has {lstms[0].hidden_size} numbers a direction for d = {D}: {wrong_size[4]}")
    outside = [each for each in encoder.parameters() if each not in inside]
    maps, biases = ([each for each in outside if each.ndim == axes] for axes in (2, 1))
    if len(maps) != 2 or len(biases) != 2 or any(each.shape != (D, D) for each in maps):
        shapes = ", ".join(str(tuple(each.shape)) for each in outside) or "nothing"
        raise Misconception(f"beside start and LSTM there is {shapes}: the MLP has two maps ({D}, {D}) with biases")
    if numbers != wanted:
        raise Misconception(f"it has {numbers} parameters, and not {wanted}: two layers, two directions, an MLP")
    with torch.no_grad():
        read = start.detach()
        for lstm in lstms:
            read = lstm(read)[0]
        _expect_mlp(encoder(), read, maps, biases)


def _expect_mlp(output: Tensor, read: Tensor, maps: list[Tensor], biases: list[Tensor]) -> None:
    def given(between: Callable, behind: Callable = lambda x: x, x: Tensor = read) -> bool:
        ways = [(a, b, c, d) for a, b in permutations(maps) for c, d in permutations(biases)]
        ways += [(a.T, b.T, c, d) for a, b, c, d in ways]
        return any(torch.allclose(output, behind(F.linear(between(F.linear(x, a, c)), b, d))) for a, b, c, d in ways)

    if given(F.relu):
        return
    if given(lambda x: x):
        raise Misconception("there is no ReLU between the two maps: without one they are one map, in two pieces")
    if given(lambda x: x, F.relu) or given(F.relu, F.relu):
        raise Misconception("a ReLU stands at the end, so that no number is below 0: it stands between the two maps")
    if any(given(each) for each in (torch.tanh, F.gelu, torch.sigmoid, F.silu)):
        raise Misconception("the nonlinearity between the two maps is another: the paper has a ReLU")
    raise Misconception("the parts are there, but they are not put together as MLP(BiLSTM(start))")


def _expect_names(encoder: nn.Module) -> None:
    uses = {"start": "to compare with the package", "lstm": "to compare with peft", "mlp": "to compare with peft"}
    for name, use in uses.items():
        if not hasattr(encoder, name):
            raise Misconception(
                f"it computes what it should, well done. One thing is missing, the attribute {name}: later cells read "
                f"it {use}. Rename yours"
            )
    if not isinstance(encoder.start, Tensor):
        raise Misconception(
            f"it computes what it should, well done. But start is a {type(encoder.start).__name__}: later cells read "
            "a tensor. Give yours another name, and start as a @property that returns its weight"
        )


def before_lookup(table, inputs):
    table.my_pseudo.ids = inputs[0]
    return (inputs[0].clamp(min=0),)


def after_lookup(table, inputs, output):
    return put_in(output, table.my_pseudo.ids, table.my_pseudo())


class Made(nn.Module):
    """Pseudo tokens for a check: what is asked for when it is called."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self):
        return self.rows


def _table() -> nn.Embedding:
    torch.manual_seed(1)
    table = nn.Embedding(9, 4, dtype=torch.float64).requires_grad_(False)
    table.my_pseudo = Made(torch.randn(3, 4, dtype=torch.float64))
    return table


TEXTS = torch.tensor([[2, -1, 5, -3, 4], [-2, 0, -1, 8, 4]])


@exercise(
    "p_tuning.before",
    reference=before_lookup,
    hints=(
        "The table has rows from 0 on: an id below 0 would stop it with an error.",
        "What it finds there does not matter, since the second hook replaces it: take 0, `.clamp(min=0)`.",
        "A pre-hook gives back what the module reads instead, again as a tuple.",
    ),
)
def _before(f) -> None:
    """f(table, inputs) -> what the table reads instead: inputs is the tuple (ids,), and in the result no id is below 0;
    table.my_pseudo.ids keeps the ids as they came"""
    table, ids = _table(), TEXTS.clone()
    result = f(table, (ids,))
    if not torch.equal(ids, TEXTS):
        raise Misconception("the ids are changed in place (by clamp_ or =): the second hook needs them as they came")
    if result is None:
        raise NotWritten("before_lookup gives nothing back, so the table reads the ids as they are")
    read = result[0] if isinstance(result, tuple) else result
    if not isinstance(read, Tensor) or read.shape != TEXTS.shape:
        raise Misconception(f"expected ids {tuple(TEXTS.shape)} for the table, as a tuple (ids,), got {result!r}")
    if (read < 0).any():
        raise Misconception("an id is still below 0: the table has no such row")
    if (read > 8).any():
        raise Misconception("an id is larger than the table: take a row that is there, such as 0")
    if not torch.equal(read[TEXTS >= 0], TEXTS[TEXTS >= 0]):
        raise Misconception("the id of a word is changed: only ids below 0 are")
    kept = getattr(table.my_pseudo, "ids", None)
    if not isinstance(kept, Tensor) or not torch.equal(kept, TEXTS):
        raise Misconception("table.my_pseudo.ids does not hold the ids as they came: the second hook needs them")


@exercise(
    "p_tuning.after",
    reference=after_lookup,
    hints=(
        "You have written the function that does it: put_in.",
        "`table.my_pseudo()` gives the embeddings (n, d), and `table.my_pseudo.ids` are the ids as they came.",
        "What a hook returns takes the place of the output.",
    ),
)
def _after(f) -> None:
    """f(table, inputs, output) -> the output (b, t, d), with what table.my_pseudo() makes in the places of the pseudo
    tokens; table.my_pseudo.ids (b, t) says where they are"""
    table, read = _table(), TEXTS.clamp(min=0)
    table.my_pseudo.ids = TEXTS
    output = table(read)
    before = output.clone()
    result = f(table, (read,), output)
    if not torch.equal(output, before):
        raise Misconception("the output is changed in place: somebody may have kept it. Return a new one")
    right = put_in(before, TEXTS, table.my_pseudo.rows)
    rows = table.my_pseudo.rows
    wrong = {
        "nothing is put in: inputs are the ids that before_lookup gave, and none of them is below 0 any more. "
        "table.my_pseudo.ids are the ids as they came": before,
        "the word with the id 0 is replaced, too: ids as they came tell it from a pseudo token": put_in(
            before, torch.where(read == 0, -1, read), rows
        ),
        "every pseudo token gets the first embedding": put_in(before, TEXTS.clamp(min=-1), rows),
        "the embeddings are added to what was looked up for token 0: they stand in its place": right
        + torch.where((TEXTS < 0)[..., None], before, 0),
    }
    same(result, right, wrong)
    if not result.requires_grad:
        raise Misconception("no gradient reaches my_pseudo: is there a detach(), a .data or a no_grad?")


@dataclass
class MyPTuning(Method):
    template: str = AROUND
    starts_at_base = False

    def insert(self, model):
        table = model.get_input_embeddings()
        n, d = self.template.count("[P]"), table.embedding_dim
        self.add(table, "my_pseudo", PromptEncoder(n, d))
        self.hook(table.register_forward_pre_hook(before_lookup))
        self.hook(table.register_forward_hook(after_lookup))


METHODS.pop("MyPTuning")  # `check` puts on the list what the lesson goes on with: the learner's, or this one

SHORT = "[P] {subject} [P] [MASK] [P]"
PSEUDO_TEXTS = torch.tensor([[3, -1, 5, -2, 4, -3], [-3, 7, -1, 4, 1, 2]])


@exercise(
    "p_tuning.insert",
    reference=MyPTuning,
    hints=(
        "`self.template.count('[P]')` is n, and `table.embedding_dim` is d.",
        "`self.add(table, 'my_pseudo', PromptEncoder(n, d))` puts the encoder where your hooks look for it.",
        "`table.register_forward_pre_hook(f)` is called before the table looks up, `register_forward_hook(f)` after. "
        "Both give a handle for self.hook(...).",
    ),
)
def _insert(cls) -> None:
    """class MyPTuning(Method), a @dataclass with template: insert(self, model) adds a PromptEncoder to the table of
    embeddings, one row for each [P] of the template, as "my_pseudo", and hooks the table before and after"""
    expect_a_method(cls, template=SHORT)
    for kind in ("bert", "llama"):
        _check_insert(cls, tiny_model(kind))
    if cls.starts_at_base:
        raise Misconception(
            "it works. One line is missing that the package asks for: starts_at_base = False, as a text with pseudo "
            "tokens means nothing to the base model"
        )


@contextmanager
def looked_up(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """What the table of embeddings hands to the rest of the model, once all other hooks have run."""
    heard: list[Tensor] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda *call: heard.append(call[-1]))
    try:
        yield heard
    finally:
        handle.remove()


def handed_on(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The embeddings of these texts, as the first block gets to see them."""
    with looked_up(model) as heard:
        try:
            model(input_ids=ids)
        except IndexError as error:
            raise Misconception(
                "the table was asked for a row that it does not have: is before_lookup registered with "
                "register_forward_pre_hook, and does it take ids below 0 away?"
            ) from error
    return heard[-1]


def _check_insert(cls, model: PreTrainedModel) -> None:
    before = weights(model)
    table = model.get_input_embeddings()
    with attached_to(method := cls(template=SHORT), model, "the encoder and its input"):
        if model.state_dict().keys() == before.keys():
            if not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
                raise NotWritten("insert adds nothing yet. Add an encoder to the table of embeddings, and hook it")
            raise Misconception("it is hooked, but not added: without self.add nothing of it is trained or saved")
        _expect_one_encoder(method, cls, table.embedding_dim)
        got = handed_on(model, PSEUDO_TEXTS)
        _expect_placed(got, method, table)
        got.square().sum().backward()
        if any(p.grad is None for child in method.added for p in child.parameters()):
            raise Misconception("no gradient reaches the encoder: is there a detach(), a .data or a no_grad?")


def _expect_one_encoder(method: Method, cls: type, d: int) -> None:
    if len(method.added) != 1:
        raise Misconception(f"{len(method.added)} modules were added: one encoder makes all pseudo tokens")
    with torch.no_grad():
        made = method.added[0]()
    if tuple(made.shape) != (3, d):
        raise Misconception(
            f"for a template with three [P] and a table of width {d} the encoder makes {tuple(made.shape)}, and not "
            f"(3, {d}): count n in self.template, and ask the table for its width"
        )


@torch.no_grad()
def _expect_placed(got: Tensor, method: Method, table: nn.Embedding) -> None:
    words = table.weight[PSEUDO_TEXTS.clamp(min=0)]
    made = method.added[0]()
    places = PSEUDO_TEXTS < 0
    if not torch.allclose(got[~places], words[~places]):
        raise Misconception("the embedding of a word is changed: only pseudo tokens get what the encoder makes")
    if torch.allclose(got[places], words[places]):
        raise Misconception(
            "the pseudo tokens stay what token 0 is: is after_lookup registered, with register_forward_hook?"
        )
    if not torch.allclose(got, put_in(words, PSEUDO_TEXTS, made)):
        raise Misconception("in the places of the pseudo tokens stands something else than what the encoder makes")


class Kept(nn.Module):
    """What is left of an encoder that has learned: the embeddings."""

    def __init__(self, encoder):
        super().__init__()
        self.embeddings = nn.Parameter(encoder().detach().clone())

    def forward(self):
        return self.embeddings


@exercise(
    "p_tuning.kept",
    reference=Kept,
    hints=(
        "After the training the encoder gives the same n d numbers at every call: `encoder()`.",
        "`.detach()` cuts them off from the encoder, and an nn.Parameter is saved with the model.",
        "forward has nothing to compute: it gives them back.",
    ),
)
def _kept(cls) -> None:
    """class Kept(nn.Module): Kept(encoder) holds what encoder() makes, as its one parameter (n, d); forward() gives it,
    and the encoder is not needed any more"""
    if not issubclass(cls, nn.Module):
        raise Misconception("Kept is no nn.Module: write class Kept(nn.Module)")
    encoder = PromptEncoder(N, D).double()
    right = encoder().detach().clone()
    kept = cls(encoder)
    every = list(kept.parameters())
    if not every:
        raise Misconception("nothing of it would be saved: keep the embeddings as an nn.Parameter on self")
    numbers = sum(each.numel() for each in every)
    if any(parameter is mine for parameter in every for mine in encoder.parameters()) or numbers > N * D:
        raise Misconception(f"{numbers} parameters are kept, the encoder among them: n d = {N * D} are enough")
    if torch.equal(every[0].detach(), encoder.start.detach()):
        raise Misconception("this is start, what goes into the encoder: what comes out of it is kept")
    with torch.no_grad():
        output = kept()
        if output is None:
            raise Misconception(NOTHING)
        same(output, right, {})
        for parameter in encoder.parameters():
            parameter.zero_()
        same(kept(), right, {}, "it changes with the encoder: copy what it makes, once, in __init__")
