"""The anatomy of a transformer: which part of which model family is the query map, a block, the task head.

This is the only file that knows Hugging Face's attribute names. Methods speak of roles ("value") instead of names
("c_attn"), so a further family is one more row in FAMILIES.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

ROLES = ("query", "key", "value", "output", "up", "down", "gate")


@dataclass(frozen=True)
class Family:
    """Names inside one model family. `blocks` and `positions` are seen from the backbone, the rest from a block.

    A name may hold the wildcards * and ?, and may offer "one | another"; a map's may end in [i/n]: the i-th, counted
    from 0, of n maps that the module stores one under the other.
    """

    blocks: tuple[str, ...]
    maps: dict[str, str]
    sublayer_outputs: str  # the modules whose outputs a block adds to the residual stream, the FFN's last
    head: tuple[str, ...]  # what starts untrained over a backbone: these names, as far as the model has them
    attention: str | None = None  # the modules that call a registered attention function, if they do
    positions: str | None = None  # the module that is given the positions; None where they are relative
    stack: str = ""  # the part of the backbone that ends before its pooler, where it has one


# fmt: off
_BERT = Family(
    blocks=("encoder.layer",),
    maps={"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
          "output": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense"},
    sublayer_outputs="attention.output.dropout | output.dropout",
    attention="attention.self",
    stack="encoder",
    positions="embeddings.position_embeddings",
    head=("classifier", "qa_outputs"),  # not BERT's pooler: it is in the backbone, and comes pretrained
)
_LLAMA = Family(
    blocks=("layers",),
    maps={"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
          "output": "self_attn.o_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "gate": "mlp.gate_proj"},
    sublayer_outputs="self_attn.o_proj | mlp.down_proj",
    attention="self_attn",
    positions="rotary_emb",
    head=("score", "qa_outputs"),
)
FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "deberta-v2": Family(
        blocks=("encoder.layer",),
        maps=_BERT.maps | {"query": "attention.self.query_proj", "key": "attention.self.key_proj",
                           "value": "attention.self.value_proj"},
        sublayer_outputs=_BERT.sublayer_outputs,
        head=("pooler", "classifier", "qa_outputs"),  # no checkpoint of DeBERTa's holds a pooler
    ),
    "gpt2": Family(
        blocks=("h",),
        maps={"query": "attn.c_attn[0/3]", "key": "attn.c_attn[1/3]", "value": "attn.c_attn[2/3]",
              "output": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"},
        sublayer_outputs="attn.resid_dropout | mlp.dropout",
        attention="attn",
        positions="wpe",
        head=("score", "classifier", "qa_outputs", "multiple_choice_head"),
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "t5": Family(
        blocks=("encoder.block", "decoder.block"),
        maps={"query": "layer.*.*Attention.q", "key": "layer.*.*Attention.k", "value": "layer.*.*Attention.v",
              "output": "layer.*.*Attention.o",  # of self-attention, and in the decoder of cross-attention
              "up": "layer.*.DenseReluDense.wi | layer.*.DenseReluDense.wi_1",  # T5 1.0 | T5 1.1, which has a gate
              "down": "layer.*.DenseReluDense.wo", "gate": "layer.*.DenseReluDense.wi_0"},
        sublayer_outputs="layer.?.dropout",
        attention="layer.*.SelfAttention | layer.*.EncDecAttention",
        stack="encoder",
        head=("classification_head", "classifier", "qa_outputs"),
    ),
}
# fmt: on


@dataclass(frozen=True)
class LinearMap:
    """One linear map h = W x in a model, however the model stores it."""

    role: str
    name: str  # its module, seen from the block
    module: nn.Module
    rows: slice  # which of the module's outputs are this map's

    @property
    def weight(self) -> Tensor:
        """W (out, in), a view: writing to it writes to the model."""
        return _weight(self.module)[self.rows]


def family(model: PreTrainedModel) -> Family:
    """The row of FAMILIES for this model, or an error that says how to get there."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"expected a transformers model (a PreTrainedModel), got {type(model).__name__}")
    if model.config.model_type not in FAMILIES:
        raise ValueError(
            f"{type(model).__name__} is of the family {model.config.model_type!r}; known are {', '.join(FAMILIES)}. "
            "To add one, write its names into FAMILIES in peft_edu/anatomy.py."
        )
    return FAMILIES[model.config.model_type]


def blocks(model: PreTrainedModel) -> list[nn.Module]:
    """The transformer blocks, from the bottom up; for T5 the encoder's, then the decoder's."""
    paths = family(model).blocks
    inside = dict(model.base_model.named_modules())  # T5's encoder alone, as in its tagger, has no decoder.block
    return [block for path in paths for block in inside.get(path, ())]


def head(model: PreTrainedModel) -> list[nn.Module]:
    """The task head: the modules that start untrained. A language model has none."""
    return [getattr(model, name) for name in family(model).head if hasattr(model, name)]


def head_parameters(model: PreTrainedModel) -> set[nn.Parameter]:
    """The parameters of the task head."""
    return {parameter for part in head(model) for parameter in part.parameters()}


def names(model: nn.Module) -> dict[nn.Module, str]:
    """Each module's name in the model."""
    return {module: name for name, module in model.named_modules()}


def linear_maps(model: PreTrainedModel, roles: tuple[str, ...] | None = None) -> list[LinearMap]:
    """The linear maps that play these roles (all, if none are named), block by block."""
    maps = [each for block in blocks(model) for each in _maps_of(block, family(model).maps)]
    present = {each.role for each in maps}
    for role in roles or ():
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; the roles are {', '.join(ROLES)}")
        if role not in present:
            has = ", ".join(role for role in ROLES if role in present)
            raise ValueError(f"{type(model).__name__} has no {role!r} map; it has {has}")
    return [each for each in maps if roles is None or each.role in roles]


def sublayer_outputs(model: PreTrainedModel, block: nn.Module) -> list[nn.Module]:
    """The last module of each sub-layer, before its residual sum: attention's (in T5's decoder two), then the FFN's."""
    return [module for _, module in _find(block, family(model).sublayer_outputs)]


def attentions(model: PreTrainedModel) -> list[list[nn.Module]]:
    """The attention modules, from the bottom up, a list for each kind: T5 has encoder, decoder and cross-attention."""
    pattern, kinds = family(model).attention, {}
    if pattern is None:
        raise ValueError(f"{type(model).__name__} has attention of its own kind, into which no keys can be put")
    for block in blocks(model):
        for name, module in _find(block, pattern):
            kinds.setdefault((name, getattr(module, "is_decoder", None)), []).append(module)
    return list(kinds.values())


def positions(model: PreTrainedModel) -> nn.Module | None:
    """The module that is given the positions of the tokens: a table, or what computes rotations."""
    path = family(model).positions
    return path and model.base_model.get_submodule(path)


def max_tokens(model: PreTrainedModel) -> float:
    """How many tokens the model has positions for; any number where they are relative."""
    if family(model).positions is None:
        return float("inf")
    return model.config.max_position_embeddings - first_position(model.base_model)


def first_position(stack: nn.Module) -> int:
    """What counting starts from: RoBERTa's table keeps its first rows for padding."""
    table = getattr(getattr(stack, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def default_positions(stack: nn.Module, ids: Tensor | None) -> Tensor | None:
    """The positions (b, t) that the model would give these tokens, where they depend on more than their number."""
    count = getattr(getattr(stack, "embeddings", None), "create_position_ids_from_input_ids", None)
    return None if count is None or ids is None else count(ids, first_position(stack) - 1)


def input_stack(model: PreTrainedModel) -> tuple[nn.Module, nn.Module, nn.Module | None]:
    """The module that takes the text's embeddings, the one that gives its last hidden states, and T5's decoder.

    BERT's pooler reads those hidden states inside the backbone: so what gives them there is the encoder.
    """
    base = model.base_model
    if model.config.is_encoder_decoder:
        return base.encoder, base.encoder, getattr(base, "decoder", None)
    return base, getattr(base, family(model).stack, base), None


def key_value_shape(model: PreTrainedModel) -> tuple[int, int]:
    """Heads that have keys and values of their own, and the width of each."""
    config, heads = model.config, model.config.num_attention_heads
    width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    return getattr(config, "num_key_value_heads", None) or heads, width


def sliding_window(attention: nn.Module) -> int | None:
    """How many tokens back an attention module sees, where it does not see them all."""
    return getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))


def norms(model: PreTrainedModel) -> list[nn.Module]:
    """Every LayerNorm or RMSNorm of the backbone, the one over the embeddings included."""
    return [module for module in model.base_model.modules() if type(module).__name__.endswith("Norm")]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval(), and afterwards every module in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports, warnings and bars."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _maps_of(block: nn.Module, names: dict[str, str]) -> Iterator[LinearMap]:
    for role, name in names.items():
        pattern, _, part = name.rstrip("]").partition("[")  # "attn.c_attn[2/3]" -> "attn.c_attn", "2/3"
        index, count = map(int, (part or "0/1").split("/"))
        for path, module in _find(block, pattern):
            if not isinstance(module.weight, Tensor) or not module.weight.is_floating_point():
                kind = f"{type(module).__module__}.{type(module).__name__}"
                raise TypeError(f"{path} is a {kind}, whose weight is quantised: take the model as it was before")
            width = len(_weight(module)) // count
            yield LinearMap(role, path, module, slice(index * width, (index + 1) * width))


def _find(block: nn.Module, pattern: str) -> Iterator[tuple[str, nn.Module]]:
    for path, module in block.named_modules():
        if any(fnmatchcase(path, choice) for choice in pattern.split(" | ")):
            yield path, module


def _weight(module: nn.Module) -> Tensor:
    return module.weight.T if isinstance(module, Conv1D) else module.weight  # GPT-2's Conv1D stores (in, out)
