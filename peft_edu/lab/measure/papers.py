"""What the papers print about parameter counts, and what is counted by attaching each method to the paper's model."""

import re

import pandas as pd

from peft_edu import Adapter, BitFit, FullFineTuning, LoRA, PrefixTuning, PromptTuning, PTuning, TopBlocks, count
from peft_edu.lab.models.architectures import architecture
from peft_edu.lab.paths import data_path
from peft_edu.method import Method

ROLES = {"q": "query", "k": "key", "v": "value"}


def _lora(setting: str) -> LoRA:
    rank, targets = re.fullmatch(r"r=(\d+) (.+)", setting).groups()
    return LoRA(rank=int(rank), targets=tuple(ROLES.get(role, role) for role in targets.split(",")))


def _number(setting: str, name: str) -> int:
    """'bottleneck 64', 'bottleneck' -> 64; 0 where the setting does not name it."""
    found = re.search(rf"{name} (\d+)|(\d+) {name}", setting)
    return int(found[1] or found[2]) if found else 0


def _adapter(setting: str, **fields) -> Adapter:
    return Adapter(_number(setting, "bottleneck"), norms="+ LayerNorms" in setting, **fields)


def _prefix(setting: str) -> PrefixTuning:
    return PrefixTuning(_number(setting, "length"), hidden=_number(setting, "hidden"))


METHODS = {
    "lora": _lora,
    "adapter-L": lambda setting: _adapter(setting, placement="pfeiffer", own_norm=True),
    "adapter-H": _adapter,
    "houlsby adapter": _adapter,
    "pfeiffer adapter": lambda setting: _adapter(setting, placement="pfeiffer"),
    "layernorm only": lambda setting: Adapter(blocks=()),
    "prefix": _prefix,
    "prefix + 2-way head": _prefix,
    "prefix-embed": lambda setting: PromptTuning(_number(setting, "tokens")),
    "prompt": lambda setting: PromptTuning(_number(setting, "length")),
    "p-tuning lstm": lambda setting: PTuning("[P]" * _number(setting, "pseudo tokens")),
    "bitfit": lambda setting: BitFit(),
    "full": lambda setting: FullFineTuning(),
    "top-2 blocks": lambda setting: TopBlocks(2),
}


def published() -> pd.DataFrame:
    """Every row of data/papers.csv whose method the package has: source, model, method, setting, figure as printed."""
    rows = pd.read_csv(data_path("papers.csv"), dtype=str)
    return rows[rows.method.isin(METHODS)].reset_index(drop=True)


def recount(row: pd.Series) -> int:
    """Attach the row's method to the row's model, and count."""
    method: Method = METHODS[row.method](row.setting)
    model = architecture(row.model, labels=2 if row.method.endswith("2-way head") else None)
    return count(method.attach(model)).trainable


def paper_counts(method: str) -> pd.DataFrame:
    """The papers' figures for one method, and ours: counted on models of the papers' sizes, without weights.

    A name that is none may be a part of some: "adapter" gives all kinds of adapters, each with its own name.
    """
    rows = published()
    found = rows[rows.method == str(method)]
    if found.empty:
        found = rows[rows.method.str.contains(str(method), regex=False)]
    if found.empty:
        raise ValueError(f"no published counts for {method!r}; there are some for {', '.join(rows.method.unique())}")
    counted = [f"{recount(row):,}" for _, row in found.iterrows()]
    kind = {"method": found.method} if found.method.nunique() > 1 else {}
    table = {"model": found.model, **kind, "setting": found.setting, "counted": counted, "printed": found.published_as}
    return pd.DataFrame(table).set_index("model")
