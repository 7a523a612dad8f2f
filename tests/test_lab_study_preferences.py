"""How the policies of lesson 12 are measured, and what they learn from."""

from copy import deepcopy

import pytest
import torch

from peft_edu import LoRA, trainable
from peft_edu.lab import Measure, backbone, beginnings, happy_judge, shuffled
from peft_edu.lab.study.preferences import own_pairs


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return backbone("tiny-gpt2")


@pytest.fixture(scope="module")
def measure(model_and_tokenizer):
    torch.manual_seed(0)
    return Measure(*model_and_tokenizer, each=2)


def test_a_policy_that_learned_nothing_is_the_supervised_model(model_and_tokenizer, measure):
    policy = LoRA(rank=2).attach(deepcopy(model_and_tokenizer[0]))
    found = measure(policy)
    assert found["win"] == 0.5 and abs(found["KL"]) < 1e-9
    assert abs(found["chosen"]) < 1e-9 and abs(found["rejected"]) < 1e-9
    assert len(found["text"].split(" | ")) == 3 and "slots" in found
    again = measure(policy, reward=lambda texts: [float(len(text)) for text in texts], whole=False)
    assert "slots" not in again and again["reward"] > 1
    assert all(again[name] == found[name] for name in again if name != "reward")  # it draws by the same random numbers


def test_measuring_moves_nobodys_random_numbers(model_and_tokenizer, measure):
    policy = LoRA(rank=2).attach(deepcopy(model_and_tokenizer[0]))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    measure(policy, whole=False)
    assert torch.equal(torch.rand(1), expected)


def test_a_policy_that_moved_is_away_from_the_supervised_model(model_and_tokenizer, measure):
    policy = LoRA(rank=2).attach(deepcopy(model_and_tokenizer[0]))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(policy).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))
    found, before = measure(policy, whole=False), measure(LoRA(rank=2).attach(deepcopy(model_and_tokenizer[0])))
    assert found["KL"] > 0.1 and found["fluency"] < before["fluency"]


def test_pairs_are_the_models_own_texts_with_the_judges_choice_first(model_and_tokenizer):
    _, tokenizer = model_and_tokenizer
    torch.manual_seed(0)
    pairs, judge = own_pairs(*model_and_tokenizer, "test", each=4), happy_judge()
    texts = [tokenizer.batch_decode(pair, skip_special_tokens=True) for pair in pairs["input_ids"]]
    assert texts and all(judge(chosen) > judge(rejected) for chosen, rejected in texts)
    asked = (pairs["attention_mask"] == 1) & (pairs["labels"] == -100)
    assert bool((asked.sum(-1) >= 2).all())  # the beginning, which both texts of a pair have
    batches = shuffled(pairs, size=3)
    assert sum(len(each["labels"]) for each in batches) == len(texts) and len(batches[0]["labels"]) == 3
    rows = sorted(row.flatten().tolist() for each in batches for row in each["input_ids"])
    assert rows == sorted(row.flatten().tolist() for row in pairs["input_ids"])


def test_no_beginning_is_trained_and_tested(model_and_tokenizer):
    _, tokenizer = model_and_tokenizer
    splits = {split: {tuple(ids) for ids in beginnings(tokenizer, split)} for split in ("train", "validation", "test")}
    assert not splits["train"] & splits["test"] and not splits["validation"] & splits["test"]
    assert tokenizer.decode(beginnings(tokenizer, "test")[0], skip_special_tokens=True).strip().startswith("The ")
