"""How well a model still predicts the text that it was pretrained on: the measure of forgetting."""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.lab.models.backbones import backbone
from peft_edu.lab.paths import data_path


def held_out(name: str, limit: int | None = None) -> list[str]:
    """Documents of a bundled model's corpus that it was never trained on."""
    return data_path("models", name, "held_out.txt").read_text(encoding="utf-8").splitlines()[:limit]


@torch.no_grad()
def language_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """The mean loss a token, in nats: of each next token, or of every sixth token behind a mask for a masked model."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, return_token_type_ids=False)
    ids, real = batch["input_ids"], batch["attention_mask"].bool()
    if tokenizer.mask_token is None:
        logits = model(**batch).logits[:, :-1]
        return cross_entropy(logits[real[:, 1:]], ids[:, 1:][real[:, 1:]]).item()
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    asked = (torch.arange(ids.shape[1]) % 6 == 3) & ~special
    batch["input_ids"] = ids.masked_fill(asked, tokenizer.mask_token_id)
    return cross_entropy(model(**batch).logits[asked], ids[asked]).item()


def loss_on_old_text(model: PreTrainedModel, name: str, limit: int = 200) -> float:
    """What a model that was made from the bundled `name` still knows: the loss on held-out documents of that corpus,
    with the model's own body under the language-model head. What stands beside its weights is left out: merge first."""
    language_model, tokenizer = backbone(name)
    wanted = language_model.base_model.state_dict()
    body = model.base_model.state_dict()
    if missing := sorted(wanted.keys() - body.keys()):
        raise ValueError(f"{type(model).__name__} was not made from {name}: it has no {missing[0]}")
    language_model.base_model.load_state_dict({key: body[key] for key in wanted})
    return language_loss(language_model, tokenizer, held_out(name, limit))
