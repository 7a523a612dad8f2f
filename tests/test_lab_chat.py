"""Conversations: read by their usual names, laid out by a model's template, learned where they answer."""

import json

import pytest
import torch
from lab_models import random_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from peft_edu import LoRA, fit
from peft_edu.lab import backbone, task
from peft_edu.lab.models import real
from peft_edu.lab.tasks import chat
from peft_edu.lab.tasks.chat import IGNORE
from peft_edu.lab.tasks.metrics import score_texts
from peft_edu.lab.tasks.task import Task

WORDS = "<pad> <unk> <eos> hi hello who are you me bye ok <user> <bot> <sys> be kind [IN] [/IN] user: bot: a b c d"
TEMPLATES = {
    "marked": "{% for m in messages %}"
    "{{ {'assistant': '<bot>', 'user': '<user>', 'system': '<sys>'}[m.role] ~ ' ' ~ m.content ~ ' <eos> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<bot> ' }}{% endif %}",
    "bracketed": "{% for m in messages %}{% if m.role == 'user' %}{{ '[IN] ' ~ m.content ~ ' [/IN] ' }}"
    "{% elif m.role == 'system' %}{{ m.content ~ ' ' }}{% else %}{{ m.content ~ ' <eos> ' }}{% endif %}{% endfor %}",
    "endless": "{% for m in messages %}{{ ('bot: ' if m.role == 'assistant' else 'user: ') ~ m.content ~ ' ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'bot: ' }}{% endif %}",
}
TURNS = [("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "who are you"), ("assistant", "me")]
BY_HAND = {  # the text as the model reads it; what is learned stands between braces
    "marked": "<sys> be kind <eos> <user> hi <eos> <bot> {hello <eos>} <user> who are you <eos> <bot> {me <eos>}",
    "bracketed": "be kind [IN] hi [/IN] {hello <eos>} [IN] who are you [/IN] {me <eos>}",
    "endless": "user: be kind user: hi bot: {hello <eos>} user: who are you bot: {me <eos>}",
}


def tokenizer_with(template: str | None, most: int = 64) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS.split())}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=most
    )
    tokenizer.chat_template, tokenizer.encoder_decoder = template, False
    return tokenizer


def messages(turns=TURNS) -> list[dict]:
    return [{"role": role, "content": content} for role, content in turns]


def of(rows: list[dict]) -> Task:
    rows = [chat.conversation(row, f"row {i}") for i, row in enumerate(rows)]
    return Task("mine", "chat", {"train": rows, "test": rows})


def written(path, rows, suffix=".jsonl"):
    path = path / f"train{suffix}"
    path.write_text("\n".join(json.dumps(row) for row in rows) if suffix == ".jsonl" else rows, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_answers_and_their_ends_are_learned_and_nothing_else(name):
    """Against an example that is laid out by hand."""
    tokenizer = tokenizer_with(TEMPLATES[name])
    example = of([{"messages": messages()}]).example(chat.conversation({"messages": messages()}, ""), tokenizer, False)
    ids, labels, learned = [], [], False
    for word in BY_HAND[name].split():
        learned = learned or word.startswith("{")
        ids += tokenizer(word.strip("{}"), add_special_tokens=False).input_ids
        labels.append(ids[-1] if learned else IGNORE)
        learned = learned and not word.endswith("}")
    assert example == {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_model_is_asked_with_what_stands_before_its_last_answer(name):
    tokenizer = tokenizer_with(TEMPLATES[name])
    ids = of([{"messages": messages()}]).prompt(chat.conversation({"messages": messages()}, ""), tokenizer, False)
    assert (
        tokenizer.decode(ids).split() == BY_HAND[name].replace("{hello", "hello").replace("}", "").split("{")[0].split()
    )


@pytest.mark.parametrize(
    "row",
    [
        {"messages": messages([("user", "hi"), ("assistant", "ok")])},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ok"}]},
        {"instruction": "hi", "response": "ok"},
        {"instruction": "hi", "input": "", "output": "ok"},
        {"prompt": "hi", "completion": "ok"},
        {"question": "hi", "answer": "ok"},
    ],
)
def test_a_conversation_is_known_by_the_names_in_use(tmp_path, row):
    data = task(written(tmp_path, [row] * 10))
    assert data.kind == "chat" and data.metric == "exact"
    first = data.rows("train")[0]
    assert first["messages"] == messages([("user", "hi"), ("assistant", "ok")])
    assert (first["source"], first["target"]) == ("hi", "ok")
    assert "hi  ->  ok" in repr(data)


def test_a_table_and_an_input_below_the_instruction_are_read(tmp_path):
    lines = "instruction,input,output,system\n" + '"a, b",c,ok,be kind\n' * 10
    first = task(written(tmp_path, lines, ".csv")).rows("train")[0]
    assert first["messages"] == messages([("system", "be kind"), ("user", "a, b\n\nc"), ("assistant", "ok")])


@pytest.mark.parametrize(
    "row, message",
    [
        ({"messages": []}, "line 3: .. under 'messages', where a list of messages must stand"),
        ({"messages": "hi"}, "line 3: 'hi' under 'messages', where a list"),
        (
            {"messages": messages([("user", "hi")])},
            "line 3: the roles are user, but must be user and assistant by turns",
        ),
        ({"messages": messages(TURNS[1:] + [("assistant", "b")])}, "user, assistant, user, assistant, assistant, but"),
        ({"messages": messages([*TURNS, ("system", "a"), ("user", "b")])}, "at most one system message in front"),
        (
            {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": "ok"}]},
            "line 3, message 2: .*tool",
        ),
        (
            {"messages": [{"role": "user", "content": ""}]},
            "line 3, message 1: .*must be .*the roles system, user, assist",
        ),
        ({"messages": [["user", "hi"]]}, "line 3, message 1"),
        ({"messages": [{"role": ["user"], "content": "hi"}]}, "line 3, message 1"),
        ({"instruction": "hi", "response": None}, "line 3: None under 'response', where a text must stand"),
        ({"instruction": "hi", "response": "  "}, "line 3: '  ' under 'response'"),
    ],
)
def test_a_row_that_is_no_conversation_is_told_with_its_line(tmp_path, row, message):
    right = {
        key: value for key, value in {"messages": messages(), "instruction": "a", "response": "b"}.items() if key in row
    }
    with pytest.raises(ValueError, match=message):
        task(written(tmp_path, [right] * 2 + [row] + [right] * 9))


def test_what_is_too_long_loses_its_beginning_and_keeps_the_answer():
    long = {"messages": messages([("user", "a b c d " * 10), ("assistant", "ok")])}
    tokenizer = tokenizer_with(TEMPLATES["marked"], most=8)
    [example] = of([long]).batches(tokenizer, "train").examples
    assert tokenizer.decode(example["input_ids"]) == "b c d <eos> <bot> ok <eos>".replace("b c", "a b c", 1)
    assert [label for label in example["labels"] if label != IGNORE] == tokenizer("ok <eos>").input_ids
    assert len(of([long]).prompt(of([long]).rows("train")[0], tokenizer, False)) == 8 - 2
    endless = {"messages": messages([("user", "hi"), ("assistant", "a b c d " * 4)])}
    with pytest.raises(ValueError, match="mine: an answer of 17 tokens, and the model reads 8 in all: a b c d"):
        of([endless]).batches(tokenizer, "train")


@pytest.mark.parametrize(
    "template, message",
    [
        (None, "this tokenizer has no chat template: its model was not tuned on conversations"),
        (
            "{{ raise_exception('no system here') }}",
            "the model's chat template refuses this conversation: no system here",
        ),
        ("{{ messages[-1].content }}", "rewrites earlier turns"),
    ],
)
def test_a_template_that_cannot_serve_is_told(template, message):
    with pytest.raises(ValueError, match=message):
        of([{"messages": messages()}]).batches(tokenizer_with(template), "train")


def test_an_encoder_decoder_does_not_chat():
    tokenizer = tokenizer_with(TEMPLATES["marked"])
    tokenizer.encoder_decoder = True
    with pytest.raises(ValueError, match="is a conversation, which a decoder goes on with"):
        of([{"messages": messages()}]).batches(tokenizer, "train")


def test_records_are_scored_field_by_field():
    rows = [{"target": '{"a": 1, "b": "x"}'}, {"target": '{"a": 2, "b": "y"}'}, {"target": '{"a": 3}'}]
    scores = score_texts(['{"b": "x", "a": 1}', '{"a": 2, "c": 0}', "a is 3"], rows)
    assert scores["valid"] == pytest.approx(2 / 3)
    assert scores["exact"] == pytest.approx(1 / 3)  # in another order it is the same record
    assert scores["f1"] == pytest.approx(2 * 3 / (4 + 5))
    assert scores["by field"] == {"a": pytest.approx(2 / 3), "b": 0.5}
    assert "valid" not in score_texts(["a", "b"], [{"target": "a"}, {"target": '{"b": 1}'}])
    assert score_texts(["[1]"], [{"target": '{"a": 1}'}])["valid"] == 0


def test_the_metric_is_of_records_only_where_every_answer_is_one():
    for last, metric in (('{"a": 1}', "f1"), ("a is 1", "exact")):
        data = of([{"prompt": "a", "completion": '{"a": 1}'}, {"prompt": "b", "completion": last}])
        assert data.metric == metric


def test_other_rows_stand_in_front_as_turns():
    data = of([{"system": "be kind", "prompt": text, "completion": "ok"} for text in ("a", "b", "c")])
    shown = chat.examples_in_front(data.rows("train")[:2], data.rows("train")[2])
    assert [m["content"] for m in shown["messages"]] == ["be kind", "a", "ok", "b", "ok", "c", "ok"]


def test_rows_of_another_kind_become_conversations():
    data = task("summaries").as_chat(lambda row: row["source"], lambda row: json.dumps(row["slots"]))
    assert data.kind == "chat" and data.metric == "f1"
    row = data.rows("test")[0]
    assert json.loads(row["target"]) == task("summaries").rows("test")[0]["slots"]


def test_a_decoder_learns_to_answer():
    """A random tiny GPT-2 learns two answers by heart, ends each, and is scored on them."""
    tokenizer, rows = tokenizer_with(TEMPLATES["marked"]), [("a", "ok"), ("b", "bye you")]
    data = of([{"prompt": ask, "completion": answer} for ask, answer in rows])
    model = random_model("gpt2")
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    LoRA(rank=8, targets=("query", "value", "up", "down")).attach(model)
    for part in (model.transformer.wte, model.transformer.wpe):
        part.requires_grad_(True)
    fit(model, data.batches(tokenizer, "train", size=2, steps=60), steps=60, lr=2e-2)
    assert data.answers(model, tokenizer, data.rows("test")) == ["ok", "bye you"]
    assert data.evaluate(model, tokenizer)["exact"] == 1


@pytest.mark.skipif(not real.installed("smollm2-135m-instruct"), reason="the real models are not installed: make real")
def test_a_real_model_s_own_template_is_read_as_it_stands():
    _, tokenizer = backbone("smollm2-135m-instruct")
    row = chat.conversation({"prompt": "Name a town.", "completion": "Paris."}, "")
    example = of([{"prompt": "Name a town.", "completion": "Paris."}]).example(row, tokenizer, False)
    learned = [token for token in example["labels"] if token != IGNORE]
    assert tokenizer.decode(learned) == "Paris.<|im_end|>"
    assert tokenizer.decode(example["input_ids"]).endswith("<|im_start|>assistant\nParis.<|im_end|>")
    whole = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)["input_ids"]
    assert whole[: len(example["input_ids"])] == example["input_ids"]
    assert torch.tensor(example["labels"]).ne(IGNORE).nonzero()[0] == len(example["input_ids"]) - len(learned)
