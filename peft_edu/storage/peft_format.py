"""The format of Hugging Face peft, both ways: LoRA, and virtual tokens; with them the task head.

    base_model.model.<module>.lora_A.weight  (r, in)        base_model.model.<module>.lora_B.weight  (out, r)
    prompt_embeddings    prefix: (p, layers 2 heads w)        prompt: (p, d); for T5 (2 p, d), of which it reads p

peft has one pair a module. Where a module holds n maps one under the other (GPT-2's c_attn: query, key, value), the
pairs of our k targets are written as one pair of rank k r, and a pair of peft's is read as one for each of the n maps:

    A = A_1        B = B_1   0     (targets 1 and 3 of n = 3)        A_i = A
        A_3             0    0                                       B_i = the rows of B that belong to map i
                        0   B_3

The function stays the same; alpha is written as k alpha, so that alpha / r stays too. Where a module has fewer targets
than another (GPT-2's c_proj beside c_attn) the rest of its pair is zero in both factors, and stays so in training.

P-tuning v2 is a prefix to peft, and P-tuning v1 a prompt, since peft puts all virtual tokens in front of the text.
What either side cannot hold, or would compute otherwise, is refused, with the reason.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peft_edu.anatomy import ROLES, LinearMap, attentions, head, input_stack, key_value_shape, linear_maps, names
from peft_edu.lora import LoRA, LowRankUpdate
from peft_edu.method import Method, attached, unwrapped
from peft_edu.p_tuning import PSEUDO, PTuning
from peft_edu.prefix_tuning import PrefixTuning
from peft_edu.prompt_tuning import PromptTuning
from peft_edu.storage import folder as files
from peft_edu.storage.checkpoint import attach_and_fill, make_method, refuse_to_fill, room

CONFIG, TENSORS, PREFIX, TABLE = "adapter_config.json", "adapter_model.safetensors", "base_model.", "prompt_embeddings"
VIRTUAL = {"PREFIX_TUNING": "PrefixTuning", "PROMPT_TUNING": "PromptTuning", "P_TUNING": "PromptTuning"}
TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}
# Of LoRA's options those that are read here, and those about training, or about which modules: their tensors tell that.
READ = ("r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "init_lora_weights", "eva_config", "megatron_core")
READ += ("modules_to_save", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # the others, such as "pissa", change W as well


def to_peft(model: PreTrainedModel, folder: str | Path) -> Path:
    """Write the attached method, and the task head, as a folder that peft.PeftModel.from_pretrained opens.

    Beside LoRA, whole modules that were trained too are kept. peft's Auto classes find a base that has a name.
    """
    model = unwrapped(model)
    method = attached(model)
    if isinstance(method, LoRA):
        write, prefix = _write_lora, f"{PREFIX}model."
    elif isinstance(method, (PrefixTuning, PromptTuning, PTuning)):
        write, prefix = _write_virtual, PREFIX
    else:
        known = "LoRA, PrefixTuning, PromptTuning, PTuning and PTuningV2"
        raise TypeError(f"of the methods here peft has {known}, but {method or 'nothing'} is attached to this model")
    config, tensors = write(model, method)
    config |= {"task_type": _task(model), "base_model_name_or_path": model.name_or_path or None}
    for path in config["modules_to_save"] or ():
        tensors |= {f"{prefix}{path}.{key}": value for key, value in model.get_submodule(path).state_dict().items()}
    return files.write_folder(folder, {CONFIG: files.json_bytes(config), TENSORS: files.tensor_bytes(tensors)})


def from_peft(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Attach what a folder of peft's holds, and fill it in, the task head too, or leave the model untouched.

    Numbers are rounded to the model's precision: peft keeps float32 beside a model in bfloat16.
    """
    refuse_to_fill(model)
    folder = files.place(folder)
    config = files.read_json(folder / CONFIG)
    kind = config.get("peft_type")
    if kind not in ("LORA", *VIRTUAL):
        raise ValueError(f"{folder / CONFIG} is of the type {kind}; {', '.join(('LORA', *VIRTUAL))} can be read")
    _refuse_other_functions(config, VIRTUAL.get(kind, "LoRA"), folder / CONFIG)
    tensors = files.read_tensors(files.read_bytes(folder / TENSORS, room(model)), folder / TENSORS)
    method, learned = (_read_lora if kind == "LORA" else _read_virtual)(model, config, tensors)
    return attach_and_fill(method, model, learned, beside=list(learned))


def _refuse_other_functions(config: dict, method: str, source: Path) -> None:
    """What is not known, or has another value than peft's default, may change what is computed."""
    import peft  # here, because its import takes long, and only those wait for it who read its files

    plain = peft.PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]]().to_dict()
    harmless = {*READ, *peft.PeftConfig().to_dict()} if method == "LoRA" else plain  # virtual tokens are one function
    beyond = [each for each, value in config.items() if each not in harmless and value and value != plain.get(each)]
    beyond += ["init_lora_weights"] * (config.get("init_lora_weights", True) not in PLAIN_STARTS)
    if beyond:
        raise ValueError(f"{source} sets {beyond[0]} to {config[beyond[0]]!r}, which {method} here does not have")


def _task(model: PreTrainedModel) -> str | None:
    """peft's name for what the model does."""
    return next((task for ending, task in TASKS.items() if type(model).__name__.endswith(ending)), None)


def _kept_whole(model: PreTrainedModel, method: Method) -> list[str]:
    """The task head, and the modules that were trained beside the method: peft keeps whole ones, each on its own."""
    paths = [names(model)[part] for part in head(model)]
    beside = {each: name for name, each in model.named_parameters() if each.requires_grad and each not in method.own}
    uses = Counter(each for _, each in model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules():
        parts = set(module.parameters())
        if parts and parts <= beside.keys() and all(uses[each] == 1 for each in parts):
            paths.append(path)
            beside = {each: name for each, name in beside.items() if each not in parts}
    if beside:
        name = next(iter(beside.values()))
        raise ValueError(f"{name} was trained too, and peft keeps that only in whole modules that share no weight")
    return paths


def _write_lora(model: PreTrainedModel, method: LoRA) -> tuple[dict, dict[str, Tensor]]:
    paths, modules, tensors = names(model), defaultdict(list), {}
    for target, update in method.updates:
        modules[target.module].append((target, update))
    k = max(len(updates) for updates in modules.values())
    for module, updates in modules.items():
        A, B = _stack(updates, k * method.rank)
        tensors |= {f"{PREFIX}model.{paths[module]}.lora_{name}.weight": each for name, each in (("A", A), ("B", B))}
    config = {
        "peft_type": "LORA",
        "r": k * method.rank,
        "lora_alpha": k * method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": sorted(paths[module] for module in modules),  # whole names: peft matches by their ends
        "fan_in_fan_out": isinstance(next(iter(modules)), Conv1D),
        "modules_to_save": _kept_whole(model, method) or None,
    }
    return config, tensors


def _read_lora(model: PreTrainedModel, config: dict, tensors: dict[str, Tensor]) -> tuple[LoRA, dict[str, Tensor]]:
    """The same numbers under our names, and the roles of the maps that they belong to."""
    paths = names(model)
    rest = {name.removeprefix(f"{PREFIX}model."): value for name, value in tensors.items()}
    pairs, learned, roles = dict(rest), {}, set()
    for target in linear_maps(model):
        path, shape = paths[target.module], target.module.weight.shape
        A, B = keys = [f"{path}.lora_{name}.weight" for name in "AB"]
        if not pairs.keys() >= set(keys):
            continue
        A, B = pairs[A], pairs[B]
        out_in = tuple(shape)[:: -1 if isinstance(target.module, Conv1D) else 1]
        if A.ndim != 2 or B.ndim != 2 or (len(B), A.shape[1]) != out_in:
            raise ValueError(
                f"{path} is a map of {tuple(shape)} in this model, "
                f"but the file has A {tuple(A.shape)} and B {tuple(B.shape)} for it"
            )
        learned |= {f"{path}.lora_{target.role}.A": A, f"{path}.lora_{target.role}.B": B[target.rows]}
        rest = {name: value for name, value in rest.items() if name not in keys}
        roles.add(target.role)
    if not roles:
        raise ValueError(f"no map of {type(model).__name__} is in the file, which has {min(rest, default='nothing')}")
    fields = {"rank": config.get("r"), "alpha": config.get("lora_alpha"), "dropout": config.get("lora_dropout", 0.0)}
    fields["targets"] = tuple(role for role in ROLES if role in roles)
    return make_method("LoRA", fields, CONFIG), learned | rest


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


def _write_virtual(model: PreTrainedModel, method: Method) -> tuple[dict, dict[str, Tensor]]:
    _refuse_other_places(model, type(method).__name__)
    kept = _kept_whole(model, method)
    if len(kept) > len(head(model)):
        raise ValueError(f"{kept[-1]} was trained too, and peft keeps virtual tokens and the task head alone")
    heads, width = key_value_shape(model)
    layers = model.config.num_hidden_layers
    if isinstance(method, PrefixTuning):
        if not method.shift:
            raise ValueError("in peft the text's positions start behind the prefix, and here shift=False")
        if method.layers is not None:
            raise ValueError(f"in peft every layer has a prefix, and here the layers {method.layers}")
        kinds = torch.stack([prefix.keys_values.detach() for prefix in method.added])  # (layers, 2, heads, p, w)
        table = kinds.permute(3, 0, 1, 2, 4).flatten(1)
        config = {"peft_type": "PREFIX_TUNING", "prefix_projection": False, "encoder_hidden_size": table.shape[1]}
        config |= {"num_attention_heads": heads, "token_dim": heads * width}
    else:
        table, kind = _prompt(method)
        config = {"peft_type": kind, "num_attention_heads": model.config.num_attention_heads}
        config |= {"token_dim": table.shape[1]}
    config |= {"num_virtual_tokens": len(table), "num_transformer_submodules": _stacks(model), "num_layers": layers}
    table = torch.cat([table] + [torch.zeros_like(table)] * (_stacks(model) - 1))
    return config | {"modules_to_save": kept}, {TABLE: table}


def _prompt(method: PromptTuning | PTuning) -> tuple[Tensor, str]:
    """The virtual tokens (p, d) of a method that puts one prompt in front of the text, and peft's name for it."""
    if isinstance(method, PTuning):
        if PSEUDO in re.sub(r"^(\[P\]\s*)+", "", method.template):
            raise ValueError(f"peft has pseudo tokens in front alone, and the template is {method.template!r}")
        if method.joint:
            raise ValueError("the model was trained too (joint=True), and peft would keep the pseudo tokens alone")
        return method.added[0].embeddings.detach(), "P_TUNING"
    if method.members > 1:
        raise ValueError(f"peft holds one prompt, and here are {method.members}")
    return method.added[0].embeddings.detach()[0], "PROMPT_TUNING"


def _read_virtual(model: PreTrainedModel, config: dict, tensors: dict[str, Tensor]) -> tuple[Method, dict[str, Tensor]]:
    name, length = VIRTUAL[config["peft_type"]], config.get("num_virtual_tokens")
    _refuse_other_places(model, name)
    prefix, paths, (heads, width) = name == "PrefixTuning", names(model), key_value_shape(model)
    method = make_method(name, {"length": length} | ({"hidden": 0} if prefix else {"init": "random"}), CONFIG)
    modules = [module for kind in attentions(model) for module in kind] if prefix else [input_stack(model)[0]]
    size = (length, len(modules) * 2 * heads * width) if prefix else (length * _stacks(model), model.config.hidden_size)
    table = tensors.pop(TABLE, torch.empty(0))
    if table.shape != size:
        raise ValueError(f"{TABLE} is {tuple(table.shape)}, but {length} virtual tokens of this model are {size}")
    learned = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    if not prefix:
        return method, learned | {f"{paths[modules[0]]}.prompt.embeddings".removeprefix("."): table[None, :length]}
    layers = table.view(length, len(modules), 2, heads, width).permute(1, 2, 3, 0, 4)
    return method, learned | {f"{paths[each]}.prefix.keys_values": layers[i] for i, each in enumerate(modules)}


def _stacks(model: PreTrainedModel) -> int:
    """peft has a prompt for each of T5's two stacks in its table, of which it reads the first."""
    return 2 if _task(model) == "SEQ_2_SEQ_LM" else 1


def _refuse_other_places(model: PreTrainedModel, method: str) -> None:
    """Where peft puts virtual tokens elsewhere than the method does here."""
    kind, task, prompt = type(model).__name__, _task(model), method in ("PromptTuning", "PTuning")
    if task is None:
        raise ValueError(f"peft has no task for {kind}; there are {', '.join(TASKS)}")
    if prompt and task in ("SEQ_CLS", "TOKEN_CLS"):
        raise ValueError(f"in peft the head of {kind} would read the virtual tokens, which it never sees here")
    if not prompt and task == "SEQ_2_SEQ_LM":
        raise ValueError(f"in peft the prefix of {kind} is in the decoder alone, and here in every attention")
    if not prompt and "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        raise ValueError(f"in peft the prefix of {kind} leaves the window of attention, and here it is always seen")
