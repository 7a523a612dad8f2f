"""Virtual tokens in the format of Hugging Face peft: one table of them, and the task head.

    prompt_embeddings    prefix: (p, layers 2 heads w)        prompt: (p, d); for T5 (2 p, d), of which it reads p

P-tuning v2 is a prefix to peft, and P-tuning v1 a prompt, since peft puts all virtual tokens in front of the text.

peft cannot hold all that these methods do here, and what it would compute otherwise is refused, with the reason.
"""

import re

import torch
from torch import Tensor
from transformers import PreTrainedModel

from peft_edu.anatomy import attentions, head, input_stack
from peft_edu.method import Method
from peft_edu.p_tuning import PSEUDO, PTuning
from peft_edu.prefix_tuning import PrefixTuning
from peft_edu.prompt_tuning import PromptTuning
from peft_edu.storage.checkpoint import make_method

TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
}
TYPES = {"PREFIX_TUNING": "PrefixTuning", "PROMPT_TUNING": "PromptTuning", "P_TUNING": "PromptTuning"}
TABLE, HEAD = "prompt_embeddings", "base_model."


def write(model: PreTrainedModel, method: PrefixTuning | PromptTuning | PTuning) -> tuple[dict, dict[str, Tensor]]:
    """peft's configuration, and its tensors."""
    task = _task(model, type(method).__name__)
    if isinstance(method, PrefixTuning):
        if not method.shift:
            raise ValueError("in peft the text's positions start behind the prefix, and here shift=False")
        if method.layers is not None:
            raise ValueError(f"in peft every layer has a prefix, and here the layers {method.layers}")
        kinds = torch.stack([prefix.keys_values.detach() for prefix in method.added])  # (layers, 2, heads, p, w)
        table = kinds.permute(3, 0, 1, 2, 4).flatten(1)
        config = {"peft_type": "PREFIX_TUNING", "prefix_projection": False, "encoder_hidden_size": table.shape[1]}
        config |= {"num_layers": len(kinds), "num_attention_heads": kinds.shape[2]}
        config |= {"token_dim": kinds.shape[2] * kinds.shape[4]}
    else:
        table, kind = _prompt(method)
        sizes = model.config
        config = {"peft_type": kind, "token_dim": table.shape[1]}
        config |= {"num_layers": sizes.num_hidden_layers, "num_attention_heads": sizes.num_attention_heads}
    config |= {"task_type": task, "num_virtual_tokens": len(table)}
    config |= {"num_transformer_submodules": 2 if task == "SEQ_2_SEQ_LM" else 1}
    table = torch.cat([table, torch.zeros_like(table)]) if task == "SEQ_2_SEQ_LM" else table
    return config, {TABLE: table} | {HEAD + name: value for name, value in _head(model).items()}


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


def read(model: PreTrainedModel, config: dict, tensors: dict[str, Tensor]) -> tuple[Method, dict[str, Tensor]]:
    """The method, and what it learned under our names."""
    name = TYPES[config["peft_type"]]
    _task(model, name)
    length = config.get("num_virtual_tokens")
    fields = {"length": length} | ({"hidden": 0} if name == "PrefixTuning" else {"init": "random"})
    method = make_method(name, fields, "peft's configuration")
    if TABLE not in tensors:
        raise ValueError(f"the file has no {TABLE!r}, but {', '.join(tensors) or 'nothing'}")
    table = tensors[TABLE]
    learned = {key.removeprefix(HEAD): value for key, value in tensors.items() if key != TABLE}
    names = {module: path for path, module in model.named_modules()}
    if name == "PromptTuning":
        stack = ".".join(filter(None, [names[input_stack(model)[0]], "prompt", "embeddings"]))
        return method, learned | {stack: table[None, :length]}
    modules = [module for kind in attentions(model) for module in kind]
    heads = config.get("num_attention_heads") or 1
    if table.ndim != 2 or table.numel() % (len(modules) * 2 * heads * length):
        raise ValueError(f"{TABLE} is {tuple(table.shape)}, which does not fit {len(modules)} layers of {heads} heads")
    layers = table.view(length, len(modules), 2, heads, -1).permute(1, 2, 3, 0, 4)
    return method, learned | {f"{names[each]}.prefix.keys_values": layers[i] for i, each in enumerate(modules)}


def _head(model: PreTrainedModel) -> dict[str, Tensor]:
    names = {module: name for name, module in model.named_modules()}
    return {f"{names[part]}.{key}": value.detach() for part in head(model) for key, value in part.state_dict().items()}


def _task(model: PreTrainedModel, method: str) -> str:
    """peft's name for what the model does, where peft computes the same."""
    kind = type(model).__name__
    task = next((task for ending, task in TASKS.items() if kind.endswith(ending)), None)
    if task is None:
        raise ValueError(f"peft has no task for {kind}; there are {', '.join(TASKS)}")
    if method in ("PromptTuning", "PTuning") and task in ("SEQ_CLS", "TOKEN_CLS"):
        raise ValueError(f"in peft the head of {kind} would read the virtual tokens, which it never sees here")
    if method == "PrefixTuning" and task == "SEQ_2_SEQ_LM":
        raise ValueError(f"in peft the prefix of {kind} is in the decoder alone, and here in every attention")
    return task
