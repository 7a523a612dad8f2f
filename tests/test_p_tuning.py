import re

import pytest
import torch
from families import SIZES, batch, tiny

from peft_edu import PTuning, count, fit, load, save, template_ids, trainable
from peft_edu.lab import backbone
from peft_edu.method import attached
from peft_edu.p_tuning import template_text

TEMPLATE = "[P] [P] {text} [P]"


def logits(model, ids, **more):
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


def pseudo(family="gpt2", task="language", **fields):
    method = PTuning(**{"template": TEMPLATE, "encoder": "none"} | fields)
    return method, method.attach(tiny(family, task, torch.float64))


def with_pseudo_tokens():
    """Two in front of the text's end and one in it, and which they are."""
    ids = batch()["input_ids"].clone()
    ids[:, [1, 2, 5]] = torch.tensor([-1, -2, -3])
    return ids


@pytest.mark.parametrize("family", SIZES)
def test_pseudo_tokens_that_are_words_are_these_words(family):
    """With the embeddings of real words the model does what it does with the words in their places."""
    method, model = pseudo(family)
    words = torch.tensor([7, 8, 9])
    table = model.get_input_embeddings().weight.detach()
    method.added[0].start.data.copy_(table[words])
    ids = with_pseudo_tokens()
    expected = torch.where(ids < 0, words[(-1 - ids).clamp(min=0)], ids)
    decoder = {"decoder_input_ids": batch()["input_ids"]} if family.startswith("t5") else {}
    base = tiny(family, dtype=torch.float64)
    assert torch.allclose(logits(model, ids, **decoder), logits(base, expected, **decoder), atol=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_a_text_without_pseudo_tokens_is_the_base_models(family):
    _, model = pseudo(family, encoder="lstm")
    inputs = batch()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, tiny(family, dtype=torch.float64)(**inputs).logits)


@pytest.mark.parametrize(
    "encoder, parameters",
    [
        # d = 32: starts, two LSTM layers in two directions of 16, two maps
        ("lstm", 3 * 32 + 2 * 2 * (4 * 16 * (32 + 16) + 2 * 4 * 16) + 2 * (32 * 32 + 32)),
        ("mlp", 3 * 32 + 2 * (32 * 32 + 32)),
        ("none", 3 * 32),
    ],
)
def test_the_encoder_is_left_behind(encoder, parameters, tmp_path):
    """What a file keeps is n d numbers; the loaded model writes what the trained one did."""
    method, model = pseudo("bert", encoder=encoder)
    assert count(model).trainable == parameters
    save(model, tmp_path / "saved")
    again = load(tiny("bert", dtype=torch.float64), tmp_path / "saved")
    assert attached(again) == PTuning(TEMPLATE, "none") and count(again).trainable == 3 * 32
    assert torch.equal(logits(again, with_pseudo_tokens()), logits(model, with_pseudo_tokens()))
    assert attached(model) is method and method.encoder == encoder


def test_joint_tuning_keeps_the_model_too(tmp_path):
    method, model = pseudo("bert", encoder="mlp", joint=True)
    whole = sum(parameter.numel() for parameter in tiny("bert").parameters())
    assert count(model).trainable == whole + 3 * 32 + 2 * (32 * 32 + 32)
    inputs = batch() | {"input_ids": with_pseudo_tokens()}
    fit(model, [inputs], steps=2, lr=1e-2)
    save(model, tmp_path / "joint")
    again = load(tiny("bert", dtype=torch.float64, seed=1), tmp_path / "joint")  # all weights come from the file
    assert torch.equal(logits(again, inputs["input_ids"]), logits(model, inputs["input_ids"]))


def test_free_pseudo_tokens_start_as_tokens_do():
    method, model = pseudo()
    table = model.get_input_embeddings().weight
    assert all((table == row).all(1).any() for row in method.added[0].embeddings)


def test_a_number_that_no_pseudo_token_has():
    _, model = pseudo()
    with pytest.raises(ValueError, match="the text has the pseudo token -4, the template 3"):
        logits(model, torch.tensor([[5, -4]]))


def test_all_of_it_is_on_the_device_and_in_the_precision_of_the_model():
    _, model = pseudo("llama", encoder="lstm")
    assert {parameter.dtype for parameter in trainable(model).values()} == {torch.float64}


# --------------------------------------------------------------------------------------------------------- templates
ROW = {"subject": "Rosa Balford", "place": "Selby"}


@pytest.fixture(scope="module")
def tokenizers():
    return {name: backbone(name)[1] for name in ("tiny-bert", "tiny-gpt2", "tiny-t5")}


def shown(tokenizer, ids) -> list[str]:
    return [tokenizer.convert_ids_to_tokens(each).replace("Ġ", "") if each >= 0 else f"P{-each}" for each in ids]


@pytest.mark.parametrize(
    "template, found",
    [
        ("[P] [P] {subject} [P] [MASK] .", "[CLS] P1 P2 rosa balford P3 [MASK] . [SEP]"),
        ("[P]{subject}[P][MASK][P]", "[CLS] P1 rosa balford P2 [MASK] P3 [SEP]"),
        ("{subject} was born in [MASK].", "[CLS] rosa balford was born in [MASK] . [SEP]"),
        ("[MASK] [P] {subject}, {place}", "[CLS] [MASK] P1 rosa balford , selby [SEP]"),
        ("[P]", "[CLS] P1 [SEP]"),
    ],
)
def test_pseudo_tokens_stand_anywhere(template, found, tokenizers):
    tokenizer = tokenizers["tiny-bert"]
    assert shown(tokenizer, template_ids(template, tokenizer, ROW)) == found.split()


def test_a_template_without_pseudo_tokens_is_its_text(tokenizers):
    for tokenizer in tokenizers.values():
        text = "Rosa Balford came into the world in Selby"
        assert template_ids("{subject} came into the world in {place}", tokenizer, ROW) == tokenizer(text).input_ids


def test_a_model_that_writes_reads_what_stands_before_the_answer(tokenizers):
    ids = template_ids("[P] {subject} [P] [MASK] .", tokenizers["tiny-gpt2"], ROW)
    assert shown(tokenizers["tiny-gpt2"], ids) == "<|endoftext|> P1 Rosa Balford P2".split()
    ids = template_ids("[P] {subject} [P] [MASK] .", tokenizers["tiny-t5"], ROW)
    assert shown(tokenizers["tiny-t5"], ids) == "P1 Rosa Balford P2 </s>".split()
    with pytest.raises(ValueError, match=r"has \[P\] behind \[MASK\], which a model without a mask never reads"):
        template_ids("{subject} [MASK] [P]", tokenizers["tiny-gpt2"], ROW)


def test_templates_that_are_none(tokenizers):
    tokenizer = tokenizers["tiny-bert"]
    with pytest.raises(ValueError, match="names the field 'who', but the row has subject, place"):
        template_ids("[P] {who}", tokenizer, ROW)
    with pytest.raises(ValueError, match=r"has 2 of \[MASK\], but there is one answer"):
        template_ids("[MASK] [MASK]", tokenizer, ROW)
    with pytest.raises(ValueError, match="names the field 'place', but the row has subject"):
        template_ids("[P] {place}", tokenizer, ROW | {"place": None})


@pytest.mark.parametrize(
    "template, brace",
    [
        ("{subject:>2000000000}", "{subject:>2000000000}"),  # would write two thousand million blanks
        ("{subject.__class__}", "{subject.__class__}"),
        ("{subject!r} {place}", "{subject!r} "),
        ("{subject[0]}", "{subject[0]}"),
        ("{}", "{}"),
        ("{subject", "{subject"),
        ("subject}", "}"),
        ("{{subject}}", "{}"),
    ],
)
def test_a_field_is_a_name_in_braces_and_nothing_is_computed(template, brace, tokenizers):
    message = f"has a brace at {re.escape(repr(brace))} that is no {{field}}"
    with pytest.raises(ValueError, match=message):
        template_ids(f"[P] {template}", tokenizers["tiny-bert"], ROW)
    with pytest.raises(ValueError, match=message):
        PTuning(f"[P] {template}")


def test_braces_in_a_row_are_text(tokenizers):
    tokenizer = tokenizers["tiny-gpt2"]
    ids = template_ids("{subject}", tokenizer, {"subject": "{place:>9} [P]"})
    assert ids == tokenizer("{place:>9} [P]").input_ids


@pytest.mark.parametrize("template", ["", "  ", None, 5])
def test_a_template_is_a_text(template, tokenizers):
    with pytest.raises(ValueError, match=f"template is {template!r}, but must be a text"):
        template_ids(template, tokenizers["tiny-bert"], ROW)


def test_a_template_comes_with_its_tokenizer_and_a_row(tokenizers):
    for tokenizer, row in ((tokenizers["tiny-bert"], None), (None, ROW), (ROW, tokenizers["tiny-bert"])):
        kinds = f"expected a tokenizer and a row, got {type(tokenizer).__name__} and {type(row).__name__}"
        with pytest.raises(TypeError, match=kinds):
            template_ids("[P]", tokenizer, row)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])
def test_ids_with_pseudo_tokens_are_decoded(name, tokenizers):
    """What the tokenizer alone cannot: it knows no number below 0."""
    tokenizer = tokenizers[name]
    ids = torch.tensor(template_ids("[P] [P] {subject} [P]", tokenizer, ROW))
    with pytest.raises(OverflowError):
        tokenizer.decode(ids)
    first, last = ("[CLS] ", " [SEP]") if name == "tiny-bert" else ("<|endoftext|> ", "")
    assert template_text(ids, tokenizer).lower() == f"{first}[p] [p] rosa balford [p]{last}".lower()
    assert template_text(tokenizer("a joy").input_ids, tokenizer) == tokenizer.decode(tokenizer("a joy").input_ids)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"template": "{subject} [MASK]"}, r"template is '{subject} \[MASK\]', but must be a text with one \[P\] or"),
        ({"template": 3}, r"template is 3, but must be a text with one \[P\] or more"),
        ({"encoder": "gru"}, "encoder is 'gru', but must be one of 'lstm', 'mlp', 'none'"),
        ({"joint": "no"}, "joint is 'no', but must be True or False"),
        ({"template": "[P] [MASK] [MASK]"}, r"has 2 of \[MASK\], but there is one answer"),
    ],
)
def test_settings_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        PTuning(**fields)


def test_a_template_that_exceeds_the_model_is_refused_before_it_takes_memory():
    model = tiny("bert")
    with pytest.raises(ValueError, match=r"a template with 400000 \[P\] would add 12,800,000 numbers"):
        PTuning("[P]" * 400_000).attach(model)
    assert attached(model) is None


def test_a_file_of_another_length_is_refused(tmp_path):
    save(pseudo()[1], tmp_path / "three")
    recipe = tmp_path / "three" / "recipe.json"
    recipe.write_text(recipe.read_text().replace(TEMPLATE, "[P] {text}"))
    with pytest.raises(ValueError, match=r"pseudo.start is \(3, 32\) in the file, but \(1, 32\) in the model"):
        load(tiny("gpt2", dtype=torch.float64), tmp_path / "three")
