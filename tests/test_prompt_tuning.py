import pytest
import torch
from families import SIZES, batch, tiny

from peft_edu import PromptTuning, count, load, save
from peft_edu.method import attached
from peft_edu.splice import behind, in_front, leading_pads

DECODERS = ("gpt2", "llama", "qwen2")


class Words:
    """A tokenizer of sorts: a number for each letter."""

    def __call__(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return type("Encoding", (), {"input_ids": [ord(letter) - 87 for letter in text.replace(" ", "")]})


def logits(model, inputs=None, task="language"):
    with torch.no_grad():
        return model(**(inputs or batch(task))).logits


def prompted(family="gpt2", task="language", **fields):
    method = PromptTuning(**{"length": 3} | fields)
    return method, method.attach(tiny(family, task, torch.float64))


@pytest.mark.parametrize("family", SIZES)
def test_a_prompt_of_real_words_is_these_words(family):
    """Started from the embeddings of words, the model does what it does with the words in front."""
    words, text = torch.tensor([[7, 8, 9]]).expand(3, -1), batch()["input_ids"]
    whole = torch.cat([words, text], 1)
    base = tiny(family, dtype=torch.float64)
    _, model = prompted(family, init=(7, 8, 9))
    if family.startswith("t5"):
        expected = logits(base, {"input_ids": whole, "decoder_input_ids": text})
        found = logits(model, {"input_ids": text, "decoder_input_ids": text})
    else:
        expected, found = logits(base, {"input_ids": whole})[:, 3:], logits(model, {"input_ids": text})
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_pooler_reads_the_text(family):
    """With the prompt in `inputs_embeds`, as in HF peft, BERT's pooler would read the first virtual token."""
    _, model = prompted(family, "classify")
    head = model.classifier
    seen = []
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    hidden = model.base_model(batch()["input_ids"]).last_hidden_state
    logits(model, task="classify")
    assert hidden.shape[1] == 7
    expected = model.bert.pooler(hidden) if family == "bert" else hidden
    assert torch.allclose(seen[0], expected, atol=1e-12)


@pytest.mark.parametrize("family", SIZES)
def test_labels_and_logits_are_those_of_the_text(family):
    _, model = prompted(family)
    output = model(**batch())
    assert output.logits.shape[:2] == (3, 7) and output.loss.isfinite()


@pytest.mark.parametrize("pads", [(0, 0), (2, 0), (0, 2)])
def test_in_front_and_behind(pads):
    mask = torch.nn.functional.pad(torch.ones(2, 3, dtype=torch.long), pads)
    text = torch.arange(2 * mask.shape[1]).view(2, -1) + 1
    whole = in_front(torch.tensor([[-1, -2], [-3, -4]]), text, leading_pads(mask))
    left = pads[0]
    assert whole[0].tolist() == [*text[0, :left].tolist(), -1, -2, *text[0, left:].tolist()]
    assert torch.equal(behind(whole, 2, leading_pads(mask)), text)


def test_vocabulary_rows_without_repetition():
    method, model = prompted(length=20)
    words = model.get_input_embeddings().weight
    rows = [(words == row).all(1).nonzero().item() for row in method.added[0].embeddings[0]]
    assert len(set(rows)) == 20


def test_a_random_start_is_uniform():
    method, _ = prompted(init="random", length=500)
    values = method.added[0].embeddings
    assert -0.5 <= values.min() < -0.49 and 0.49 < values.max() <= 0.5


def test_label_words_have_a_position_each():
    method, model = prompted(init=["ab", "c"], tokenizer=Words(), length=4)
    words, prompt = model.get_input_embeddings().weight, method.added[0].embeddings[0]
    assert method.init == ((10, 11), (12,))
    assert torch.equal(prompt[0], words[[10, 11]].mean(0)) and torch.equal(prompt[1], words[12])
    assert all((words == row).all(1).any() for row in prompt[2:])


def test_a_text_is_repeated():
    method, model = prompted(init="ab", tokenizer=Words(), length=3)
    assert torch.equal(method.added[0].embeddings[0], model.get_input_embeddings().weight[[10, 11, 10]])


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_an_ensemble_in_one_batch_is_its_members(family):
    ensemble, together = prompted(family, members=2)
    inputs = {name: torch.cat([tensor, tensor]) for name, tensor in batch().items()}
    both = logits(together, inputs)
    for i in range(2):
        single, alone = prompted(family)
        single.added[0].embeddings.data.copy_(ensemble.added[0].embeddings[i : i + 1].detach())
        assert torch.allclose(logits(alone), both[3 * i : 3 * i + 3], atol=1e-6)
    assert count(together).trainable == 2 * 3 * 32
    with pytest.raises(ValueError, match="a batch of 3 rows cannot be shared out among 2 prompts"):
        logits(together)


@pytest.mark.parametrize("family", [*DECODERS, "t5"])
@pytest.mark.parametrize("how", [{"num_beams": 3}, {"do_sample": True, "top_k": 5}], ids=["beams", "sampling"])
def test_beams_and_samples_are_the_same_with_and_without_cache(family, how):
    _, model = prompted(family)
    model.float()  # Llama's own eager attention gives no numbers for a padded row in float64
    ids = torch.nn.functional.pad(batch()["input_ids"], (2, 0))
    settings = {"attention_mask": (ids != 0).long(), "min_new_tokens": 6, "max_new_tokens": 6} | how
    made = []
    for cache in (True, False):
        torch.manual_seed(0)
        made.append(model.generate(ids, use_cache=cache, **settings))
    assert torch.equal(*made)


def test_text_and_prompt_that_do_not_fit():
    _, model = prompted(length=1020, init="random")
    with pytest.raises(ValueError, match="7 tokens and a prompt of 1020 do not fit into 1024 positions"):
        logits(model)
    with pytest.raises(ValueError, match="length 1024 leaves no room for text: the model has 1024 positions"):
        PromptTuning(1024).attach(tiny("gpt2"))
    with pytest.raises(ValueError, match="there are 64 common tokens for 65 positions: take init='random'"):
        PromptTuning(65).attach(tiny("gpt2"))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"length": 0}, "length is 0, but must be a whole number from 1 on"),
        ({"length": -2}, "length is -2, but must be"),
        ({"members": 0}, "members is 0, but must be a whole number from 1 on"),
        ({"init": "good"}, "init is the text 'good', which needs its tokenizer"),
        ({"init": " ", "tokenizer": Words()}, "must be a text that tokenises to something"),
        (
            {"init": ["good", " "], "tokenizer": Words()},
            "a label word is .* must be a text that tokenises to something",
        ),
        (
            {"length": 1, "init": ["a", "b"], "tokenizer": Words()},
            "2 label words need as many positions, but length is 1",
        ),
        ({"init": ()}, "must be a text that tokenises to something"),
    ],
)
def test_settings_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        PromptTuning(**fields)


def test_a_file_of_another_length(tmp_path):
    save(prompted(length=3)[1], tmp_path / "three")
    recipe = tmp_path / "three" / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"length": 3', '"length": 4'))
    with pytest.raises(ValueError, match=r"prompt.embeddings is \(1, 3, 32\) in the file, but \(1, 4, 32\) in the mod"):
        load(tiny("gpt2", dtype=torch.float64), tmp_path / "three")


def test_words_are_saved_as_ids(tmp_path):
    method, model = prompted(init=["ab", "c"], tokenizer=Words(), length=4)
    save(model, tmp_path / "words")
    again = load(tiny("gpt2", dtype=torch.float64), tmp_path / "words")
    assert attached(again) == method
    assert torch.equal(logits(again), logits(model))
