"""The share of attention that falls on a prefix, against attention written out by hand."""

import pytest
import torch
from lab_models import gpt2, random_model

from peft_edu import LoRA, PrefixTuning
from peft_edu.lab import prefix_mass


def test_a_prefix_and_a_text_of_equal_keys_share_by_their_number():
    """With queries of zero every key gets the same: 4 virtual tokens beside 1, 2, ... t of the text."""
    model = PrefixTuning(4, hidden=0).attach(gpt2())
    for block in model.transformer.h:
        block.attn.c_attn.weight.data[:, : model.config.n_embd] = 0
        block.attn.c_attn.bias.data[: model.config.n_embd] = 0
    t = 6
    batch = {"input_ids": torch.randint(50, (3, t)), "attention_mask": torch.ones(3, t, dtype=torch.long)}
    expected = sum(4 / (4 + i) for i in range(1, t + 1)) / t
    assert prefix_mass(model, batch) == pytest.approx([expected] * len(model.transformer.h))


def test_padding_pays_no_part_and_the_model_stays_as_it_was():
    model = PrefixTuning(3, hidden=0).attach(gpt2()).eval()
    ids = torch.randint(50, (1, 5))
    alone = prefix_mass(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    padded = {"input_ids": torch.cat([ids, ids], 1), "attention_mask": torch.tensor([[1] * 5 + [0] * 5])}
    before = model(ids).logits
    assert prefix_mass(model, padded) == pytest.approx(alone, rel=1e-6)
    assert torch.equal(model(ids).logits, before)


def test_there_must_be_a_prefix():
    ids = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="T5ForConditionalGeneration has three kinds of attention"):
        prefix_mass(PrefixTuning(2, hidden=0).attach(random_model("t5")), {})
    with pytest.raises(ValueError, match="has no prefix to watch: attach PrefixTuning first"):
        prefix_mass(LoRA(2).attach(gpt2()), {"input_ids": ids, "attention_mask": ids})


def test_the_text_must_be_there():
    model, ids = PrefixTuning(2, hidden=0).attach(gpt2()), torch.ones(1, 2, dtype=torch.long)
    for batch in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": torch.zeros_like(ids)}):
        with pytest.raises(ValueError, match="the batch needs an attention_mask that is 1 for the text's tokens"):
            prefix_mass(model, batch)
    for batch in (None, [{"input_ids": ids, "attention_mask": ids}]):
        with pytest.raises(TypeError, match="the batch is a .* but must be one of task"):
            prefix_mass(model, batch)
    with pytest.raises(TypeError, match="the model is a NoneType"):
        prefix_mass(None, {"input_ids": ids, "attention_mask": ids})
