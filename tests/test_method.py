import copy
from dataclasses import dataclass

import pytest
import torch
from families import tiny
from torch import nn

from peft_edu import BitFit, FullFineTuning, HeadOnly, LoRA, TopBlocks, load, save
from peft_edu.lora import LoRA as PackagedLoRA
from peft_edu.method import METHODS, Method, attached


def test_attached_tells_the_method():
    model, method = tiny("bert", "classify"), HeadOnly()
    assert attached(model) is None
    method.attach(model)
    assert attached(model) is method


def test_one_method_object_serves_one_model():
    method = HeadOnly()
    method.attach(tiny("bert", "classify"))
    with pytest.raises(RuntimeError, match=r"this HeadOnly\(\) is attached to another model: make a new one"):
        method.attach(tiny("bert", "classify"))


def test_a_method_can_be_used_again_once_detached():
    method = LoRA()
    method.attach(tiny("gpt2"))
    method.detach()
    model = method.attach(tiny("gpt2"))
    assert attached(model) is method


def test_detaching_what_is_not_attached():
    with pytest.raises(RuntimeError, match=r"LoRA\(rank=8, .*\) is not attached to a model"):
        LoRA().detach()


@pytest.mark.parametrize("method", [FullFineTuning(), HeadOnly(), TopBlocks(1), BitFit()])
def test_only_changes_of_weights_merge(method):
    method.attach(tiny("bert", "classify"))
    with pytest.raises(TypeError, match=f"{type(method).__name__}.* has nothing to merge"):
        method.merge()


def test_a_child_does_not_replace_what_is_there():
    @dataclass
    class Careless(Method):
        def insert(self, model):
            self.add(model.bert.encoder.layer[0], "attention", nn.Linear(2, 2))

    model = tiny("bert")
    attention = model.bert.encoder.layer[0].attention
    with pytest.raises(RuntimeError, match="BertLayer has a 'attention' already"):
        Careless().attach(model)
    assert model.bert.encoder.layer[0].attention is attention


def test_children_take_the_mode_of_where_they_sit():
    assert not any(module.training for module in LoRA(dropout=0.1).attach(tiny("gpt2").eval()).modules())
    assert all(module.training for module in LoRA(dropout=0.1).attach(tiny("gpt2").train()).modules())


def test_detaching_brings_back_what_was_frozen_before():
    model = tiny("bert", "classify")
    model.bert.embeddings.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    method = FullFineTuning()
    method.attach(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    method.detach()
    assert [parameter.requires_grad for parameter in model.parameters()] == before


def test_a_model_can_change_its_dtype_while_a_method_is_attached():
    model = tiny("bert", "classify")
    weight = model.classifier.weight.detach().clone()
    method = HeadOnly()
    method.attach(model).double()
    torch.nn.init.ones_(model.classifier.weight)
    method.detach()
    assert torch.equal(model.classifier.weight, weight.double())


@pytest.mark.parametrize("method", [FullFineTuning(), LoRA()])
def test_out_of_memory_while_attaching_leaves_no_trace(method, monkeypatch):
    """The copy of what is trained is the largest thing that attaching allocates."""
    model = tiny("bert", "classify")

    def full(self, *arguments, **options):
        raise MemoryError

    monkeypatch.setattr(torch.Tensor, "clone", full)
    with pytest.raises(MemoryError):
        method.attach(model)
    monkeypatch.undo()
    assert attached(model) is None
    assert not any(module._forward_hooks for module in model.modules())
    method.attach(model)
    assert method.detach() is model


def test_a_method_needs_fields():
    class Bare(Method):
        def insert(self, model):
            raise AssertionError("too late: it would be trained, and could not be saved")

    with pytest.raises(TypeError, match="Bare must be a @dataclass, so that its fields can be saved"):
        Bare().attach(tiny("bert", "classify"))


def test_a_learners_own_lora_does_not_displace_the_packages(tmp_path):
    @dataclass
    class LoRA(Method):
        rank: int = 1

        def insert(self, model):
            self.add(model.bert, "mine", nn.Linear(2, self.rank))

    assert METHODS["LoRA"] is PackagedLoRA
    model = LoRA().attach(tiny("bert", "classify"))
    with pytest.raises(TypeError, match="peft_edu has a LoRA of its own, which load would take: rename yours"):
        save(model, tmp_path / "mine")


def test_a_learners_own_method_is_saved_and_loaded_like_any_other(tmp_path):
    @dataclass
    class Mine(Method):
        shape: tuple[tuple[int, int], ...] = ((2, 3),)

        def insert(self, model):
            self.add(model.bert, "mine", nn.Linear(*self.shape[0]))

    method = Mine(((4, 5),))
    save(method.attach(tiny("bert", "classify")), tmp_path / "mine")
    assert attached(load(tiny("bert", "classify"), tmp_path / "mine")) == method


def test_children_take_the_precision_of_where_they_sit():
    @dataclass
    class Single(Method):
        def insert(self, model):
            self.add(model.bert.embeddings.LayerNorm, "mine", nn.Linear(2, 2))

    method = Single()
    model = method.attach(tiny("bert", "classify", torch.bfloat16))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert method.added == [model.bert.embeddings.LayerNorm.mine]


def test_detaching_brings_back_the_mode_of_every_module():
    model = tiny("bert", "classify").train()
    model.bert.eval()
    before = [module.training for module in model.modules()]
    method = HeadOnly()
    method.attach(model).eval()
    method.detach()
    assert [module.training for module in model.modules()] == before


def test_a_setting_of_the_configuration_is_brought_back():
    @dataclass
    class Loud(Method):
        def insert(self, model):
            self.configure(model.config, "use_cache", False)

    model = tiny("gpt2", "classify")
    method = Loud()
    twin = copy.deepcopy(method.attach(model))
    assert (model.config.use_cache, twin.config.use_cache) == (False, False)
    attached(twin).detach()
    assert (model.config.use_cache, twin.config.use_cache) == (False, True)
    method.detach()
    assert model.config.use_cache


def test_a_field_that_is_changed_later_is_not_saved_as_if_it_had_been_used(tmp_path):
    method = LoRA(alpha=8)
    model = method.attach(tiny("bert", "classify"))
    method.alpha = 1000
    with pytest.raises(RuntimeError, match="was attached with .*'alpha': 8.*: a field that changes later changes noth"):
        save(model, tmp_path / "changed")
    assert not (tmp_path / "changed").exists()
