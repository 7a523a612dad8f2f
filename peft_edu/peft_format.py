"""LoRA in the format of Hugging Face peft, both ways.

    base_model.model.<module>.lora_A.weight  (r, in)        base_model.model.<module>.lora_B.weight  (out, r)

peft has one pair a module. Where a module holds n maps one under the other (GPT-2's c_attn: query, key, value), the
pairs of our k targets become one pair of rank k r; and a pair of peft's comes back as one for each of the n maps:

    A = A_1        B = B_1   0     (targets 1 and 3 of n = 3)        A_i = A
        A_3             0    0                                       B_i = those rows of B that belong to map i
                        0   B_3

Both keep the function, to the last digit of float64. alpha grows with the rank, so that alpha / r stays.
"""

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peft_edu.anatomy import ROLES, LinearMap, head, linear_maps
from peft_edu.checkpoint import as_json, attach_and_fill, make_method, pack, read_bytes, read_json, unpack, write_folder
from peft_edu.lora import LoRA, LowRankUpdate
from peft_edu.method import attached

CONFIG, TENSORS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."

# peft's options that make LoRA another function than W x + (alpha / r) B A x, or that function of another W.
BEYOND = ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias")
BEYOND += ("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config")
PLAIN_STARTS = (True, False, "gaussian")  # the other starts, such as "pissa", change W as well


def to_peft(model: PreTrainedModel, folder: str | Path) -> Path:
    """Write the attached LoRA, and the task head, as a folder that peft.PeftModel.from_pretrained opens."""
    method = attached(model)
    if not isinstance(method, LoRA):
        raise TypeError(f"only LoRA can be written for peft, but {method or 'nothing'} is attached to this model")
    names = {module: name for name, module in model.named_modules()}
    heads = [names[part] for part in head(model)]
    pairs, ranks = {}, {}
    for module, updates in _by_module(method).items():
        pairs[f"{names[module]}.lora_A.weight"], pairs[f"{names[module]}.lora_B.weight"] = _stack(module, updates)
        ranks[updates[0][0].name] = method.rank * len(updates)
    learned = {name: value for name, value in model.state_dict().items() if name.startswith(tuple(heads))}
    rank = max(ranks.values())
    others = {name: each for name, each in ranks.items() if each != rank}
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": method.alpha * rank / method.rank,
        "rank_pattern": others,
        "alpha_pattern": {name: method.alpha * each / method.rank for name, each in others.items()},
        "lora_dropout": method.dropout,
        "target_modules": sorted(ranks),
        "fan_in_fan_out": isinstance(method.updates[0][0].module, Conv1D),
        "modules_to_save": heads or None,
    }
    tensors = {PREFIX + name: value for name, value in (pairs | learned).items()}
    return write_folder(folder, {CONFIG: as_json(config), TENSORS: pack(tensors)})


def from_peft(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Attach the LoRA of a folder that peft wrote, and fill it in, the task head too, or leave the model untouched."""
    config_file, tensor_file = Path(folder) / CONFIG, Path(folder) / TENSORS
    config = read_json(config_file)
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{config_file} is of the type {config.get('peft_type')}; only LORA can be read")
    start = config.get("init_lora_weights", True)
    beyond = [option for option in BEYOND if config.get(option)] + ["init_lora_weights"] * (start not in PLAIN_STARTS)
    if beyond:
        raise ValueError(f"{config_file} sets {beyond[0]} to {config[beyond[0]]!r}, which LoRA here does not have")
    learned, targets = _unstack(model, unpack(read_bytes(tensor_file), tensor_file))
    fields = {"rank": config.get("r"), "alpha": config.get("lora_alpha"), "dropout": config.get("lora_dropout", 0.0)}
    method = make_method("LoRA", fields | {"targets": targets}, config_file)
    return attach_and_fill(method, model, learned)


def _by_module(method: LoRA) -> dict[nn.Module, list[tuple[LinearMap, LowRankUpdate]]]:
    groups = defaultdict(list)
    for target, update in method.updates:
        groups[target.module].append((target, update))
    return groups


def _stack(module: nn.Module, updates: list[tuple[LinearMap, LowRankUpdate]]) -> tuple[Tensor, Tensor]:
    """One pair for the whole module: A (k r, in) and B (out, k r)."""
    A = torch.cat([update.A.detach() for _, update in updates])
    B = A.new_zeros(module.weight.numel() // A.shape[1], len(A))
    for columns, (target, update) in zip(torch.arange(len(A)).chunk(len(updates)), updates, strict=True):
        B[target.rows, columns] = update.B.detach()
    return A, B


def _unstack(model: PreTrainedModel, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The same numbers under our names, and the roles of the maps that they belong to."""
    names = {module: name for name, module in model.named_modules()}
    rest = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    pairs, learned, roles = dict(rest), {}, set()
    for target in linear_maps(model):
        path = names[target.module]
        A, B = pairs.get(f"{path}.lora_A.weight"), pairs.get(f"{path}.lora_B.weight")
        if A is None or B is None:
            continue
        if sorted((*A.shape[1:], *B.shape[:1])) != sorted(target.module.weight.shape):
            raise ValueError(
                f"{path} is a map of {tuple(target.module.weight.shape)} in this model, "
                f"but the file has A {tuple(A.shape)} and B {tuple(B.shape)} for it"
            )
        learned |= {f"{path}.lora_{target.role}.A": A, f"{path}.lora_{target.role}.B": B[target.rows]}
        rest.pop(f"{path}.lora_A.weight", None), rest.pop(f"{path}.lora_B.weight", None)
        roles.add(target.role)
    if not roles:
        raise ValueError(f"no map of {type(model).__name__} is in the file, which has {min(rest, default='nothing')}")
    return learned | rest, tuple(role for role in ROLES if role in roles)
