import copy

import pytest
import torch
from families import SIZES, batch, tiny
from torch import nn

from peft_edu import LoRA, TopBlocks, count, trainable
from peft_edu.anatomy import linear_maps
from peft_edu.method import attached

ALL = ("query", "key", "value", "output", "up", "down")


def learned(family: str, task: str = "language", dtype=torch.float64, **fields):
    """A model with a LoRA that is away from its start."""
    method = LoRA(rank=4, **fields)
    model = method.attach(tiny(family, task, dtype))
    torch.manual_seed(1)
    for parameter in trainable(model).values():
        nn.init.normal_(parameter, std=0.2)
    return method, model


def logits(model, task: str = "language"):
    with torch.no_grad():
        return model(**batch(task)).logits


@pytest.mark.parametrize("family", SIZES)
def test_the_count_is_rank_times_both_sides(family):
    model = tiny(family)
    expected = sum(4 * sum(each.weight.shape) for each in linear_maps(model, ALL))
    assert count(LoRA(rank=4, targets=ALL).attach(model)).trainable == expected


def test_the_update_is_alpha_over_r_times_b_a():
    method, model = learned("bert", alpha=10)
    target, update = method.updates[0]
    x = torch.randn(2, 32, dtype=torch.float64)
    bare = x @ target.weight.T + target.module.bias
    assert torch.allclose(target.module(x), bare + 10 / 4 * (x @ update.A.T) @ update.B.T, atol=1e-14)
    assert torch.allclose(update(x), x @ update.weight.T, atol=1e-14)


def test_dropout_acts_on_the_update_alone_and_in_training_only():
    method, model = learned("bert", dropout=0.9)
    target, update = method.updates[0]
    x = torch.ones(1, 32, dtype=torch.float64)
    assert torch.equal(target.module(x), target.module(x))
    update.train()
    assert not torch.equal(target.module(x), target.module(x))
    nn.init.zeros_(update.B)
    assert torch.equal(target.module(x), x @ target.weight.T + target.module.bias)


@pytest.mark.parametrize("family", SIZES)
def test_merging_keeps_the_function_and_leaves_a_plain_model(family):
    base = tiny(family, dtype=torch.float64)
    method, model = learned(family, targets=ALL)
    before = logits(model)
    assert method.merge() is model
    assert torch.allclose(logits(model), before, atol=1e-6)  # T5, Llama and Qwen2 compute norms in float32
    assert list(model.state_dict()) == list(base.state_dict())
    assert not any(module._forward_hooks for module in model.modules())
    assert attached(model) is None
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", SIZES)
def test_unmerging_brings_everything_back_bit_for_bit(family, dtype):
    base = tiny(family, "classify", dtype)
    method, model = learned(family, "classify", dtype, targets=ALL)
    before, parameters = logits(model, "classify"), trainable(model)
    method.merge()
    method.unmerge()
    assert torch.equal(logits(model, "classify"), before)
    with pytest.raises(RuntimeError, match="LoRA.* is not merged"):
        method.unmerge()
    assert trainable(model) == parameters  # the very same: an optimiser can go on
    method.detach()
    assert all(torch.equal(value, base.state_dict()[name]) for name, value in model.state_dict().items())


def test_merging_keeps_the_trained_head():
    method, model = learned("bert", "classify")
    head = copy.deepcopy(model.classifier.state_dict())
    method.merge()
    assert all(torch.equal(value, head[name]) for name, value in model.classifier.state_dict().items())


def test_merging_twice_or_unmerging_what_is_not_merged():
    method, model = learned("gpt2")
    with pytest.raises(RuntimeError, match="LoRA.* is not merged"):
        method.unmerge()
    method.merge()
    with pytest.raises(RuntimeError, match="LoRA.* is not attached to a model"):
        method.merge()
    with pytest.raises(RuntimeError, match="LoRA.* is not attached to a model"):
        method.detach()


def test_a_merged_model_takes_another_method_but_then_does_not_unmerge():
    method, model = learned("gpt2")
    method.merge()
    merged = {name: value.clone() for name, value in model.state_dict().items()}
    TopBlocks(1).attach(model)
    with pytest.raises(RuntimeError, match=r"TopBlocks\(n=1\) is attached to this model"):
        method.unmerge()
    assert all(torch.equal(value, merged[name]) for name, value in model.state_dict().items())


def test_an_interrupted_merge_can_be_taken_back(monkeypatch):
    """Some weights are merged, others are not yet, and the updates are off: unmerge brings everything back."""
    method, model = learned("gpt2")
    before, copy_, written = logits(model), torch.Tensor.copy_, []

    def interrupted(self, other):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(self)
        return copy_(self, other)

    monkeypatch.setattr(torch.Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        method.merge()
    monkeypatch.undo()
    method.unmerge()
    assert attached(model) is method and torch.equal(logits(model), before)
    method.detach()
    assert torch.equal(logits(model), logits(tiny("gpt2", dtype=torch.float64)))


def test_running_out_of_memory_while_merging_changes_nothing(monkeypatch):
    method, model = learned("gpt2")
    before = logits(model)

    def full(self, *arguments, **options):
        raise MemoryError

    monkeypatch.setattr(torch.Tensor, "clone", full)
    with pytest.raises(MemoryError):
        method.merge()
    monkeypatch.undo()
    assert attached(model) is method
    assert torch.equal(logits(model), before)


def test_unmerging_that_fails_can_be_tried_again(monkeypatch):
    method, model = learned("gpt2")
    before = logits(model)
    method.merge()
    merged, register = logits(model), nn.Module.register_forward_hook

    def broken(self, hook):
        raise OSError("the disk is on fire")

    monkeypatch.setattr(nn.Module, "register_forward_hook", broken)
    with pytest.raises(OSError, match="on fire"):
        method.unmerge()
    monkeypatch.setattr(nn.Module, "register_forward_hook", register)
    assert torch.equal(logits(model), merged)
    method.unmerge()
    assert torch.equal(logits(model), before)


def test_what_was_merged_later_is_unmerged_first():
    """Unmerging the first would write over the second, and unmerging that one would bring the first one back."""
    first, model = learned("gpt2", "classify")
    base = {name: value for name, value in tiny("gpt2", "classify", torch.float64).state_dict().items()}
    first.merge()
    second = LoRA(rank=2)
    second.attach(model)
    nn.init.normal_(second.updates[0][1].B)
    second.merge()
    both = logits(model, "classify")
    with pytest.raises(RuntimeError, match=r"attn.c_attn's query map has changed since LoRA\(rank=4.* was merged"):
        first.unmerge()
    assert torch.equal(logits(model, "classify"), both) and attached(model) is None
    for method in (second, first):
        method.unmerge()
        method.detach()
    assert all(torch.equal(value, base[name]) for name, value in model.state_dict().items())


def test_what_was_trained_into_a_merged_weight_is_not_lost_in_silence():
    method, model = learned("bert")
    method.merge()
    method.updates[-1][0].weight.data[0, 0] += 1e-9
    with pytest.raises(RuntimeError, match="attention.self.value's value map has changed since .* was merged"):
        method.unmerge()


def test_an_update_that_is_not_a_number_is_unmerged_as_well():
    method, model = learned("bert")
    nn.init.constant_(method.updates[0][1].A, float("nan"))
    method.merge()
    method.unmerge()
    method.detach()
    assert torch.equal(logits(model), logits(tiny("bert", dtype=torch.float64)))


@pytest.mark.parametrize("family, role", [("bert", "query"), ("gpt2", "value")])
def test_whoever_keeps_the_output_of_the_map_keeps_it(family, role):
    """A hook from before the method sees W x, as it did; and it is W x also when the step is over."""
    model, kept = tiny(family, dtype=torch.float64), []
    target = linear_maps(model, (role,))[0]
    target.module.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits(model)
    method = LoRA(rank=4)
    method.attach(model)
    nn.init.normal_(method.updates[0][1].B)
    nn.init.normal_(method.updates[1][1].B)
    logits(model)
    assert torch.equal(*kept)


@pytest.mark.parametrize("weight", ["packed", "bytes"])
def test_a_map_whose_weight_is_quantised_is_named(weight):
    model = tiny("bert")
    query = model.bert.encoder.layer[0].attention.self
    if weight == "packed":  # as torch's quantize_dynamic leaves it: the weight is a method
        query.query.__class__ = type("Packed", (nn.Linear,), {"__module__": "torch.ao", "weight": lambda self: None})
        del query.query._parameters["weight"]
    else:
        query.query.weight = nn.Parameter(query.query.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match=r"attention.self.query is a .*, whose weight is quantised: take the model as"):
        linear_maps(model, ("query",))


def test_a_merged_model_may_change_its_dtype_before_it_is_unmerged():
    method, model = learned("gpt2", dtype=torch.float32)
    expected = logits(copy.deepcopy(model).double())
    method.merge()
    model.double()
    method.unmerge()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert torch.allclose(logits(model), expected, atol=1e-12)


@pytest.mark.parametrize("rank", [0, -1, 1.5, "8", True])
def test_rank_is_a_whole_number_from_1_on(rank):
    with pytest.raises(ValueError, match=f"rank is {rank!r}, but must be a whole number from 1 on"):
        LoRA(rank=rank)


def test_rank_fits_the_map():
    with pytest.raises(ValueError, match="rank 64 exceeds 32, the smaller side of attn.c_attn's value map"):
        LoRA(rank=64, targets=("value",)).attach(tiny("gpt2"))
    with pytest.raises(ValueError, match="rank 17 exceeds 16, the smaller side of self_attn.v_proj's value map"):
        LoRA(rank=17).attach(tiny("llama"))


@pytest.mark.parametrize("alpha", [0, -1])
def test_alpha_is_above_0(alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha!r}, but must be above 0"):
        LoRA(alpha=alpha)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), "16", None, True])
def test_alpha_is_a_finite_number(alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha!r}, but must be a finite number above 0"):
        LoRA(alpha=alpha)


@pytest.mark.parametrize("dropout", [-0.1, 1, float("nan"), "0.1"])
def test_dropout_is_a_probability_below_1(dropout):
    with pytest.raises(ValueError, match=f"dropout is {dropout!r}, but must be .*at least 0 and below 1"):
        LoRA(dropout=dropout)


@pytest.mark.parametrize("targets", [(), "value", 5, None])
def test_targets_are_one_or_more_roles(targets):
    with pytest.raises(ValueError, match=r"targets is .*, but must be one or more roles"):
        LoRA(targets=targets)


def test_targets_are_roles_of_the_family():
    with pytest.raises(ValueError, match="unknown role 'c_attn'"):
        LoRA(targets=("c_attn",)).attach(tiny("gpt2"))
