import pytest
import torch
from families import tiny
from torch import nn

from peft_edu import BitFit, FullFineTuning, HeadOnly, LoRA, TopBlocks
from peft_edu.method import Method, attached


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
