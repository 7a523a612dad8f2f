"""P-tuning: trained pseudo tokens anywhere in a template, and an encoder that makes their embeddings while they learn.

    e_1, ..., e_n = MLP(BiLSTM(x_1, ..., x_n))        x_i (d) trained; e_i (d) is what the model reads

    "[P] [P] {subject} [P] [MASK] ."   ->   e_1 e_2 Georg Balford e_3 [MASK] .

Pseudo tokens are tokens of the text like any other, but not of the vocabulary: the first has the id -1, the second -2.

Liu et al. 2021, https://arxiv.org/abs/2103.10385, section 2.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count, groupby

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.checks import affordable, choice, yes_or_no
from peft_edu.method import Method

PSEUDO, MASK, FIELD = "[P]", "[MASK]", re.compile(r"\{(\w+)\}")


def template_ids(template: str, tokenizer: PreTrainedTokenizerBase, row: dict[str, str]) -> list[int]:
    """The token ids of a template whose {fields} are filled from a row, the tokenizer's special tokens around them.

    A tokenizer without a mask belongs to a model that writes from left to right: its text ends before [MASK], where the
    answer comes, and the words behind are left out.

    >>> template_ids("[P] {who} works at [MASK] .", backbone("tiny-bert")[1], {"who": "Anna"})[:2]
    [2, -1]
    """
    check_template(template)
    if not callable(tokenizer) or not isinstance(row, Mapping):
        raise TypeError(f"expected a tokenizer and a row, got {type(tokenizer).__name__} and {type(row).__name__}")
    before, mask, behind = template.partition(MASK)
    if mask and tokenizer.mask_token is None:
        if PSEUDO in behind:
            raise ValueError(f"{template!r} has {PSEUDO} behind {MASK}, which a model without a mask never reads")
        template = before.rstrip()
    known = [name for name, value in row.items() if value is not None]
    if missing := [name for name in FIELD.findall(template) if name not in known]:
        raise ValueError(f"{template!r} names the field {missing[0]!r}, but the row has {', '.join(map(str, known))}")
    ids, pseudo = [], count(-1, -1)
    for piece in re.split(r"(\[P\]|\[MASK\])", template):
        if piece == PSEUDO:
            ids.append(next(pseudo))
        elif piece == MASK:
            ids.append(tokenizer.mask_token_id)
        else:
            text = FIELD.sub(lambda field: str(row[field[1]]), piece)
            ids += tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"]
    around = tokenizer("a", return_special_tokens_mask=True)
    whole, special = around["input_ids"], around["special_tokens_mask"]
    return whole[: special.index(0)] + ids + whole[len(whole) - special[::-1].index(0) :]


def check_template(template: object) -> None:
    """Whether it is a text with {fields} and at most one answer. A format like {field:>9} or {field.x} is not run."""
    if not isinstance(template, str) or not template.strip():
        raise ValueError(f"template is {template!r}, but must be a text")
    if template.count(MASK) > 1:
        raise ValueError(f"{template!r} has {template.count(MASK)} of {MASK}, but there is one answer")
    if brace := re.search(r"[{}].{0,20}", FIELD.sub("", template)):
        raise ValueError(f"{template!r} has a brace at {brace[0]!r} that is no {{field}}, a name alone in braces")


def template_text(ids: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of token ids, each pseudo token as [P]: `tokenizer.decode` itself knows no ids below 0."""
    runs = groupby(map(int, ids), key=lambda each: each < 0)
    texts = (" ".join(PSEUDO for _ in run) if low else tokenizer.decode(list(run)).strip() for low, run in runs)
    return " ".join(texts)


class BiLSTM(nn.LSTM):
    """Two layers over the sequence (n, d), half of the width in each direction."""

    def __init__(self, width: int):
        super().__init__(width, width // 2, num_layers=2, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


def _mlp(width: int) -> dict[str, nn.Module]:
    return {"in": nn.Linear(width, width), "relu": nn.ReLU(), "out": nn.Linear(width, width)}


ENCODERS = {
    "lstm": lambda width: nn.Sequential(OrderedDict(lstm=BiLSTM(width), **_mlp(width))),
    "mlp": lambda width: nn.Sequential(OrderedDict(_mlp(width))),
    "none": lambda width: nn.Identity(),
}


class PseudoTokens(nn.Module):
    """The embeddings (n, d) of the pseudo tokens, and their way into the text."""

    def __init__(self, start: Tensor, encoder: nn.Module):
        super().__init__()
        self.start, self.encoder = nn.Parameter(start), encoder
        self.which = None

    @property
    def embeddings(self) -> Tensor:
        return self.encoder(self.start)

    def set_aside(self, table: nn.Embedding, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """The pre-hook of the model's embedding, which has no row for them: each is looked up as token 0."""
        self.which = -inputs[0]
        if int(self.which.max()) > len(self.start):
            raise ValueError(f"the text has the pseudo token {-int(self.which.max())}, the template {len(self.start)}")
        return (inputs[0].clamp(min=0),)

    def put_in(self, table: nn.Embedding, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """The hook behind it: their rows become what the encoder makes."""
        pseudo = self.embeddings[(self.which - 1).clamp(min=0)]  # (b, t, d)
        return torch.where((self.which > 0)[..., None], pseudo, output)


@dataclass
class PTuning(Method):
    """Pseudo tokens, one for each [P] of the template; `template_ids` makes the text that holds them.

    template: words (the paper's anchors), {fields} of a row, [P], and at most one [MASK] where the answer stands.
    encoder: "lstm" and "mlp" as in the authors' code, or "none": free embeddings, which start as tokens do. `save`
        keeps the embeddings alone, so what is loaded has encoder="none".
    joint: train the whole model too, as the paper does for SuperGLUE; for facts it is frozen.

    >>> model = PTuning("[P] [P] {subject} [P] [MASK] .", encoder="mlp").attach(backbone("tiny-bert")[0])
    """

    template: str = "[P] [P] [P] {subject} [P] [P] [P] [MASK] [P] [P] [P]"
    encoder: str = "lstm"
    joint: bool = False

    starts_at_base = False  # a text with pseudo tokens has no meaning for the base model

    def __post_init__(self):
        choice("encoder", self.encoder, tuple(ENCODERS))
        yes_or_no("joint", self.joint)
        if not isinstance(self.template, str) or PSEUDO not in self.template:
            raise ValueError(f"template is {self.template!r}, but must be a text with one {PSEUDO} or more")
        check_template(self.template)

    def insert(self, model: PreTrainedModel) -> None:
        table = model.get_input_embeddings()
        n, (v, d) = self.template.count(PSEUDO), table.weight.shape
        affordable(f"a template with {n} {PSEUDO}", n * d, model)
        if self.joint:
            self.unfreeze(model)
        start = torch.randn(n, d) if self.encoder != "none" else table.weight.detach()[torch.randint(v, (n,))]
        pseudo = PseudoTokens(start, ENCODERS[self.encoder](d))
        self.add(table, "pseudo", pseudo)
        for each in model.modules():
            if isinstance(each, nn.Embedding) and each.weight is table.weight:  # T5's encoder and decoder share it
                self.hook(each.register_forward_pre_hook(pseudo.set_aside))
                self.hook(each.register_forward_hook(pseudo.put_in))

    def saved(self) -> tuple[Method, dict[str, Tensor]]:
        """Without the encoder: n d numbers, and what else was trained."""
        return replace(self, encoder="none"), self.finished("start", "embeddings")
