"""A backbone by name, by folder, from scratch, with a head; and what is said when there is none."""

import pytest
import torch
from lab_models import save_model

from peft_edu.lab.models import backbones
from peft_edu.lab.models.backbones import backbone, card


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with two bundled models."""
    root = tmp_path_factory.mktemp("data")
    readme = "# toy\n\nPretrained on: nothing at all\n\nExample: `the food was`\n"
    save_model(root / "models" / "toy-gpt2", "gpt2", readme)
    save_model(root / "models" / "toy-bert", "bert", readme.replace("was`", "was [MASK]`"))
    save_model(root / "models" / "toy-t5", "t5")
    return root


@pytest.fixture(autouse=True)
def bundled_data(data, monkeypatch):
    monkeypatch.setenv("PEFT_EDU_DATA", str(data))


@pytest.mark.parametrize(
    "name, kind",
    [("toy-gpt2", "GPT2LMHeadModel"), ("toy-bert", "BertForMaskedLM"), ("toy-t5", "T5ForConditionalGeneration")],
)
def test_bundled_models_come_with_their_own_head_in_float64(name, kind):
    model, tokenizer = backbone(name)
    assert type(model).__name__ == kind and model.dtype == torch.float64 and not model.training
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.encoder_decoder == (name == "toy-t5")


def test_a_folder_comes_as_it_was_stored(data):
    model, _ = backbone(data / "models" / "toy-gpt2")
    same, _ = backbone("toy-gpt2", dtype=torch.float32)
    assert model.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_from_scratch_is_the_same_network_with_the_weights_of_a_seed():
    pretrained, _ = backbone("toy-bert")
    first, second = (backbone("toy-bert", pretrained=False, seed=s)[0] for s in (0, 0))
    other, _ = backbone("toy-bert", pretrained=False, seed=1)
    key = "bert.encoder.layer.0.output.dense.weight"
    assert first.state_dict().keys() == pretrained.state_dict().keys() and first.dtype == torch.float64
    assert torch.equal(first.state_dict()[key], second.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], pretrained.state_dict()[key])


def test_heads_keep_the_network_and_draw_the_classifier_by_seed(capfd):
    base, _ = backbone("toy-bert")
    model, _ = backbone("toy-bert", head="classify", labels=["bad", "good"])
    again, _ = backbone("toy-bert", head="classify")
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert torch.equal(model.classifier.weight, again.classifier.weight)
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, base.bert.embeddings.word_embeddings.weight)
    assert backbone("toy-gpt2", head="tag", labels=3)[0].classifier.out_features == 3
    assert capfd.readouterr() == ("", "")  # a new head is no reason for a load report


def test_loading_leaves_the_learners_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    backbone("toy-gpt2", head="classify")
    assert torch.equal(torch.rand(1), expected)


def test_the_card_tells_size_source_and_an_example():
    lines = repr(card("toy-bert")).splitlines()
    assert lines[0].startswith("toy-bert: BertForMaskedLM, ") and lines[0].endswith(" parameters")
    assert lines[1] == "2 blocks of width 16, 2 heads, a vocabulary of 30 tokens"
    assert lines[2] == "pretrained on: nothing at all"
    assert lines[3].startswith("the food was [MASK]  ->  ")
    assert len(card("toy-t5").splitlines()) == 2


def test_weights_missing_from_the_network_are_told(data, tmp_path):
    folder = save_model(tmp_path / "holed", "bert")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("bert.encoder.layer.1.output.dense.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="1 weights of the network .* bert.encoder.layer.1.output.dense.weight first"):
        backbone(folder)


def test_errors_name_what_there_is(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no backbone 'toy-gtp2'. Bundled: toy-bert, toy-gpt2, toy-t5.*offline"):
        backbone("toy-gtp2")
    with pytest.raises(FileNotFoundError, match="no config.json"):
        backbone(tmp_path)
    with pytest.raises(ValueError, match="no head 'regress'; choose None, 'classify', 'tag'"):
        backbone("toy-bert", head="regress")
    for labels in (1, ["good", "good"]):
        with pytest.raises(ValueError, match="two or more different labels"):
            backbone("toy-bert", head="classify", labels=labels)
    monkeypatch.setenv("PEFT_EDU_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="PEFT_EDU_DATA"):
        backbone("toy-bert")
