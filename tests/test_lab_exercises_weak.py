"""Lesson 11's exercises: what is right in any style passes, and each mistake gets the sentence that teaches."""

import itertools
import re
import sys

import nbformat
import pytest
import torch
from test_workshop import NOTEBOOKS

from peft_edu.lab import hint
from peft_edu.lab.exercises import weak as lesson
from peft_edu.lab.exercises.check import EXERCISES, checked
from peft_edu.lab.exercises.weak import beliefs, clauses, judged, majority, opposite, rates
from peft_edu.lab.exercises.weak_open import _expect_readers, reworded
from peft_edu.lab.study.results import averages
from peft_edu.lab.study.weak import BLAME, NEGATIONS, PRAISE, review_rules, taught, texts_of, truth
from peft_edu.lab.tasks.task import task
from peft_edu.weak import ABSTAIN, LabelModel, one_hot, vote

NAMES = [f"weak.{name}" for name in "clauses judged opposite majority rates beliefs soft hunt own".split()]


def written_again(name):
    """The solution, as it stands in the last hint, among what the lesson imports."""
    exercise = EXERCISES[name]
    known = vars(lesson) | vars(sys.modules[exercise.reference.__module__])
    exec(exercise.solution, known)
    return known[exercise.reference.__name__]


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_is_right_and_its_hints_end_with_it(name, capsys):
    exercise = EXERCISES[name]
    if name != "weak.own":  # it trains: below
        assert checked(name, written_again(name))
    for _ in range(len(exercise.hints) + 1):
        hint(name)
    assert exercise.solution.strip().splitlines()[-1].strip() in capsys.readouterr().out


def test_what_a_learner_writes_is_what_the_study_ran_on():
    """The six rules of the lesson, made of the learner's pieces, vote as those of the study do."""
    for known in (0, 3, 6):
        six = review_rules(NEGATIONS[:known])
        votes = vote(six, texts_of("pool")[:300])
        for text, row in zip(texts_of("pool"), votes, strict=False):
            main = clauses(text)[0]
            said = judged(main, NEGATIONS[:known])
            assert said == max(row[:3]) and opposite(text, NEGATIONS[:known]) == max(row[3:5])


def test_the_label_model_of_the_lesson_is_the_packages():
    votes = vote(review_rules(NEGATIONS[:3]), texts_of("pool"))
    believed, model = majority(votes), LabelModel()
    for _ in range(100):
        each = rates(votes, believed)
        believed = beliefs(votes, each)
    assert torch.allclose(believed, model.fit(votes)) and torch.allclose(each, model.rates)


def by_pattern(text):
    text = text.lower()[:-1]
    if found := re.fullmatch("(?:al)?though (.*), (.*)", text):
        return [found[2], found[1]]
    if found := re.fullmatch("(.*), (?:but|yet) (.*)", text):
        return [found[2], found[1]]
    found = re.fullmatch("(.*), even (?:if|though) (.*)", text)
    return [found[1], found[2]] if found else [text, ""]


def by_counting(clause, negations):
    score = sum(word in PRAISE for word in clause.split()) - sum(word in BLAME for word in clause.split())
    for negation in negations:
        if negation in clause:
            score = -score
    return {0: -1}.get(score, int(score > 0))


def by_numbers(text, negations):
    return {1: 0, 0: 1, -1: -1}[judged(clauses(text)[1], negations)]


def by_loops(votes, believed):
    table = torch.ones(votes.shape[1], 2, 2, dtype=torch.double)
    for text, row in enumerate(votes):
        for rule, said in enumerate(row):
            if said >= 0:
                table[rule, :, said] += believed[text]
    return table / (believed.sum(0) + 2).unsqueeze(1)


def by_products(votes, rates):
    believed = torch.ones(len(votes), 2, dtype=torch.double)
    for rule, table in enumerate(rates):
        for said in (0, 1):
            believed[votes[:, rule] == said] *= table[:, said]
    return believed / believed.sum(1, keepdim=True)


def by_means(votes, classes=2):
    voted = (votes >= 0).sum(1)
    each = [torch.where(voted > 0, (votes == k).sum(1) / voted.clamp(min=1), 1 / classes) for k in range(classes)]
    return torch.stack(each, 1)  # in float32


def by_whole_words(clause, negations):
    if any(re.search(rf"\b{negation}\b", clause) for negation in negations):
        return {1: 0, 0: 1, -1: -1}[judged(clause, [])]
    return judged(clause, ())


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("weak.clauses", by_pattern),
        ("weak.judged", by_counting),
        ("weak.judged", by_whole_words),
        ("weak.opposite", by_numbers),
        ("weak.majority", by_means),
        ("weak.rates", by_loops),
        ("weak.beliefs", by_products),
        ("weak.soft", lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels)),
        ("weak.soft", lambda logits, labels: -(logits.softmax(-1).log() * labels).sum() / len(labels)),
    ],
)
def test_another_style_is_right(name, written):
    feedback = checked(name, written)
    assert feedback, feedback


def only(*forms):
    """clauses() by somebody who knows some of the forms."""

    def f(text):
        text = text.lower().rstrip(".")
        if "though" in forms and text.startswith(("although ", "though ")):
            return tuple(text.split(" ", 1)[1].split(", ")[::-1])
        for link in (", but ", ", yet "):
            if link.strip(", ") in forms and link in text:
                return tuple(text.split(link)[::-1])
        return text, ""

    return f


def words_of(texts):
    return {word for text in texts for word in text.split()}


def all_of(negations, clause):
    return any(words_of([each]) <= words_of([clause]) for each in negations)


def einsum(believed, said):
    return torch.einsum("nk,nmv->mkv", believed, said)


WRONG = {
    "main and other are exchanged in 'The tea seemed cold, but": (
        "weak.clauses",
        lambda text: tuple(text.lower().rstrip(".").split(", but ")) if ", but " in text else (text.lower()[:-1], ""),
    ),
    "The tea seemed cold, yet": ("weak.clauses", only("but")),
    "Although the tea seemed cold": ("weak.clauses", only("but", "yet")),
    "even though the tea seemed cold": ("weak.clauses", only("but", "yet", "though")),
    "small letters, and no full stop": ("weak.clauses", lambda text: (text, "")),
    "it is the main one": ("weak.clauses", lambda text: ("", text.lower()[:-1])),
    "expected a pair of texts": ("weak.clauses", lambda text: text.lower()),
    "of 'The soup was good.' it gives nothing back": ("weak.clauses", lambda text: print(end="")),
    "no word of either list, so the rule must not guess": (
        "weak.judged",
        lambda clause, negations: int(any(word in PRAISE for word in clause.split())),
    ),
    "compare whole words": (
        "weak.judged",
        lambda clause, negations: (
            1 if any(word in clause for word in PRAISE) else 0 if any(word in clause for word in BLAME) else -1
        ),
    ),
    "'failed to be' is one phrase, and 'to be' alone": (
        "weak.judged",
        lambda clause, negations: judged(clause, [word for each in negations for word in each.split()[1:]]),
    ),
    "'failed to be' is one phrase": (
        "weak.judged",
        lambda clause, negations: (
            judged(clause, [""]) if words_of(negations) & words_of([clause]) else judged(clause, [])
        ),
    ),
    "'far' alone is none": (
        "weak.judged",
        lambda clause, negations: judged(clause, [each.removesuffix(" from") for each in negations]),
    ),
    "'from far' is not 'far from'": (
        "weak.judged",
        lambda clause, negations: (
            1 - judged(clause, []) if judged(clause, []) >= 0 and all_of(negations, clause) else judged(clause, [])
        ),
    ),
    "of 'the soup failed to be green' it says 2": (
        "weak.judged",
        lambda clause, negations: (
            1 - judged(clause, []) if any(each in clause for each in negations) else judged(clause, [])
        ),
    ),
    "a Tensor: a vote is a whole number": (
        "weak.judged",
        lambda clause, negations: torch.tensor(judged(clause, negations)),
    ),
    "a float: a vote is a whole number": (
        "weak.opposite",
        lambda text, negations: float(opposite(text, negations)),
    ),
    "it praises and blames": (
        "weak.judged",
        lambda clause, negations: judged(
            " ".join(word for word in clause.split() if not set(clause.split()) & PRAISE or word not in BLAME),
            negations,
        ),
    ),
    "turns praise into blame": ("weak.judged", lambda clause, negations: judged(clause, [])),
    "not among those it was given": ("weak.judged", lambda clause, negations: judged(clause, ["failed", "far from"])),
    "a negation alone says nothing": (
        "weak.judged",
        lambda clause, negations: 0 if "failed to be" in clause and negations else judged(clause, negations),
    ),
    "gives True, a bool": (
        "weak.judged",
        lambda clause, negations: {1: True}.get(judged(clause, negations), judged(clause, negations)),
    ),
    "1 - ABSTAIN is 2": ("weak.opposite", lambda text, negations: 1 - judged(clauses(text)[1], negations)),
    "that is what the other clause says": (
        "weak.opposite",
        lambda text, negations: judged(clauses(text)[1], negations),
    ),
    "the other clause says nothing": (
        "weak.opposite",
        lambda text, negations: max(opposite(text, negations), judged(clauses(text)[0], negations)),
    ),
    "write `classes` where 2 stands": ("weak.majority", lambda votes, classes=2: majority(votes, 2)),
    "1 positional argument": ("weak.majority", lambda votes: majority(votes)),
    "not its share of them": (
        "weak.majority",
        lambda votes: torch.stack([(votes == each).sum(1) for each in (0, 1)], 1).double(),
    ),
    "divides by all rules": (
        "weak.majority",
        lambda votes: torch.stack([(votes == each).double().mean(1) for each in (0, 1)], 1),
    ),
    "it says 0 and 0": ("weak.majority", lambda votes: majority(votes) * (votes >= 0).any(1, keepdim=True)),
    "it says nan": (
        "weak.majority",
        lambda votes: torch.stack([(votes == each).sum(1) / (votes >= 0).sum(1) for each in (0, 1)], 1),
    ),
    "the classes are exchanged": ("weak.majority", lambda votes: majority(votes).flip(1)),
    "counts as a vote for class 0": (
        "weak.majority",
        lambda votes: torch.stack([(votes != 1).double().mean(1), (votes == 1).double().mean(1)], 1),
    ),
    "only the winner is told": (
        "weak.majority",
        lambda votes: (majority(votes) == majority(votes).max(1, keepdim=True).values).double(),
    ),
    "1 above and 2 below are missing": (
        "weak.rates",
        lambda votes, believed: einsum(believed, one_hot(votes, 2)) / believed.sum(0)[:, None],
    ),
    "2 below is missing": (
        "weak.rates",
        lambda votes, believed: (einsum(believed, one_hot(votes, 2)) + 1) / believed.sum(0)[:, None],
    ),
    "1 above is missing": (
        "weak.rates",
        lambda votes, believed: einsum(believed, one_hot(votes, 2)) / (believed.sum(0)[:, None] + 2),
    ),
    "it divides by all texts": (
        "weak.rates",
        lambda votes, believed: (einsum(believed, one_hot(votes, 2)) + 1) / (len(votes) + 2),
    ),
    "would then say the same of all": (
        "weak.rates",
        lambda votes, believed: (
            (einsum(believed, one_hot(votes, 2)) + 1) / (einsum(believed, one_hot(votes, 2)).sum(2, keepdim=True) + 2)
        ),
    ),
    "not of class k": (
        "weak.rates",
        lambda votes, believed: (einsum(believed, one_hot(votes, 2)) + 1) / (believed.sum(0) + 2),
    ),
    "k and v are exchanged": ("weak.rates", lambda votes, believed: rates(votes, believed).transpose(1, 2)),
    "above as well as below": (
        "weak.rates",
        lambda votes, believed: (einsum(believed.round(), one_hot(votes, 2)) + 1) / (believed.sum(0)[:, None] + 2),
    ),
    "one class alone; and 1 above": (
        "weak.rates",
        lambda votes, believed: einsum(believed.round(), one_hot(votes, 2)) / believed.round().sum(0)[:, None],
    ),
    "not by the texts of the class; and 1 above": (
        "weak.rates",
        lambda votes, believed: (
            einsum(believed, one_hot(votes, 2)) / einsum(believed, one_hot(votes, 2)).sum(2, keepdim=True)
        ),
    ),
    "these are counts": ("weak.rates", lambda votes, believed: einsum(believed, one_hot(votes, 2))),
    "not as one class alone": ("weak.rates", lambda votes, believed: rates(votes, believed.round())),
    "a vote for the last class": (
        "weak.rates",
        lambda votes, believed: (
            (einsum(believed, torch.nn.functional.one_hot(votes % 2, 2).double()) + 1) / (believed.sum(0)[:, None] + 2)
        ),
    ),
    "expected the shape (3, 2, 2)": ("weak.rates", lambda votes, believed: rates(votes, believed)[0]),
    "the rates add up here": (
        "weak.beliefs",
        lambda votes, rates: (
            torch.einsum("nmv,mkv->nk", one_hot(votes, 2), rates)
            / torch.einsum("nmv,mkv->n", one_hot(votes, 2), rates)[:, None].clamp(min=1e-9)
        ),
    ),
    "the log is left out": (
        "weak.beliefs",
        lambda votes, rates: torch.einsum("nmv,mkv->nk", one_hot(votes, 2), rates).softmax(1),
    ),
    "these are the scores": (
        "weak.beliefs",
        lambda votes, rates: torch.einsum("nmv,mkv->nk", one_hot(votes, 2), rates.log()),
    ),
    "these are products": (
        "weak.beliefs",
        lambda votes, rates: torch.einsum("nmv,mkv->nk", one_hot(votes, 2), rates.log()).exp(),
    ),
    "softmax goes over the texts": (
        "weak.beliefs",
        lambda votes, rates: torch.einsum("nmv,mkv->nk", one_hot(votes, 2), rates.log()).softmax(0),
    ),
    "the other way round": ("weak.beliefs", lambda votes, rates: beliefs(votes, rates.transpose(1, 2))),
    "as an index, -1 takes the last": (
        "weak.beliefs",
        lambda votes, rates: torch.stack([rates[j, :, votes[:, j]] for j in range(3)]).prod(0).T.log().softmax(1),
    ),
    "a logit may be below 0": ("weak.soft", lambda logits, labels: -(labels * logits.log()).sum(1).mean()),
    "softmax goes over the rows": ("weak.soft", lambda logits, labels: -(labels * logits.log_softmax(0)).sum(1).mean()),
    "the logarithm is missing": ("weak.soft", lambda logits, labels: -(labels * logits.softmax(1)).sum(1).mean()),
    "no gradient comes through": (
        "weak.soft",
        lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels).detach(),
    ),
    "no item(), no detach()": (
        "weak.soft",
        lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels).detach().requires_grad_(),
    ),
    "only a part of its gradient": (
        "weak.soft",
        lambda logits, labels: torch.nn.functional.cross_entropy(torch.cat([logits[:1], logits[1:].detach()]), labels),
    ),
    "the sign is lost": ("weak.soft", lambda logits, labels: (labels * logits.log_softmax(1)).sum(1).mean()),
    "the sum over the rows": ("weak.soft", lambda logits, labels: -(labels * logits.log_softmax(1)).sum()),
    "the mean over classes": ("weak.soft", lambda logits, labels: -(labels * logits.log_softmax(1)).mean()),
    "the likeliest class": (
        "weak.soft",
        lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels.argmax(1)),
    ),
    "no log-probabilities yet": ("weak.soft", lambda logits, labels: -(labels * logits).sum(1).mean()),
    "labels and logits are exchanged": (
        "weak.soft",
        lambda logits, labels: -(logits.softmax(1) * labels.log()).sum(1).mean(),
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_mistake_is_told(message):
    name, written = WRONG[message]
    feedback = checked(name, written)
    assert not feedback and message in feedback.message, feedback


def test_an_argument_is_not_to_be_changed():
    def filled(votes):
        votes[votes < 0] = 0
        return majority(votes)

    assert "changed in place" in checked("weak.majority", filled).message


def hunted(silence, texts, start_alone):
    """The lesson's cell with some of its faults."""

    def model(votes, steps=100):
        believed = start = majority(votes)
        for _ in range(steps):
            said = torch.stack([votes == 0, votes != 0], 2).double() if silence else one_hot(votes, 2)
            carried = start if start_alone else believed
            each = (einsum(carried, said) + 1) / (len(votes) + 2 if texts else carried.sum(0)[:, None] + 2)
            believed = torch.einsum("nmv,mkv->nk", said, each.log()).softmax(1)
        return believed, each

    return model


@pytest.mark.parametrize("faults", [*itertools.product((True, False), repeat=3)])
def test_the_hunt_counts_what_is_left(faults):
    feedback = checked("weak.hunt", hunted(*faults))
    if not any(faults):
        assert feedback
    elif sum(faults) == 1:
        said = ("on which no rule votes", "Of which texts is a rate a share", "take over from the one before")
        assert "1 fault is still in" in feedback.message and said[faults.index(True)] in feedback.message
    else:
        assert f"{sum(faults)} faults are still in" in feedback.message


def test_the_hunt_asks_for_both():
    assert "Bring the cell back" in checked("weak.hunt", lambda votes, steps=100: majority(votes)).message

    def flipped(votes, steps=100):
        believed, each = hunted(False, False, False)(votes, steps)
        return believed.flip(1), each

    assert "believed is not what the label model" in checked("weak.hunt", flipped).message

    def across(votes, steps=100):
        believed = majority(votes)
        for _ in range(steps):
            each = (torch.einsum("nk,nmv->mkv", believed, one_hot(votes, 2)) + 1) / (believed.sum(0) + 2)
            believed = beliefs(votes, each)
        return [believed, each]

    feedback = checked("weak.hunt", across)
    assert not feedback and "those of class k, or those of class v?" in feedback.message


# the cells of lesson 11 that count with what was written, and those that these need
COUNTING = "01 03 05 06 07 11 13 15 16 18 19 22 31 31-doubt 31-fit 40 49-cases 50".split()


def single(function):
    """Right, but in float32, as plain `counts / total` gives it."""

    def f(*given):
        found = function(*given)
        return found.float() if isinstance(found, torch.Tensor) else found

    return f


@pytest.mark.parametrize("precision", [single, lambda function: lambda *given: function(*given).double()])
def test_the_lesson_goes_on_with_float32_and_float64(precision, monkeypatch, tmp_path, capsys):
    """Whatever a check accepts the lesson runs on, and its label model is the package's."""
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    cells = nbformat.read(NOTEBOOKS / "11_weak_supervision.ipynb", as_version=4).cells
    known, kinds = {"averages": averages, "taught": taught, "truth": truth}, {}

    def check(name, thing):
        written = EXERCISES[name].reference
        if name in ("weak.majority", "weak.rates", "weak.beliefs", "weak.soft"):
            written = precision(written)
            assert checked(name, written)
            kinds[name] = written
        return written

    for cell in cells:
        if cell.id.removeprefix("weak-") in COUNTING:
            exec(cell.source, known)
            known["check"] = check
    assert len(kinds) == 4 and torch.allclose(known["believed"], known["package"].fit(known["votes"]), atol=1e-4)
    assert "nan" not in capsys.readouterr().out


LABELS = {row["text"]: row["label"] for split in ("train", "validation") for row in task("restaurants").rows(split)}
TRAIN = {row["text"]: row["label"] for row in task("restaurants").rows("train")}


def by_heart(text):
    return TRAIN.get(text, ABSTAIN)


def clauses_or_error(text):
    return judged(clauses(text)[0], [])


def was(text):
    return 1 if "was" in text else ABSTAIN


def seemed(text):
    return 0 if "seemed" in text else ABSTAIN


def by_length(text):
    return 1 if len(text) > 40 else ABSTAIN


def test_own_rules_that_teach_are_right(capsys):
    feedback = checked("weak.own", written_again("weak.own"))
    assert feedback, feedback
    said = capsys.readouterr().out
    assert "labels of 400 texts; the label model alone is right on" in said and "your student is right on" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: [], "return both: a task and a list of rules"),
        (lambda: (task("tables"), [len, len]), "two classes are needed"),
        (lambda: (task("topics"), [len, len]), "two classes are needed"),
        (lambda: (task("restaurants"), [len]), "two rules or more are asked for"),
        (lambda: (task("restaurants"), [lambda text: -1, lambda text: -1]), "0 labels are too few"),
        (lambda: (task("restaurants"), [lambda text: 1, lambda text: 1]), "400 texts have a vote, and 0 a label"),
        (lambda: (task("restaurants"), [lambda text: 1, lambda text: 1]), "say the same in both classes"),
        (lambda: (task("reviews"), review_rules(NEGATIONS)), "these are the sentences of the lesson"),
        (lambda: (task("restaurants"), [by_length, by_heart]), "rule 2 votes on 57% of the texts"),
        (lambda: (task("restaurants"), [by_heart, LABELS.__getitem__]), "it knows texts by heart"),
        (lambda: (task("restaurants"), [was, seemed]), "that may be chance: on 300 texts"),
        (lambda: (task("restaurants"), [by_length, by_length]), "all labels are of one class"),
        (lambda: (task("restaurants"), [lambda text: 5, lambda text: -1]), "must say a class from 0 to 1"),
    ],
)
def test_own_rules_that_cannot_teach_are_told(given, message):
    feedback = checked("weak.own", given)
    assert not feedback and message in feedback.message


@pytest.mark.thorough
def test_own_rules_that_mislead_are_told():
    def short(text):
        return 0 if len(text) < 33 else ABSTAIN

    feedback = checked("weak.own", lambda: (task("restaurants"), [by_length, short]))
    assert not feedback and "Look at where the rules are wrong" in feedback.message


def test_a_rule_that_asks_for_a_whole_sentence_reads():
    """Narrow, but no list of sentences: it votes on what has one word exchanged, too."""

    def narrow(text):
        return 1 if re.fullmatch(r"The \w+ was \w+\.", text) else ABSTAIN

    texts = {split: [row["text"] for row in task("restaurants").rows(split)] for split in ("train", "validation")}
    _expect_readers([narrow, clauses_or_error], texts)
    new = reworded(texts["validation"], set(texts["validation"]))
    assert len(new) > 250 and not set(new) & set(texts["validation"])
    assert reworded(["soup", "tea"], {"soup", "tea"}) == []
