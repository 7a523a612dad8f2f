"""A backbone by name, by folder, from scratch, with a head; and what is said when there is none."""

import json
import os

import pytest
import torch
from lab_models import random_model, save_model, word_tokenizer
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
)

from peft_edu.lab.models.backbones import backbone, card, complete


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


def test_a_roberta_reads_fewer_tokens_than_its_table_has_rows(tmp_path):
    """Its positions begin behind that of the padding token: a text as long as the table would run out of it."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=64, max_position_embeddings=40, pad_token_id=0, **sizes)
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    model, tokenizer = backbone(tmp_path)
    assert tokenizer.model_max_length == 39
    longest = tokenizer("good " * 100, truncation=True, return_tensors="pt")
    assert longest.input_ids.shape == (1, 39) and model(**longest).logits.shape == (1, 39, 64)


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
    with pytest.raises(ValueError, match="head is 'regress', but must be one of None, 'classify', 'tag'"):
        backbone("toy-bert", head="regress")
    for labels in (1, ["good", "good"]):
        with pytest.raises(ValueError, match="two or more different labels"):
            backbone("toy-bert", head="classify", labels=labels)
    monkeypatch.setenv("PEFT_EDU_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="PEFT_EDU_DATA"):
        backbone("toy-bert")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"labels": 1.5, "head": "classify"}, "two or more different labels"),
        ({"labels": "ab", "head": "classify"}, "two or more different labels"),
        ({"labels": [None, "a"], "head": "classify"}, "two or more different labels"),
        ({"labels": [["a"], ["b"]], "head": "tag"}, "two or more different labels"),
        ({"labels": 10**7, "head": "classify"}, "at most 10,000"),
        ({"labels": 10**9, "head": "tag"}, "at most 10,000"),
        ({"labels": 3}, "labels=3 need a head"),
        ({"head": ["classify"]}, r"head is \['classify'\]"),
        ({"pretrained": "no"}, "pretrained is 'no'"),
        ({"dtype": torch.int32}, "dtype is torch.int32"),
        ({"dtype": "float128"}, "dtype is 'float128'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"seed": 2**70}, "seed is 1180591620717411303424"),
    ],
)
def test_each_argument_that_is_wrong_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        backbone("toy-bert", **wrong)


@pytest.mark.parametrize("name", [None, 5, b"toy-bert", ["toy-bert"], True, ""])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(TypeError, match="must be its name or its folder"):
        backbone(name)
    with pytest.raises(TypeError, match="must be its name or its folder"):
        card(name)


def test_a_name_too_long_for_a_file_is_refused():
    with pytest.raises(ValueError, match="no backbone 'xxx.*Bundled: toy-bert"):
        backbone("x" * 5000)


@pytest.fixture
def copy(tmp_path):
    """A folder of a random GPT-2, to be spoilt."""
    return save_model(tmp_path / "copy", "gpt2")


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


CODE = "open({!r}, 'w')\nfrom transformers import GPT2Config as Own, GPT2LMHeadModel as OwnModel\n"


@pytest.mark.parametrize("kind", ["unheard-of", "vit", "gpt2"])
def test_code_in_a_folder_is_never_run(copy, kind, tmp_path, monkeypatch):
    """Not even where somebody says yes: transformers asks on the standard input."""
    mark = tmp_path / "was run"
    (copy / "code.py").write_text(CODE.format(str(mark)))
    own = {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.OwnModel", "AutoTokenizer": ["code.Own", None]}
    rewrite(copy / "config.json", model_type=kind, auto_map=own)
    rewrite(copy / "tokenizer_config.json", auto_map=own)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if kind == "gpt2":
        assert type(backbone(copy)[0]).__module__.startswith("transformers.")
    else:
        with pytest.raises(ValueError, match="no code in it is run"):
            backbone(copy)
    assert not mark.exists()


def spoil(name, content):
    def spoil_it(folder):
        (folder / name).write_bytes(content)

    return spoil_it


def truncated_weights(folder):
    os.truncate(folder / "model.safetensors", 2000)


def fifo(name):
    def put(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return put


def shards(name):
    def put(folder):
        (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
        rewrite_index = {"weight_map": {"transformer.wte.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(rewrite_index))

    return put


def only_a_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def setting(**changes):
    return lambda folder: rewrite(folder / "config.json", **changes)


def not_a_number(folder):
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.attn.c_proj.bias"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder):
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wpe.weight"] = weights["transformer.wpe.weight"][:9].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncated_weights, r"model.safetensors cannot be read as weights .*half a file"),
        (spoil("model.safetensors", LFS), r"model.safetensors cannot be read as weights .*git lfs pull"),
        (spoil("model.safetensors", b"<html>no</html>"), "model.safetensors cannot be read as weights"),
        (spoil("config.json", b"[1]"), "config.json holds no JSON object"),
        (spoil("config.json", b"{"), "config.json holds no JSON object"),
        (spoil("config.json", b"[" * 10**5), "config.json holds no JSON object"),
        (spoil("config.json", LFS), "config.json holds no JSON object"),
        (spoil("adapter_config.json", b"{}"), "holds an adapter beside the model"),
        (fifo("tokenizer.json"), "tokenizer.json is no regular file"),
        (fifo("model.safetensors"), "model.safetensors is no regular file"),
        (spoil("tokenizer.json", b"{}"), "the tokenizer in .*/copy cannot be read"),
        (spoil("tokenizer.json", b"[]"), "the tokenizer in .*/copy cannot be read"),
        (spoil("tokenizer.json", b'{"a": ' * 2000), "the tokenizer in .*/copy cannot be read"),
        (shards("../outside.safetensors"), "must name files .* that lie beside it"),
        (shards("/etc/passwd"), "must name files .* that lie beside it"),
        (shards("weights.bin"), "must name files .* that lie beside it"),
        (only_a_pickle, "holds no model.safetensors, and a .bin is not read"),
        (not_a_number, "h.1.attn.c_proj.bias holds numbers that are none"),
        (other_shape, r"transformer.wpe.weight is \[9, 16\] in its file, and \[64, 16\] by config.json"),
        (setting(vocab_size=10**9), r"wte.weight is \[30, 16\] in its file, and \[1000000000, 16\] by config.json"),
        (setting(n_embd=10**9), "copy cannot be read"),
        (setting(n_embd=-1), "copy cannot be read"),
        (setting(n_head=0), "copy cannot be read"),
        (setting(n_layer=10**4), "asks for 10,000 blocks"),
        (setting(n_layer=10**6), "asks for 1,000,000 blocks"),
        (setting(activation_function="__import__"), "copy cannot be read"),
        (setting(dtype="float128"), "copy cannot be read"),
        (setting(is_encoder_decoder=True), "copy cannot be read"),
        (setting(attn_implementation="evil/kernel"), "takes attn_implementation from 'evil/kernel'"),
        (setting(_attn_implementation="evil/kernel"), "takes _attn_implementation from 'evil/kernel'"),
        (setting(transformers_weights="other.safetensors"), "takes transformers_weights from"),
        (setting(model_type="vit"), "copy cannot be read"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(copy, damage, message):
    damage(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        backbone(copy)


def test_sharded_weights_beside_their_index_are_read(copy):
    model, _ = backbone(copy)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="10kB")
    assert (copy / "model.safetensors.index.json").exists()
    again, _ = backbone(copy)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_folder_from_scratch_needs_no_weights(copy):
    (copy / "model.safetensors").unlink()
    model, _ = backbone(copy, pretrained=False)
    assert model.dtype == torch.float32
    assert backbone(copy, pretrained=False, dtype=torch.float64)[0].dtype == torch.float64


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5"])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path, kind):
    random_model(kind).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no tokenizer with words"):
        backbone(tmp_path)


def test_a_tokenizer_must_fit_its_model(copy):
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["waiter"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(ValueError, match="has ids up to 30, the model's embedding 30 rows"):
        backbone(copy)
    tokenizer = word_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(copy)
    with pytest.raises(ValueError, match="has neither a padding token nor an end"):
        backbone(copy)


def classifier(kind, folder, names):
    torch.manual_seed(0)
    ids = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    shared = {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2, **ids}
    small = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
    if kind == "bert":
        model = BertForSequenceClassification(BertConfig(intermediate_size=16, **small, **shared))
    else:
        model = GPT2ForSequenceClassification(GPT2Config(n_positions=64, **small, **shared))
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return model.eval()


def scores(model, names):
    """What each label gets, whatever its row."""
    ids = word_tokenizer()("the food was good", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        row = model(input_ids=ids).logits[0]
    assert list(model.config.id2label.values()) == names
    assert model.config.label2id == {name: i for i, name in enumerate(names)}
    return dict(zip(names, row.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_heads_rows_follow_the_names_of_the_labels(tmp_path, kind):
    names, turned = ["positive", "neutral", "negative"], ["negative", "positive", "neutral"]
    trained = scores(classifier(kind, tmp_path, names), names)
    assert scores(backbone(tmp_path, head="classify", labels=turned)[0], turned) == pytest.approx(trained)
    for same in (None, 3):
        kept = backbone(tmp_path, head="classify", labels=same)[0]
        assert scores(kept, names) == pytest.approx(trained)


def test_labels_without_a_name_take_those_that_are_given(tmp_path):
    trained = scores(classifier("bert", tmp_path, ["LABEL_0", "LABEL_1"]), ["LABEL_0", "LABEL_1"])
    named = scores(backbone(tmp_path, head="classify", labels=["bad", "good"])[0], ["bad", "good"])
    assert list(named.values()) == pytest.approx(list(trained.values()))


def test_a_trained_head_is_not_taken_for_another(tmp_path):
    classifier("bert", tmp_path, ["positive", "negative"])
    with pytest.raises(ValueError, match="for positive, negative; asked for was .* for bad, good. To begin a new head"):
        backbone(tmp_path, head="classify", labels=["bad", "good"])
    with pytest.raises(ValueError, match="saved as BertForSequenceClassification .*asked for was BertForTokenClassif"):
        backbone(tmp_path, head="tag")
    for three in (3, ["positive", "negative", "neutral"]):
        with pytest.raises(ValueError, match=r"classifier.bias is \[2\] in its file, and \[3\] by .* and 3 labels"):
            backbone(tmp_path, head="classify", labels=three)
    rewrite(tmp_path / "config.json", architectures=None)
    turned = backbone(tmp_path, head="classify", labels=["negative", "positive"])[0]
    trained = scores(backbone(tmp_path, head="classify")[0], ["positive", "negative"])
    assert scores(turned, ["negative", "positive"]) == pytest.approx(trained)


def test_a_new_head_begins_on_the_body_alone(tmp_path):
    classifier("bert", tmp_path / "whole", ["positive", "negative"])
    backbone(tmp_path / "whole", head="classify")[0].base_model.save_pretrained(tmp_path / "body")
    word_tokenizer().save_pretrained(tmp_path / "body")
    model, _ = backbone(tmp_path / "body", head="classify", labels=["bad", "so so", "good"])
    assert model.config.id2label == {0: "bad", 1: "so so", 2: "good"} and model.num_labels == 3


def test_a_classifiers_folder_has_no_words_and_says_so(tmp_path):
    classifier("bert", tmp_path, ["positive", "negative"])
    with pytest.warns(UserWarning, match="weights of the network .* cls.predictions.*BertForSequenceClassification"):
        backbone(tmp_path)


def test_a_cards_readme_may_be_in_any_encoding(copy):
    (copy / "README.md").write_bytes("Pretrained on: Köln\n".encode("latin-1"))
    assert "pretrained on: K" in card(copy)


def test_nothing_is_said_where_nothing_is_wrong(recwarn, capfd):
    """transformers' search for a loss by GPT-2's class name, and HF peft's for a name that is going to change."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = backbone("toy-gpt2")
    batch = tokenizer("the food", return_tensors="pt", return_token_type_ids=False)
    model(**batch, labels=batch["input_ids"])
    get_peft_model(model, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    assert [str(each.message) for each in recwarn] == [] and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "asked, kind, message",
    [
        ({"text": ["the", "food"]}, TypeError, "text is .* but must be one text"),
        ({"text": None}, TypeError, "text is None"),
        ({"text": "the", "tokens": "5"}, ValueError, "tokens is '5'"),
        ({"text": "the", "tokens": 1.5}, ValueError, "tokens is 1.5"),
        ({"text": "the " * 60}, ValueError, "72 tokens, what is to follow included; the model reads 64"),
    ],
)
def test_what_cannot_be_completed_is_refused(asked, kind, message):
    with pytest.raises(kind, match=message):
        complete(*backbone("toy-gpt2"), **asked)


def test_only_a_model_with_words_completes():
    model, tokenizer = backbone("toy-bert")
    with pytest.raises(ValueError, match=r"BertForMaskedLM fills gaps: the text 'the food' has no \[MASK\]"):
        complete(model, tokenizer, "the food")
    with pytest.raises(ValueError, match="BertForSequenceClassification has no language-model head"):
        complete(*backbone("toy-bert", head="classify"), "the [MASK]")
    for wrong in ((tokenizer, model), (None, tokenizer), (model, None)):
        with pytest.raises(TypeError, match="expected a model and its tokenizer"):
            complete(*wrong, "the food")


def test_completing_leaves_training_mode_alone():
    model, tokenizer = backbone("toy-gpt2")
    expected = complete(model, tokenizer, "the food")
    model.train()
    model.transformer.drop.p = 0.9
    assert complete(model, tokenizer, "the food") == expected and model.training
