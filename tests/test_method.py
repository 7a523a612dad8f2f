import copy
from dataclasses import dataclass
from types import SimpleNamespace

import accelerate
import pytest
import torch
from families import batch, tiny
from torch import nn

from peft_edu import BitFit, FullFineTuning, HeadOnly, LoRA, PTuning, TopBlocks, count, load, save, trainable
from peft_edu.anatomy import linear_maps
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

    with pytest.raises(TypeError, match="Bare must be a @dataclass of plain values, to be saved"):
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


def test_detaching_leaves_no_gradient_on_the_base():
    model = tiny("bert", "classify")
    method = FullFineTuning()
    method.attach(model)(**batch("classify")).loss.backward()
    method.detach()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_way_out_of_an_attached_method_is_told_and_leads_out():
    model = LoRA().attach(tiny("gpt2"))
    method = LoRA()  # in a notebook the old name is taken by now
    with pytest.raises(RuntimeError, match=r"detach it before .* by peft_edu.attached\(model\).detach\(\), or"):
        method.attach(model)
    attached(model).detach()
    assert attached(method.attach(model)) is method


def test_a_field_must_be_a_plain_value():
    @dataclass
    class Heavy(Method):
        weights: torch.Tensor

    model = tiny("bert", "classify")
    with pytest.raises(TypeError, match="Heavy must be a @dataclass of plain values, to be saved"):
        Heavy(torch.ones(3)).attach(model)
    assert attached(model) is None


def partly_on_meta():
    model = tiny("gpt2")
    model.transformer.h[1].to("meta")
    return model


def with_one_block_on_disk(folder):
    tiny("gpt2").save_pretrained(folder / "base")
    places = {"transformer.wte": "cpu", "lm_head": "cpu", "transformer.wpe": "cpu", "transformer.ln_f": "cpu"}
    places |= {"transformer.h.0": "cpu", "transformer.h.1": "disk"}
    model, options = type(tiny("gpt2")), {"device_map": places, "offload_folder": folder / "disk"}
    return model.from_pretrained(folder / "base", **options)


OFFLOADED = {
    "one block on disk": with_one_block_on_disk,
    "all on the CPU": lambda folder: accelerate.cpu_offload(tiny("gpt2")),
    "one block on meta": lambda folder: partly_on_meta(),
}


@pytest.mark.parametrize("offloaded", OFFLOADED.values(), ids=OFFLOADED)
def test_weights_that_are_elsewhere_are_refused(offloaded, tmp_path):
    model = offloaded(tmp_path)
    names = list(model.state_dict())
    with pytest.raises(ValueError, match="weights of this GPT2LMHeadModel are offloaded: load it whole"):
        LoRA().attach(model)
    assert list(model.state_dict()) == names and attached(model) is None


def test_a_model_that_torch_has_quantised_is_refused():
    model = torch.ao.quantization.quantize_dynamic(tiny("bert", "classify"), {nn.Linear}, torch.qint8)
    with pytest.raises(ValueError, match="torch has quantised this BertForSequenceClassification: attach first"):
        LoRA().attach(model)


@pytest.mark.parametrize("method", [FullFineTuning(), PTuning("[P] {text}", "none"), LoRA()])
def test_the_vocabulary_is_resized_before_a_method_is_attached(method):
    """Afterwards transformers would freeze the pseudo tokens, and the weights to bring back had another size."""
    model = tiny("gpt2", "classify")
    method.attach(model)
    before = count(model)
    for part in (model, model.base_model):
        with pytest.raises(RuntimeError, match="is attached: detach it, resize the vocabulary, then attach it"):
            part.resize_token_embeddings(70)
    assert count(model) == before
    method.detach()
    model.resize_token_embeddings(70, mean_resizing=False)
    method.attach(model)
    assert method.detach().get_input_embeddings().num_embeddings == 70


@pytest.mark.parametrize("after", [0, 1, 5, 20, -1])
def test_an_interrupted_detach_can_be_called_again(after):
    model = tiny("gpt2", "classify")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    method = LoRA()
    method.attach(model)
    nn.init.ones_(model.score.weight)
    interrupts, undo = [KeyboardInterrupt], method._undo[after]

    def interrupt():
        if interrupts:
            raise interrupts.pop()
        undo()

    method._undo[after] = interrupt
    with pytest.raises(KeyboardInterrupt):
        method.detach()
    assert attached(model) is method
    method.detach()
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert attached(method.attach(model)) is method


def test_an_edit_that_was_undone_by_hand_is_no_obstacle():
    model = tiny("gpt2", "classify")
    names, method = list(model.state_dict()), LoRA()
    method.attach(model)
    del model.transformer.h[0].attn.c_attn.lora_query
    method.detach()
    assert list(model.state_dict()) == names


def test_an_interrupted_attach_can_be_called_again():
    @dataclass
    class Slow(Method):
        def insert(self, model):
            self.add(model.bert, "mine", nn.Linear(2, 2))
            raise KeyboardInterrupt

    model, method = tiny("bert", "classify"), Slow()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            method.attach(model)
        assert attached(model) is None and not hasattr(model.bert, "mine")


def test_what_is_unfrozen_beside_a_method_is_brought_back_too():
    model = tiny("llama", "classify")
    before, method = model.model.norm.weight.detach().clone(), LoRA()
    method.attach(model)
    method.unfreeze(model.model.norm)
    assert {"model.norm.weight", "score.weight"} <= trainable(model).keys()
    nn.init.zeros_(model.model.norm.weight)
    method.detach()
    assert torch.equal(model.model.norm.weight, before)
    with pytest.raises(RuntimeError, match="is not attached to a model"):
        method.unfreeze(model.model.norm)


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_method_is_seen_through_wrappers(wrap):
    method = LoRA()
    model = method.attach(tiny("bert", "classify"))
    assert attached(wrap(model)) is method
    assert count(wrap(model)) == count(model)


@pytest.mark.parametrize("thing", [None, "model", 3, nn.Linear(2, 2), SimpleNamespace(module=None)])
def test_what_is_no_model_is_refused(thing):
    for call in (attached, LoRA().attach, count, lambda model: save(model, "x"), lambda model: load(model, "x")):
        with pytest.raises(TypeError, match=f"expected a transformers model .*, got {type(thing).__name__}"):
            call(thing)


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


@pytest.mark.parametrize("wrong, message", [("child", "got the class Linear"), ("module", "got a LinearMap")])
def test_what_is_added_is_a_module_and_so_is_its_place(wrong, message):
    target = linear_maps(model := tiny("bert", "classify"), ("query",))[0]

    class Wrong(LoRA):
        def insert(self, model):
            child = nn.Linear if wrong == "child" else nn.Linear(1, 1)
            self.add(target if wrong == "module" else target.module, "mine", child)

    with pytest.raises(TypeError, match=f"{wrong} must be an nn.Module, {message}"):
        Wrong().attach(model)
    assert attached(model) is None


def test_a_hook_is_remembered_by_its_handle():
    class Forgetful(LoRA):
        def insert(self, model):
            self.hook(print)

    model = tiny("bert", "classify")
    with pytest.raises(TypeError, match="hook takes the handle that .* gives, got print"):
        Forgetful().attach(model)
    assert attached(model) is None


def test_off_ends_as_it_began_whatever_happens_in_it():
    method = TopBlocks(1)
    model = method.attach(tiny("bert", "classify"))
    nn.init.normal_(model.classifier.weight)
    kept = model.classifier.weight.clone()
    with pytest.raises(KeyboardInterrupt), method.off():
        assert not torch.equal(model.classifier.weight, kept)
        raise KeyboardInterrupt
    assert torch.equal(model.classifier.weight, kept)


def test_off_is_not_for_saving_nor_for_taking_off(tmp_path):
    method = LoRA()
    model = method.attach(tiny("gpt2"))
    for refused in (lambda: save(model, tmp_path), method.detach, method.merge, lambda: method.off().__enter__()):
        with method.off(), pytest.raises(RuntimeError, match="is switched off: leave `with method.off"):
            refused()
    save(model, tmp_path / "afterwards")


def test_a_copy_is_switched_off_alone():
    model = LoRA().attach(tiny("gpt2", dtype=torch.float64))
    for parameter in trainable(model).values():
        nn.init.normal_(parameter, std=0.2)
    twin, inputs = copy.deepcopy(model), batch()
    with attached(twin).off():
        assert not torch.equal(twin(**inputs).logits, model(**inputs).logits)
    assert torch.equal(twin(**inputs).logits, model(**inputs).logits)
