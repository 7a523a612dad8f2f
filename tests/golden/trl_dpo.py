"""Makes trl_dpo.safetensors: what TRL's DPOTrainer (1.16.0, loss_type "sigmoid") makes of a tiny GPT-2 with LoRA.

TRL is needed for nothing else, so it is put beside the environment (transformers 5.23, peft 0.21, datasets 5.2):

    pip install --target trl --no-deps trl==1.16.0
    PYTHONPATH=trl python tests/golden/trl_dpo.py

The model's weights follow from their names (families.fill), the adapter's too, and the texts' words from numbers. TRL
tokenizes, pads and computes; of it the file holds, for b pairs of which the longest text has t tokens

    input_ids, attention_mask, completion_mask  (b, 2, t)   chosen, then rejected; padded with 0 on the right
    start.<name>, other.<name>                              two adapters as peft saves them; in both, B is not 0
    logps                                       (b, 2)      log pi(answer | prompt) of the adapter `start`
    reference.peft_config                       (b, 2)      the reference's, given a base model and a peft_config
    reference.peft_model                        (b, 2)      the same, given a PeftModel that is at `start`
    <beta>.loss, <beta>.<metric>                            of `start`, given a peft_config; TRL's names of the metrics
    0.1.grad.<name>                                         the loss's gradient by A and B of `start`
    moved.loss                                              beta 0.1, given a PeftModel at `start`, moved to `other`

TRL takes log-probabilities in float32, of a float64 model too: up to 3e-6 of them, and 4e-7 of a loss. So its code runs
here with float64 where it says float32, and how far the numbers are from its own is printed.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch
from zlib import crc32

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from families import END, PAD, VOCABULARY, fill, tiny  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import PreTrainedModel, PreTrainedTokenizerFast  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
LENGTHS = ((3, 4, 6), (5, 2, 2), (1, 7, 3), (4, 3, 5), (2, 1, 4))  # words of the prompt, the chosen, the rejected
BETAS = (0.03, 0.1, 0.3, 1.0)
METRICS = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen")
METRICS += ("logps/rejected",)


def pairs() -> Dataset:
    """Texts of the words w2 to w63, of which each is one token, with that number."""
    draw = torch.Generator().manual_seed(0)

    def words(count: int) -> str:
        return " ".join(f"w{each}" for each in torch.randint(2, VOCABULARY, (count,), generator=draw).tolist())

    parts = ("prompt", "chosen", "rejected")
    rows = [dict(zip(parts, map(words, lengths), strict=True)) for lengths in LENGTHS]
    return Dataset.from_list([row | {name: f" {row[name]}" for name in parts[1:]} for row in rows])


def tokenizer() -> PreTrainedTokenizerFast:
    names = {PAD: "<pad>", END: "<end>"}
    vocabulary = {names.get(number, f"w{number}"): number for number in range(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def base() -> PreTrainedModel:
    model = tiny("gpt2", dtype=torch.float64)
    fill(model)
    return model


def fill_lora(model: PeftModel, name: str) -> dict[str, Tensor]:
    """The adapter's numbers, which follow from the names that peft saves them under."""
    adapter = get_peft_model_state_dict(model)
    for key, parameter in adapter.items():
        draw = torch.Generator().manual_seed(crc32(f"{name}.{key}".encode()))
        parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return {f"{name}.{key}": parameter.clone() for key, parameter in adapter.items()}


def trainer(model: PreTrainedModel | PeftModel, beta: float, **options) -> DPOTrainer:
    settings = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none"}
    with TemporaryDirectory() as folder:
        args = DPOConfig(folder, beta=beta, **settings)
        made = DPOTrainer(model, args=args, train_dataset=pairs(), processing_class=tokenizer(), **options)
    made.model.eval()
    return made


def batch(of: DPOTrainer) -> dict[str, Tensor]:
    """All pairs as TRL's collator puts them together, (2 b, t): first the chosen, then the rejected."""
    return of.data_collator(list(of.train_dataset))


def policy(of: DPOTrainer) -> Tensor:
    """The log-probabilities (b, 2) of the model in training, by TRL's function for those of a reference model."""
    with patch.object(of, "ref_model", of.model):
        return torch.stack(of.compute_ref_log_probs(of.model, batch(of)), 1)


def reference(of: DPOTrainer) -> Tensor:
    return torch.stack(of.compute_ref_log_probs(of.model, batch(of)), 1)


def given_a_config(beta: float) -> dict[str, Tensor]:
    """TRL makes the adapter, which is then moved to `start`."""
    of = trainer(base(), beta, peft_config=LoraConfig(**LORA))
    found = fill_lora(of.model, "start")
    loss = of.compute_loss(of.model, batch(of))
    loss.backward()
    found |= {"logps": policy(of), "reference.peft_config": reference(of), f"{beta}.loss": loss.detach()}
    found |= {f"{beta}.{name}": torch.tensor(of._metrics["eval"][name][0], dtype=torch.float64) for name in METRICS}
    if beta == 0.1:
        gradients = {name: parameter.grad for name, parameter in of.model.named_parameters() if parameter.requires_grad}
        found |= {f"0.1.grad.{name.replace('.default', '')}": gradient for name, gradient in gradients.items()}
    return found | {name: value.unflatten(0, (2, -1)).transpose(0, 1).contiguous() for name, value in batch(of).items()}


def given_a_peft_model() -> dict[str, Tensor]:
    """The adapter is at `start` when TRL gets it, and is then moved to `other`."""
    model = get_peft_model(base(), LoraConfig(**LORA))
    fill_lora(model, "start")
    of = trainer(model, 0.1)
    found = fill_lora(of.model, "other")
    return found | {"reference.peft_model": reference(of), "moved.loss": of.compute_loss(of.model, batch(of)).detach()}


def golden() -> dict[str, Tensor]:
    numbers = given_a_peft_model()
    for beta in BETAS:
        numbers |= given_a_config(beta)
    return numbers


if __name__ == "__main__":
    plain = golden()
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch, "float32", torch.float64))
        stack.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
        numbers = golden()
    save_file(numbers, Path(__file__).with_name("trl_dpo.safetensors"))
    for name, value in numbers.items():
        print(name, tuple(value.shape), value.dtype, f"{(value - plain[name]).abs().max().item():.1e}", end=" ")
        print(value.item() if value.ndim == 0 else "")
