"""From pretraining to preferences: what is counted is what is there, and the picture of it can be read."""

import copy
import xml.etree.ElementTree as ElementTree

import pytest
from families import tiny
from svg_shapes import NAMESPACE, texts, texts_are_readable

from peft_edu import Adapter, BitFit, FullFineTuning, LoRA, PrefixTuning, count
from peft_edu.lab import architecture, backbone
from peft_edu.lab.figures import stages as figure
from peft_edu.lab.measure.cost import readable
from peft_edu.lab.measure.stages import REAL, STAGES, Sizes, real_sizes, sizes
from peft_edu.lab.paths import data_path

ROUND = Sizes("LoRA", base=1000, beside=10, head=4)  # numbers that a pencil can follow


def numbers(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "stage, everything, beside",
    [
        ("labels", 4 * 1000 + 12 * 1000, 4 * 1010 + 12 * 10),
        ("pairs", 4 * 2000 + 12 * 1000, 4 * 1010 + 12 * 10),
        ("feedback", 4 * (2 * 1000 + 2 * 1004) + 12 * (1000 + 1004), 4 * (1000 + 10 + 14 + 14) + 12 * (10 + 14)),
    ],
)
def test_memory_with_a_pencil(stage, everything, beside):
    assert ROUND.everything(STAGES[stage]).total == everything
    assert ROUND.beside_one_base(STAGES[stage]).total == beside


@pytest.mark.parametrize("method", [LoRA(4), Adapter(4, norms=False), PrefixTuning(5, hidden=0)], ids=repr)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_counted_is_what_is_there(family, method):
    bare = tiny(family, "language")
    model = copy.copy(method).attach(copy.deepcopy(bare))
    counted = sizes(model)
    assert counted.base == numbers(bare) and counted.base + counted.beside == numbers(model)
    score = tiny(family, "classify")  # with three labels, and no bias: one number takes a third
    assert counted.head == (numbers(score) - numbers(score.base_model)) // 3


def test_weak_labels_need_what_labels_need_and_the_reference_costs_nothing():
    assert ROUND.beside_one_base(STAGES["rules"]) == ROUND.beside_one_base(STAGES["labels"])
    assert ROUND.beside_one_base(STAGES["pairs"]) == ROUND.beside_one_base(STAGES["labels"])
    assert ROUND.everything(STAGES["pairs"]).weights == 2 * ROUND.everything(STAGES["labels"]).weights


@pytest.mark.parametrize("key, file", [("labels", "reviews"), ("rules", "unlabelled"), ("pairs", "happy")])
def test_how_many_there_are_is_counted_in_the_files(key, file):
    lines = data_path("tasks", file, "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert STAGES[key].amount().startswith(f"{len(lines):,} ")


def test_switched_off_the_method_gives_the_reference():
    """What the picture says of DPO: the base is there, bit for bit, while a changed policy is attached."""
    bare, method = tiny("gpt2", "language").eval(), LoRA(4)
    model = method.attach(copy.deepcopy(bare)).eval()
    for parameter in method.own:
        parameter.data.fill_(0.5)
    ids = {"input_ids": bare.dummy_inputs["input_ids"] % bare.config.vocab_size}
    with method.off():
        assert model(**ids).logits.equal(bare(**ids).logits)
    assert not model(**ids).logits.equal(bare(**ids).logits)


def test_a_real_size_is_counted_without_weights():
    assert real_sizes().base == count(architecture(REAL)).total > 10**9


@pytest.mark.parametrize("method", [FullFineTuning(), BitFit(), Adapter(4)], ids=repr)
def test_a_method_that_changes_the_base_cannot_share_it(method):
    with pytest.raises(ValueError, match="of the model's own parameters, so that its copies cannot share them"):
        figure.draw_stages(method.attach(tiny("gpt2", "language")))


def test_a_model_without_a_method_is_told():
    with pytest.raises(ValueError, match=r"no method is attached to this GPT2LMHeadModel: LoRA\(8\).attach\(model\)"):
        figure.draw_stages(tiny("gpt2", "language"))


# The picture


@pytest.mark.parametrize(
    "attach",
    [
        lambda: LoRA(8).attach(architecture(REAL)),
        lambda: PrefixTuning(20, hidden=0).attach(architecture("gpt3-175b")),
        lambda: LoRA(8).attach(backbone("tiny-gpt2")[0]),
    ],
    ids=["llama", "gpt3", "tiny-gpt2"],
)
def test_the_picture_can_be_read(attach):
    assert figure.WIDTH <= 794 and figure.HEIGHT <= 540  # on a page of 1024 x 768, in one screen of JupyterLab
    texts_are_readable(figure.svg(sizes(attach())), figure.WIDTH, figure.HEIGHT)


def test_no_text_is_longer_than_its_column():
    columns = figure._columns()
    middles = {f"{x:g}" for x in columns.values()}
    inside = [
        each for each in ElementTree.fromstring(figure.svg(ROUND)).iter(f"{NAMESPACE}text") if each.get("x") in middles
    ]
    assert len(inside) >= 8 * len(columns)
    assert max(len(each.text) for each in inside if each.get("font-size") == "11") <= figure._LETTERS


def test_each_stage_names_its_lesson_and_all_is_told_in_words():
    picture, words = figure.svg(ROUND), figure.describe(ROUND)
    shown = " ".join(text for text, _, _ in texts(picture))
    for key in figure.SHOWN:
        stage = STAGES[key]
        for part in (stage.part, stage.name, stage.where, stage.data, stage.signal, stage.amount()):
            assert part in words
        for part in (stage.name, stage.where, stage.amount(), readable(ROUND.everything(stage).total)):
            assert part in shown
        assert readable(ROUND.everything(stage).total) in words
        if key != "text":
            assert readable(ROUND.beside_one_base(stage).total) in shown and stage.saved in words
    for name in ("policy", "reference", "reward", "value"):
        assert name in shown and name in words
    root = ElementTree.fromstring(picture)
    assert root.get("role") == "img" and root.find(f"{NAMESPACE}desc").text == words
    assert root.find(f"{NAMESPACE}title").text in shown


def test_what_is_trained_and_what_is_frozen_is_told_apart():
    """Everything trained: a model or policy in each of five stages, a value; frozen two references and a reward."""
    picture = figure.svg(ROUND)
    orange, hatched = picture.count(figure.style.TRAINED_LINE), picture.count('fill="url(#block-frozen)"')
    everything, beside, legend = (6, 3), (5, 4 + 1), (1, 1)
    assert (orange, hatched) == tuple(map(sum, zip(everything, beside, legend, strict=True)))


def test_a_notebook_gets_the_picture_and_its_words(monkeypatch):
    shown = []
    monkeypatch.setattr(figure, "display", lambda bundle, **rest: shown.append((bundle, rest)))
    figure.draw_stages(LoRA(8).attach(tiny("gpt2", "language")), "A title & more")
    (picture, rest), (words, _) = shown
    assert picture["text/plain"] == rest["metadata"]["image/svg+xml"]["alt"]
    assert "A title &amp; more" in picture["image/svg+xml"] and picture["text/plain"] in words["text/html"]
