import pytest
import torch
from families import SIZES, batch, tiny
from torch import Tensor, nn
from transformers import (
    AutoModelForQuestionAnswering,
    BertForPreTraining,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from peft_edu.anatomy import blocks, evaluating, head, linear_maps


@pytest.mark.parametrize("family", SIZES)
def test_a_linear_map_is_what_its_module_computes(family):
    for each in linear_maps(tiny(family, dtype=torch.float64)):
        x = torch.randn(5, each.weight.shape[1], dtype=torch.float64)
        bias = 0 if getattr(each.module, "bias", None) is None else each.module.bias[each.rows]
        assert torch.allclose(each.module(x)[:, each.rows], x @ each.weight.T + bias, atol=1e-12)


def test_writing_to_a_linear_map_writes_to_the_model():
    model = tiny("gpt2")
    value = linear_maps(model, ("value",))[0]
    with torch.no_grad():
        value.weight.fill_(7)
    stored = blocks(model)[0].attn.c_attn.weight
    assert (stored[:, 64:] == 7).all()
    assert not (stored[:, :64] == 7).any()


@torch.no_grad()
def write(model: PreTrainedModel, role: str, number) -> Tensor:
    """Give every map of this role these weights, no bias, and return the logits."""
    for each in linear_maps(model, (role,)):
        each.weight.copy_(number * torch.ones_like(each.weight))
        if getattr(each.module, "bias", None) is not None:
            each.module.bias[each.rows] = 0
    return model(**batch()).logits


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize(
    "silent, unheard, heard",
    [("query", "key", "value"), ("value", "query", "down"), ("output", "value", "up"), ("down", "up", "output")],
)
def test_each_role_does_what_it_is_called(family, silent, unheard, heard):
    """Without queries keys do not matter, without values queries do not, and so on; what is beside them still does."""
    if family == "deberta-v2" and silent == "query":
        pytest.skip("DeBERTa also compares positions with keys, whatever the queries")
    model = tiny(family, dtype=torch.float64)
    before = write(model, silent, 0)
    assert torch.equal(write(model, unheard, torch.tensor(0.1)), before)
    assert not torch.allclose(write(model, heard, torch.tensor(0.1)), before)


def test_t5_has_maps_in_both_stacks_and_in_cross_attention():
    names = [each.name for each in linear_maps(tiny("t5"), ("value",))]
    assert names == ["layer.0.SelfAttention.v"] * 2 + ["layer.0.SelfAttention.v", "layer.1.EncDecAttention.v"] * 2


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("task", ["classify", "tag"])
def test_the_head_is_what_no_checkpoint_holds(family, task, tmp_path):
    if family == "bert":  # with its pooler, as the published checkpoints have it
        BertForPreTraining(tiny("bert").config).save_pretrained(tmp_path)
    else:
        tiny(family).save_pretrained(tmp_path)
    classifier, report = type(tiny(family, task)).from_pretrained(tmp_path, output_loading_info=True)
    parameters = {id(parameter) for part in head(classifier) for parameter in part.parameters()}
    names = {name for name, parameter in classifier.named_parameters() if id(parameter) in parameters}
    assert names == set(report["missing_keys"])


@pytest.mark.parametrize("family", SIZES)
def test_the_head_of_question_answering(family):
    model = AutoModelForQuestionAnswering.from_config(tiny(family).config)
    assert head(model) == [model.qa_outputs]


@pytest.mark.parametrize("family", SIZES)
def test_a_language_model_has_no_task_head(family):
    assert head(tiny(family)) == []


def test_an_unknown_family_is_sent_to_the_table():
    model = OPTForCausalLM(
        OPTConfig(hidden_size=32, ffn_dim=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=64)
    )
    with pytest.raises(ValueError, match=r"family 'opt'; known are bert, .*FAMILIES in peft_edu/anatomy.py"):
        blocks(model)


def test_only_transformers_models_have_an_anatomy():
    with pytest.raises(TypeError, match="expected a transformers model .* got Linear"):
        blocks(nn.Linear(2, 2))


def test_unknown_and_absent_roles():
    with pytest.raises(ValueError, match="unknown role 'v_proj'; the roles are query, key, .*, gate"):
        linear_maps(tiny("llama"), ("query", "v_proj"))
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no 'gate' map; it has query, .*, down"):
        linear_maps(tiny("gpt2"), ("gate",))
    with pytest.raises(ValueError, match="T5ForConditionalGeneration has no 'gate' map"):
        linear_maps(tiny("t5"), ("gate",))


def test_evaluating_brings_back_the_mode_of_every_module():
    model = tiny("bert", "classify").train()
    model.bert.eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(OSError, match="on fire"), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise OSError("the disk is on fire")
    assert [module.training for module in model.modules()] == before
