"""Lesson 01: what is trained, how many parameters that are, and which share; and freezing by hand."""

from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from peft_edu.lab.exercises.check import Misconception, exercise, expect_number


def trained_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@exercise(
    "freezing.count",
    reference=trained_parameters,
    hints=(
        "Every parameter knows whether it is trained.",
        "`model.parameters()` gives a shared one once.",
        "`p.numel()` is the number of its entries.",
    ),
)
def _freezing_count(f) -> None:
    """f(model) -> the number of trained parameters of a PyTorch module"""
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "block": nn.Linear(4, 4), "head": nn.Linear(4, 7, bias=False)})
    model["head"].weight = model["embed"].weight
    model["block"].weight.requires_grad_(False)
    wrong = {
        48: "this counts the frozen ones as well: look at requires_grad",
        16: "these are the frozen ones",
        60: "head and embedding share one matrix here, and it is counted twice: model.parameters() gives it once",
        76: "head and embedding share one matrix here, and it is counted twice, and the frozen ones with it",
        2: "this counts tensors: each holds p.numel() parameters",
        3: "this counts tensors, the frozen ones as well: each holds p.numel() parameters",
    }
    expect_number(f(model), 32, wrong)


def trained_share(model):
    return trained_parameters(model) / sum(p.numel() for p in model.parameters())


@exercise(
    "freezing.share",
    reference=trained_share,
    beside=(trained_parameters,),
    hints=(
        "The parameters that are trained, divided by all parameters.",
        "All of them: `sum(p.numel() for p in model.parameters())`.",
    ),
)
def _freezing_share(f) -> None:
    """f(model) -> the share of a model's parameters that is trained, between 0 and 1"""
    model = nn.ModuleDict({"embed": nn.Embedding(8, 4), "block": nn.Linear(4, 3), "head": nn.Linear(4, 8, bias=False)})
    model["head"].weight = model["embed"].weight
    model["embed"].weight.requires_grad_(False)
    wrong = {
        15: "this is the number of trained parameters: divide it by that of all parameters",
        15 / 32: "trained is divided by frozen: it is divided by all parameters",
        32 / 47: "this is the frozen share",
        100 * 15 / 47: "this is in per cent: a share lies between 0 and 1",
        15 / 79: "embedding and head share one matrix here, and it is counted twice: model.parameters() gives it once",
        2 / 3: "this counts tensors: each holds p.numel() parameters",
        5.0: "this is divided by the number of tensors: each holds p.numel() parameters",
    }
    result = f(model)
    near = [value for value in (15 / 47, *wrong) if isinstance(result, float) and abs(result - value) < 1e-9]
    expect_number(near[0] if near else result, 15 / 47, wrong, f"of 47 parameters 15 are trained here, got {result}")


def top_blocks(model, n):
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    blocks = model.bert.encoder.layer
    for block in blocks[len(blocks) - n :]:
        block.requires_grad_(True)


@exercise(
    "freezing.top_blocks",
    reference=top_blocks,
    hints=(
        "Freeze everything first.",
        "The blocks are `model.bert.encoder.layer`; in Python `blocks[-0:]` is all of them.",
        "The last n of L blocks are `blocks[L - n:]`.",
    ),
)
def _freezing_top_blocks(f) -> None:
    """f(model, n) freezes a BertForSequenceClassification, but for its last n blocks and its classifier"""
    for n in (2, 0, 3):
        model = _small_bert()
        f(model, n)
        trained = [any(p.requires_grad for p in block.parameters()) for block in model.bert.encoder.layer]
        classifier = all(p.requires_grad for p in model.classifier.parameters())
        right = classifier and trained == [i >= 3 - n for i in range(3)]
        if not right and any("requires_grad" in vars(module) for module in model.modules()):
            raise Misconception("module.requires_grad = ... does nothing: set it for each p in module.parameters()")
        if all(p.requires_grad for p in model.parameters()):
            raise Misconception("nothing is frozen: set requires_grad to False for all first, then to True for some")
        if not classifier:
            raise Misconception("the classifier is frozen, or a part of it, and it starts from random numbers")
        if n == 0 and all(trained):
            raise Misconception("n = 0 trains every block: in Python blocks[-0:] is the whole list")
        if n == 2 and trained == [True, True, False]:
            raise Misconception("these are the first n blocks, at the bottom: the top ones are at the end of the list")
        if not right:
            raise Misconception(f"of 3 blocks, n = {n} trained {_numbers(trained)} (counted from 1)")
        if any(p.requires_grad for p in model.bert.embeddings.parameters()):
            raise Misconception("the embeddings are trained: they lie below the first block")
        if any(p.requires_grad for p in model.bert.pooler.parameters()):
            raise Misconception("the pooler is trained: it comes pretrained, and only the classifier is new")
        partly = [p for block in model.bert.encoder.layer[3 - n :] for p in block.parameters() if not p.requires_grad]
        if partly:
            raise Misconception("a top block is trained in part only: all of its parameters are")


def _small_bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8)
    )


def _numbers(trained: list[bool]) -> str:
    return "block " + ", ".join(str(i) for i, on in enumerate(trained, start=1) if on) if any(trained) else "none"
