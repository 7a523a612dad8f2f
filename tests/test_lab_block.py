"""The picture of a block: what it says is what was attached, and what it draws can be read."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from families import SIZES, batch, tiny
from own_methods import OwnIA3, Scale
from svg_shapes import NAMESPACE, rectangles, texts_are_readable
from torch import nn

from peft_edu import (
    Adapter,
    BitFit,
    FullFineTuning,
    HeadOnly,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
    TopBlocks,
    attached,
    count,
)
from peft_edu.anatomy import attentions, blocks, linear_maps, norms, sublayer_outputs
from peft_edu.attention import ATTENTION
from peft_edu.attention import attention as attend
from peft_edu.lab.figures import block as figure
from peft_edu.lab.figures import style
from peft_edu.lab.figures.block import svg
from peft_edu.lab.measure.block_parts import PARALLEL, SERIES, WAYS, block_parts, describe
from peft_edu.method import Method

ROLES = ("query", "key", "value", "output", "up", "down")
METHODS = {
    "LoRA": (LoRA(8), "in parallel with query and value, rank 8"),
    "LoRA on all": (LoRA(4, targets=ROLES), "in parallel with query, key, value, output, up and down, rank 4"),
    "houlsby": (Adapter(8, norms=False), "in series behind attention and feed-forward, adapter of width 8"),
    "pfeiffer": (Adapter(8, "pfeiffer"), "in series behind feed-forward, adapter of width 8; the norms are trained"),
    "own norm": (Adapter(8, own_norm=True, norms=False), "in series behind attention and feed-forward, adapter of"),
    "prefix": (PrefixTuning(10, hidden=0), "10 virtual tokens more for key and value"),
    "MLP": (PrefixTuning(10, hidden=16), "10 virtual tokens more for key and value, made by a network while they"),
    "prompt": (PromptTuning(20, init="random"), "20 virtual tokens in front of the text"),
    "P-tuning": (PTuning("[P] [P] {a} [P] [MASK] ."), "3 virtual tokens within the text, made by a network while"),
    "P-tuning v2": (PTuningV2(7, layers=(1,)), "7 virtual tokens more for key and value"),
    "BitFit": (BitFit(), "the biases are trained"),
    "top": (TopBlocks(1), "the whole block is trained"),
    "full": (FullFineTuning(), "the whole block is trained"),
    "head": (HeadOnly(), "nothing in this block is trained"),
}


def fresh(method):
    """A recipe may be attached to one model alone."""
    return type(method)(**{name: getattr(method, name) for name in vars(method) if not name.startswith("_")})


def pictures():
    """Every method on BERT, every family with LoRA and one more; T5 with a block of each kind."""
    for name, (method, _) in METHODS.items():
        yield pytest.param("bert", "classify", method, None, id=f"bert-{name}")
    for family in sorted(SIZES.keys() - {"bert"}):
        adapter = Adapter(8) if family != "gpt2" else PrefixTuning(10, hidden=0)
        for method in (LoRA(8), adapter):
            for block in (0, -1) if family.startswith("t5") else (None,):
                yield pytest.param(family, "classify", method, block, id=f"{family}-{type(method).__name__}-{block}")
    for method in (PrefixTuning(120, hidden=0), PromptTuning(20, init="random"), LoRA(16, targets=ROLES)):
        yield pytest.param("t5", "language", method, -1, id=f"t5-{type(method).__name__}-decoder")
    yield pytest.param("llama", "language", LoRA(8, targets=(*ROLES, "gate")), None, id="llama-everywhere")


def attach(family, task, method):
    return fresh(method).attach(tiny(family, task))


def trained(model):
    """Everywhere, by kind: the blocks' parts, and what lies outside."""
    found = [block_parts(model, i) for i in range(len(blocks(model)))]
    return sum((parts.trained() for parts in found), found[0].outside())


@pytest.mark.parametrize("family, task, method, block", list(pictures()))
def test_the_parts_are_what_was_attached(family, task, method, block):
    model = attach(family, task, method)
    whole, found = count(model), trained(model)
    assert sum(found.values()) == whole.trainable and found["head"] == whole.head
    added = sum(p.numel() for child in attached(model).added for p in child.parameters())
    assert sum(found[kind] for kind in WAYS) + found["shared"] == added
    ends = block_parts(model)
    behind = sum(box.size for box in (ends.embedding, ends.final, ends.head)) + ends.shared
    front = sum(each.trained for each in ends.embedding.added)
    assert behind + front + sum(block_parts(model, i).size for i in range(len(blocks(model)))) == whole.total


@pytest.mark.parametrize("name", METHODS)
def test_a_method_in_words(name):
    method, words = METHODS[name]
    parts = block_parts(attach("bert", "classify", method))
    assert f"{type(method).__name__}: {words}" in describe(parts)


@pytest.mark.parametrize(
    "name, kinds",
    [
        ("LoRA", {"in parallel": 4 * 8 * 64, "head": 99}),
        ("houlsby", {"in series": 4 * (2 * 32 * 8 + 40), "head": 99}),
        ("prefix", {"keys and values": 2 * 2 * 10 * 32, "head": 99}),
        ("prompt", {"in front": 20 * 32, "head": 99}),
        ("head", {"head": 99}),
    ],
)
def test_what_is_trained_by_kind(name, kinds):
    assert trained(attach("bert", "classify", METHODS[name][0])) == Counter(kinds)


@pytest.mark.parametrize("family", SIZES)
def test_norms_stand_where_they_are_computed(family):
    """Compared with the order of the calls in a forward pass."""
    model, called = tiny(family, "classify"), []
    query, bottom = linear_maps(model, ("query",))[0].module, blocks(model)[0]
    for module, name in [(query, "query"), *((norm, "norm") for norm in norms(model) if norm in set(bottom.modules()))]:
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model(**batch("classify"))
    assert block_parts(model).sublayers[0].norm_first == (called[0] == "norm")


def test_t5_has_blocks_of_two_kinds():
    model = attach("t5", "language", LoRA(4))
    encoder, decoder = block_parts(model, 0), block_parts(model, 2)
    assert (encoder.kind, encoder.number, encoder.of, encoder.alike) == ("encoder block", 1, 2, 2)
    assert (decoder.kind, decoder.number, decoder.of, decoder.alike) == ("decoder block", 1, 2, 2)
    assert [each.name for each in decoder.sublayers] == ["attention", "cross-attention", "feed-forward"]
    assert block_parts(model, -1).number == 2


@pytest.mark.parametrize("block", [2, -3, "first", True, 0.5])
def test_a_block_that_is_not_there(block):
    with pytest.raises(ValueError, match="has the blocks 0 to 1"):
        block_parts(tiny("bert"), block)


def test_the_block_that_is_drawn_is_one_in_which_something_is_trained():
    assert block_parts(attach("bert", "classify", TopBlocks(1))).number == 2
    assert block_parts(attach("bert", "classify", PTuningV2(5, layers=(1,)))).alike == 1
    assert block_parts(attach("bert", "classify", HeadOnly())).number == 1


# A learner's own methods


class LowRank(nn.Module):
    """B before A, other names, and no forward: the hook computes."""

    def __init__(self, columns, rows, rank=2):
        super().__init__()
        self.up_B = nn.Parameter(torch.zeros(rows, rank))
        self.down_A = nn.Parameter(torch.ones(rank, columns))

    def beside(self, module, inputs, output):
        return output + inputs[0] @ self.down_A.T @ self.up_B.T

    def forgotten(self, module, inputs, output):
        self.beside(module, inputs, output)


@dataclass
class Mine(Method):
    hook_name: str = "beside"

    def insert(self, model):
        for target in linear_maps(model, ("query", "output")):
            change = LowRank(*reversed(target.weight.shape))
            self.add(target.module, "mine", change)
            if self.hook_name:
                self.hook(target.module.register_forward_hook(getattr(change, self.hook_name)))


@dataclass
class TwoChildren(Method):
    """A and B added each alone, with one hook for both."""

    def insert(self, model):
        for target in linear_maps(model, ("value", "up")):
            rows, columns = target.weight.shape
            self.add(target.module, "lora_A", nn.Linear(columns, 3, bias=False))
            self.add(target.module, "lora_B", nn.Linear(3, rows, bias=False))
            self.hook(target.module.register_forward_hook(add_both))


def add_both(module, inputs, output):
    return output + module.lora_B(module.lora_A(*inputs))


@dataclass
class TwoUpdates(Method):
    def insert(self, model):
        for target in linear_maps(model, ("query",)):
            for name in ("first", "second"):
                change = LowRank(*reversed(target.weight.shape))
                self.add(target.module, name, change)
                self.hook(target.module.register_forward_hook(change.beside))


@dataclass
class Gain(Method):
    def insert(self, model):
        for norm in norms(model):
            gain = Scale(model.config.hidden_size)
            self.add(norm, "gain", gain)
            self.hook(norm.register_forward_hook(gain.rescale))


@dataclass
class Around(Method):
    def insert(self, model):
        for block in blocks(model):
            change = LowRank(32, 32)
            self.add(block.mlp, "around", change)
            self.hook(block.mlp.register_forward_hook(change.beside))


@dataclass
class Behind(Method):
    def insert(self, model):
        for place in (place for block in blocks(model) for place in sublayer_outputs(model, block)):
            scale = Scale(32)
            self.add(place, "bottle", scale)
            self.hook(place.register_forward_hook(scale.rescale))


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.keys_values = nn.Parameter(torch.randn(2, 4, 6, 8))

    def forward(self, query, key, value, mask, **options):
        return attend(query, key, value, mask, **options)


@dataclass
class OwnPrefix(Method):
    def insert(self, model):
        self.configure(model.config, "_attn_implementation", ATTENTION)
        for module in attentions(model)[0]:
            self.add(module, "prefix", Deep())


@pytest.mark.parametrize(
    "family, method, words",
    [
        ("bert", Mine(), "Mine: in parallel with query and output, rank 2"),
        ("llama", Mine(), "Mine: in parallel with query and output, rank 2"),
        ("bert", Mine(""), "mine at query and output changes nothing: no hook uses it"),
        ("bert", Mine("forgotten"), "mine at query and output changes nothing: no hook uses it"),
        ("bert", TwoChildren(), "TwoChildren: in parallel with value and up, rank 3"),
        ("bert", TwoUpdates(), "TwoUpdates: in parallel with query, rank 2"),
        ("bert", OwnIA3(), "in series behind key, value and up, scale"),
        ("gpt2", OwnIA3(), "in series behind query, key, value and up, scale"),
        ("bert", Gain(), "in series behind LayerNorm and what lies outside of the blocks, gain"),
        ("llama", Around(), "in parallel with feed-forward, rank 2"),
        ("bert", Behind(), "in series behind attention and feed-forward, bottle"),
        ("llama", Behind(), "in series behind attention and feed-forward, bottle"),
        ("bert", OwnPrefix(), "6 virtual tokens more for key and value"),
    ],
    ids=repr,
)
def test_a_learner_s_own_method_is_drawn(family, method, words):
    model = attach(family, "classify", method)
    parts = block_parts(model)
    assert words in describe(parts)
    assert sum(trained(model).values()) == count(model).trainable
    readable(svg(parts, "Mine"))


def test_lora_and_an_adapter_on_the_same_linear_map_are_told_apart():
    """Llama's output map is both: LoRA's hook follows from its input, the adapter's from its output."""
    lora = block_parts(attach("llama", "classify", LoRA(4, targets=("output",))))
    assert [each.acts for each in lora.sublayers[0].map("output").added] == [PARALLEL]
    adapter = block_parts(attach("llama", "classify", Adapter(4)))
    assert [each.acts for each in adapter.sublayers[0].behind] == [SERIES]
    assert not adapter.sublayers[0].map("output").added


def test_looking_changes_nothing():
    model = attach("bert", "classify", LoRA(4, dropout=0.5)).train()
    modes, state = [each.training for each in model.modules()], torch.get_rng_state()
    svg(block_parts(model))
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in model.parameters())
    assert modes == [each.training for each in model.modules()]


# The picture


def corners(picture):
    """The points of all shapes."""
    for x0, y0, x1, y1 in rectangles(picture):
        yield from ((x0, y0), (x1, y1))
    root = ElementTree.fromstring(picture)
    for each in root.iter(f"{NAMESPACE}polygon"):
        yield from (tuple(map(float, point.split(","))) for point in each.get("points").split())
    for each in root.iter(f"{NAMESPACE}circle"):
        x, y, r = (float(each.get(name)) for name in ("cx", "cy", "r"))
        yield from ((x - r, y - r), (x + r, y + r))


def readable(picture):
    texts_are_readable(picture, figure.WIDTH, figure.HEIGHT)
    for x, y in corners(picture):
        assert 0 <= x <= figure.WIDTH and 0 <= y <= figure.HEIGHT


@pytest.mark.parametrize("family, task, method, block", list(pictures()))
def test_the_picture_can_be_read(family, task, method, block):
    parts = block_parts(attach(family, task, method), block)
    picture = svg(parts, "A title & more")
    root = ElementTree.fromstring(picture)
    assert root.get("role") == "img" and root.find(f"{NAMESPACE}title").text == "A title & more"
    assert root.find(f"{NAMESPACE}desc").text == describe(parts)
    assert picture == svg(parts, "A title & more")
    readable(picture)


def shapes(method):
    """What a picture has more than that of the bare block, by shape."""
    bare = tiny("bert", "classify").requires_grad_(False)
    kinds = [Counter(each.tag for each in ElementTree.fromstring(svg(block_parts(m))).iter())
             for m in (attach("bert", "classify", method), bare)]  # fmt: skip
    return {tag.removeprefix(NAMESPACE) for tag in kinds[0] if kinds[0][tag] > kinds[1][tag]}


def test_each_way_to_act_has_a_shape_of_its_own():
    assert {"polygon", "circle"} <= shapes(LoRA(8))  # two thin boxes, and a sum
    assert "polygon" in shapes(Adapter(8, norms=False)) and "circle" not in shapes(Adapter(8, norms=False))
    assert "circle" not in shapes(PrefixTuning(10, hidden=0)) and "rect" in shapes(PrefixTuning(10, hidden=0))


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    "text, ground",
    [
        (style.INK, style.FROZEN),
        (style.INK, style.FROZEN_LINE),
        (style.INK, style.TRAINED),
        (style.INK, style.PAPER),
        (style.MUTED, style.PAPER),
        (style.PAPER, style.HEAD),
    ],
)
def test_text_stands_out_from_its_ground(text, ground):
    light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_notebook_gets_the_picture_and_its_words(monkeypatch):
    shown = []
    monkeypatch.setattr(figure, "display", lambda bundle, **rest: shown.append((bundle, rest)))
    model = attach("bert", "classify", LoRA(8))
    figure.draw_block(model)
    (picture, rest), (words, _) = shown
    assert picture["text/plain"] == rest["metadata"]["image/svg+xml"]["alt"] == describe(block_parts(model))
    assert str(count(model)) in picture["image/svg+xml"] and picture["text/plain"] in words["text/html"]
