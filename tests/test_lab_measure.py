"""Costs, forgetting, the pretraining log, and the check of the installation."""

import pytest
import torch
from lab_models import random_model, save_model, word_tokenizer

from peft_edu import LoRA, PrefixTuning
from peft_edu.lab import (
    backbone,
    backward_cost,
    forward_operations,
    held_out,
    language_loss,
    loss_on_old_text,
    median_times,
    pretraining_figure,
    pretraining_log,
    self_check,
)

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
    with pytest.raises(ValueError, match="no pretraining log of 'other'; there are logs of known"):
        pretraining_log("other")


def test_the_installation_is_checked_line_by_line(capsys, monkeypatch):
    self_check()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok"] * 3
    monkeypatch.setattr("peft_edu.lab.installation.bundled", lambda *_: [])
    self_check()
    assert "missing  models and tasks: the folder `data` holds no models" in capsys.readouterr().out
