"""What a task asks a model and how its answers count: long texts, pairs, words without a token, scores, refusals."""

import pytest
import torch
from lab_models import random_model, word_tokenizer
from tokenizers import normalizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification

from peft_edu.lab import backbone
from peft_edu.lab.tasks.encode import IGNORE, Batches
from peft_edu.lab.tasks.metrics import entities, says, score_tags, score_texts
from peft_edu.lab.tasks.task import Task, task


def of_kind(kind, rows, **more):
    return Task("mine", kind, {"train": rows, "test": rows}, **more)


def tokenizer_of(encoder_decoder=False, **settings):
    tokenizer = word_tokenizer()
    tokenizer.encoder_decoder = encoder_decoder
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    return tokenizer


LONG = "the food was good " * 20  # 80 words; the model reads 64
CLASSIFY = of_kind("classify", [{"text": LONG, "label": 1}, {"text": "bad", "label": 0}], labels=["bad", "good"])
TAG = of_kind("tag", [{"words": LONG.split(), "tags": [0, 1, 0, 0] * 20}], labels=["O", "PRAISED"])
WRITE = of_kind("generate", [{"source": "the food", "target": LONG}])


def test_a_long_text_is_cut_to_what_the_model_reads():
    for data in (CLASSIFY, TAG):
        [batch] = data.batches(tokenizer_of(), "train")
        assert batch["input_ids"].shape[1] == 64
    assert [len(example["labels"]) for example in TAG.batches(tokenizer_of(), "train").examples] == [64]


def test_a_target_that_is_too_long_is_cut_with_its_labels():
    [batch] = WRITE.batches(tokenizer_of(), "train")
    words = tokenizer_of()("the food : " + LONG)["input_ids"][:64]
    assert batch["input_ids"].tolist() == [words] and batch["labels"].tolist() == [[IGNORE] * 3 + words[3:]]


@pytest.mark.parametrize("name, most", [("tiny-bert", 192), ("tiny-gpt2", 192), ("tiny-t5", 192)])
def test_a_text_around_a_gap_is_not_cut(name, most):
    """The gap may stand at its end."""
    model, tokenizer = backbone(name)
    data = of_kind("fill", [{"text": "good " * 300, "answer": "good"}], template="{text} [MASK]")
    for ask in (lambda: data.batches(tokenizer, "train"), lambda: data.evaluate(model, tokenizer)):
        with pytest.raises(
            ValueError, match=f"mine: a text of 30. tokens; the model reads {most} in all. Shorten it: "
        ):
            ask()


def test_a_text_that_just_fits_is_read():
    tokenizer = tokenizer_of()
    tokenizer.backend_tokenizer.post_processor = None
    gaps = of_kind("fill", [{"text": " ".join(["good"] * 63), "answer": "bad"}], template="{text} [MASK]")
    [batch] = gaps.batches(tokenizer, "train")
    assert batch["input_ids"].shape == (1, 64)
    decoder = tokenizer_of(mask_token=None)
    [batch] = gaps.batches(decoder, "train")
    assert batch["input_ids"].shape == (1, 64) and (batch["labels"] != IGNORE).sum() == 1


def test_the_end_behind_a_prompt_is_taken_off():
    """A tokenizer that ends each text would end it before the answer."""
    tokenizer = tokenizer_of()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 2)])
    [batch] = of_kind("generate", [{"source": "the food", "target": "good"}]).batches(tokenizer, "train")
    assert tokenizer.decode(batch["input_ids"][0]) == "the food : good <eos>"


def types_of_pairs(tokenizer):
    """As a BERT of the hub has them: 0 for the first text, 1 for the second."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 3), ("[SEP]", 4)],
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def test_pairs_say_which_text_a_token_is_of():
    rows = [{"text": "the food", "second": "was good", "label": 1}, {"text": "bad", "second": "a cafe in", "label": 0}]
    data, tokenizer = of_kind("classify", rows, labels=["no", "yes"]), types_of_pairs(tokenizer_of())
    [batch] = data.batches(tokenizer, "train", seed=1)
    order = [batch["labels"].tolist().index(label) for label in (1, 0)]
    assert batch["token_type_ids"][order].tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    small = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    torch.manual_seed(0)
    model = BertForSequenceClassification(small).eval()
    for row in rows:  # as transformers itself asks
        own = model(**tokenizer(row["text"], row["second"], return_tensors="pt")).logits
        batch = next(iter(of_kind("classify", [row], labels=["no", "yes"]).batches(tokenizer, "train")))
        assert torch.equal(model(**batch).logits, own)
    mixed = of_kind(
        "classify",
        [rows[0], {"text": "bad", "label": 0}, {"text": "bad", "second": "", "label": 0}],
        labels=["no", "yes"],
    )
    [batch] = mixed.batches(tokenizer, "train")
    assert sorted(batch["token_type_ids"].sum(1).tolist()) == [0, 0, 3]
    assert batch["input_ids"].shape == batch["token_type_ids"].shape


class Speller(torch.nn.Module):
    """A tagger that is always right: PRAISED for `food` and `pub`, else O."""

    device = torch.device("cpu")

    def forward(self, input_ids, attention_mask):
        praised = torch.isin(input_ids, torch.tensor(word_tokenizer()("food pub")["input_ids"]))
        return type("Output", (), {"logits": torch.stack([~praised, praised], -1).double()})


@pytest.mark.parametrize("nothing", ["\u200b", "\u00ad", "\ufe0f"])
def test_a_word_without_a_token_moves_no_tag(nothing):
    tokenizer = tokenizer_of()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(nothing, "")
    words, tags = ["the", nothing, "food", "was", nothing, "a", "pub", nothing], [0, 0, 1, 0, 0, 0, 1, 0]
    rows = [{"words": words, "tags": tags}, {"words": ["a", "pub"], "tags": [0, 1]}]
    data = of_kind("tag", rows, labels=["O", "PRAISED"])
    assert data.answers(Speller(), tokenizer, rows) == [[data.labels[tag] for tag in row["tags"]] for row in rows]
    assert data.evaluate(Speller(), tokenizer) == {
        "f1": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "by kind": {"PRAISED": 1.0},
    }
    [batch] = data.batches(tokenizer, "train")
    assert (batch["labels"] != IGNORE).sum() == 5 + 2


def test_words_that_the_model_no_longer_reads_have_no_tag():
    [answer] = TAG.answers(Speller(), tokenizer_of(), TAG.rows("train"))
    assert answer == ["O", "PRAISED", "O", "O"] * 16 + ["O"] * 16
    assert TAG.evaluate(Speller(), tokenizer_of())["recall"] == pytest.approx(16 / 20)


@pytest.mark.parametrize(
    "tags, found",
    [
        ("B-PER E-PER O S-LOC S-LOC", {(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC")}),
        ("B-PER I-PER L-PER U-PER O U-LOC", {(0, 3, "PER"), (3, 4, "PER"), (5, 6, "LOC")}),
        ("B-PER E-PER I-PER", {(0, 2, "PER"), (2, 3, "PER")}),
        ("B-PER L-PER I-PER", {(0, 2, "PER"), (2, 3, "PER")}),
        ("S-PER I-PER O U-LOC I-LOC", {(0, 1, "PER"), (1, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC")}),
        ("B-PER B-PER I-LOC", {(0, 1, "PER"), (1, 2, "PER"), (2, 3, "LOC")}),
        ("PER PER", {(0, 2, "PER")}),
    ],
)
def test_entities_of_every_scheme(tags, found):
    assert entities(tags.split()) == found


def test_precision_is_of_what_was_found_and_recall_of_what_there_is():
    scores = score_tags([["A", "O", "O", "A"]], [["A", "O", "B", "O"]])
    assert scores == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "by kind": {"A": pytest.approx(2 / 3), "B": 0.0}}
    scores = score_tags([["A", "O", "O", "O"], ["O"]], [["A", "O", "B", "O"], ["A"]])
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1.0, pytest.approx(1 / 3), 0.5)


def test_an_exact_match_has_the_same_capitals_and_a_slot_is_no_pattern():
    rows = [{"target": "Aromi is a pub .", "slots": {"price": "3.50 $"}}] * 3
    scores = score_texts(["Aromi is a pub .", "aromi is a pub .", "Aromi  is a\npub . 3.50 $"], rows)
    assert scores == {
        "exact": pytest.approx(1 / 3),
        "slots": pytest.approx(1 / 3),
        "by slot": {"price": pytest.approx(1 / 3)},
    }
    assert says("It costs 3.50 $ .", "3.50 $") and not says("It costs 3x50 $", "3.50 $") and not says("a pub", ".*")
    with pytest.raises(ValueError, match="no rows to score"):
        score_texts([], [])


def test_an_encoder_decoder_is_known_by_its_model_or_by_a_mark():
    """A T5 that did not come through `backbone` would read source and target in one text."""
    data = of_kind("generate", [{"source": "name : Aromi", "target": "Aromi is a cafe ."}])
    tokenizer = word_tokenizer()
    for kind in (data, of_kind("fill", [{"name": "Aromi", "answer": "good"}], template="{name} [MASK]")):
        with pytest.raises(ValueError, match="does not say whether its model is an encoder-decoder: .*backbone"):
            kind.batches(tokenizer, "train")
    model = random_model("t5").eval()
    read = []
    model.encoder.register_forward_pre_hook(lambda _, __, named: read.append(named["input_ids"]), with_kwargs=True)
    data.evaluate(model, tokenizer)
    assert tokenizer.decode(read[0][0]) == "name : Aromi"
    assert data.generate(random_model("gpt2").eval(), tokenizer_of(True), data.rows("train"))  # the model knows better
    [batch] = CLASSIFY.batches(tokenizer, "train")  # where nothing is written it does not matter
    assert len(batch["labels"]) == 2


WRONG = {
    "size": (0, "32", 1.5, None, float("nan")),
    "steps": (0, -1, "2", 1.5),
    "limit": (0, -1, "5", 1.5, True),
    "seed": ([1], None, -1),
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_of_batches_are_whole(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*, but must be a whole number from . on"):
        CLASSIFY.batches(tokenizer_of(), "train", **{name: value})


def test_no_rows_are_no_batches_and_no_score():
    facts = task("facts")
    gone = facts.where(subject=facts.rows("test")[0]["subject"])
    _, tokenizer = backbone("tiny-bert")
    with pytest.raises(ValueError, match="facts has no split 'train'; it has test"):
        gone.batches(tokenizer, "train", steps=3)
    with pytest.raises(ValueError, match="facts has no split 'train'"):
        gone.evaluate(random_model("bert"), tokenizer, "train")
    with pytest.raises(ValueError, match="limit is 0"):
        CLASSIFY.evaluate(random_model("bert"), tokenizer_of(), limit=0)
    assert gone.metric == "accuracy" and "0 train" in repr(gone)
    with pytest.raises(ValueError, match="the number of rows is 0, but must be a whole number from 1"):
        Batches([], pad=0, size=2, seed=0, steps=3)


def test_what_is_no_tokenizer_model_or_rows_is_told():
    tokenizer, model, rows = tokenizer_of(), random_model("gpt2").eval(), WRITE.rows("train")
    for wrong in (None, model, "train"):
        with pytest.raises(
            TypeError, match=f"tokenizer is a {type(wrong).__name__}, but must be the one that backbone"
        ):
            WRITE.batches(wrong, "train")
    for wrong in (None, tokenizer):
        with pytest.raises(TypeError, match=f"model is a {type(wrong).__name__}, but must be a network"):
            WRITE.evaluate(wrong, tokenizer)
    for wrong in (None, rows[0], ["the food"], "the food", [{"text": "x"}]):
        with pytest.raises(TypeError, match="rows is .*, but must be a list of dicts with source: see data.rows"):
            WRITE.generate(model, tokenizer, wrong)
    with pytest.raises(TypeError, match="rows is .* with source"):
        CLASSIFY.generate(model, tokenizer, CLASSIFY.rows("train"))
    with pytest.raises(ValueError, match="size is -1, but must be a whole number from 1"):
        WRITE.generate(model, tokenizer, rows, size=-1)
    with pytest.raises(ValueError, match="mine needs a tokenizer with pad_token"):
        CLASSIFY.batches(tokenizer_of(pad_token=None), "train")
    with pytest.raises(ValueError, match="mine needs a tokenizer with eos_token"):
        WRITE.batches(tokenizer_of(eos_token=None), "train")


def test_a_model_that_cannot_answer_is_told():
    short = of_kind("generate", [{"source": "the food", "target": "good"}])
    with pytest.raises(ValueError, match="mine asks for texts, and BertForMaskedLM writes none"):
        short.evaluate(random_model("bert"), tokenizer_of())
    gaps = of_kind("fill", [{"text": "the food", "answer": "good"}], template="{text} [MASK]")
    with pytest.raises(ValueError, match=r"mine needs a model that gives the gap .* this one gives \(1, 3, 2\)"):
        gaps.evaluate(random_model("bert", labels=2), tokenizer_of())
    tokenizer = tokenizer_of()
    tokenizer.add_tokens(["Zwxq"])
    with pytest.raises(ValueError, match="the text has the token 30, the model knows 30: take both from one backbone"):
        of_kind("generate", [{"source": "Zwxq", "target": "good"}]).evaluate(random_model("gpt2"), tokenizer)


def test_generate_measures_without_dropout_and_leaves_the_mode():
    model, tokenizer = random_model("gpt2").train(), tokenizer_of()
    data = of_kind("generate", [{"source": "name : Aromi", "target": "Aromi is a cafe ."}])
    texts = {data.generate(model, tokenizer, data.rows("train"))[0] for _ in range(5)}
    assert len(texts) == 1 and model.training


def test_a_word_for_each_label_and_no_other():
    filled = CLASSIFY.as_fill(("poor", "fine"))
    assert "80" not in repr(filled) and "bad  ->  poor" in repr(filled)  # the label is no field of the template
    for words in ("ab", None, [0, 1], ["good", "good"], ["good"]):
        with pytest.raises(ValueError, match="mine is of the kind classify, .*; the words are .* different texts"):
            CLASSIFY.as_fill(words)
    for data in (TAG, WRITE, filled):
        with pytest.raises(ValueError, match=f"mine is of the kind {data.kind}, but must be of the kind classify"):
            data.as_text()
    with pytest.raises(ValueError, match="mine is of the kind classify, but must be of the kind fill"):
        _ = CLASSIFY.candidates


def test_a_split_that_cannot_be_drawn_anew_is_told():
    facts = task("facts")
    for by in ("nope", "relation"):
        with pytest.raises(ValueError, match=f"facts: rows of two splits have the same '{by}' or none"):
            facts.resplit(0, by=by)
    for seed in (None, [0], 1.5):
        with pytest.raises(ValueError, match="seed is .*, but must be a whole number"):
            facts.resplit(seed, by="subject")
