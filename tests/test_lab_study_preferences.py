"""How the policies of lesson 12 are measured, and what they learn from."""

from copy import deepcopy

import pytest
import torch

from data.world.tasks import sentence
from peft_edu import LoRA, trainable
from peft_edu.lab import Measure, backbone, beginnings, happy_judge, preference_runs, shuffled, task
from peft_edu.lab.study.preferences import RUNS, SEEDS, of_chosen, own_pairs, price_pairs, told


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


def test_the_price_is_all_that_two_answers_differ_in(model_and_tokenizer):
    """What is chosen is the sentence that the task itself has for the facts without the price."""
    _, tokenizer = model_and_tokenizer
    data, rows = task("tables"), price_pairs().rows("train")
    asked = [row for row in data.rows("train") if "price" in row["slots"]]
    assert [row["rejected"] for row in rows] == [row["target"] for row in asked]
    for row, table in zip(rows, asked, strict=True):
        facts = {name: fact for name, fact in table["slots"].items() if name != "price"}
        assert row["chosen"] == sentence(facts)
    (pairs,) = price_pairs().batches(tokenizer, "train", size=2, limit=2)
    for labels in pairs["labels"].flatten(0, 1):
        start = int((labels >= 0).nonzero()[0])
        assert start == len(data.prompt(asked[0], tokenizer)) or start == len(data.prompt(asked[1], tokenizer))
    (chosen,) = of_chosen([pairs])
    assert torch.equal(chosen["labels"], pairs["labels"][:, 0])


def test_what_is_told_is_counted_with_and_without_the_price(model_and_tokenizer, monkeypatch):
    model, tokenizer = model_and_tokenizer
    rows = [row for row in task("tables").rows("test") if "price" in row["slots"]]
    facts = [{name: fact for name, fact in row["slots"].items() if name != "price"} for row in rows]
    said = [sentence(each) for each in facts]
    said[0] = rows[0]["slots"]["price"]  # this one names the price, and nothing else
    monkeypatch.setattr(type(task("tables")), "generate", lambda *_: said)
    found = told(LoRA(rank=2).attach(deepcopy(model)), tokenizer)
    assert found["chosen"] == found["rejected"] == 0  # nothing is learned yet
    assert found["price"] == 1 / len(rows) and found["text"] == " | ".join(said[:3])
    count = sum(len(each) for each in facts)
    assert found["slots"] == pytest.approx((count - len(facts[0])) / count)


@pytest.mark.parametrize("run", RUNS)
def test_each_run_is_stored_for_each_seed(run):
    runs = preference_runs(run)
    assert runs.index.tolist() == list(SEEDS) and runs.slots.notna().all()
    assert runs.price.notna().all() == run.startswith("price")
