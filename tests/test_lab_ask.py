"""Ask it yourself: the picture holds what the model gives, what is off is seen by nobody, and no model is changed."""

from copy import deepcopy
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from families import tiny
from lab_models import random_model, word_tokenizer
from torch import nn
from torch.nn.functional import pad

from peft_edu import PrefixTuning, PromptTuning, PTuning, PTuningV2, attached
from peft_edu.anatomy import attentions
from peft_edu.attention import ATTENTION, attention
from peft_edu.lab import backbone
from peft_edu.lab.figures import ask as figures
from peft_edu.lab.figures import display
from peft_edu.lab.measure.ask import ask
from peft_edu.lab.measure.attention import prefix_mass
from peft_edu.lab.widgets.ask import AskCard, moved
from peft_edu.method import Method

TEXT, GAP, WORDS = "the food was very good", "the food was [MASK] .", word_tokenizer()
AROUND = "[P] the [P] {who} was [MASK] [P]"


def ids(text):
    return WORDS(text)["input_ids"]


def shares(reply):
    return list(reply.answers.values())


def logits(model, text, **more):
    with torch.no_grad():
        return model(torch.tensor([text]), **more).logits[0]


def ptuned(n=3):
    torch.manual_seed(1)
    return PTuning(" ".join(["[P]"] * n), encoder="none").attach(random_model("bert").eval())


class MyPrefix(nn.Module):
    """As a learner writes it, under a name of their own."""

    def __init__(self, start):
        super().__init__()
        self.mine = nn.Parameter(start)

    def forward(self, query, key, value, mask, **options):
        mine = self.mine[:, None].expand(-1, len(query), -1, -1, -1)
        key, value = torch.cat([mine[0], key], 2), torch.cat([mine[1], value], 2)
        return attention(query, key, value, pad(mask, (mine.shape[3], 0)), **options)


@dataclass
class MyPrefixTuning(Method):
    def insert(self, model):
        self.configure(model.config, "_attn_implementation", ATTENTION)
        for module in attentions(model)[0]:
            self.add(module, "prefix", MyPrefix(torch.randn(2, 2, 4, 8)))


def attach(kind, method):
    torch.manual_seed(1)
    return method.attach(random_model(kind).eval())


@pytest.mark.parametrize(
    ("kind", "text", "row"), [("bert", GAP, 3), ("gpt2", TEXT, -1)], ids=["fills a gap", "writes on"]
)
def test_the_likeliest_answers_are_the_model_s(kind, text, row):
    model = random_model(kind).eval()
    reply, given = ask(model, WORDS, ids(text)), logits(model, ids(text))[row].softmax(-1)
    best = given.topk(5)
    assert shares(reply) == pytest.approx(best.values.tolist(), rel=1e-4)
    assert reply.answer == WORDS.decode([best.indices[0]]) and reply.front == 0
    assert (reply.written == "") == (kind == "bert")


def test_an_encoder_decoder_answers_with_its_first_words():
    model = random_model("t5").eval()
    reply = ask(model, WORDS, ids(TEXT))
    given = logits(model, ids(TEXT), decoder_input_ids=torch.tensor([[0]]))[0].softmax(-1)
    assert shares(reply) == pytest.approx(given.topk(5).values.tolist(), rel=1e-4)
    with torch.no_grad():
        whole = model.generate(torch.tensor([ids(TEXT)]), max_new_tokens=4, do_sample=False)
    assert reply.written == WORDS.decode(whole[0], skip_special_tokens=True).strip()


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "llama"])
def test_a_classifier_answers_with_its_labels(family):
    model = tiny(family, "classify")
    text = [5, 6, 7, 8, 1]
    given = logits(model, text).softmax(-1).tolist()
    reply = ask(model, WORDS, text)
    assert list(reply.answers) == ["LABEL_0", "LABEL_1", "LABEL_2"] and shares(reply) == pytest.approx(given, rel=1e-4)
    assert reply.answer == f"LABEL_{given.index(max(given))}"


def test_a_tagger_answers_at_the_asked_word():
    model = tiny("bert", "tag")
    given = logits(model, [5, 6, 7]).softmax(-1)
    for place, row in ((None, 1), (2, 2)):
        assert shares(ask(model, WORDS, [5, 6, 7], place)) == pytest.approx(given[row].tolist(), rel=1e-4)


@pytest.mark.parametrize(("family", "place"), [("bert", 3), ("gpt2", 1), ("gpt2", None), ("llama", 2)])
def test_the_attention_is_the_model_s(family, place):
    model, text = tiny(family), [5, 6, 7, 8, 9]  # 5 is the mask
    with torch.no_grad():
        layers = model(torch.tensor([text]), output_attentions=True).attentions
    wanted = [layer[0].mean(0)[-1 if place is None else place].tolist() for layer in layers]
    assert ask(model, WORDS, text, place).attention == pytest.approx(np.array(wanted), abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: attach("gpt2", PrefixTuning(4, hidden=0)),
        lambda: attach("gpt2", MyPrefixTuning()),
        lambda: attach("bert", PTuningV2(4)),
        lambda: attach("gpt2", PromptTuning(4, init="random")),
        lambda: attach("t5", PromptTuning(4, init="random")),
        lambda: attach("t5", PrefixTuning(4, hidden=0)),
    ],
    ids=["prefix", "a learner's", "v2", "prompt", "T5, prompt", "T5, prefix"],
)
def test_what_is_off_has_no_attention_and_the_rest_all_of_it(make):
    model = make()
    text = ids(GAP)
    on, off = ask(model, WORDS, text), ask(model, WORDS, text, off=(1, 3))
    assert on.front == off.front == 4 and (on.attention[:, :4] > 0).all()
    assert not off.attention[:, [1, 3]].any() and (off.attention[:, [0, 2]] > 0).all()
    assert off.attention.sum(1) == pytest.approx(np.ones(2)) and on.answers != off.answers


def test_the_shares_of_a_prefix_are_those_that_prefix_mass_measures():
    model, text = attach("gpt2", PrefixTuning(4, hidden=0)), ids(TEXT)
    paid = [ask(model, WORDS, text, place).attention[:, :4].sum(1) for place in range(len(text))]
    batch = {"input_ids": torch.tensor([text]), "attention_mask": torch.ones(1, len(text))}
    assert np.mean(paid, 0) == pytest.approx(prefix_mass(model, batch), rel=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_prefix_that_is_off_is_no_prefix(kind):
    model = attach(kind, PrefixTuning(4, hidden=0, shift=False))
    reply, bare = ask(model, WORDS, ids(TEXT), off=range(4)), ask(random_model(kind).eval(), WORDS, ids(TEXT))
    assert reply.answers == pytest.approx(bare.answers, rel=1e-4) and reply.written == bare.written


def test_a_prompt_that_is_off_is_no_prompt():
    model = attach("t5", PromptTuning(4, init="random"))  # relative positions: the text stands as without a prompt
    reply, bare = ask(model, WORDS, ids(TEXT), off=range(4)), ask(random_model("t5").eval(), WORDS, ids(TEXT))
    assert reply.answers == pytest.approx(bare.answers, rel=1e-4) and reply.written == bare.written
    model = attach("gpt2", PromptTuning(4, init="random"))
    later = torch.arange(4, 4 + len(ids(TEXT)))[None]
    given = logits(random_model("gpt2").eval(), ids(TEXT), position_ids=later)[-1].softmax(-1).topk(5)
    assert shares(ask(model, WORDS, ids(TEXT), off=range(4))) == pytest.approx(given.values.tolist(), rel=1e-4)


def test_a_pseudo_token_that_is_off_is_masked():
    model, text = ptuned(), [-1, *ids(GAP), -2, -3]
    mask = torch.ones(1, len(text), dtype=torch.long)
    mask[0, -2] = 0
    given = logits(model, text, attention_mask=mask)[4].softmax(-1).topk(5)
    reply = ask(model, WORDS, text, off=(1,))
    assert shares(reply) == pytest.approx(given.values.tolist(), rel=1e-4)
    assert not reply.attention[:, -2].any() and (reply.attention[:, [0, -1]] > 0).all()


def test_a_model_without_a_method_reads_the_text_without_pseudo_tokens():
    bare, text = random_model("bert").eval(), [-1, *ids(GAP), -2]
    reply = ask(bare, WORDS, text)
    assert reply.answers == ask(bare, WORDS, ids(GAP)).answers
    assert np.isnan(reply.attention[:, [0, -1]]).all() and not np.isnan(reply.attention[:, 1:-1]).any()
    assert np.isnan(ask(bare, WORDS, text, place=0).attention).all()


def test_layers_without_a_prefix_have_none():
    reply = ask(attach("bert", PTuningV2(4, layers=(1,))), WORDS, ids(GAP))
    assert np.isnan(reply.attention[0, :4]).all() and (reply.attention[1, :4] > 0).all()


def traces(model):
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]
    modes = [module.training for module in model.modules()]
    return hooks, modes, model.config._attn_implementation, {n: w.clone() for n, w in model.state_dict().items()}


@pytest.mark.parametrize(
    "method",
    [PrefixTuning(4, hidden=0), PromptTuning(4, init="random"), MyPrefixTuning()],
    ids=["prefix", "prompt", "own"],
)
def test_the_models_stay_as_they_are(method):
    model = attach("gpt2", deepcopy(method)).train()
    hooks, modes, how, weights = traces(model)
    card = AskCard({"before": random_model("gpt2"), "after": model}, WORDS, TEXT)
    state = torch.get_rng_state()
    card.controls["virtual 2"].value = False
    card.controls["text"].value = "a " * 70  # too long
    assert "ValueError" in card.result.value and 'role="alert"' in card.result.value
    now = traces(model)
    assert (hooks, modes, how) == now[:3] and all(torch.equal(weights[name], each) for name, each in now[3].items())
    assert torch.equal(state, torch.get_rng_state()) and attached(model) is not None


def test_the_card_follows_its_text_and_its_switches():
    model = attach("gpt2", PrefixTuning(3, hidden=0))
    card = AskCard({"before": random_model("gpt2").eval(), "after": model}, WORDS, TEXT)
    pictures = {card.image.value}
    assert card.virtual == 3 and "from the first layer" in str(card)
    for change in ({"text": "a pub"}, {"virtual 2": False}, {"word": 1}):
        for name, value in change.items():
            card.controls[name].value = value
        pictures.add(card.image.value)
    assert len(pictures) == 4
    assert (
        card.controls["virtual 2"].description == "2 off" and "virtual token 2, to which nothing" in card.result.value
    )
    asked = card.measure(card.state())
    assert [column.text for column in asked.columns] == ["1", "2", "3", "a", "pub"] and asked.about == "'pub'"
    assert not asked.replies["after"].attention[:, 1].any() and np.isnan(asked.replies["before"].attention[:, :3]).all()
    for name, reply in asked.replies.items():
        assert ", ".join(f"{answer} {share:.2f}" for answer, share in reply.answers.items()) in str(card), name
    card.controls["text"].value = "a"
    assert card.controls["word"].value == -1 and len(card.controls["word"].options) == 2


def test_a_start_token_is_told_or_left_out():
    model, tokenizer = backbone("tiny-gpt2")
    card, bare = (AskCard(model, tokenizer, "The tea was fine.", start_token=each) for each in (True, False))
    first, *rest = [column.text for column in card.measure(card.state()).columns]
    assert first == "<|endoftext|>" and rest == [column.text for column in bare.measure(bare.state()).columns]
    assert "puts &lt;|endoftext|&gt; in front of your text" in card.result.value and "in front" not in bare.result.value
    assert "puts <|endoftext|> in front" in str(card)


def press(card, name):
    (button,) = [each for each in card.view.children[2].children if getattr(each, "description", "") == name]
    button.click()


def test_all_virtual_tokens_are_switched_at_once():
    card = AskCard(attach("gpt2", PromptTuning(3, init="random")), WORDS, TEXT)
    drawn = []
    card.draw, real = lambda asked: drawn.append(asked.off) or real(asked), card.draw
    press(card, "all off")
    assert drawn == [(0, 1, 2)] and not card.measure(card.state()).replies[""].attention[:, :3].any()
    press(card, "all on")
    assert card.state()[3] == () and "Switched off" not in card.result.value


def test_a_pseudo_token_moves_among_the_words():
    card = AskCard({"before": random_model("bert").eval(), "after": ptuned()}, WORDS, "food", AROUND)
    before = card.image.value
    assert card.virtual == 3
    card.moved.value = 2
    press(card, "right →")
    assert card.controls["template"].value == "[P] the {who} [P] was [MASK] [P]" and card.image.value != before
    press(card, "← left")
    assert card.image.value == before
    card.controls["template"].value += " [P]"
    assert "the text has the pseudo token -4, the template 3" in card.result.value
    card.controls["template"].value = "[P] {who}"
    assert "write [MASK] where the answer is to stand" in card.result.value


@pytest.mark.parametrize(
    ("text", "number", "step", "wanted"),
    [
        ("[P] a [P][P] b", 1, 1, "a [P] [P] [P] b"),
        ("[P] a [P] [P] b", 2, 1, "[P] a [P] b [P]"),
        ("[P] a [P] [P] b", 3, -1, "[P] [P] a [P] b"),
        ("[P] a", 1, -1, "[P] a"),
        ("a [P]", 1, 1, "a [P]"),
    ],
)
def test_moving_passes_one_word(text, number, step, wanted):
    assert moved(text, number, step) == wanted


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"text": " "}, "type a text for the model"),
        ({"template": "the {who was [MASK]"}, "has a brace"),
        ({"template": "{who} [MASK] [MASK]"}, "there is one answer"),
    ],
)
def test_what_cannot_be_asked_is_told_in_the_card(typed, message):
    card = AskCard(random_model("bert").eval(), WORDS, "food", "the {who} [MASK]")
    for name, value in typed.items():
        card.controls[name].value = value
    assert message in card.result.value and 'role="alert"' in card.result.value
    card.controls["text"].value, card.controls["template"].value = "pub", "{who} was [MASK]"
    assert "The likeliest answer is" in card.result.value


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((5, WORDS, TEXT), TypeError, "models are"),
        (({}, WORDS, TEXT), TypeError, "models are"),
        ((random_model("gpt2"), 5, TEXT), TypeError, "tokenizer is a int"),
        ((random_model("gpt2"), WORDS, ""), TypeError, "but must be a text to begin with"),
        ((random_model("gpt2"), WORDS, TEXT, "no field"), ValueError, "must have a field for the text"),
        ((random_model("bert"), WORDS, TEXT), ValueError, r"write \[MASK\] where the answer is to stand"),
        ((random_model("bert"), WORDS, f"[P] {GAP}"), None, ""),  # without a method it is read without [P]
        ((attach("bert", PTuningV2(2)), WORDS, f"[P] {GAP}"), ValueError, r"knows no \[P\]"),
    ],
)
def test_a_card_is_given_what_it_needs(given, error, message):
    if error is None:
        assert AskCard(*given)
    else:
        with pytest.raises(error, match=message):
            AskCard(*given)


@pytest.mark.parametrize(("models", "front", "words"), [(1, 0, 3), (2, 20, 40), (2, 3, 8)])
def test_the_picture_holds_each_number(models, front, words):
    answers = {f"a very long answer {i}": 0.2 for i in range(5)}
    shares = np.random.default_rng(0).random((4, front + words))
    shares[0, 0] = np.nan
    replies = {f"model <{i}>": figures.Reply(answers, "", shares, front) for i in range(models)}
    columns = [figures.Column(f"token {i}", virtual=i < front, off=i == 1) for i in range(front + words)]
    high = figures.height(models, 4, 5)
    root = ElementTree.fromstring(figures.svg(replies, columns, "The finding", "In words", "a word", high))
    tips = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")][1:]
    assert len(tips) == models * (shares.size - 1) and f"layer 2, token 0: {shares[1, 0]:.2f}" in tips
    assert high < 480 and float(root.get("height")) == pytest.approx(high)
    ends = [float(y) for each in root.iter() if (y := each.get("y"))]
    assert max(ends) < high


def test_where_no_widget_lives_the_picture_stands_in_its_place(monkeypatch):
    bundles = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: bundles.append(bundle))
    card = AskCard(random_model("gpt2"), WORDS, TEXT)
    card._ipython_display_()
    assert bundles[-1]["text/plain"] == str(card) and bundles[-1]["image/svg+xml"] == card.image.value
