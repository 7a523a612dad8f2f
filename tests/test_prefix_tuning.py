import pytest
import torch
from families import SIZES, batch, tiny
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from peft_edu import LoRA, PrefixTuning, PTuningV2, load, save, trainable
from peft_edu.anatomy import FAMILIES as FAMILY_TABLE
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
    trunks = {prefix.shared[0] for prefix in method.added}
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


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "bert", "t5"])
def test_a_mask_of_true_and_false_is_the_same_mask_in_numbers(family):
    """A mask for each query (b, 1, t, t), which transformers hands on as it is."""
    inputs, (_, model) = batch(), prefixed(family)
    seen = torch.ones(3, 1, 7, 7, dtype=torch.bool).tril()
    seen[1, :, :, :2] = False  # the rows of these two see nothing but the prefix
    numbers = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, torch.finfo(torch.float64).min)
    of_bools, of_numbers = (logits(model, inputs | {"attention_mask": mask}) for mask in (seen, numbers))
    assert torch.equal(of_bools, of_numbers)
    assert not torch.allclose(of_bools, logits(tiny(family, dtype=torch.float64), inputs | {"attention_mask": numbers}))


@pytest.fixture
def windowed(monkeypatch):
    """Qwen2 with a window of 6 tokens in its upper layer."""
    more = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    monkeypatch.setitem(SIZES, "qwen2", SIZES["qwen2"] | more)
    return tiny("qwen2", dtype=torch.float64)


def test_a_prefix_is_not_seen_through_a_window(windowed):
    with pytest.raises(ValueError, match="Qwen2ForCausalLM sees 6 tokens back, .* set use_sliding_window=False"):
        PrefixTuning(3).attach(windowed)
    assert not any(hasattr(module, "prefix") for module in windowed.modules())
    assert PTuningV2(3, layers=(0,)).attach(windowed) is windowed  # this layer sees all tokens


def test_a_window_in_the_configuration_alone_counts_too(monkeypatch):
    """Mistral's attention keeps none itself."""
    config = AutoConfig.for_model("mistral", vocab_size=64, sliding_window=5, **SIZES["llama"])
    monkeypatch.setitem(FAMILY_TABLE, "mistral", FAMILY_TABLE["llama"])
    with pytest.raises(ValueError, match="MistralForCausalLM sees 5 tokens back"):
        PrefixTuning(3).attach(AutoModelForCausalLM.from_config(config))


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
        ({"hidden": 0, "init": 5}, "init is 5, but must be a text that tokenises to something, or token ids"),
        ({"hidden": 0, "init": None}, "init is None, but must be a text"),
        ({"hidden": 0, "init": (7, -1)}, r"init is \(7, -1\), but must be a text"),
        ({"hidden": 0, "init": (True,)}, r"init is \(True,\), but must be a text"),
        ({"hidden": 0, "init": "words", "tokenizer": 5}, "init is the text 'words', which needs its tokenizer"),
        ({"shift": "no"}, "shift is 'no', but must be True or False"),
        ({"shift": None}, "shift is None, but must be True or False"),
        ({"layers": 5}, "layers is 5, but must be whole numbers, as in"),
        ({"layers": ("a",)}, r"layers is \('a',\), but must be whole numbers"),
        ({"layers": (0.0,)}, r"layers is \(0.0,\), but must be whole numbers"),
        ({"layers": ()}, "layers is empty: name one layer or more"),
    ],
)
def test_starts_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        PrefixTuning(**fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"length": 10**9}, "length 1000000000 with hidden 512 would add .* to T5ForCond.*, which has .* itself"),
        ({"hidden": 10**9}, "length 10 with hidden 1000000000 would add .* numbers"),
        ({"hidden": 0, "init": (7, 10**9)}, "init names the token 1000000000, but the vocabulary ends at 63"),
    ],
)
def test_what_exceeds_the_model_is_refused_before_it_takes_memory(fields, message):
    """T5's positions are relative: nothing else bounds the length."""
    model = tiny("t5")
    with pytest.raises(ValueError, match=message):
        PrefixTuning(**fields).attach(model)
    assert attached(model) is None and model.config._attn_implementation == "eager"


def test_a_hundred_thousand_words_are_as_many_as_the_prefix_is_long():
    method, _ = prefixed(init=(7, 8) * 50_000, length=3)
    again, _ = prefixed(init=(7, 8), length=3)
    assert torch.equal(method.added[0].keys_values, again.added[0].keys_values)


def test_the_tokenizer_is_named():
    """So that all that a file keeps comes before it: by position, layers went to it once."""
    assert PTuningV2(20, 0, "normal", True, (0, 1), 0.1) == PTuningV2(layers=(0, 1), dropout=0.1)
    with pytest.raises(TypeError, match="positional arguments"):
        PrefixTuning(3, 0, "a bcd", True, None, 0.0, Words())


def test_a_file_of_another_length_or_method(tmp_path):
    save(prefixed(length=3)[1], tmp_path / "three")
    recipe = (tmp_path / "three" / "recipe.json").read_text()
    (tmp_path / "three" / "recipe.json").write_text(recipe.replace('"length": 3', '"length": 4'))
    with pytest.raises(ValueError, match=r"is \(2, 4, 3, 8\) in the file, but \(2, 4, 4, 8\) in the model"):
        load(tiny("gpt2", dtype=torch.float64), tmp_path / "three")
    save(LoRA(rank=2).attach(tiny("gpt2")), tmp_path / "lora")
    with pytest.raises(RuntimeError, match=r"PrefixTuning\(length=3.*is attached to this model"):
        load(prefixed()[1], tmp_path / "lora")


def test_a_trainer_saves_a_checkpoint_of_the_mlp(tmp_path):
    """transformers refuses a model in which one module stands twice."""
    model = PrefixTuning(length=3, hidden=6).attach(tiny("gpt2"))
    rows = [{name: tensor[0] for name, tensor in batch().items()}] * 4
    settings = {"max_steps": 2, "save_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    Trainer(model, TrainingArguments(tmp_path, **settings), train_dataset=rows).train()
    kept = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert torch.equal(kept["transformer.h.0.attn.prefix.trunk.start"], attached(model).added[1].shared[0].start)
