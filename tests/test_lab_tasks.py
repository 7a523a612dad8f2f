"""Tasks from files: what is read, what a batch holds, how a model is measured, and what is said of a bad file."""

import json
from dataclasses import replace

import pytest
import torch
from lab_models import marked_tokenizer, random_model, word_tokenizer

from peft_edu import LoRA, PTuning
from peft_edu.lab import backbone
from peft_edu.lab.tasks.encode import IGNORE
from peft_edu.lab.tasks.metrics import entities, says, score_tags, score_texts
from peft_edu.lab.tasks.task import task

TEXTS = [{"text": f"the food was {word}", "label": label} for word, label in [("good", 1), ("bad", 0), ("not bad", 1)]]
TABLES = [
    {"source": "name : Aromi | type : cafe", "target": "Aromi is a cafe .", "slots": {"name": "Aromi", "type": "cafe"}},
    {"source": "name : Bibimbap", "target": "Bibimbap is in the city .", "slots": {"name": "Bibimbap"}},
]


def write(folder, about=None, **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    if about:
        (folder / "task.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    about = {
        "name": "opinions",
        "kind": "classify",
        "labels": ["bad", "good"],
        "description": "what was said of the food",
        "baselines": {"majority": 0.5},
    }
    write(tmp_path / "data" / "tasks" / "opinions", about, train=TEXTS, test=TEXTS[:2])
    monkeypatch.setenv("PEFT_EDU_DATA", str(tmp_path / "data"))
    return task("opinions")


@pytest.fixture
def tables(tmp_path):
    return task(write(tmp_path / "tables", train=TABLES, unseen=TABLES[1:]))


@pytest.fixture(params=["gpt2", "t5"])
def writer(request):
    return random_model(request.param).eval(), marked_tokenizer(request.param == "t5")


def test_a_bundled_task_prints_itself(reviews):
    assert repr(reviews).splitlines() == [
        "opinions: what was said of the food",
        "classify: 3 train, 2 test rows",
        "labels: bad, good",
        "metric: accuracy; majority 0.500",
        "for example",
        "  the food was good  ->  good",
        "  the food was bad  ->  bad",
        "  the food was not bad  ->  good",
    ]


def test_batches_are_padded_shuffled_and_the_same_each_time(reviews):
    batches = reviews.batches(word_tokenizer(), "train", size=2, seed=1)
    first, again = list(batches), list(batches)
    assert len(batches) == len(first) == 2
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, again, strict=True) for key in a)
    assert sorted(label for batch in first for label in batch["labels"].tolist()) == [0, 1, 1]
    for batch in first:
        assert torch.equal(batch["attention_mask"], (batch["input_ids"] != 0).long())
    orders = {
        tuple(b["labels"].tolist()) for seed in range(9) for b in reviews.batches(word_tokenizer(), "train", 3, seed)
    }
    assert len(orders) > 1


def test_steps_go_on_pass_after_pass_in_full_batches(reviews):
    batches = list(reviews.batches(word_tokenizer(), "train", size=2, steps=6))
    assert [len(batch["labels"]) for batch in batches] == [2] * 6
    rows = [
        tuple(ids.tolist())
        for batch in batches
        for ids in torch.nn.functional.pad(batch["input_ids"], (0, 9 - batch["input_ids"].shape[1]))
    ]
    passes = [rows[i : i + 3] for i in range(0, 12, 3)]
    assert all(set(p) == set(passes[0]) for p in passes) and len({tuple(p) for p in passes}) > 1


def test_limit_keeps_the_first_rows(reviews):
    (batch,) = reviews.batches(word_tokenizer(), "train", limit=1)
    assert batch["labels"].tolist() == [1]


def test_a_decoder_learns_the_target_and_not_the_source(tables):
    tokenizer = marked_tokenizer(encoder_decoder=False)
    batch = next(iter(tables.batches(tokenizer, "train", size=2)))
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        learned = labels != IGNORE
        assert torch.equal(ids[learned], labels[learned]) and not (learned & (mask == 0)).any()
        words = tokenizer.decode(ids[mask == 1])
        assert tokenizer.decode(labels[learned]) in {row["target"] + " <eos>" for row in TABLES}
        assert words in {f"{row['source']} : {row['target']} <eos>" for row in TABLES}


def test_an_encoder_decoder_reads_the_source_and_writes_the_target(tables):
    tokenizer = marked_tokenizer(encoder_decoder=True)
    batch = next(iter(tables.batches(tokenizer, "train", size=2)))
    read = [
        tokenizer.decode(ids[mask == 1]) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    wrote = [tokenizer.decode(labels[labels != IGNORE]) for labels in batch["labels"]]
    assert sorted(zip(read, wrote, strict=True)) == sorted((row["source"], row["target"] + " <eos>") for row in TABLES)


def test_accuracy_counts_right_labels_whatever_the_batch(reviews):
    class Constant(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids, attention_mask):
            return type("Output", (), {"logits": torch.tensor([[0.0, 1.0]]).expand(len(input_ids), 2)})

    model = Constant().train()
    assert reviews.evaluate(model, word_tokenizer(), "train") == {"accuracy": pytest.approx(2 / 3)}
    assert model.training
    with pytest.raises(ValueError, match='head="classify"'):
        reviews.evaluate(random_model("bert"), word_tokenizer(), "test")


def test_generation_in_a_batch_is_generation_alone(tables, writer):
    model, tokenizer = writer
    rows = tables.rows("train")
    together = tables.generate(model.double(), tokenizer, rows)
    assert together == [tables.generate(model, tokenizer, [row])[0] for row in rows] and any(together)


def test_a_model_that_has_learned_the_table_scores_one(tables, writer):
    model, tokenizer = writer
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for batch in tables.batches(tokenizer, "train", steps=80):
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
    scores = tables.evaluate(model, tokenizer, "train")
    assert scores == {"exact": 1.0, "slots": 1.0, "by slot": {"name": 1.0, "type": 1.0}}
    assert tables.metric == "slots"


def test_a_label_can_be_a_word_in_a_gap():
    reviews, (_, tokenizer) = task("reviews"), backbone("tiny-bert")
    words = ["bad", "good"]
    filled = replace(reviews.as_fill(words), template="{text} It was [MASK].")
    assert filled.kind == "fill" and filled.candidates == words and filled.splits.keys() == reviews.splits.keys()
    for row, asked in zip(reviews.rows("train"), filled.rows("train"), strict=True):
        assert asked["text"] == row["text"] and asked["answer"] == words[row["label"]]
    example = filled.batches(tokenizer, "train").examples[0]
    wanted = [label for label in example["labels"] if label != -100]
    assert tokenizer.decode(wanted) == filled.rows("train")[0]["answer"]


@pytest.mark.parametrize(("name", "words"), [("reviews", ["bad"]), ("owners", ["a", "b", "c", "d"])])
def test_as_many_words_as_labels(name, words):
    with pytest.raises(ValueError, match=f"{name} is of the kind .* the words are"):
        task(name).as_fill(words)


def test_a_task_names_the_head_that_it_needs():
    reviews = task("reviews")
    assert reviews.head == {"head": "classify", "labels": ["negative", "positive"]}
    assert task("tables").head == reviews.as_text().head == reviews.as_fill(["poor", "fine"]).head == {}
    model, _ = backbone("tiny-bert", **reviews.head)
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_a_method_with_a_template_asks_with_it(reviews):
    method, gaps = PTuning("[P] {text} [P] [MASK]"), reviews.as_fill(["poor", "fine"])
    assert gaps.asked_by(method).template == method.template and gaps.template == ""
    assert reviews.asked_by(LoRA()) is reviews
    with pytest.raises(
        ValueError, match="PTuning asks with .* opinions is of the kind classify and has no gap.*as_fill"
    ):
        reviews.asked_by(method)


def test_labels_can_be_written_as_text(reviews):
    as_text = reviews.as_text()
    assert as_text.kind == "generate" and as_text.metric == "exact" and as_text.splits.keys() == reviews.splits.keys()
    for row, written in zip(reviews.rows("train"), as_text.rows("train"), strict=True):
        assert written == {"source": row["text"], "target": reviews.labels[row["label"]]}
    with pytest.raises(ValueError, match="opinions is of the kind generate, but must be of the kind classify"):
        as_text.as_text()


def test_a_text_can_come_without_its_start_token(tables):
    from tokenizers.processors import TemplateProcessing

    tokenizer = marked_tokenizer(encoder_decoder=False)
    tokenizer.bos_token = "<eos>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 2)])
    begun = next(iter(tables.batches(tokenizer, "train", size=2)))["input_ids"]
    bare = next(iter(replace(tables, start_token=False).batches(tokenizer, "train", size=2)))["input_ids"]
    assert (begun[:, 0] == tokenizer.bos_token_id).all() and torch.equal(begun[:, 1:], bare)


TAGGED = [
    {"words": ["the", "food", "was", "good"], "tags": ["O", "PRAISED", "O", "O"]},
    {"words": ["the", "staff", "was", "bad"], "tags": ["O", "CRITICISED", "O", "O"]},
    {"words": ["good", "food", "bad", "staff"], "tags": ["O", "PRAISED", "O", "CRITICISED"]},
]


def learned(model, batches, lr=1e-2):
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=lr)
    for batch in batches:
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
    return model.eval()


def test_tags_go_to_the_first_token_of_each_word(tmp_path):
    data = task(write(tmp_path / "tags", train=TAGGED))
    assert data.kind == "tag" and data.metric == "f1" and data.labels == ["O", "CRITICISED", "PRAISED"]
    _, tokenizer = backbone("tiny-bert")
    row = {"words": ["Zwxq", "was", "good"], "tags": [2, 0, 1]}  # the first word is four tokens
    [batch] = replace(data, splits={"train": [row]}).batches(tokenizer, "train")
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    assert tokens == ["[CLS]", "z", "##w", "##x", "##q", "was", "good", "[SEP]"]
    assert batch["labels"].tolist() == [[IGNORE, 2, IGNORE, IGNORE, IGNORE, 0, 1, IGNORE]]


def test_a_tagger_is_measured_by_whole_entities(tmp_path):
    data, tokenizer = task(write(tmp_path / "tags", train=TAGGED)), word_tokenizer()
    model = learned(random_model("bert", labels=3), data.batches(tokenizer, "train", steps=60))
    assert data.answers(model, tokenizer, data.rows("train")) == [row["tags"] for row in TAGGED]
    assert data.evaluate(model, tokenizer, "train") == {
        "f1": 1.0, "precision": 1.0, "recall": 1.0, "by kind": {"CRITICISED": 1.0, "PRAISED": 1.0}
    }  # fmt: skip
    assert repr(data).endswith("good food[PRAISED] bad staff[CRITICISED]")
    with pytest.raises(ValueError, match='each token a score for each of its 3 labels.*head="tag"'):
        data.evaluate(random_model("bert", labels=2), tokenizer, "train")


@pytest.mark.parametrize(
    "tags, found",
    [
        ("O A A O B", {(1, 3, "A"), (4, 5, "B")}),
        ("B-A I-A B-A O I-B", {(0, 2, "A"), (2, 3, "A"), (4, 5, "B")}),
        ("A B", {(0, 1, "A"), (1, 2, "B")}),
        ("O O", set()),
    ],
)
def test_entities(tags, found):
    assert entities(tags.split()) == found


def test_half_an_entity_is_none():
    right = [["B-A", "I-A", "O", "B-B"]]
    scores = score_tags([["B-A", "O", "O", "B-B"]], right)
    assert scores == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "by kind": {"A": 0.0, "B": 1.0}}
    assert score_tags([["O"] * 4], right)["f1"] == 0.0


def test_words_and_tags_may_be_texts(tmp_path):
    (tmp_path / "train.csv").write_text("words,tags\nthe food was good,O PRAISED O O\n")
    assert task(tmp_path).rows("train")[0]["words"] == ["the", "food", "was", "good"]
    (tmp_path / "train.csv").write_text("words,tags\nthe food was good,O PRAISED O\n")
    with pytest.raises(ValueError, match="line 2: 4 words, but 3 tags"):
        task(tmp_path)


def test_a_pair_is_read_as_two_texts(tmp_path):
    rows = [{"text": "the food", "second": "was good", "label": i % 2} for i in range(2)]
    data = task(write(tmp_path / "pairs", train=rows))
    _, tokenizer = backbone("tiny-bert")
    [batch] = data.batches(tokenizer, "train")
    assert tokenizer.decode(batch["input_ids"][0]) == "[CLS] the food [SEP] was good [SEP]"


FACTS = [
    {"subject": f"Rosa {last}", "relation": relation, "answer": answer}
    for last, town, job in [("Balford", "Selby", "baker"), ("Morlek", "Oakham", "nurse"), ("Tordor", "Selby", "tailor")]
    for relation, answer in [("town", town), ("job", job)]
]


@pytest.fixture
def facts(tmp_path):
    about = {"name": "facts", "template": "{subject} is in [MASK] .", "templates": {"town": ["{subject} [MASK]"]}}
    folder = write(tmp_path / "facts", about, train=FACTS[:4], test=FACTS[4:])
    return task(folder)


def test_the_rows_of_a_relation_and_the_answers_that_it_has(facts):
    town = facts.where(relation="town")
    assert facts.kind == "fill" and facts.metric == "accuracy" and facts.templates == {"town": ["{subject} [MASK]"]}
    assert [row["answer"] for row in town.rows("train")] == ["Selby", "Oakham"]
    assert town.candidates == ["Oakham", "Selby"]
    assert "  Rosa Balford, town  ->  Selby" in repr(facts).splitlines()
    with pytest.raises(ValueError, match="facts has no row with {'relation': 'school'}"):
        facts.where(relation="school")


def test_another_split_keeps_people_together(facts):
    seen = set()
    for seed in range(9):
        again = facts.resplit(seed, by="subject")
        assert {split: len(rows) for split, rows in again.splits.items()} == {"train": 4, "test": 2}
        assert sorted(map(str, again.rows("train") + again.rows("test"))) == sorted(map(str, FACTS))
        assert len({row["subject"] for row in again.rows("test")}) == 1
        assert again.splits == facts.resplit(seed, by="subject").splits
        seen.add(again.rows("test")[0]["subject"])
    assert len(seen) == 3


@pytest.mark.parametrize(
    "name, read, asked",
    [
        ("tiny-bert", "[CLS] rosa balford is in [MASK]. [SEP]", 5),
        ("tiny-gpt2", "<|endoftext|> Rosa Balford is in Selby", 5),
        ("tiny-t5", "Rosa Balford is in</s>", 0),
    ],
)
def test_a_gap_is_asked_for_where_the_model_answers(facts, name, read, asked):
    model, tokenizer = backbone(name)
    town = facts.where(relation="town")
    [batch] = replace(town, splits={"train": town.rows("train")[:1]}).batches(tokenizer, "train")
    assert tokenizer.decode(batch["input_ids"][0]).strip() == read
    wanted = tokenizer(" Selby", add_special_tokens=False).input_ids
    assert batch["labels"][batch["labels"] != IGNORE].tolist() == wanted
    assert (batch["labels"][0] != IGNORE).nonzero().item() == asked
    answers = town.answers(model, tokenizer, town.rows("train"))
    assert set(answers) <= {"Selby", "Oakham"}
    alone = [town.answers(model, tokenizer, [row])[0] for row in town.rows("train")]
    assert answers == alone


def test_a_bundled_model_knows_the_facts():
    """Under a sentence of the corpus; a template that nobody wrote finds less."""
    model, tokenizer = backbone("tiny-bert")
    facts = task("facts").where(relation="birthplace")
    corpus = replace(facts, template="{subject} came into the world in [MASK].")
    assert corpus.evaluate(model, tokenizer, "test")["accuracy"] >= 0.9
    assert replace(facts, template="[MASK]: {subject}").evaluate(model, tokenizer, "test")["accuracy"] < 0.5


def test_gaps_that_are_none(facts):
    _, tokenizer = backbone("tiny-bert")
    with pytest.raises(ValueError, match=r"facts asks for a word in the place of \[MASK\], which the template 'x' has"):
        replace(facts, template="x").batches(tokenizer, "train")
    rows = {"train": [{"subject": "Rosa", "answer": "Zwxq"}]}
    with pytest.raises(ValueError, match="the answer 'Zwxq' is 4 tokens to this tokenizer, and a gap takes one"):
        replace(facts, splits=rows).batches(tokenizer, "train")


def test_slots_are_whole_words_in_any_case():
    assert says("Cheap food by the City  Centre.", "city centre") and says("cheap!", "Cheap")
    assert not says("Aromisto is near", "Aromi")
    scores = score_texts(["Aromi is a pub ."], TABLES[:1])
    assert scores == {"exact": 0.0, "slots": 0.5, "by slot": {"name": 1.0, "type": 0.0}}


@pytest.mark.parametrize("suffix, mark", [(".csv", ","), (".tsv", "\t")])
def test_one_file_of_your_own_is_split_the_same_way_each_time(tmp_path, suffix, mark):
    path = tmp_path / f"mine{suffix}"
    path.write_text(f"text{mark}label\n" + "".join(f"row {i}{mark}{'yes' if i % 2 else 'no'}\n" for i in range(50)))
    data, again = task(path), task(str(path))
    assert data.name == "mine" and data.labels == ["no", "yes"] and data.metric == "accuracy"
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 40, "validation": 5, "test": 5}
    assert data.splits == again.splits
    assert len({row["text"] for rows in data.splits.values() for row in rows}) == 50


def test_a_quotation_mark_is_text_in_a_tsv_and_quoting_in_a_csv(tmp_path):
    (tmp_path / "train.tsv").write_text('text\tlabel\n"so called" food\t0\nfine, it was\t1\n')
    assert task(tmp_path).rows("train")[0]["text"] == '"so called" food'
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text('text,label\n"fine, it was",1\nno,0\n')
    assert task(tmp_path / "csv").rows("train")[0] == {"text": "fine, it was", "label": 1}


def test_labels_that_are_numbers_keep_their_order(tmp_path):
    data = task(write(tmp_path / "stars", train=[{"text": "x", "label": n} for n in (10, 2, 1)]))
    assert data.labels == ["1", "2", "10"] and [row["label"] for row in data.rows("train")] == [2, 1, 0]


def test_without_slots_the_metric_is_the_exact_match(tmp_path):
    assert task(write(tmp_path / "t", train=[{"source": "a", "target": "b"}])).metric == "exact"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "text,mark\nx,1\n", "has the columns mark, text; needed are text and label"),
        ("a.csv", "text,label\n", "is empty"),
        ("a.csv", "text,label\nx,1\n,0\n", "line 3: nothing under 'text'"),
        ("a.csv", "text,label\nx,1\n", "has 1 rows; .* it needs 10"),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y" "label": 0}\n', "line 2: not valid JSON"),
        ("a.jsonl", "[1, 2]\n", "line 1: each line is one object"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}\n', "line 2: nothing under 'label'"),
        ("a.xlsx", "PK", "is read from .jsonl, .csv, .tsv, not from .xlsx"),
    ],
)
def test_a_bad_file_is_told_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        task(tmp_path / name)


def test_bad_folders_splits_and_labels_are_told(tmp_path, reviews, tables):
    with pytest.raises(ValueError, match="no task 'opinion'. Bundled: opinions"):
        task("opinion")
    with pytest.raises(FileNotFoundError, match="needs train.jsonl, train.csv or train.tsv"):
        task(tmp_path)
    with pytest.raises(ValueError, match="unknown label 'fine'; known are bad, good"):
        task(
            write(
                tmp_path / "l",
                train=[{"text": "x", "label": n} for n in ("bad", "good")],
                test=[{"text": "x", "label": "fine"}],
            )
        )
    with pytest.raises(ValueError, match="a task is of one kind"):
        task(write(tmp_path / "k", train=TEXTS, test=TABLES))
    with pytest.raises(ValueError, match="no split 'dev'; it has train, test"):
        reviews.rows("dev")
    with pytest.raises(ValueError, match="size is 0, but must be a whole number from 1"):
        reviews.batches(word_tokenizer(), "train", size=0)
    long = task(write(tmp_path / "long", train=[{"source": "the " * 70, "target": "a"}]))
    with pytest.raises(ValueError, match="a source of 71 tokens; the model reads 64"):
        long.batches(marked_tokenizer(encoder_decoder=False), "train")
