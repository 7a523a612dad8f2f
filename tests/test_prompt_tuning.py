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


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_the_prompt_is_of_the_first_of_two_texts(family, monkeypatch):
    """It does what words of type 0 do in front of them."""
    monkeypatch.setitem(SIZES, family, SIZES[family] | {"type_vocab_size": 2})
    base, (_, model) = tiny(family, dtype=torch.float64), prompted(family, init=(7, 8, 9))
    for either in (base, model):
        either.base_model.embeddings.token_type_embeddings.weight.data *= 20
    text, types = batch()["input_ids"], torch.tensor([[0, 0, 0, 1, 1, 1, 1]]).expand(3, -1)
    whole = torch.cat([torch.tensor([[7, 8, 9]]).expand(3, -1), text], 1)
    expected = logits(base, {"input_ids": whole, "token_type_ids": torch.nn.functional.pad(types, (3, 0))})[:, 3:]
    found = logits(model, {"input_ids": text, "token_type_ids": types})
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, logits(model, {"input_ids": text}), atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "bert", "llama", "deberta-v2"])
def test_what_is_given_by_position_is_what_is_given_by_name(family):
    stack, ids = prompted(family)[1].base_model, batch()["input_ids"]
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]]).expand(3, -1)
    named = stack(input_ids=ids, attention_mask=mask).last_hidden_state
    by_position = {"gpt2": (ids, None, mask)}.get(family, (ids, mask))  # GPT-2's second argument is the cache
    assert torch.equal(stack(*by_position).last_hidden_state, named)
    assert not torch.allclose(stack(ids).last_hidden_state, named)


@pytest.mark.parametrize("left", [0, 2])
@pytest.mark.parametrize("family", [family for family in SIZES if not family.startswith("t5")])
def test_all_hidden_states_are_those_of_the_text(family, left):
    """Whatever gives them, and in whatever form: the bare model or the one with a head, a dictionary or a tuple."""
    text = torch.nn.functional.pad(batch()["input_ids"], (left, 0))
    mask = {"attention_mask": (text != 0).long()}
    if family not in ("roberta", "deberta-v2"):
        mask["position_ids"] = (mask["attention_mask"].cumsum(1) - 1).clamp(min=0)
    base, model = tiny(family), prompted(family, init=(7, 8, 9))[1].float()  # Llama pads in float32 alone
    words = torch.cat([torch.tensor([[7, 8, 9]]).expand(3, -1), batch()["input_ids"]], 1)
    expected = base.base_model(words, output_hidden_states=True).hidden_states
    for part in (model, model.base_model):
        output = part(text, **mask, output_hidden_states=True)
        as_tuple = part(text, **mask, output_hidden_states=True, return_dict=False)
        for states in (output.hidden_states, next(each for each in as_tuple if isinstance(each, tuple))):
            assert [tuple(state.shape) for state in states] == [(3, left + 7, 32)] * 3
            if family != "deberta-v2" or not left:  # its relative positions count the padding
                assert all(
                    torch.allclose(a[:, left:], b[:, 3:], atol=1e-5) for a, b in zip(states, expected, strict=True)
                )
    assert torch.equal(output.last_hidden_state, output.hidden_states[-1])
    assert torch.equal(as_tuple[0], output.last_hidden_state)


def test_hidden_states_of_t5():
    """The decoder reads the virtual tokens, so the encoder in front of it gives them; an encoder alone does not."""
    _, model = prompted("t5")
    output = model(**batch(), output_hidden_states=True)
    assert (
        {state.shape[1] for state in output.encoder_hidden_states}
        == {output.encoder_last_hidden_state.shape[1]}
        == {10}
    )
    assert {state.shape[1] for state in output.decoder_hidden_states} == {7}
    states = prompted("t5", "tag")[1](**batch("tag"), output_hidden_states=True).hidden_states
    assert {state.shape[1] for state in states} == {7}


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


def test_one_row_is_padded_and_another_is_not():
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    text = torch.tensor([[1, 2, 3], [4, 5, 6]])
    whole = in_front(torch.tensor([[-1], [-2]]), text, leading_pads(mask))
    assert whole.tolist() == [[1, 2, -1, 3], [-2, 4, 5, 6]]
    assert torch.equal(behind(whole, 1, leading_pads(mask)), text)
    assert leading_pads(torch.ones(2, 3)) is None


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


NO_PLACE = r"with a prompt must be \(3, 7\): masks for each query, packed rows, static caches, and caches of an earlier"


@pytest.mark.parametrize(
    "family, mask", [("gpt2", r"\(3, 1, 7, 10\)"), ("llama", r"\(3, 1, 7, 10\)"), ("qwen2", "dict")]
)
def test_a_static_cache_has_no_room_for_a_prompt(family, mask):
    _, model = prompted(family)
    with pytest.raises(ValueError, match=f"attention_mask is {mask}, but {NO_PLACE}"):
        model.generate(batch()["input_ids"], cache_implementation="static", max_new_tokens=4)


@pytest.mark.parametrize("family", ["gpt2", "bert", "llama"])
@pytest.mark.parametrize("shape", [(3, 1, 7, 7), (3, 7, 7), (3, 6), (2, 7)])
def test_a_mask_of_another_shape_is_refused(family, shape):
    with pytest.raises(ValueError, match=NO_PLACE):
        prompted(family)[1](batch()["input_ids"], attention_mask=torch.ones(shape))


def test_a_mask_for_all_rows_is_one_row():
    _, model = prompted("bert")
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 0]])
    ids = {"input_ids": batch()["input_ids"]}
    assert torch.equal(
        logits(model, ids | {"attention_mask": mask}), logits(model, ids | {"attention_mask": mask.expand(3, -1)})
    )


@pytest.mark.parametrize("family", DECODERS)
def test_texts_that_share_a_row_are_refused(family):
    """The second one would never see the prompt."""
    packed = {"input_ids": batch()["input_ids"], "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2]] * 3)}
    with pytest.raises(ValueError, match=r"position_ids are \[0, 1, 2, 3, 0, 1, 2\], .* packed rows"):
        prompted(family)[1](**packed, use_cache=False)


@pytest.mark.parametrize("family", DECODERS)
def test_a_cache_of_an_earlier_turn(family):
    """It is longer than the text by the prompt, so generate() would leave out as many of the new tokens."""
    _, model = prompted(family)
    ids, how = batch()["input_ids"], {"min_new_tokens": 4, "max_new_tokens": 4}
    turn = model.generate(ids, return_dict_in_generate=True, **how)
    both = torch.cat([turn.sequences, ids], 1)
    with pytest.raises(ValueError, match="must count on from 10: .* caches of an earlier generate"):
        model.generate(both, past_key_values=turn.past_key_values, **how)
    turn, padding = model.generate(ids, return_dict_in_generate=True, **how), torch.ones_like(both)
    padding[0, 0] = 0
    with pytest.raises(ValueError, match=r"attention_mask is \(3, 18\), but .* caches of an earlier generate"):
        model.generate(both, attention_mask=padding, past_key_values=turn.past_key_values, **how)
    turn = model.generate(ids, return_dict_in_generate=True, **how)
    new = {"past_key_values": turn.past_key_values, "attention_mask": torch.ones_like(both)}
    assert torch.equal(model.generate(both[:, 10:], **new, **how), model.generate(both, **how)[:, 10:])


@pytest.mark.parametrize("family", DECODERS)
def test_a_long_text_may_be_read_in_chunks(family):
    model, ids = prompted(family)[1].float(), torch.nn.functional.pad(batch()["input_ids"], (2, 0))
    how = {"attention_mask": (ids != 0).long(), "min_new_tokens": 4, "max_new_tokens": 4}
    assert torch.equal(model.generate(ids, prefill_chunk_size=4, **how), model.generate(ids, **how))


@pytest.mark.parametrize("inputs", [{}, {"input_ids": batch()["input_ids"], "inputs_embeds": torch.zeros(3, 7, 32)}])
def test_without_a_text_or_with_two_the_model_says_so(inputs):
    with pytest.raises(ValueError, match="input_ids .*inputs_embeds"):
        prompted("llama")[1](**inputs)


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
        ({"init": None}, "init is None, but must be a text"),
        ({"init": 5}, "init is 5, but must be a text"),
        ({"init": (-3,)}, r"init is \(-3,\), but must be a text"),
        ({"init": (True, 7)}, r"init is \(True, 7\), but must be a text"),
        ({"init": (1, "a"), "tokenizer": Words()}, "a label word is 1, but must be a text"),
    ],
)
def test_settings_that_are_none(fields, message):
    with pytest.raises(ValueError, match=message):
        PromptTuning(**fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"length": 10**9, "init": "random"}, "length 1000000000 x members 1 would add 32,000,000,000 numbers to T5"),
        ({"members": 10**9}, "length 3 x members 1000000000 would add"),
        ({"init": (10**9,)}, "init names the token 1000000000, but the vocabulary ends at 63"),
        ({"init": ((7, 64), (8,))}, "init names the token 64, but the vocabulary ends at 63"),
    ],
)
def test_what_exceeds_the_model_is_refused_before_it_takes_memory(fields, message):
    model = tiny("t5")
    with pytest.raises(ValueError, match=message):
        PromptTuning(**{"length": 3} | fields).attach(model)
    assert attached(model) is None


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
