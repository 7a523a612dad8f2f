"""Figures: their size, their determinism, what the model map says, and what a notebook gets of them."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from families import SIZES, tiny
from lab_models import bert_classifier, gpt2
from own_methods import OwnIA3, Scale
from PIL import Image

from peft_edu import Adapter, BitFit, FullFineTuning, LoRA, PrefixTuning, PromptTuning, TopBlocks, count
from peft_edu.anatomy import norms
from peft_edu.lab import architecture, plots, pretraining_figure
from peft_edu.lab.figures import display, drawings, model_map, style
from peft_edu.lab.measure.parts import describe, parts
from peft_edu.method import Method

SEEDS = {1: [0.80, 0.82], 2: [0.85, 0.86], 4: [0.88, 0.90]}


def marked(figure):
    drawings.mark_scores(figure.axes[0], {1: [0.8, 0.7], 2: [0.9]}, 2, "reviews", "rank")
    return figure


FIGURES = {
    "learning_curves": lambda: plots.learning_curves({"LoRA": [3.0, 2.0, 1.0], "full": [3.0, 1.0]}, "It falls"),
    "sweep": lambda: plots.sweep(
        {"LoRA": SEEDS},
        "It rises",
        "rank",
        "accuracy",
        bands={"full": [0.9, 0.92]},
        paper={"WikiSQL": {1: 73.4, 4: 73.7}},
        mark=2,
    ),
    "bars": lambda: plots.bars({"q": [0.8, 0.9], "v": [0.9]}, "v is best", "accuracy", paper={"q": 70.4, "v": 73.0}),
    "trade_off": lambda: plots.trade_off({"LoRA": (0.01, [0.9]), "full": (1.0, [0.92])}, "Nearly", "accuracy"),
    "spectrum": lambda: plots.spectrum({"change": [3.0, 1.0, 0.1]}, "Two of three"),
    "heat_maps": lambda: plots.heat_maps({"a": np.eye(3), "b": np.ones((2, 9))}, "Shared", "r=8", "r=2", "similarity"),
    "low_rank": lambda: marked(drawings.low_rank(2, 16, 32, "Thin")),
    "bottleneck": lambda: marked(drawings.bottleneck(2, 16, "In series")),
    "prefix": lambda: drawings.virtual_tokens(3, 9, 2, "Deep", {"before": [0.1, 0.2], "after": [0.9, 1.0]}),
    "prompt": lambda: drawings.virtual_tokens(3, 9, 2, "At the input", deep=False),
    "frontier": lambda: plots.frontier({"adapters": SEEDS, "top": {8: [0.9]}}, "Fewer", "parameters", "accuracy"),
    "model_map": lambda: model_map.figure(parts(LoRA(rank=2).attach(gpt2())), "Beside"),
}


def test_a_heat_map_writes_nothing_where_there_is_no_number():
    figure = plots.heat_maps({"spans": np.array([[0.9, 0.5], [np.nan, 0.997]])}, "Spans", "to", "from", "share")
    assert [text.get_text() for text in figure.axes[0].texts] == [".90", ".50", "1"]


def test_a_heat_map_names_its_rows_and_columns():
    names = {"rows": ["full", "LoRA"], "columns": ["reviews", "topics"]}
    axes = plots.heat_maps({"": np.eye(2)}, "Equal", "task", "method", "share", **names).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names["rows"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names["columns"]


def test_eight_series_look_different():
    assert len({tuple(style.line_style(i).values()) for i in range(8)}) == 8
    assert len({style.line_style(i)["color"] for i in range(8)}) == 8


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_the_one_size_and_the_same_pixels_each_time(name):
    first, again = style.png(FIGURES[name]()), style.png(FIGURES[name]())
    image = Image.open(io.BytesIO(first))
    assert first == again and image.size == (770, 352) and image.mode == "RGB"
    assert len(set(image.resize((77, 35)).get_flattened_data())) > 5  # something is drawn


def test_all_of_the_model_is_on_the_map():
    for model in (gpt2(), bert_classifier(), architecture("t5-v1.1-small"), architecture("Llama-3.2-1B")):
        found = parts(model)
        drawn = sum(p.numel() for p in model.parameters())
        biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))
        assert drawn - biases <= sum(part.weights for part in found) <= drawn


def test_the_map_shows_lora_beside_the_maps_that_it_changes():
    model = LoRA(rank=2, targets=("query", "value")).attach(gpt2())
    blocks = [part for part in parts(model) if part.kind == "block"]
    beside = {slab.name: slab.beside for slab in blocks[0].slabs}
    assert beside == {"query": 128, "key": 0, "value": 128, "output": 0, "up": 0, "down": 0, "norm": 0}
    assert sum(slab.beside for part in blocks for slab in part.slabs) == count(model).trainable
    assert not any(slab.trained for part in blocks for slab in part.slabs)


@pytest.mark.parametrize(
    "method, words",
    [
        (TopBlocks(1), "embedding: frozen; blocks 1 to 2: frozen; block 3: trained; final: frozen; head: trained."),
        (FullFineTuning(), "embedding: trained; blocks 1 to 3: trained; final: trained; head: trained."),
        (
            BitFit(),
            "embedding: frozen, biases trained; blocks 1 to 3: frozen, biases trained; "
            "final: frozen, biases trained; head: trained.",
        ),
        (
            LoRA(rank=2),
            "embedding: frozen; blocks 1 to 3: frozen, 128 trained parameters beside query, value; "
            "final: frozen; head: trained.",
        ),
        (
            Adapter(4, norms=False),
            "embedding: frozen; blocks 1 to 3: frozen, 296 trained parameters beside output, down; "
            "final: frozen; head: trained.",
        ),
        (
            PrefixTuning(length=5, hidden=0),
            "embedding: frozen; blocks 1 to 3: frozen, 160 trained parameters of virtual tokens for key, value; "
            "final: frozen; head: trained.",
        ),
        (
            PromptTuning(length=5),
            "embedding: prompt trained; blocks 1 to 3: frozen; final: frozen; head: trained.",
        ),
    ],
)
def test_the_map_in_words(method, words):
    assert describe(parts(method.attach(bert_classifier()))) == f"Model map. {words}"


@pytest.mark.parametrize("family", SIZES)
def test_the_numbers_of_the_map_are_the_count_of_the_model(family):
    for method in (LoRA(2), Adapter(4), Adapter(4, "pfeiffer"), BitFit(), TopBlocks(1), PrefixTuning(3, hidden=8)):
        try:
            model = method.attach(tiny(family, "classify"))
        except ValueError:
            continue  # no biases, or attention of its own kind
        slabs = [slab for part in parts(model) for slab in part.slabs]
        beside = sum(slab.beside + slab.biases for slab in slabs)
        assert sum(slab.weights for slab in slabs if slab.trained) + beside == count(model).trainable, method
        assert sum(slab.weights for slab in slabs) + beside == count(model).total, method


@dataclass
class OwnGain(Method):
    def insert(self, model):
        for norm in norms(model):
            self.add(norm, "gain", Scale(model.config.hidden_size))


def test_a_learner_s_own_method_stands_beside_the_maps_that_it_changes():
    model = OwnIA3().attach(bert_classifier())
    words = "blocks 1 to 3: frozen, 64 trained parameters beside key, value, up; final: frozen; head: trained."
    assert describe(parts(model)) == f"Model map. embedding: frozen; {words}"
    fused = OwnIA3(("query", "up")).attach(gpt2())  # GPT-2 keeps query, key and value in one module
    beside = {slab.name: slab.beside for slab in parts(fused)[1].slabs if slab.beside}
    assert beside == {"query": 32, "key": 32, "value": 32, "up": 128}


def test_a_learner_s_module_that_stands_beside_no_map_has_its_own_place():
    model = OwnGain().attach(gpt2())
    found = parts(model)
    gains = [slab for slab in found[1].slabs if slab.trained]
    assert [(slab.name, slab.weights) for slab in gains] == [("gain", 2 * 32)]  # two norms in a block
    assert "norm" in {slab.name for slab in found[1].slabs if not slab.trained}
    coloured = sum(slab.weights for part in found for slab in part.slabs if slab.trained)
    assert coloured == count(model).trainable


def area(found, title="", *roles):
    """Square pixels, by what the colour says."""
    drawn = {}
    for boxes in model_map.figure(found, title).axes[0].collections:
        sides = [path.get_extents() for path in boxes.get_paths()]
        drawn[boxes.get_label()] = sum(side.width * side.height for side in sides)
    return drawn


@pytest.mark.parametrize(
    "method", [LoRA(rank=8), TopBlocks(1), Adapter(16, norms=False), PrefixTuning(20, hidden=0)], ids=repr
)
def test_the_coloured_area_is_the_share_that_is_trained(method):
    model = method.attach(gpt2())
    drawn = area(parts(model))
    coloured = drawn["trained"] + drawn["virtual tokens"] + drawn["trained task head"]
    assert coloured / (coloured + drawn["frozen"]) == pytest.approx(count(model).share, rel=0.05)
    assert drawn["virtual tokens"] == (coloured if isinstance(method, PrefixTuning) else 0)


def test_a_weight_four_times_as_large_is_drawn_four_times_as_high():
    [boxes] = [each for each in model_map.figure(parts(LoRA(8).attach(gpt2())), "").axes[0].collections
               if each.get_label() == "frozen"]  # fmt: skip
    block = [path.get_extents() for path in boxes.get_paths()][2:]  # behind the tables of tokens and positions
    query, up = block[0], block[4]
    assert up.height / query.height == pytest.approx(4, rel=0.03) and up.width == query.width


def test_the_legend_names_what_is_drawn():
    def legend(model):
        return [text.get_text() for text in model_map.figure(parts(model), "").axes[0].texts]

    assert {"frozen", "trained"} < set(legend(LoRA(2).attach(gpt2())))
    assert not {"trained task head", "virtual tokens"} & set(legend(LoRA(2).attach(gpt2())))
    assert "frozen" not in legend(FullFineTuning().attach(gpt2()))
    words = legend(PrefixTuning(3, hidden=0).attach(bert_classifier()))
    assert {"virtual tokens", "trained task head"} < set(words) and "trained" not in words


def test_no_column_of_a_large_model_leaves_the_page():
    for name, method in (("gpt3-175b", LoRA()), ("t5-v1.1-xl", LoRA()), ("deberta-v2-xxlarge", BitFit())):
        found = parts(method.attach(architecture(name)))
        picture = model_map.figure(found, name)
        edges = [path.get_extents().x1 for boxes in picture.axes[0].collections for path in boxes.get_paths()]
        assert max(edges) <= style.WIDTH * style.DPI


def test_show_gives_the_picture_and_its_words(monkeypatch):
    shown = []
    monkeypatch.setattr(display, "display", lambda bundle, **rest: shown.append((bundle, rest)))
    display.show(FIGURES["bars"](), "v is best: 0.90 < 1")
    (picture, rest), (words, _) = shown
    assert picture["text/plain"] == rest["metadata"]["image/png"]["alt"] == "v is best: 0.90 < 1"
    assert base64.b64decode(picture["image/png"])[:4] == b"\x89PNG"
    assert "v is best: 0.90 &lt; 1" in words["text/html"]


@pytest.mark.parametrize("nothing", [None, 5, "x"])
def test_what_is_no_figure_is_not_shown(nothing):
    with pytest.raises(TypeError, match=f"show needs a figure and its text, got {nothing!r}"):
        display.show(nothing, "words")


@pytest.mark.parametrize("title", [5, "$\\frac{$", "a_b^c"])
def test_any_title_is_drawn_as_it_is_written(title):
    figure = plots.bars({"$x$": [1.0]}, title, "$")
    assert style.png(figure) and figure.get_suptitle() == str(title)


def drawn_lines(axes):
    """The points of each series, and the names under the axis."""
    lines = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
    return lines, [label.get_text() for label in axes.get_xticklabels()]


@pytest.mark.parametrize("of", [int, str])
def test_series_with_different_settings_stand_over_their_own(of):
    prefix, prompt = {of(n): [float(n)] for n in (1, 2, 20)}, {of(n): [float(n)] for n in (100, 5, 20)}
    figure = plots.sweep(
        {"prefix": prefix, "prompt": prompt}, "", "", "", paper={"a": {1: 0.5}, "b": {2: 0.5}}, mark=of(5)
    )
    lines, names = drawn_lines(figure.axes[0])
    assert names == ["1", "2", "5", "20", "100"]
    assert lines["prefix"] == [(0, 1), (1, 2), (3, 20)] and lines["prompt"] == [(2, 5), (3, 20), (4, 100)]
    assert [(2, 5)] in lines.values()  # the ring
    theirs, names = drawn_lines(figure.axes[1])
    assert names == ["1", "2"] and sorted(theirs.values()) == [[(0, 0.5)], [(1, 0.5)]]


def test_named_settings_keep_the_order_in_which_they_come():
    settings = {"reviews": {"words": [1.0], "numbers": [2.0]}, "topics": {"numbers": [3.0], "labels": [4.0]}}
    lines, names = drawn_lines(plots.sweep(settings, "", "", "").axes[0])
    assert names == ["words", "numbers", "labels"] and lines["topics"] == [(1, 3), (2, 4)]


def test_the_title_of_a_pretraining_says_what_its_log_says():
    log = pd.DataFrame({"seed": [0, 0, 1], "tokens": [1e6, 4e7, 1e6], "held_out_loss": [5.0, 0.61, 7.0], "gap": 0.5})
    assert pretraining_figure(log).get_suptitle() == "40 million tokens: the loss goes from 5.00 to 0.61 nats"


@pytest.mark.parametrize("log", [None, pd.DataFrame({"seed": [0]})])
def test_a_table_that_is_no_pretraining_log_is_refused(log):
    with pytest.raises(ValueError, match="the log has no column '(seed|tokens)': expected a table as pretraining_log"):
        pretraining_figure(log)


def test_a_learning_curve_is_smooth_over_a_twentieth_of_its_steps():
    losses = [float(step % 2) for step in range(100)]
    assert plots.smoothed(losses).tolist() == plots.trailing_mean(losses, 5).tolist()
    assert plots.smoothed([3.0, 1.0]).tolist() == [3.0, 1.0]


def test_the_trailing_mean_is_the_mean_of_the_last_values():
    assert plots.trailing_mean([1.0, 2.0, 3.0, 4.0], 2).tolist() == [1.0, 1.5, 2.5, 3.5]


def test_only_the_style_file_names_a_colour():
    import re
    from pathlib import Path

    for path in Path(style.__file__).parent.glob("*.py"):
        if path.name != "style.py":
            assert not re.search(r"#[0-9a-fA-F]{6}\b|[\"']C\d[\"']", path.read_text(encoding="utf-8")), path.name


def test_a_method_has_one_colour_and_one_marker_wherever_methods_are_compared():
    names = ["LoRA r=4", "adapter m=16", "full", "Prefix tuning"]
    one, other = style.looks(names), style.looks(names[::-1])
    assert one == other[::-1] and one[0] == {"color": style.TRAINED, "marker": "o"}
    assert style.looks(["P-tuning v2"]) != style.looks(["P-tuning v1"])


def test_series_of_one_method_or_of_none_are_told_apart_by_their_order():
    for names in (["LoRA r=1", "LoRA r=4"], ["LoRA", "bag of words"]):
        assert style.looks(names) == [style.line_style(0), style.line_style(1)]


def test_the_looks_of_the_methods_are_all_different():
    colours, markers = zip(*style.METHODS.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(style.METHODS)


def test_a_paper_s_panel_spans_as_much_as_ours():
    figure = plots.sweep({"LoRA": {1: [60.0], 2: [90.0]}}, "t", "x", "y", paper={"theirs": {1: 73.4, 2: 73.3}})
    spans = {round(high - low, 6) for low, high in (axes.get_ylim() for axes in figure.axes)}
    assert len(spans) == 1


def test_bars_start_at_zero_and_else_are_lines():
    assert len(plots.bars({"a": [60.0]}, "t", "y").axes[0].patches) == 1
    assert not plots.bars({"a": [60.0]}, "t", "y", lowest=50).axes[0].patches


def test_that_a_dot_is_a_seed_is_said_where_there_are_several():
    def said(seeds):
        return [text.get_text() for text in plots.bars({"a": seeds}, "t", "y").axes[0].texts]

    assert "a dot is one seed" in said([1.0, 2.0]) and "a dot is one seed" not in said([1.0])
