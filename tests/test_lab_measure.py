"""Costs, forgetting, the pretraining log, and the check of the installation."""

import pytest
import torch
from lab_models import random_model, save_model, word_tokenizer

from peft_edu import LoRA, PrefixTuning
from peft_edu.lab import (
    backbone,
    backward_cost,
    cost_of_training,
    forward_operations,
    held_out,
    language_loss,
    loss_on_old_text,
    median_times,
    pretraining_figure,
    pretraining_log,
    self_check,
    task,
    training_memory,
)
from peft_edu.lab.measure import cost

TEXT = "the food was good"


def language_batch(rows=2):
    ids = word_tokenizer()([TEXT] * rows, return_tensors="pt")["input_ids"]
    return {"input_ids": ids, "labels": ids}


def trained(part):
    model = random_model("gpt2")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part in name)
    return backward_cost(model, language_batch())


def test_backward_stops_below_the_lowest_trained_weight():
    top, bottom, everything = trained("h.1."), trained("h.0."), trained("")
    assert 0 < top.operations < bottom.operations < everything.operations
    assert 0 < top.kept < bottom.kept <= everything.kept


def test_weights_are_no_activations():
    """Twice the rows keep twice the activations; weights that backward needs would be in both."""
    model = LoRA(rank=2).attach(random_model("gpt2"))
    one, two = (backward_cost(model, language_batch(rows)).kept for rows in (4, 8))
    assert two == pytest.approx(2 * one, rel=0.02)


def test_checkpoints_keep_less_and_compute_more():
    model = random_model("bert").requires_grad_(False)
    LoRA(rank=2).attach(model).train()
    whole = backward_cost(model, language_batch())
    model.activation_checkpointing_enable({"use_reentrant": False})
    recomputed = backward_cost(model, language_batch())
    assert recomputed.kept < whole.kept and recomputed.operations > whole.operations


def test_attention_is_counted():
    """Each of b t queries meets p more keys and values: d multiplications and additions for both, in every layer."""
    model, batch = random_model("gpt2"), language_batch()
    before = forward_operations(model, batch)
    (b, t), d, p, layers = batch["input_ids"].shape, model.config.n_embd, 3, model.config.n_layer
    PrefixTuning(p, hidden=0).attach(model)
    assert forward_operations(model, batch) - before == layers * 2 * 2 * b * t * p * d


def test_measuring_leaves_no_gradient():
    model = random_model("gpt2")
    backward_cost(model, language_batch())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_models_take_turns_and_each_gets_a_time():
    times = median_times({"a": random_model("gpt2"), "b": random_model("gpt2")}, language_batch(), rounds=5)
    assert set(times) == {"a", "b"} and all(0 < seconds < 5 for seconds in times.values())


def test_the_first_fifth_of_the_rounds_is_cold_and_left_out(monkeypatch):
    """Ten rounds that take 90, 80, 1, 2, ... 8 seconds by a clock that is set: the median of the last eight."""
    lasts = [90, 80, *range(1, 9)]
    ticks = iter(tick for i, seconds in enumerate(lasts) for tick in (1000 * i, 1000 * i + seconds))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    assert median_times({"a": random_model("gpt2")}, language_batch(), rounds=10) == {"a": 4.5}


def test_measuring_is_done_in_eval_and_leaves_the_mode_alone():
    model, tokenizer = random_model("gpt2").train(), word_tokenizer()
    tokenizer.mask_token = None
    seen = []
    model.transformer.drop.register_forward_hook(lambda module, *_: seen.append(module.training))
    losses = {language_loss(model, tokenizer, [TEXT]) for _ in range(3)}
    median_times({"a": model}, language_batch(), rounds=2)
    assert len(losses) == 1 and seen == [False] * 5 and model.training and model.transformer.drop.training


class Elsewhere(torch.nn.Module):
    """Says that it is on the meta device, and remembers where its batch was."""

    def __init__(self):
        super().__init__()
        self.device, self.was = torch.device("meta"), []

    def forward(self, **batch):
        self.was += [tensor.device.type for tensor in batch.values()]


def test_the_batch_goes_where_the_model_is():
    model = Elsewhere()
    forward_operations(model, language_batch())
    median_times({"a": model}, language_batch(), rounds=1)
    assert model.was == ["meta"] * 4


def test_adamw_keeps_two_numbers_beside_each_gradient():
    memory = training_memory(1000, 10)
    assert (memory.weights, memory.gradients, memory.moments, memory.optimizer) == (4000, 40, 80, 120)
    assert training_memory(1000, 0, bytes_each=2).optimizer == 0
    assert repr(training_memory(1000, 10)) == "4 kB weights, 40 bytes gradients, 80 bytes moments"


@pytest.mark.parametrize(
    "wrong, message",
    [
        ((-1, 0), "total is -1"),
        ((0, 0), "total is 0"),
        ((float("nan"), 1), "total is nan"),
        (("x", 1), "total is 'x'"),
        ((None, None), "total is None"),
        ((1, 5), "trainable is 5, but must be at most total, 1"),
        ((1, -1), "trainable is -1"),
        ((1, 1, 0), "bytes_each is 0"),
        ((1, 1, -4), "bytes_each is -4"),
    ],
)
def test_memory_is_of_numbers_that_there_can_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        training_memory(*wrong)


def test_what_lies_deeper_costs_more_to_train():
    _, tokenizer = backbone("tiny-bert")
    parts = [(), ("layer.3.",), ("layer.0.",), ("",)]  # the task head alone, the top block, the bottom block, all
    spent = [cost_of_training(task("reviews"), tokenizer, trained).operations for trained in parts]
    assert spent == sorted(spent) and spent[0] < spent[1] < spent[2] / 2


@pytest.mark.parametrize("measure", [backward_cost, forward_operations, lambda model, b: median_times({"a": model}, b)])
def test_what_is_measured_is_a_model_with_one_batch(measure):
    for model in (None, 5, {"a": 1}):
        with pytest.raises(TypeError, match="the model is a"):
            measure(model, language_batch())
    for batch in (None, [language_batch()], {"input_ids": [1, 2]}):
        with pytest.raises(TypeError, match="the batch is a .* but must be one of task"):
            measure(random_model("gpt2"), batch)


def test_a_backward_pass_needs_labels_and_something_to_train():
    ids = language_batch()["input_ids"]
    with pytest.raises(ValueError, match="there is no backward pass"):
        backward_cost(random_model("gpt2"), {"input_ids": ids})
    with pytest.raises(ValueError, match="there is no backward pass"):
        backward_cost(random_model("gpt2").requires_grad_(False), language_batch())


@pytest.mark.parametrize("rounds", [0, -1, "5", None, 2.5])
def test_rounds_are_counted_from_one(rounds):
    with pytest.raises(ValueError, match="rounds is .* but must be a whole number from 1 on"):
        median_times({"a": random_model("gpt2")}, language_batch(), rounds=rounds)


def test_models_come_with_their_names():
    for models in (None, random_model("gpt2"), [random_model("gpt2")]):
        with pytest.raises(TypeError, match="models is a .* but must be names and models"):
            median_times(models, language_batch())


def test_the_loss_on_text_is_the_models_own():
    model, tokenizer = random_model("gpt2").eval(), word_tokenizer()
    tokenizer.mask_token = None
    with torch.no_grad():
        wanted = model(**language_batch(1)).loss.item()
    assert language_loss(model, tokenizer, [TEXT, TEXT]) == pytest.approx(wanted, rel=1e-6)


def test_the_old_text_is_asked_of_the_body():
    model, tokenizer = backbone("tiny-bert")
    before = language_loss(model, tokenizer, held_out("tiny-bert", 20))
    classifier, _ = backbone("tiny-bert", head="classify")
    assert loss_on_old_text(classifier, "tiny-bert", 20) == before
    method = LoRA(rank=2)
    method.attach(classifier)
    for _, update in method.updates:
        torch.nn.init.normal_(update.B)
    assert loss_on_old_text(classifier, "tiny-bert", 20) == before  # beside the weights, and left out
    method.merge()
    assert loss_on_old_text(classifier, "tiny-bert", 20) > before + 0.1
    with pytest.raises(ValueError, match="was not made from tiny-gpt2: it has no h.0.attn"):
        loss_on_old_text(classifier, "tiny-gpt2")
    with pytest.raises(ValueError, match="GPT2LMHeadModel was not made from tiny-gpt2: it has no .* of this shape"):
        loss_on_old_text(random_model("gpt2"), "tiny-gpt2")  # a smaller one
    with pytest.raises(TypeError, match="expected a transformers model .*, got NoneType"):
        loss_on_old_text(None, "tiny-gpt2")


@pytest.mark.parametrize("name", ["nope", None, "", "../tasks/reviews", 5, "early/tiny-bert-2500"])
def test_held_out_text_is_that_of_a_bundled_model(name):
    with pytest.raises(ValueError, match="name is .* but must be one of 'tiny-bert', 'tiny-gpt2', 'tiny-t5'"):
        held_out(name)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2"])
def test_a_limit_leaves_something(limit):
    with pytest.raises(ValueError, match="limit is "):
        held_out("tiny-bert", limit)
    with pytest.raises(ValueError, match="limit is "):
        loss_on_old_text(random_model("gpt2"), "tiny-gpt2", limit)


@pytest.mark.parametrize("texts", ["one text", [], [None], None, 5])
def test_the_loss_is_of_a_list_of_texts(texts):
    with pytest.raises(TypeError, match="texts is .* but must be a list of texts"):
        language_loss(random_model("gpt2"), word_tokenizer(), texts)


def test_a_loss_that_there_is_not_is_told():
    tokenizer = word_tokenizer()
    with pytest.raises(ValueError, match="the texts are too short"):
        language_loss(random_model("bert"), tokenizer, ["the food"])  # every sixth token, and the fourth is the first
    with pytest.raises(ValueError, match="T5ForConditionalGeneration reads one text and writes another"):
        language_loss(random_model("t5"), tokenizer, [TEXT])
    with pytest.raises(ValueError, match="BertForTokenClassification has no language-model head"):
        language_loss(random_model("bert", labels=2), tokenizer, [TEXT])
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="the texts are too short"):
        language_loss(random_model("gpt2"), tokenizer, ["food", "good"])


def test_padding_is_no_text():
    model, tokenizer = random_model("gpt2").eval(), word_tokenizer()
    tokenizer.mask_token = None
    long, short = (language_loss(model, tokenizer, [text]) for text in (TEXT, "the food"))
    assert language_loss(model, tokenizer, [TEXT, "the food"]) == pytest.approx((3 * long + short) / 4, rel=1e-5)


def test_a_masked_model_is_asked_behind_masks():
    model, tokenizer = random_model("bert").eval(), word_tokenizer()
    text = "the good bad food was is not very"
    loss = language_loss(model, tokenizer, [text])
    words = tokenizer(text, return_tensors="pt")["input_ids"]
    asked = words.clone()
    asked[0, 3] = tokenizer.mask_token_id
    with torch.no_grad():
        logits = model(input_ids=asked, attention_mask=torch.ones_like(asked)).logits
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits[0, 3:4], words[0, 3:4]).item(), rel=1e-6)


def test_the_pretraining_log_names_what_there_is(tmp_path, monkeypatch):
    save_model(tmp_path / "models" / "known", "gpt2")
    (tmp_path / "models" / "known" / "probes.csv").write_text(
        "seed,step,tokens,minutes,loss,held_out_loss,polarity\n0,1,10,.1,2,2,.5\n0,2,20,.2,1,1,.9\n1,2,20,.2,1,1,.8\n"
    )
    monkeypatch.setenv("PEFT_EDU_DATA", str(tmp_path))
    log = pretraining_log("known")
    assert list(log.polarity) == [0.5, 0.9, 0.8]
    left, right = pretraining_figure(log).axes
    assert right.get_legend_handles_labels()[1] == ["polarity"] and len(left.lines) == 2
    for other in ("other", None, 5, "", "../models/known"):
        with pytest.raises(ValueError, match=f"no pretraining log of {other!r}; there are logs of known"):
            pretraining_log(other)


def test_the_installation_is_checked_line_by_line(capsys, monkeypatch):
    self_check()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok"] * 3
    monkeypatch.setattr("peft_edu.lab.installation.bundled", lambda *_: [])
    self_check()
    assert "missing  models and tasks: the folder `data` holds no models" in capsys.readouterr().out
