"""How well a model still predicts the text that it was pretrained on: the measure of forgetting."""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_edu.anatomy import evaluating, family
from peft_edu.checks import choice, whole_number
from peft_edu.lab.models.backbones import backbone, reads_text
from peft_edu.lab.paths import bundled, data_path


def held_out(name: str, limit: int | None = None) -> list[str]:
    """Documents of a bundled model's corpus that it was never trained on."""
    choice("name", name, tuple(bundled("models", "held_out.txt")))
    if limit is not None:
        whole_number("limit", limit)
    return data_path("models", name, "held_out.txt").read_text(encoding="utf-8").splitlines()[:limit]


@torch.no_grad()
def language_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """The mean loss a token, in nats: of each next token, or of every sixth token behind a mask for a masked model."""
    reads_text(model, tokenizer)
    if model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} reads one text and writes another: it has no loss on a text alone")
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"texts is {texts!r:.80}, but must be a list of texts, as `held_out` gives")
    batch = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, return_token_type_ids=False)
    ids = batch["input_ids"]
    if tokenizer.mask_token is None:
        asked = batch["attention_mask"].bool()
        asked[:, 0] = False  # nothing stands before it
    else:
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        asked = (torch.arange(ids.shape[1]) % 6 == 3) & ~special
        batch["input_ids"] = ids.masked_fill(asked, tokenizer.mask_token_id)
    if not asked.any():
        raise ValueError(f"no token of {texts!r:.80} is asked for: the texts are too short")
    with evaluating(model):
        logits = model(**batch.to(model.device)).logits.cpu()
    if tokenizer.mask_token is None:
        logits = logits.roll(1, 1)  # what follows token i - 1 is token i
    return cross_entropy(logits[asked], ids[asked]).item()


def loss_on_old_text(model: PreTrainedModel, name: str, limit: int = 200) -> float:
    """What a model that was made from the bundled `name` still knows: the loss on held-out documents of that corpus,
    with the model's own body under the language-model head. What stands beside its weights is left out: merge first."""
    family(model)  # or an error that says what a model is
    texts, (language_model, tokenizer) = held_out(name, limit), backbone(name)
    wanted, body = language_model.base_model.state_dict(), model.base_model.state_dict()
    for key in sorted(wanted):
        if key not in body or body[key].shape != wanted[key].shape:
            raise ValueError(f"{type(model).__name__} was not made from {name}: it has no {key} of this shape")
    language_model.base_model.load_state_dict({key: body[key] for key in wanted})
    return language_loss(language_model, tokenizer, texts)
