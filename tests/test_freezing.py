import pytest
from families import tiny

from peft_edu import BitFit, FullFineTuning, HeadOnly, TopBlocks, count, trainable


def trained(method, family: str, task: str = "classify") -> set[str]:
    return set(trainable(method.attach(tiny(family, task))))


def names(family: str, *beginnings: str, task: str = "classify") -> set[str]:
    return {name for name, _ in tiny(family, task).named_parameters() if name.startswith(beginnings)}


def test_full_fine_tuning_trains_everything():
    assert trained(FullFineTuning(), "t5") == names("t5", "")


def test_head_only_leaves_berts_pretrained_pooler_frozen():
    assert trained(HeadOnly(), "bert") == {"classifier.weight", "classifier.bias"}
    assert trained(HeadOnly(), "roberta") == names("roberta", "classifier.dense.", "classifier.out_proj.")


def test_head_only_needs_a_head():
    with pytest.raises(ValueError, match=r"HeadOnly\(\) leaves nothing to train: GPT2LMHeadModel has no task head"):
        HeadOnly().attach(tiny("gpt2"))


def test_top_blocks_are_the_last_ones():
    assert trained(TopBlocks(1), "bert") == names("bert", "bert.encoder.layer.1.", "classifier.")
    assert trained(TopBlocks(2), "gpt2", "language") == names("gpt2", "transformer.h.", task="language")
    assert trained(TopBlocks(3), "t5", "language") == names("t5", "encoder.block.1.", "decoder.block.", task="language")


def test_no_top_block_is_the_head_alone():
    assert trained(TopBlocks(0), "llama") == trained(HeadOnly(), "llama")


@pytest.mark.parametrize("n", [-1, 1.5, "1", True])
def test_n_is_a_whole_number(n):
    with pytest.raises(ValueError, match=f"n is {n!r}, but must be a whole number from 0 on"):
        TopBlocks(n)


def test_there_are_so_many_blocks():
    with pytest.raises(ValueError, match="n is 3, but BertForSequenceClassification has 2 blocks"):
        TopBlocks(3).attach(tiny("bert", "classify"))


def test_bitfit_trains_the_biases_and_the_head():
    expected = {name for name in names("bert", "bert.") if name.endswith("bias")} | names("bert", "classifier.")
    assert trained(BitFit(), "bert") == expected
    d, inner = 32, 64
    norms, block = d, 4 * d + inner + d + 2 * d
    result = count(BitFit().attach(tiny("roberta", "classify")))
    assert result.trainable - result.head == norms + 2 * block


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_bitfit_needs_biases(family):
    with pytest.raises(ValueError, match="BitFit trains biases, but .* has none outside its head"):
        BitFit().attach(tiny(family, "classify"))
