"""The losses and label models of others, whose numbers were made once, by the scripts in golden/."""

from pathlib import Path

import pytest
import torch
from families import fill, tiny
from golden.snorkel_label_model import ABSTAIN, CASES, accuracy, checksum, truth_and_votes
from safetensors.torch import load_file

from peft_edu import LoRA, trainable
from peft_edu.preferences import DPO, log_probability, reference_log_probability
from peft_edu.weak import LabelModel

SNORKEL = load_file(Path(__file__).parent / "golden" / "snorkel_label_model.safetensors")
TRL = load_file(Path(__file__).parent / "golden" / "trl_dpo.safetensors")
MODULE = "base_model.model.{}.lora_{}.weight"


def close(one, other, bound=1e-6):
    return torch.allclose(one, other, rtol=0, atol=bound)


@pytest.fixture
def policy():
    """The tiny GPT-2 with TRL's adapter, as from_peft reads it: c_attn's A goes to query, key and value, B is cut."""
    model = tiny("gpt2", dtype=torch.float64)
    fill(model)
    LoRA(rank=4, alpha=8, targets=("query", "key", "value")).attach(model)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(theirs(name, "start"))
    return model


def theirs(name, which):
    """What TRL's file has for our name, such as transformer.h.0.attn.c_attn.lora_query.A."""
    module, role, letter = name.replace(".lora_", " ").replace(".A", " A").replace(".B", " B").split()
    value = TRL[f"{which}.{MODULE.format(module, letter)}"]
    return value if letter == "A" else value.chunk(3)[("query", "key", "value").index(role)]


@pytest.fixture
def batch():
    labels = TRL["input_ids"].masked_fill(TRL["completion_mask"] == 0, -100)
    return {"input_ids": TRL["input_ids"], "attention_mask": TRL["attention_mask"], "labels": labels}


def test_log_probabilities_are_those_of_trl(policy, batch):
    """With a peft_config, TRL's reference is the base too."""
    assert close(log_probability(policy, batch), TRL["logps"])
    assert close(reference_log_probability(policy, batch), TRL["reference.peft_config"])


@pytest.mark.parametrize("beta", [0.03, 0.1, 0.3, 1.0])
def test_the_loss_of_dpo_is_that_of_trl(policy, batch, beta):
    assert close(DPO(beta)(policy, batch), TRL[f"{beta}.loss"])


def test_the_gradients_of_dpo_are_those_of_trl(policy, batch):
    """A's of query, key and value add up to that of the one A which peft has for the three."""
    DPO(0.1)(policy, batch).backward()
    shared = {}
    for name, parameter in trainable(policy).items():
        if name.endswith("B"):
            assert close(parameter.grad, theirs(name, "0.1.grad"), 1e-10)
        else:
            shared.setdefault(name.rsplit(".lora_", 1)[0], []).append(parameter.grad)
    for module, three in shared.items():
        assert len(three) == 3 and close(sum(three), TRL[f"0.1.grad.{MODULE.format(module, 'A')}"], 1e-10)


def test_what_trl_takes_as_the_reference(policy, batch):
    """Given a PeftModel it is a copy of the adapter at the start: so the loss is another one than ours."""
    assert close(log_probability(policy, batch), TRL["reference.peft_model"])
    assert not close(reference_log_probability(policy, batch), TRL["reference.peft_model"], 1)


@pytest.mark.parametrize("case", CASES)
def test_the_label_model_is_as_good_as_snorkels(case):
    """Within one point, on the rows with a vote. Where a rule is copied both trust the copies, and lose by that."""
    truth, votes = truth_and_votes(CASES[case])
    assert torch.equal(checksum(truth, votes), SNORKEL[f"{case}.checksum"])
    ours = LabelModel(classes=2, prior=CASES[case].balance).fit(votes)
    theirs, majority, _ = SNORKEL[f"{case}.accuracy"].tolist()
    assert accuracy(ours, truth, votes) == pytest.approx(theirs, abs=0.01)
    gain = {"six": 0.05, "unbalanced": 0.05, "copy": -0.05}.get(case, 0)
    assert accuracy(ours, truth, votes) - majority == pytest.approx(gain, abs=0.05)
    voted, snorkels = (votes != ABSTAIN).any(1), SNORKEL[f"{case}.probabilities"]
    assert (ours.argmax(1) == snorkels.argmax(1))[voted].double().mean() > 0.95
    assert close(ours[~voted], snorkels[~voted].to(ours.dtype))  # where nobody votes: the prior
