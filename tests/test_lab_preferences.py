"""Tasks of preferences and of texts without labels: read from files, encoded, measured; and the judge of `happy`."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lab_models import marked_tokenizer, random_model

from data.world.lexicon import BLAME, PRAISE
from peft_edu import LoRA, fit, seed, trainable
from peft_edu.lab import backbone, task
from peft_edu.lab.tasks.encode import IGNORE
from peft_edu.lab.tasks.judge import happy_judge
from peft_edu.preferences import DPO, log_ratio, reward, reward_loss
from peft_edu.weak import soft_cross_entropy

ROWS = [{"prompt": "the food was", "chosen": "good", "rejected": "not good"}] * 10


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path):
    return task(written(tmp_path / "pairs.jsonl", ROWS))


class TestFiles:
    def test_it_is_told_by_its_columns(self, pairs, tmp_path):
        assert pairs.kind == "prefer" and pairs.rows("train")[0].items() >= ROWS[0].items()
        (tmp_path / "pairs.csv").write_text("question,chosen,rejected\n" + '"two, three?",yes,no\n' * 10)
        data = task(tmp_path / "pairs.csv")
        assert data.rows("test")[0]["prompt"] == "two, three?" and data.columns == {"prompt": "question"}
        data = task(tmp_path / "pairs.csv", columns={"chosen": "rejected", "rejected": "chosen"})
        assert data.rows("test")[0]["chosen"] == "no"

    def test_conversations_are_read_too(self, tmp_path):
        def said(*texts):
            return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]

        forms = [
            {"prompt": said("hello?"), "chosen": [said("", "yes")[1]], "rejected": [said("", "no")[1]]},
            {
                "prompt": "hello?",
                "chosen": said("hello?", "yes"),
                "rejected": said("hello?", "no"),
                "messages": said("a", "b"),
            },
            {"chosen": said("hello?", "yes"), "rejected": said("hello?", "no")},
        ]
        for form in forms:
            row = task(written(tmp_path / "chat.jsonl", [form] * 10)).rows("train")[0]
            assert (row["prompt"], row["chosen"], row["rejected"]) == ("hello?", "yes", "no")
            assert row["turns"] == said("hello?")
        longer = {"chosen": said("hello?", "who?", "me", "yes"), "rejected": said("hello?", "who?", "me", "no")}
        row = task(written(tmp_path / "chat.jsonl", [longer] * 10)).rows("train")[0]
        assert row["turns"] == said("hello?", "who?", "me") and row["prompt"] == "me"

    @pytest.mark.parametrize(
        "changed, message",
        [
            ({"chosen": "not  good"}, "'chosen' and 'rejected' are the same text, 'not  good'"),
            ({"chosen": ""}, "nothing under 'chosen', where a text must stand"),
            ({"rejected": 3}, "3 under 'rejected', where a text must stand"),
            ({"prompt": None}, "nothing under 'prompt', where a text must stand"),
            ({"prompt": []}, "the roles are assistant"),
            ({"chosen": [{"role": "user", "content": "x"}]}, "the roles are user, user"),
            ({"chosen": []}, r"\[\] under 'messages'"),
            (
                {
                    "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}],
                    "rejected": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "y"}],
                },
                "answer different conversations",
            ),
        ],
    )
    def test_a_bad_row_is_told_with_its_line(self, changed, message, tmp_path):
        rows = [*ROWS[:4], ROWS[0] | changed, *ROWS[5:]]
        with pytest.raises(ValueError, match=f"line 5.*{message}"):
            task(written(tmp_path / "pairs.jsonl", rows))

    def test_texts_alone_are_unlabelled_and_beside_others_a_label_is_missing(self, tmp_path):
        data = task(written(tmp_path / "texts.jsonl", [{"sentence": f"text {i}"} for i in range(10)]))
        assert data.kind == "unlabelled" and data.columns == {"text": "sentence"}
        assert "metric: none, without labels\nfor example\n  text " in repr(data)
        with pytest.raises(ValueError, match="prompt, chosen and rejected to prefer; a text alone is unlabelled"):
            task(written(tmp_path / "texts.jsonl", [{"text": "a", "mood": "glad"}] * 10))

    def test_texts_alone_are_nothing_to_train_or_measure_on(self):
        data, (model, tokenizer) = task("unlabelled"), backbone("tiny-bert", head="classify", labels=2)
        with pytest.raises(ValueError, match="unlabelled has no labels to learn from: with_train"):
            data.batches(tokenizer, "train")
        with pytest.raises(ValueError, match="the split 'train' of unlabelled has no classes to measure by"):
            data.evaluate(model, tokenizer, "train")


class TestBatches:
    def test_a_decoder_reads_prompt_and_answer_and_learns_the_answer(self, pairs):
        tokenizer = marked_tokenizer(encoder_decoder=False)
        batch = next(iter(pairs.batches(tokenizer, "train", size=3)))
        assert batch["input_ids"].shape == batch["labels"].shape == (3, 2, batch["input_ids"].shape[-1])
        for side, answer in enumerate(("good", "not good")):
            ids, labels, mask = (batch[name][0, side] for name in ("input_ids", "labels", "attention_mask"))
            assert tokenizer.decode(ids[mask == 1]) == f"the food was {answer} <eos>"
            assert tokenizer.decode(labels[labels != IGNORE]) == f"{answer} <eos>"
        assert tokenizer.decode(pairs.prompt(pairs.rows("train")[0], tokenizer)) == "the food was"

    def test_an_encoder_decoder_writes_the_answer(self, pairs):
        tokenizer = marked_tokenizer(encoder_decoder=True)
        batch = next(iter(pairs.batches(tokenizer, "train", size=3)))
        labels = batch["labels"][0, 1]
        assert tokenizer.decode(labels[labels != IGNORE]) == "not good <eos>"
        model = random_model("t5")
        LoRA(rank=2).attach(model)
        assert log_ratio(model, batch).shape == (3, 2)

    def test_a_model_that_was_tuned_to_chat_is_asked_by_its_template(self, pairs):
        tokenizer = marked_tokenizer(encoder_decoder=False)
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m.role }} : {{ m.content }} {% if m.role == 'assistant' %}<eos>{% endif %}"
            "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
        )
        row = pairs.rows("train")[0]
        asked, found = pairs.prompt(row, tokenizer), pairs.example(row, tokenizer)
        for side in (0, 1):
            ids, labels = found["input_ids"][side], found["labels"][side]
            assert ids[: len(asked)] == asked and labels[: len(asked)] == [IGNORE] * len(asked)
            assert ids[len(asked) :] == labels[len(asked) :] and labels[-1] == tokenizer.eos_token_id

    def test_an_encoder_reads_the_whole_as_its_tokenizer_writes_it(self, pairs):
        _, tokenizer = backbone("tiny-bert")
        row = pairs.rows("train")[0]
        ids = pairs.example(row, tokenizer)["input_ids"]
        assert ids == [tokenizer(f"the food was {row[side]}")["input_ids"] for side in ("chosen", "rejected")]

    def test_a_prompt_that_ends_in_a_blank_gets_no_second_one(self, tmp_path):
        data = task(written(tmp_path / "pairs.jsonl", [ROWS[0] | {"prompt": "the food was\n"}] * 10))
        _, tokenizer = backbone("tiny-gpt2")
        ids = data.example(data.rows("train")[0], tokenizer)["input_ids"][0]
        said = tokenizer("good", add_special_tokens=False)["input_ids"]
        assert ids[-len(said) - 1 :] == [*said, tokenizer.eos_token_id]

    def test_a_prompt_without_room_for_an_answer(self, tmp_path):
        data = task(written(tmp_path / "pairs.jsonl", [ROWS[0] | {"prompt": "good " * 3000}] * 10))
        with pytest.raises(ValueError, match="a source of .* tokens; the model reads"):
            data.batches(backbone("tiny-gpt2")[1], "train")

    def test_the_chosen_answers_alone_are_a_task_to_write(self, pairs):
        tokenizer = marked_tokenizer(encoder_decoder=False)
        alone = pairs.as_generate()
        example, both = (each.example(each.rows("train")[0], tokenizer) for each in (alone, pairs))
        assert example == {name: ids[0] for name, ids in both.items()} and alone.metric == "exact"
        with pytest.raises(ValueError, match="must be of the kind prefer"):
            task("reviews").as_generate()


class TestMeasures:
    def test_a_policy_is_measured_by_its_log_ratio_and_before_by_its_probability(self):
        data, (model, tokenizer) = task("happy"), backbone("tiny-gpt2")
        rows = data.rows("test")[:60]  # more than a batch
        before = data.margins(model, tokenizer, rows)
        assert before.shape == (60,) and 0.2 < (before > 0).double().mean() < 0.8
        LoRA(rank=2).attach(model)
        assert (data.margins(model, tokenizer, rows) == 0).all()
        assert data.evaluate(model, tokenizer, limit=60) == {"accuracy": 0.5}  # a tie is half a hit
        with torch.no_grad():
            for parameter in trainable(model).values():
                parameter += 0.05
        margins = data.margins(model, tokenizer, rows)
        batch = next(iter(replace(data, splits={"one": rows[7:8]}).batches(tokenizer, "one", size=1)))
        ratio = log_ratio(model, batch)[0]
        assert torch.isclose(margins[7], ratio[0] - ratio[1], rtol=0, atol=1e-9)
        assert data.evaluate(model, tokenizer, limit=60)["accuracy"] == (margins > 0).double().mean()

    def test_a_reward_model_ranks_by_its_scores(self):
        data, (model, tokenizer) = task("happy"), backbone("tiny-bert", head="score")
        assert model.config.num_labels == 1 and data.metric == "accuracy"
        seed(0)
        LoRA(rank=4, alpha=8).attach(model)
        fit(model, data.batches(tokenizer, "train", size=16, steps=40), 40, 3e-3, head_lr=1e-2, objective=reward_loss)
        assert data.evaluate(model, tokenizer, limit=60)["accuracy"] > 0.8
        batch = next(iter(data.batches(tokenizer, "test", size=4)))
        assert reward(model, batch).shape == (4, 2)

    def test_a_score_needs_no_labels(self):
        with pytest.raises(ValueError, match="labels=2 need a head: head='classify'"):
            backbone("tiny-bert", head="score", labels=2)

    def test_dpo_ranks_pairs_that_it_has_not_seen(self):
        data, (model, tokenizer) = task("happy"), backbone("tiny-gpt2")
        seed(0)
        LoRA(rank=4, alpha=8).attach(model)
        fit(model, data.batches(tokenizer, "train", size=8, steps=20), 20, 3e-3, objective=DPO(beta=0.3))
        assert data.evaluate(model, tokenizer)["accuracy"] > 0.7


class TestOtherLabels:
    def test_a_task_gets_the_labels_of_rules(self):
        data = task("reviews").with_train(["a b", "c"], torch.tensor([1, 0]))
        assert data.rows("train") == [{"text": "a b", "label": 1}, {"text": "c", "label": 0}]
        assert data.rows("test") == task("reviews").rows("test")

    def test_probabilities_are_learned_as_such(self):
        data = task("reviews").with_train(["The soup was good."] * 2, torch.tensor([[0.3, 0.7], [1.0, 0.0]]))
        model, tokenizer = backbone("tiny-bert", **data.head)
        (batch,) = data.batches(tokenizer, "train")
        assert batch["labels"].shape == (2, 2) and torch.allclose(batch["labels"].sum(1), torch.ones(2))
        logs = model(batch["input_ids"], batch["attention_mask"]).logits.log_softmax(-1)
        by_hand = -(batch["labels"] * logs).sum(1).mean()
        assert torch.isclose(soft_cross_entropy(model, batch), by_hand.double(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        "texts, labels, message",
        [
            (["a"], [0, 1], "1 texts and 2 labels"),
            ([], [], "0 texts and 0 labels"),
            (["a"], [2], "the label 2 is none of reviews: it must be a class from 0 to 1, or 2 probabilities"),
            (["a"], [-1], "the label -1 is none"),
            (["a"], [[0.5, 0.6]], r"the label \[0.5, 0.6\] is none"),
            (["a"], [[1.5, -0.5]], "is none"),
            (["a"], [[1.0]], "is none"),
            (["a"], [True], "the label True is none"),
            (["a"], [["0.5", "0.5"]], "is none"),
            (["a"], [[math.nan, 1.0]], "is none"),
            (["a", "b"], [1, [0.5, 0.5]], "some labels are classes and others probabilities"),
        ],
    )
    def test_labels_that_are_none(self, texts, labels, message):
        with pytest.raises(ValueError, match=message):
            task("reviews").with_train(texts, labels)

    @pytest.mark.parametrize("texts", ["a", [None], [{"text": "a"}]])
    def test_texts_that_are_none(self, texts):
        with pytest.raises(TypeError, match="texts is .*, but must be a list of texts"):
            task("reviews").with_train(texts, [1])

    @pytest.mark.parametrize("labels", [np.array([1, 0]), pd.Series([1, 0]), [np.int64(1), torch.tensor(0)]])
    def test_labels_come_from_wherever_they_were_computed(self, labels):
        rows = task("reviews").with_train(["a b", "c"], labels).rows("train")
        assert [row["label"] for row in rows] == [1, 0] and {type(row["label"]) for row in rows} == {int}

    def test_a_split_of_probabilities_is_no_measure(self):
        data, (model, tokenizer) = task("reviews").with_train(["a"], [[0.5, 0.5]]), backbone("tiny-bert")
        with pytest.raises(ValueError, match="the split 'train' of reviews has no classes to measure by"):
            data.evaluate(model, tokenizer, "train")


class TestJudge:
    @pytest.mark.parametrize(
        "text, heard, verdict",
        [
            ("The soup was good.", ["+good"], 1.0),
            ("The soup was not good.", ["-good"], -1.0),
            ("The soup was anything but good, and we smiled.", ["-good", "+smiled"], 0.0),
            ("The soup was never bad. The bed was rude.", ["+bad", "-rude"], 0.0),
            ("Though the bed was bad, the pool was good and clean.", ["-bad", "+good", "+clean"], 1 / 3),
            ("The soup was there.", [], 0.0),
            ("", [], 0.0),
            ("GOOD; best best best", ["+good", "+best", "+best", "+best"], 1.0),  # it hears no grammar
        ],
    )
    def test_it_counts_words_and_turns_them_round(self, text, heard, verdict):
        judge = happy_judge()
        assert [f"{'+' if count > 0 else '-'}{word}" for word, count in judge.heard(text)] == heard
        assert judge(text) == pytest.approx(verdict)

    def test_it_knows_each_adjective_of_the_world(self):
        judge = happy_judge()
        assert {judge.worth[word] for word in PRAISE} == {1} and {judge.worth[word] for word in BLAME} == {-1}

    def test_it_chose_in_each_pair_of_happy(self):
        judge, data = happy_judge(), task("happy")
        for row in (row for split in data.splits.values() for row in split):
            chosen, rejected = (judge(f"{row['prompt']} {row[side]}") for side in ("chosen", "rejected"))
            assert chosen > rejected
            assert row["why"].startswith(f"{chosen:.2f} (") and f"rather than {rejected:.2f} (" in row["why"]

    def test_a_beginning_stands_in_one_split(self):
        found = [{row["prompt"] for row in rows} for rows in task("happy").splits.values()]
        assert sum(map(len, found)) == len(set.union(*found)) == 61
