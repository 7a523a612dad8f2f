import pytest
import torch
from families import SIZES, batch, tiny

from peft_edu import PrefixTuning, PTuningV2, count, load, save
from peft_edu.method import attached

FAMILIES = [family for family in SIZES if family != "deberta-v2"]


def logits(model, task="tag"):
    with torch.no_grad():
        return model(**batch(task)).logits


def deep(family="bert", task="tag", **fields):
    torch.manual_seed(3)
    method = PTuningV2(**{"length": 3} | fields)
    return method, method.attach(tiny(family, task, torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("task", ["classify", "tag"])
def test_it_is_prefix_tuning_under_a_head(family, hidden, task):
    _, model = deep(family, task, hidden=hidden)
    torch.manual_seed(3)
    prefixed = PrefixTuning(3, hidden=hidden).attach(tiny(family, task, torch.float64))
    assert torch.equal(logits(model, task), logits(prefixed, task))
    assert count(model).head > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_in_some_layers(family):
    """Layers without a prompt attend as ever: a prompt in the last layer changes nothing below."""
    method, model = deep(family, layers=(1,), shift=False)
    assert count(model).trainable - count(model).head == len(method.added) * method.added[0].keys_values.numel()
    base = tiny(family, "tag", torch.float64)
    with torch.no_grad():
        _, below, above = model.base_model(batch()["input_ids"], output_hidden_states=True).hidden_states
        _, base_below, base_above = base.base_model(batch()["input_ids"], output_hidden_states=True).hidden_states
    assert torch.allclose(below, base_below, atol=1e-6) and not torch.allclose(above, base_above, atol=1e-3)


def test_all_layers_are_the_default():
    everywhere, model = deep()
    named, same = deep(layers=(0, 1))
    assert torch.equal(logits(model), logits(same)) and everywhere != named


def test_dropout_is_on_the_prompt_and_each_row_has_its_own():
    method, model = deep(dropout=0.5)
    assert torch.equal(logits(model), logits(deep()[1]))  # in eval() there is none
    prefix = method.added[0].train()
    query = torch.zeros(2, 4, 1, 8, dtype=torch.float64)
    one, other = prefix(query, query[:, :, :0], query[:, :, :0], None, scale=1.0)
    dropped = (prefix.dropout(prefix.keys_values.expand(50, -1, -1, -1, -1)) == 0).double().mean()
    assert not torch.equal(one, other) and 0.45 < dropped < 0.55


def test_words_of_some_layers(tmp_path):
    _, all_layers = deep(init=(7, 8, 9))
    method, model = deep(init=(7, 8, 9), layers=(1,))
    expected = attached(all_layers).added[1].keys_values
    assert torch.equal(method.added[0].keys_values, expected)
    save(model, tmp_path / "saved")
    again = load(tiny("bert", "tag", torch.float64), tmp_path / "saved")
    assert attached(again) == method and torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"length": 0}, "length is 0, but must be a whole number from 1 on"),
        ({"layers": 1}, "layers is 1, but must be whole numbers, as in"),
        ({"dropout": 1.0}, "dropout is 1.0, but must be at least 0 and below 1"),
        ({"layers": ()}, "layers is empty: name one layer or more, or leave it out for all"),
        ({"layers": (2,)}, "layers names 2, but BertForTokenClassification has the layers 0 to 1"),
        ({"layers": (-1,)}, "layers names -1, but BertForTokenClassification has the layers 0 to 1"),
        ({"layers": (1, 1)}, "layers names 1 twice"),
    ],
)
def test_settings_that_are_none(fields, message):
    model = tiny("bert", "tag")
    with pytest.raises(ValueError, match=message):
        PTuningV2(**fields).attach(model)
    assert attached(model) is None
