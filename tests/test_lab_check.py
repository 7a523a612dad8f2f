"""Each exercise's solution passes, and each planted misconception is told by its name."""

import json
import re
import sys
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from peft_edu import TopBlocks, count
from peft_edu.lab import check
from peft_edu.lab.exercises.check import EXERCISES, checked, hint


def top_blocks(model, n):
    TopBlocks(n).attach(model)


def set_grad(model, *parts):
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


def mark(model, modules, parts):
    """Train the parts, and set what is no switch of theirs on the modules."""
    set_grad(model, *parts)
    for module in modules:
        module.requires_grad = True


def attend(q, k, v, prefix_k, prefix_v, scale=0.5):
    return torch.softmax(scale * q @ torch.cat([prefix_k, k]).T, -1) @ torch.cat([prefix_v, v])


def alone(q, k, v):
    return attend(q, k, v, k[:0], v[:0])


def align(word_ids, tags, special=-100):
    starts = [word is not None and word != before for word, before in zip(word_ids, [None, *word_ids], strict=False)]
    return [
        special if word is None else tags[word] if first else -100 for word, first in zip(word_ids, starts, strict=True)
    ]


def f1(given, right):
    return 2 * len(given & right) / (len(given) + len(right))


def best_of(points, beats=lambda a, b: a != b and a[0] <= b[0] and a[1] >= b[1]):
    """The names of the points (size, score) that no other beats."""
    return {name for name, one in points.items() if not any(beats(other, one) for other in points.values())}


def in_front(embeddings, prompt):
    return torch.cat([prompt.expand(len(embeddings), -1, -1), embeddings], 1)


SOLUTIONS = {
    "lora.forward": lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) * (x @ A.T @ B.T),
    "lora.init": lambda out, width, rank: (torch.randn(rank, width), torch.zeros(out, rank)),
    "lora.count": lambda width, out, rank: rank * (width + out),
    "lora.merge": lambda W, A, B, alpha: W + alpha / len(A) * B @ A,
    "freezing.count": lambda model: sum(p.numel() for p in model.parameters() if p.requires_grad),
    "freezing.top_blocks": top_blocks,
    "adapter.count": lambda width, size: 2 * width * size + width + size,
    "prefix.attention": attend,
    "prefix.count": lambda layers, width, length: 2 * length * layers * width,
    "prefix.mask": lambda mask, length: pad(mask, (length, 0), value=1),
    "prompt.inputs": in_front,
    "prompt.labels": lambda labels, length: pad(labels, (length, 0), value=-100),
    "p_tuning_v2.align": align,
    "p_tuning_v2.f1": f1,
    "choosing.pareto": best_of,
    "choosing.rank": lambda width, blocks, budget: budget // (4 * width * blocks),
}

MISTAKES = [
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + x @ A.T @ B.T, "alpha / r is left out"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + alpha * (x @ A.T @ B.T), "by alpha, not by alpha / r"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + len(A) / alpha * (x @ A.T @ B.T), "upside down"),
    ("lora.forward", lambda x, W, A, B, alpha: alpha / len(A) * (x @ A.T @ B.T), "W x is missing"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T, "A and B do nothing"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + alpha // len(A) * (x @ A.T @ B.T), "rounded down by //"),
    ("lora.merge", lambda W, A, B, alpha: W + alpha // len(A) * B @ A, "rounded down by //"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + alpha / len(B) * (x @ A.T @ B.T), r"divided by len\(B\)"),
    ("lora.merge", lambda W, A, B, alpha: W + alpha / B.shape[0] * B @ A, r"divided by len\(B\)"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + alpha / A.shape[1] * (x @ A.T @ B.T), "width of the input"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) ** 0.5 * (x @ A.T @ B.T), "scale of rsLoRA"),
    ("lora.merge", lambda W, A, B, alpha: W + alpha / len(A) ** 0.5 * B @ A, "scale of rsLoRA"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) * (x @ B.T @ A.T), "A and B are exchanged"),
    ("lora.merge", lambda W, A, B, alpha: W + alpha / len(A) * A @ B, "A and B are exchanged"),
    ("lora.forward", lambda x, W, A, B, alpha: 1 / 0, "your code stopped in .*, line .* with ZeroDivisionError"),
    ("lora.forward", lambda x, W, A, B, alpha: sys.exit("bye"), "with SystemExit: bye"),
    ("lora.init", lambda out, into, rank: ([[0.0] * into] * rank, [[0.0] * rank] * out), "two tensors, got list and"),
    ("lora.count", lambda into, out, rank: [32], "expected a number, got list"),
    ("lora.forward", lambda x, W, A, B, alpha: alpha / len(A) * x @ (W + B @ A).T, "W is scaled as well"),
    (
        "lora.forward",
        lambda x, W, A, B, alpha: (W @ x.T) + 2.5 * (B @ A @ x.T),
        r"transposed: \(3, 4\) instead of \(4, 3\)",
    ),
    ("lora.forward", lambda x, W, A, B, alpha: (W @ x.t() + alpha / len(A) * B @ A @ x.t()).T, "not for a batch"),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.T + 4 * x @ B @ A, "stopped .*RuntimeError.* x .t, in."),
    ("lora.forward", lambda x, W, A, B, alpha: x @ W.add_(2.5 * B @ A).T, "changed in place"),
    ("lora.forward", lambda x, W, A, B, alpha: print(end=""), "is there a return"),
    ("lora.forward", lambda x, W, A, B, alpha: 2 * x @ W.T, r"the numbers are not those; at \[0, 0\]"),
    ("lora.init", lambda out, width, rank: (torch.zeros(rank, width), torch.zeros(out, rank)), "both zero"),
    ("lora.init", lambda out, width, rank: (torch.randn(rank, width), torch.randn(out, rank)), "B is not zero"),
    ("lora.init", lambda out, width, rank: (torch.zeros(rank, width), torch.randn(out, rank)), "B that is zero"),
    ("lora.init", lambda out, width, rank: (torch.ones(rank, width), torch.zeros(out, rank)), "rows of A are alike"),
    ("lora.init", lambda out, width, rank: (torch.zeros(out, rank), torch.randn(rank, width)), "exchanged"),
    ("lora.init", lambda out, width, rank: (torch.randn(width, rank), torch.zeros(out, rank)), "A is .rank, in."),
    ("lora.init", lambda out, width, rank: torch.zeros(3), "expected the pair"),
    ("lora.count", lambda width, out, rank: width * out, "size of W"),
    ("lora.count", lambda width, out, rank: 2 * rank * width, "counts A twice"),
    ("lora.count", lambda width, out, rank: width + out, "the rank is left out"),
    ("lora.count", lambda width, out, rank: rank * (width + out) + width * out, "frozen W is counted"),
    ("lora.count", lambda width, out, rank: 32, "not for 7 -> 7"),
    ("lora.count", lambda width, out, rank: 5, "from 6 to 10 at rank 2 it is 32, yours gives 5"),
    ("lora.merge", lambda W, A, B, alpha: W + B @ A, "alpha / r is left out"),
    ("lora.merge", lambda W, A, B, alpha: (W + 2.5 * B @ A).T, "transposed"),
    ("lora.merge", lambda W, A, B, alpha: W.add_(2.5 * B @ A), "changed in place"),
    ("lora.merge", lambda W, A, B, alpha: W - alpha / len(A) * B @ A, "how to unmerge"),
    ("freezing.count", lambda model: sum(p.numel() for p in model.parameters()), "counts the frozen ones"),
    ("freezing.count", lambda model: len([p for p in model.parameters() if p.requires_grad]), "counts tensors"),
    (
        "freezing.count",
        lambda m: sum(p.numel() for p in m.state_dict(keep_vars=True).values() if p.requires_grad),
        "twice",
    ),
    ("freezing.top_blocks", lambda m, n: m.eval(), "nothing is frozen"),
    ("freezing.top_blocks", lambda m, n: set_grad(m, *m.bert.encoder.layer[3 - n :]), "classifier is frozen"),
    ("freezing.top_blocks", lambda m, n: mark(m, [m.classifier], m.bert.encoder.layer[3 - n :]), "does nothing"),
    ("freezing.top_blocks", lambda m, n: mark(m, m.bert.encoder.layer[3 - n :], [m.classifier]), "does nothing"),
    ("freezing.top_blocks", lambda m, n: setattr(m, "requires_grad", False), "does nothing"),
    ("freezing.top_blocks", lambda m, n: set_grad(m, m.classifier, *m.bert.encoder.layer[:n]), "first n blocks"),
    ("freezing.top_blocks", lambda m, n: set_grad(m, m.classifier, *m.bert.encoder.layer[-n:]), "blocks.-0:."),
    ("freezing.top_blocks", lambda m, n: set_grad(m, m.classifier, *m.bert.encoder.layer[2 - n :]), "trained block"),
    (
        "freezing.top_blocks",
        lambda m, n: set_grad(m, m.classifier, m.bert.embeddings, *m.bert.encoder.layer[3 - n :]),
        "embeddings are trained",
    ),
    (
        "freezing.top_blocks",
        lambda m, n: set_grad(m, m.classifier, m.bert.pooler, *m.bert.encoder.layer[3 - n :]),
        "pooler is trained",
    ),
    (
        "freezing.top_blocks",
        lambda m, n: set_grad(m, m.classifier, *[b.attention for b in m.bert.encoder.layer[3 - n :]]),
        "in part only",
    ),
    ("adapter.count", lambda d, m: 2 * d * m, "has a bias, too"),
    ("adapter.count", lambda d, m: 2 * d * m + d, "bias of W_down is left out"),
    ("adapter.count", lambda d, m: 2 * d * m + m, "bias of W_up is left out"),
    ("adapter.count", lambda d, m: d * m + d + m, "as large as W_down"),
    ("adapter.count", lambda d, m: 2 * d * m + 2 * d, "both biases"),
    ("adapter.count", lambda d, m: d * d + d * m, "matrix of d by d"),
    ("adapter.count", lambda d, m: 2 * (2 * d * m + d + m), "two adapters"),
    ("adapter.count", lambda d, m: 59, "for d = 8 and m = 3 alone"),
    ("prefix.attention", lambda q, k, v, K, V: alone(q, k, v), "the prefix does nothing"),
    ("prefix.attention", lambda q, k, v, K, V: alone(q, K, V) + alone(q, k, v), "two softmaxes"),
    ("prefix.attention", lambda q, k, v, K, V: alone(q, K, V), "the text is left out"),
    ("prefix.attention", lambda *args: attend(*args, scale=1), "not divided"),
    ("prefix.attention", lambda *args: attend(*args, scale=0.25), "not by its square root"),
    (
        "prefix.attention",
        lambda q, k, v, K, V: torch.softmax(0.5 * q @ torch.cat([K, k]).T, -1) @ torch.cat([v, V]),
        "values behind",
    ),
    ("prefix.count", lambda layers, d, p: layers * d * p, "keys and values"),
    ("prefix.count", lambda layers, d, p: 2 * d * p, "prefix of one layer"),
    ("prefix.count", lambda layers, d, p: d * p, "prompt at the input"),
    ("prefix.count", lambda layers, d, p: p * layers * d * d, "vectors, not matrices"),
    ("prefix.count", lambda layers, d, p: 80, "not for GPT-2 medium"),
    ("prefix.mask", lambda mask, p: mask, "as long as before"),
    ("prefix.mask", lambda mask, p: pad(mask, (p, 0)), "the prefix is masked"),
    ("prefix.mask", lambda mask, p: pad(mask, (0, p), value=1), "behind the text"),
    ("prefix.mask", lambda mask, p: torch.ones(2, 7), "padding became visible"),
    ("prefix.mask", lambda mask, p: torch.cat([mask.new_ones(p, len(mask)), mask], 1), "with RuntimeError"),
    ("prefix.mask", lambda mask, p: print(end=""), "is there a return"),
    ("prompt.labels", lambda labels, p: labels.fill_(0), "changed in place"),
    (
        "prompt.labels",
        lambda labels, p: pad(labels, (p, 0), value=-1),
        r"the numbers are not those; at \[0, 0\] it is -1",
    ),
    ("prompt.inputs", lambda x, p: torch.cat([x, p.expand(2, -1, -1)], 1), "behind the text"),
    ("prompt.inputs", lambda x, p: x + p[:3], "not added to the text"),
    ("prompt.labels", lambda labels, p: labels, "as long as before"),
    ("prompt.labels", lambda labels, p: pad(labels, (p, 0)), "guessed as token 0"),
    ("prompt.labels", lambda labels, p: pad(labels, (0, p), value=-100), "behind the text"),
    ("p_tuning_v2.align", lambda ids, tags: [-100 if i is None else tags[i] for i in ids], "every token of a word"),
    ("p_tuning_v2.align", lambda ids, tags: align(ids[::-1], tags)[::-1], "the last token of a word"),
    ("p_tuning_v2.align", lambda ids, tags: align(ids, tags, special=0), "special tokens are asked for"),
    ("p_tuning_v2.align", lambda ids, tags: tags, "3 entries for 8 tokens"),
    ("p_tuning_v2.align", lambda ids, tags: print(end=""), "expected a list"),
    ("p_tuning_v2.f1", lambda given, right: len(given & right) / len(given), "the precision"),
    ("p_tuning_v2.f1", lambda given, right: len(given & right) / len(right), "the recall"),
    ("p_tuning_v2.f1", lambda given, right: (1 / len(given) + 1 / len(right)) / 2, "the mean of"),
    ("p_tuning_v2.f1", lambda given, right: len(given & right) / len(given | right), "the union"),
    ("p_tuning_v2.f1", lambda given, right: f1(given, right) if given else 1.0, "where nothing is given"),
    ("choosing.pareto", lambda points: {max(points, key=lambda name: points[name][1])}, "only the best score is kept"),
    ("choosing.pareto", lambda points: {min(points, key=lambda name: points[name][0])}, "only the smallest is kept"),
    ("choosing.pareto", lambda points: set(points), "nothing is left out"),
    ("choosing.pareto", lambda points: set(points) - best_of(points), "the ones that are beaten"),
    (
        "choosing.pareto",
        lambda points: best_of(points, lambda a, b: a[0] < b[0] and a[1] > b[1]),
        "C is as large as B and scores less",
    ),
    (
        "choosing.pareto",
        lambda points: best_of(dict(zip(points.values(), points.values(), strict=True))),
        "expected B and D, got",
    ),
    ("choosing.pareto", lambda points: dict.fromkeys(best_of(points)), "expected a set of names, got dict"),
    (
        "choosing.pareto",
        lambda points: set(list(best_of(points))[:1]) if len(points) == 2 else best_of(points),
        "both stay",
    ),
    ("choosing.rank", lambda width, blocks, budget: round(budget / (4 * width * blocks)), "over the budget"),
    ("choosing.rank", lambda width, blocks, budget: budget // (2 * width * blocks), "half is counted"),
    ("choosing.rank", lambda width, blocks, budget: budget // (width * blocks), "a quarter is counted"),
    ("choosing.rank", lambda width, blocks, budget: budget // (4 * width), "the blocks are left out"),
    ("choosing.rank", lambda width, blocks, budget: budget / (4 * width * blocks), "round down to a whole number"),
    ("choosing.rank", lambda width, blocks, budget: budget / (4 * width * blocks) // 1, "8.0 is no whole number"),
]


IN_FILES_OF_THEIR_OWN = "".join(path.read_text() for path in Path(__file__).parent.glob("test_lab_exercises_*.py"))
OPEN = ("smallest", "fewest", "shortest", "rival", "whole_way", ".own")  # their checks train


def again(thing):
    """The same thing as a learner would have it: another object."""
    if isinstance(thing, type):
        return type(thing.__name__, (thing,), {})
    return FunctionType(thing.__code__, thing.__globals__, thing.__name__, thing.__defaults__, thing.__closure__)


def test_every_exercise_has_a_solution_that_passes():
    solved_there = {name for name in EXERCISES if f'"{name}"' in IN_FILES_OF_THEIR_OWN}
    assert SOLUTIONS.keys() | solved_there == EXERCISES.keys()
    for name, solution in SOLUTIONS.items():
        assert checked(name, solution), checked(name, solution)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * name.endswith(OPEN)) for name in EXERCISES]
)
def test_the_package_s_own_solution_passes_and_has_hints(name):
    known = EXERCISES[name]
    feedback = checked(name, again(known.reference))
    assert feedback and repr(feedback) == f"Right. From here on the lesson runs on your {known.reference.__name__}."
    assert len(known.hints) >= 2 and known.solution.startswith(("def ", "class ", "@dataclass"))


def kept_in(folder):
    lines = (folder / "progress.jsonl").read_text().splitlines()
    return [(line["name"], line["solved"]) for line in map(json.loads, lines)]


@pytest.mark.parametrize(
    "name",
    [name for name, known in EXERCISES.items() if not isinstance(known.reference, type) and not name.endswith(OPEN)],
)
def test_a_try_that_writes_into_what_it_is_given_spoils_no_later_one(name):
    reference = EXERCISES[name].reference

    @torch.no_grad()
    def spoils(*given, **named):
        for each in given:
            if isinstance(each, torch.Tensor):
                each.fill_(1)
            elif isinstance(each, (list, dict)):
                each.clear()
        return reference(*given, **named)

    checked(name, spoils)
    assert checked(name, lambda *given, **named: reference(*given, **named))


def test_the_lesson_goes_on_with_the_learner_s_own_once_it_is_right(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    reference = EXERCISES["lora.merge"].reference

    def lora_merge(W, A, B, alpha):
        return W + B @ A

    assert check("lora.merge", lora_merge) is reference
    assert "Not yet: alpha / r is left out" in (told := capsys.readouterr().out)
    assert told.endswith(
        "\nUntil then the lesson goes on with the package's own code, and so do the numbers below.\n"
        'Stuck? In a new cell: from peft_edu.lab import hint; hint("lora.merge")\n'
    )
    assert max(map(len, told.splitlines())) <= 100

    def lora_merge(W, A, B, alpha):
        return W + alpha / len(A) * B @ A

    assert check("lora.merge", lora_merge) is lora_merge
    assert capsys.readouterr().out == "Right. From here on the lesson runs on your lora_merge.\n"
    assert kept_in(tmp_path) == [("lora.merge", False), ("lora.merge", True)]


def empty(x, W, A, B, alpha):
    """What it is for."""
    ...


def test_what_is_not_written_yet_is_no_mistake(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PEFT_EDU_WORKBOOK", str(tmp_path))
    reference = EXERCISES["lora.forward"].reference
    assert check("lora.forward", empty) is reference
    assert check("lora.forward", reference) is reference  # its cell ran twice: the name holds the package's by now
    first, then, _, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "Not written yet: empty is still empty. Put your lines where the ... stands."
    assert then.startswith("Until then the lesson goes on with the package's own code, and so do the numbers below.")
    assert second.startswith("Not written yet: this is the package's own. Run the cell with yours again")
    assert not (tmp_path / "progress.jsonl").exists()


def test_hints_come_one_by_one_and_the_solution_last(capsys):
    from peft_edu.lab.exercises import check as module

    module._hints_given.pop("lora.merge", None)
    for _ in range(5):
        hint("lora.merge")
    told = capsys.readouterr().out
    assert "Hint 1 of 3: The result has the shape of W. (2 more, then the solution)" in told
    assert "Hint 3 of 3" in told and "(the next one is the solution)" in told
    assert told.count("    return W + alpha / rank * B @ A") == 2  # once it is there, it stays
    with pytest.raises(ValueError, match="no exercise 'lora.merg'; did you mean lora.merge"):
        hint("lora.merg")


def test_an_error_is_shown_with_the_learner_s_own_line():
    def helper(W, A):
        return W @ A

    def lora_merge(W, A, B, alpha):
        rank = len(A)
        return helper(W, B) * rank

    line = helper.__code__.co_firstlineno + 1
    message = repr(checked("lora.merge", lora_merge))
    assert f'your code stopped in helper, line {line} of its cell, "return W @ A", with RuntimeError: mat1' in message
    few = repr(checked("lora.merge", min))
    assert "could not be called as it is meant to be, TypeError" in repr(checked("lora.count", len)) and few


@pytest.mark.parametrize(
    "name, other",
    [
        ("adapter.count", lambda d, m: np.prod([2, d, m]) + np.int64(d + m)),
        ("freezing.count", lambda model: torch.tensor(sum(p.numel() for p in model.parameters() if p.requires_grad))),
        ("prefix.mask", lambda mask, p: torch.cat([torch.ones(len(mask), p), mask], 1)),
        ("freezing.top_blocks", lambda m, n: mark(m, [m.classifier], [*m.bert.encoder.layer[3 - n :], m.classifier])),
    ],
)
def test_other_solutions_that_do_as_asked_pass(name, other):
    assert checked(name, other)


@pytest.mark.parametrize("name, mistake, message", MISTAKES)
def test_a_misconception_is_told_by_its_name(name, mistake, message):
    feedback = checked(name, mistake)
    assert not feedback and re.search(message, repr(feedback)), feedback


def test_what_is_no_exercise_or_no_function_is_told():
    with pytest.raises(ValueError, match="no exercise 'lora.mrge'; did you mean lora.merge"):
        check("lora.mrge", len)
    with pytest.raises(ValueError, match=r"no exercise \['lora.forward'\]; did you mean lora.forward"):
        check(["lora.forward"], len)
    with pytest.raises(ValueError, match="no exercise 7; there are .*lora.forward"):
        check(7, len)
    told = repr(checked("lora.forward", torch.zeros(2)))
    assert re.search(r"a function is asked for, and this is a Tensor.* It is f\(x, W, A, B, alpha\)", told)


def test_the_count_that_is_asked_for_is_the_package_s_count():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = TopBlocks(1).attach(GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2)))
    assert SOLUTIONS["freezing.count"](model) == count(model).trainable
