"""The papers' models have the papers' sizes, and cost neither memory nor time."""

import time

import pytest

from peft_edu.lab.models.architectures import architecture, architectures

PUBLISHED = {  # parameters as the model cards and papers give them, in full or rounded
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Qwen2.5-3B": 3_085_938_688,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
    "t5-v1.1-large": 783_150_080,
    "t5-v1.1-xl": 2_849_757_184,
    "t5-v1.1-xxl": 11_135_332_352,
}
ROUNDED = {
    "gpt3-175b": 175e9,
    "deberta-v2-xxlarge": 1.5e9,
    "roberta-base": 125e6,
    "roberta-large": 355e6,
    "bert-base": 110e6,
    "bert-base-cased": 108e6,
    "bert-large": 336e6,
}


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", architectures())
def test_sizes_are_the_published_ones(name):
    start = time.process_time()  # not the clock on the wall: other tests may run beside this one
    model = architecture(name)
    assert time.process_time() - start < 3
    assert {p.device.type for p in model.parameters()} == {"meta"}
    if name in PUBLISHED:
        assert size(model) == PUBLISHED[name]
    else:
        assert size(model) == pytest.approx(ROUNDED[name], rel=0.05)


def test_a_classifier_on_request():
    assert architecture("bert-base", labels=3).classifier.out_features == 3


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no architecture 'gpt5'; there are: bert-base, .*t5-v1.1-xxl"):
        architecture("gpt5")


@pytest.mark.parametrize("labels", [0, -1, "x", 1.5, True, 10**7])
def test_labels_are_a_number_of_them(labels):
    with pytest.raises(ValueError, match="labels is .* but must be "):
        architecture("bert-base", labels)
