"""Figures: their size, their determinism, what the model map says, and what a notebook gets of them."""

import base64
import io

import numpy as np
import pytest
from lab_models import bert_classifier, gpt2
from PIL import Image

from peft_edu import Adapter, BitFit, FullFineTuning, LoRA, PrefixTuning, PromptTuning, TopBlocks, count
from peft_edu.lab import architecture, plots
from peft_edu.lab.figures import display, drawings, model_map, style
from peft_edu.lab.measure.parts import describe, parts

SEEDS = {1: [0.80, 0.82], 2: [0.85, 0.86], 4: [0.88, 0.90]}


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
    "low_rank": lambda: drawings.low_rank(2, 16, 32, "Thin", {1: [0.8, 0.7], 2: [0.9]}, "reviews"),
    "bottleneck": lambda: drawings.bottleneck(2, 16, "In series", {1: [0.8, 0.7], 2: [0.9]}, "reviews"),
    "prefix": lambda: drawings.virtual_tokens(3, 9, 2, "Deep", {"before": [0.1, 0.2], "after": [0.9, 1.0]}, {1: [0.8]}),
    "prompt": lambda: drawings.virtual_tokens(3, 9, 2, "At the input", scores={1: [0.8], 4: [0.9]}, deep=False),
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


def test_the_trailing_mean_is_the_mean_of_the_last_values():
    assert plots.trailing_mean([1.0, 2.0, 3.0, 4.0], 2).tolist() == [1.0, 1.5, 2.5, 3.5]


def test_only_the_style_file_names_a_colour():
    import re
    from pathlib import Path

    for path in Path(style.__file__).parent.glob("*.py"):
        if path.name != "style.py":
            assert not re.search(r"#[0-9a-fA-F]{6}\b|[\"']C\d[\"']", path.read_text(encoding="utf-8")), path.name
