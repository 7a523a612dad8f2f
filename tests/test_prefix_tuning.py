import pytest
import torch
from families import SIZES, batch, tiny

from peft_edu import LoRA, PrefixTuning, load, save, trainable
from peft_edu.attention import ATTENTION
from peft_edu.method import attached

FAMILIES = [family for family in SIZES if family != "deberta-v2"]


class Words:
    """A tokenizer of sorts: a number for each word."""

    def __call__(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return type("Encoding", (), {"input_ids": [2 + len(word) for word in text.split()]})


def logits(model, inputs=None):
    with torch.no_grad():
        return model(**(inputs or batch())).logits


def prefixed(family="gpt2", **fields):
    method = PrefixTuning(**{"length": 3, "hidden": 0} | fields)
    return method, method.attach(tiny(family, dtype=torch.float64))


def test_a_prefix_is_the_equation_of_the_paper():
    method, model = prefixed()
    prefix = method.added[0]
    query, key, value = (torch.randn(2, 4, 5, 8, dtype=torch.float64) for _ in range(3))
    keys, values = (torch.cat([part.expand(2, -1, -1, -1), text], 2)
                    for part, text in zip(prefix.keys_values, (key, value), strict=True))  # fmt: skip
    by_hand = torch.softmax(query @ keys.transpose(2, 3) / 8**0.5, -1) @ values
    assert torch.allclose(prefix(query, key, value, None, scale=8**-0.5), by_hand, atol=1e-14)


def test_a_prefix_of_zeros_is_not_nothing():
    method, model = prefixed(shift=False)
    for prefix in method.added:
        torch.nn.init.zeros_(prefix.keys_values)
    assert not torch.allclose(logits(model), logits(tiny("gpt2", dtype=torch.float64)), atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_words_as_a_prefix_are_the_first_words(family):
    """Started from the activations of real words, a prefix does what these words do in front of the text."""
    words, text = (7, 8, 9), batch()["input_ids"]
    _, model = prefixed(family, init=words)
    whole = torch.cat([torch.tensor([words]).expand(3, -1), text], 1)
    if family in ("gpt2", "llama", "qwen2"):  # the words cannot see the text, with or without a prefix
        expected = logits(tiny(family, dtype=torch.float64), {"input_ids": whole})[:, 3:]
        assert torch.allclose(logits(model, {"input_ids": text}), expected, atol=1e-6)
    else:
        assert not torch.allclose(logits(model), logits(tiny(family, dtype=torch.float64)), atol=1e-4)


def test_words_are_repeated_or_cut_to_the_length():
    long, _ = prefixed(init=(7, 8), length=3)
    short, _ = prefixed(init=(7, 8, 7, 9), length=3)
    assert all(
        torch.equal(one.keys_values, other.keys_values) for one, other in zip(long.added, short.added, strict=True)
    )
    assert PrefixTuning(hidden=0, init="a bcd", tokenizer=Words()).init == (3, 5)


def test_listening_to_words_leaves_no_trace():
    model = tiny("bert", dtype=torch.float64).train()
    before = [module.training for module in model.modules()]
    method = PrefixTuning(length=2, hidden=0, init=(7, 8))
    method.attach(model)
    method.detach()
    assert [module.training for module in model.modules()] == before
    assert not any(hasattr(module, "prefix") for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mlp_is_shared_and_not_saved(family, tmp_path):
    method = PrefixTuning(length=3, hidden=6)
    model = method.attach(tiny(family, "classify", torch.float64))
    trunks = {prefix.trunk for prefix in method.added}
    assert len(trunks) == (3 if family.startswith("t5") else 1)  # T5: encoder, decoder and cross-attention
    save(model, tmp_path / "flat")
    again = load(tiny(family, "classify", torch.float64), tmp_path / "flat")
    assert attached(again) == PrefixTuning(length=3, hidden=0)
    flat = sum(prefix.keys_values.numel() for prefix in attached(again).added)
    heads, width = (2 if family in ("llama", "qwen2") else 4), 8
    assert flat == 3 * len(method.added) * 2 * heads * width
    assert torch.equal(logits(again, batch("classify")), logits(model, batch("classify")))


def test_only_a_head_is_saved_beside_the_prefix(tmp_path):
    model = PrefixTuning(length=3, hidden=6).attach(tiny("bert", "classify"))
    _, learned = attached(model).saved()
    assert {name.rpartition(".")[2] for name in learned} == {"keys_values", "weight", "bias"}
    assert len(learned) == 2 + 2 < len(trainable(model))


def test_positions_start_behind_the_prefix_or_not():
    shifted, plain = prefixed(shift=True)[1], prefixed(shift=False)[1]
    at = torch.arange(7)[None]
    for name, parameter in trainable(shifted).items():
        trainable(plain)[name].data.copy_(parameter)
    ids = {"input_ids": batch()["input_ids"]}
    assert torch.allclose(logits(shifted, ids), logits(plain, ids | {"position_ids": at + 3}), atol=1e-12)
    assert not torch.allclose(logits(shifted, ids), logits(plain, ids), atol=1e-3)


def test_text_that_ends_behind_the_last_position():
    _, model = prefixed(length=1020)
    with pytest.raises(ValueError, match="the text and a prefix of 1020 need position 1026, but the model has 1024"):
        logits(model)


def test_a_prefix_that_leaves_no_room():
    model = tiny("gpt2")
    with pytest.raises(ValueError, match="length 1024 leaves no room for text: the model has 1024 positions"):
        PrefixTuning(length=1024).attach(model)
    assert model.config._attn_implementation == "eager"


def test_attention_of_its_own_kind():
    with pytest.raises(ValueError, match="DebertaV2ForMaskedLM has attention of its own kind, into which no keys"):
        PrefixTuning().attach(tiny("deberta-v2"))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_prefix_attention_is_the_models_own(family):
    """T5's position bias, Llama's shared keys, masks: all that a family hands to an attention function is used."""
    model = tiny(family, dtype=torch.float64)
    inputs = batch()
    inputs["attention_mask"][1, 5:] = 0
    before = logits(model, inputs)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = ATTENTION
    after = logits(model, inputs)
    assert torch.allclose(after, before, atol=1e-6)  # Llama's and Qwen2's own softmax is in float32
    assert not torch.equal(after, logits(model))  # the mask counts


def test_two_models_of_one_configuration():
    """The name of the attention function is in the configuration that both share: the other one attends as ever."""
    model = tiny("gpt2", dtype=torch.float64)
    other = type(model)(model.config).double().eval()
    before = logits(other)
    method = PrefixTuning(length=3)
    method.attach(model)
    assert other.config._attn_implementation == ATTENTION
    assert torch.allclose(logits(other), before, atol=1e-12)
    method.detach()
    assert other.config._attn_implementation == "eager"


@pytest.mark.parametrize("length", [0, -1, 1.5, "10"])
def test_the_length_is_a_whole_number(length):
    with pytest.raises(ValueError, match=f"length is {length!r}, but must be a whole number from 1 on"):
        PrefixTuning(length)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hidden": -1}, "hidden is -1, but must be a whole number from 0 on"),
        ({"hidden": 0, "init": "some words"}, "init is the text 'some words', which needs its tokenizer"),
        ({"hidden": 0, "init": " ", "tokenizer": Words()}, "must be a text that tokenises to something, or token ids"),
        ({"hidden": 0, "init": (1.5,)}, "must be a text that tokenises to something, or token ids"),
        ({"hidden": 8, "init": (7, 8)}, "words are a start for free keys and values: set hidden=0"),
    ],
)
def test_starts_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        PrefixTuning(**fields)


def test_a_file_of_another_length_or_method(tmp_path):
    save(prefixed(length=3)[1], tmp_path / "three")
    recipe = (tmp_path / "three" / "recipe.json").read_text()
    (tmp_path / "three" / "recipe.json").write_text(recipe.replace('"length": 3', '"length": 4'))
    with pytest.raises(ValueError, match=r"is \(2, 4, 3, 8\) in the file, but \(2, 4, 4, 8\) in the model"):
        load(tiny("gpt2", dtype=torch.float64), tmp_path / "three")
    save(LoRA(rank=2).attach(tiny("gpt2")), tmp_path / "lora")
    with pytest.raises(RuntimeError, match=r"PrefixTuning\(length=3.*is attached to this model"):
        load(prefixed()[1], tmp_path / "lora")
