"""The study of rules: what they say, what is stored of their students, and the card in which they learn negations."""

import pandas as pd
import pytest
import torch

from peft_edu.lab.paths import data_path
from peft_edu.lab.study import weak
from peft_edu.lab.study.weak import (
    BLAME,
    GOLD,
    NEGATIONS,
    PRAISE,
    SEEDS,
    anywhere,
    clauses,
    decided,
    judged,
    noisy,
    preference,
    review_rules,
    runs,
    score,
    taught,
    teachers,
    texts_of,
    topic,
    truth,
    under_noise,
)
from peft_edu.lab.tasks.task import task
from peft_edu.lab.widgets.rules import RulesCard
from peft_edu.weak import ABSTAIN, covered, report, vote


@pytest.mark.parametrize(
    ("text", "main", "other"),
    [
        ("The tea was cold.", "the tea was cold", ""),
        ("The tea was cold, but the cake was great.", "the cake was great", "the tea was cold"),
        ("The tea was cold, yet the cake was great.", "the cake was great", "the tea was cold"),
        ("Though the tea was cold, the cake was great.", "the cake was great", "the tea was cold"),
        ("The cake was great, even if the tea was cold.", "the cake was great", "the tea was cold"),
        ("The cake was great, even though the tea was cold.", "the cake was great", "the tea was cold"),
        ("The cake was great, and the tea cold.", "the cake was great, and the tea cold", ""),
    ],
)
def test_the_main_clause_is_found(text, main, other):
    assert clauses(text) == (main, other)


def test_a_clause_is_judged_by_the_words_and_negations_that_are_known():
    assert judged("the soup was good", ()) == 1 and judged("the soup was bad", ()) == 0
    assert judged("the soup was nowhere near good", ["nowhere near"]) == 0
    assert judged("the soup was nowhere near good", ()) == 1
    assert judged("the soup was green", ()) == judged("a good soup was bad", ()) == ABSTAIN
    assert not PRAISE & BLAME and len(PRAISE) == len(BLAME) == 22


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_who_knows_all_words_and_negations_is_right_everywhere(split):
    """So `truth` may say what the sentences without labels mean: on labelled ones like them it is never wrong."""
    labels = truth(split).tolist()
    assert labels == [weak.meaning(text) for text in texts_of(split)]
    assert set(truth().tolist()) == {0, 1} and len(truth()) == 2000
    assert not set(texts_of("pool")) & set(texts_of(split))


def test_rules_are_right_as_far_as_they_know_the_negations():
    for known, right in ((0, 0.5), (3, 0.77), (6, 1.0)):
        votes = vote(review_rules(NEGATIONS[:known]), texts_of("test"))
        rules = report(votes, truth("test"))
        voted = (votes >= 0).sum(0)
        assert (rules.right.fillna(0) * voted.numpy()).sum() / voted.sum().item() == pytest.approx(right, abs=0.07)
    assert rules.conflicts.tolist() == [0] * 6
    both = report(vote([topic, anywhere], texts_of("test")), truth("test"))
    assert both.right.tolist() == pytest.approx([0.5, 0.5], abs=0.06) and both.coverage.min() > 0.4


def test_a_tie_is_half_right():
    believed = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.6, 0.4]], dtype=torch.double)
    assert score(believed, torch.tensor([0, 0, 1])).tolist() == [0.5, 1, 0]
    assert decided(believed).tolist() == [False, True, True]


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_what_is_certain_is_no_tie_in_any_precision(precision):
    believed = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1 / 3, 2 / 3], [0.5, 0.5]], dtype=precision)
    assert score(believed, torch.tensor([0, 0, 1, 1])).tolist() == [1, 0, 1, 0.5]


@pytest.fixture(scope="module")
def lines():
    return pd.read_csv(data_path("results") / "weak.csv", comment="#")


def test_every_run_is_stored_for_every_seed(lines):
    found = {(run, seed) for run, seed in zip(lines.run, lines.seed, strict=True)}
    assert found == {(run, seed) for run in runs() for seed in SEEDS}
    assert lines.run.unique().tolist() == list(runs())


@pytest.mark.parametrize("name", [name for name in teachers() if "gpt2" not in name])
def test_what_is_stored_of_a_teacher_is_what_its_rules_say(name, lines):
    """The labels of the pool and the teacher itself follow from the rules, without training."""
    (stored,) = (
        lines[lines.run == name][["labels", "right", "coverage", "teacher"]].drop_duplicates().to_dict("records")
    )
    facts = teachers()[name].facts()
    assert {key: round(float(value), 4) for key, value in facts.items()} == stored


def test_the_findings_that_the_lesson_tells(lines):
    """The bar of the lesson: with no true label the student is at least 3 points above its label model."""
    mean = lines[lines.step == weak.STEPS].groupby("run").test.mean()
    six = lines[lines.run == "six negations"]
    assert (six.test - six.teacher).min() > 0.03
    assert mean["six negations"] > mean[f"{GOLD[-1]} true labels"] > mean[f"{GOLD[0]} true labels"]
    assert mean["wrong rule"] > mean["wrong rule, majority"] - 0.05 and mean["wrong rule twice"] < 0.6
    assert mean["anywhere, majority"] < mean["wrong rule"]


def test_stored_runs_are_asked_by_name():
    found = taught("six negations", "25 true labels")
    assert list(found) == ["six negations", "25 true labels"] and all(
        len(seeds) == len(SEEDS) for seeds in found.values()
    )
    assert 40 < min(found["25 true labels"]) < max(found["six negations"]) <= 100
    assert set(taught("six negations", column="right")["six negations"]) == {100.0}
    with pytest.raises(ValueError, match="weak has no run 'seven'; it has no negation, three negations"):
        taught("seven")
    curves = under_noise("fit")
    assert list(curves) == ["wrong at random", "wrong by rule"] and list(curves["wrong by rule"]) == ["LoRA", "full"]
    assert list(curves["wrong at random"]["full"]) == list(range(weak.EVERY, weak.LONG + 1, weak.EVERY))


def test_as_many_labels_are_wrong_at_random_as_by_rule():
    by_rule, drawn = (
        torch.tensor([row["label"] for row in noisy(kind, 3).rows("train")]) for kind in ("by rule", "at random")
    )
    kept = decided(teachers()["three negations"].believed()[0])
    wrong = [(labels != truth()[kept]).sum() for labels in (by_rule, drawn)]
    assert wrong[0] == wrong[1] == 279 and not torch.equal(by_rule, drawn)
    assert not torch.equal(drawn, torch.tensor([row["label"] for row in noisy("at random", 4).rows("train")]))


def test_a_study_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("PEFT_EDU_DATA", str(tmp_path))
    asked = []

    def run(name, number):
        asked.append((name, number))
        return [{"run": name, "seed": number, "step": 150, "test": 0.5}]

    fakes = {name: lambda number, name=name: run(name, number) for name in ("b", "a")}
    monkeypatch.setattr(weak, "runs", lambda: fakes)
    monkeypatch.setattr(weak, "SEEDS", (0, 1))
    weak.main()
    path = tmp_path / "results" / "weak.csv"
    first = path.read_text()
    assert first.startswith("# python -m peft_edu.lab.study.weak; Python ")
    assert pd.read_csv(path, comment="#")[["run", "seed"]].to_numpy().tolist() == [
        ["b", 0],
        ["b", 1],
        ["a", 0],
        ["a", 1],
    ]
    path.write_text("\n".join(line for line in first.splitlines() if not line.startswith("a,1")) + "\n")
    weak.main()
    assert path.read_text() == first and asked == [("b", 0), ("a", 0), ("b", 1), ("a", 1), ("a", 1)]


def test_what_a_language_model_prefers_is_the_same_one_by_one():
    from peft_edu.lab.models.backbones import backbone

    model, tokenizer = backbone("tiny-gpt2")
    texts = ["The soup was good.", "The soup was bad, but the tea was so wonderful.", "The tea was awful."]
    together = preference(model, tokenizer, texts)
    assert torch.allclose(together, torch.cat([preference(model, tokenizer, [text]) for text in texts]), atol=1e-6)
    assert together[0] > 2 and together[2] < 0


@pytest.fixture
def card():
    wrong = {"topic": [topic], "topic, twice": [topic, topic]}
    return RulesCard(review_rules, texts_of("pool")[:400], task("reviews").rows("validation"), wrong)


def test_the_card_measures_what_is_ticked(card):
    assert str(card).startswith("0 negations: a vote on ")
    assert "Read where the label model is wrong:<br>" in card.result.value
    assert "<i>(in truth: " in card.result.value and "only the wrong rule" not in card.result.value
    for name in NEGATIONS:
        card.controls[name].value = True
        assert name != NEGATIONS[0] or str(card).startswith("1 negation: a vote on ")
    assert "6 negations: " in str(card) and "majority 100.0%, label model 100.0%" in str(card)
    assert "It is wrong nowhere that it votes" in card.result.value
    card.controls["wrong rule"].value = "topic, twice"
    known, found = card._numbers(card.state())
    assert known == (NEGATIONS, "topic, twice") and list(found.right)[-2:] == ["topic 1", "topic 2"]
    alone = covered(vote([topic], texts_of("validation"))) & ~covered(
        vote(review_rules(NEGATIONS), texts_of("validation"))
    )
    assert f"On {alone.sum()} of the labelled sentences only the wrong rule votes." in card.result.value
    votes = vote([*review_rules(NEGATIONS), topic, topic], texts_of("pool")[:400])
    assert found.labels == covered(votes).sum() and found.right["praise"] == 100
    assert found.estimate["topic 1"] > 90 and found.combined["majority"] > found.combined["label model"]


def test_a_rule_that_never_votes_has_no_dot(card):
    _, found = card._numbers(card.state())
    assert found.right["negated"] is None
    left = card.figure().axes[0]
    assert len(left.get_yticklabels()) == 6 and left.get_xlabel() == "right votes, %"


def test_the_card_wants_a_function():
    with pytest.raises(TypeError, match="rules is .*but must be a function"):
        RulesCard(review_rules([]), ["a"], [])
