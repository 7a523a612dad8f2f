"""The format of Hugging Face peft, both ways: LoRA here, virtual tokens in peft_virtual.

    base_model.model.<module>.lora_A.weight  (r, in)        base_model.model.<module>.lora_B.weight  (out, r)

peft has one pair a module. Where a module holds n maps one under the other (GPT-2's c_attn: query, key, value), the
pairs of our k targets are written as one pair of rank k r, and a pair of peft's is read as one for each of the n maps:

    A = A_1        B = B_1   0     (targets 1 and 3 of n = 3)        A_i = A
        A_3             0    0                                       B_i = the rows of B that belong to map i
                        0   B_3

The function stays the same; alpha is written as k alpha, so that alpha / r stays too. Where a module has fewer targets
than another (GPT-2's c_proj beside c_attn) the rest of its pair is zero in both factors, and stays so in training.
"""

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peft_edu.anatomy import ROLES, LinearMap, head, linear_maps
from peft_edu.lora import LoRA, LowRankUpdate
from peft_edu.method import attached
from peft_edu.p_tuning import PTuning
from peft_edu.prefix_tuning import PrefixTuning
from peft_edu.prompt_tuning import PromptTuning
from peft_edu.storage import peft_virtual
from peft_edu.storage.checkpoint import attach_and_fill, make_method
from peft_edu.storage.folder import json_bytes, read_bytes, read_json, read_tensors, tensor_bytes, write_folder

CONFIG, TENSORS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."

# peft's options that make LoRA another function than W x + (alpha / r) B A x, or that function of another W.
BEYOND = ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "use_qalora", "use_bdlora", "lora_bias")
BEYOND += ("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config")
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others, such as "pissa", change W as well


def to_peft(model: PreTrainedModel, folder: str | Path) -> Path:
    """Write the attached method, and the task head, as a folder that peft.PeftModel.from_pretrained opens."""
    method = attached(model)
    if isinstance(method, LoRA):
        config, tensors = _write_lora(model, method)
    elif isinstance(method, (PrefixTuning, PromptTuning, PTuning)):
        config, tensors = peft_virtual.write(model, method)
    else:
        known = "LoRA, PrefixTuning, PromptTuning, PTuning and PTuningV2"
        raise TypeError(f"of the methods here peft has {known}, but {method or 'nothing'} is attached to this model")
    return write_folder(folder, {CONFIG: json_bytes(config), TENSORS: tensor_bytes(tensors)})


def from_peft(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Attach what a folder of peft's holds, and fill it in, the task head too, or leave the model untouched."""
    config_file, tensor_file = Path(folder) / CONFIG, Path(folder) / TENSORS
    config = read_json(config_file)
    if config.get("peft_type") not in ("LORA", *peft_virtual.TYPES):
        known = ", ".join(("LORA", *peft_virtual.TYPES))
        raise ValueError(f"{config_file} is of the type {config.get('peft_type')}; {known} can be read")
    reader = _read_lora if config["peft_type"] == "LORA" else peft_virtual.read
    method, learned = reader(model, config, read_tensors(read_bytes(tensor_file), tensor_file))
    return attach_and_fill(method, model, learned)


def _write_lora(model: PreTrainedModel, method: LoRA) -> tuple[dict, dict[str, Tensor]]:
    names = {module: name for name, module in model.named_modules()}
    heads = [names[part] for part in head(model)]
    modules = defaultdict(list)
    for target, update in method.updates:
        modules[target.module].append((target, update))
    k = max(len(updates) for updates in modules.values())
    tensors = {
        f"{name}.{key}": value for name in heads for key, value in model.get_submodule(name).state_dict().items()
    }
    for module, updates in modules.items():
        A, B = _stack(updates, k * method.rank)
        tensors |= {f"{names[module]}.lora_A.weight": A, f"{names[module]}.lora_B.weight": B}
    config = {
        "peft_type": "LORA",
        "r": k * method.rank,
        "lora_alpha": k * method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": sorted(names[module] for module in modules),  # whole names: peft matches by their ends
        "fan_in_fan_out": isinstance(next(iter(modules)), Conv1D),
        "modules_to_save": heads or None,
    }
    return config, {PREFIX + name: value for name, value in tensors.items()}


def _read_lora(model: PreTrainedModel, config: dict, tensors: dict[str, Tensor]) -> tuple[LoRA, dict[str, Tensor]]:
    start = config.get("init_lora_weights", True)
    beyond = [option for option in BEYOND if config.get(option)] + ["init_lora_weights"] * (start not in PLAIN_STARTS)
    if beyond:
        raise ValueError(f"{CONFIG} sets {beyond[0]} to {config[beyond[0]]!r}, which LoRA here does not have")
    learned, targets = _unstack(model, tensors)
    fields = {"rank": config.get("r"), "alpha": config.get("lora_alpha"), "dropout": config.get("lora_dropout", 0.0)}
    return make_method("LoRA", fields | {"targets": targets}, CONFIG), learned


@torch.no_grad()
def _stack(updates: list[tuple[LinearMap, LowRankUpdate]], rank: int) -> tuple[Tensor, Tensor]:
    """One pair for the whole module, A (rank, in) and B (out, rank), filled up with zeros."""
    weight, first = updates[0][0].module.weight, updates[0][1].A
    A = first.new_zeros(rank, first.shape[1])
    B = first.new_zeros(weight.numel() // first.shape[1], rank)
    for i, (target, update) in enumerate(updates):
        part = slice(i * len(first), (i + 1) * len(first))
        A[part], B[target.rows, part] = update.A, update.B
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
        out_in = tuple(target.module.weight.shape)[:: -1 if isinstance(target.module, Conv1D) else 1]
        if (len(B), *A.shape[1:]) != out_in:
            raise ValueError(
                f"{path} is a map of {tuple(target.module.weight.shape)} in this model, "
                f"but the file has A {tuple(A.shape)} and B {tuple(B.shape)} for it"
            )
        learned |= {f"{path}.lora_{target.role}.A": A, f"{path}.lora_{target.role}.B": B[target.rows]}
        for key in (f"{path}.lora_A.weight", f"{path}.lora_B.weight"):
            rest.pop(key, None)
        roles.add(target.role)
    if not roles:
        raise ValueError(f"no map of {type(model).__name__} is in the file, which has {min(rest, default='nothing')}")
    return learned | rest, tuple(role for role in ROLES if role in roles)
