"""What every method promises on every family, as one list of promises. A new method joins by one line in METHODS."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from families import LANGUAGE_MODELS, PAD, SIZES, batch, tiny
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

import peft_edu
from peft_edu import (
    Adapter,
    BitFit,
    FullFineTuning,
    HeadOnly,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuning,
    PTuningV2,
    SeveralLoRAs,
    TopBlocks,
    fit,
    load,
    save,
    trainable,
)
from peft_edu.anatomy import FAMILIES, Family, head
from peft_edu.method import Method, attached

METHODS = [
    FullFineTuning(),
    HeadOnly(),
    TopBlocks(1),
    BitFit(),
    LoRA(rank=4),
    LoRA(rank=2, dropout=0.5, targets=("query", "key", "value", "output", "up", "down")),
    Adapter(bottleneck=4, init_std=0.1),
    Adapter(bottleneck=3, init_std=0.1, placement="pfeiffer", norms=False, own_norm=True, blocks=(1,)),
    PrefixTuning(length=3, hidden=5),
    PrefixTuning(length=2, hidden=0, init=(7, 8, 9), shift=False),
    PromptTuning(length=3),
    PromptTuning(length=4, init=((7, 8), (9,)), members=3),
    PTuning("[P] {text} [P]"),
    PTuning("{text} [P] [P]", encoder="mlp", joint=True),
    PTuning("[P] [P] {text}", encoder="none"),
    PTuningV2(length=3, layers=(1,), dropout=0.3),
    PTuningV2(length=2, hidden=5),
]
NO_BIASES = ("t5", "t5-gated", "llama")
CASES = [
    pytest.param(method, family, id=f"{method}-{family}".replace(" ", ""))
    for method in METHODS
    for family in SIZES
    if not (isinstance(method, BitFit) and family in NO_BIASES)
    and not (isinstance(method, PrefixTuning) and family == "deberta-v2")  # its attention takes no further keys
]


@dataclass
class State:
    """All that detaching must bring back."""

    weights: dict[str, Tensor]
    rest: list

    @classmethod
    def of(cls, model: PreTrainedModel) -> "State":
        configs = {id(each.config): each.config for each in model.modules() if hasattr(each, "config")}
        return cls(
            weights={name: value.clone() for name, value in model.state_dict().items()},
            rest=[
                {name: (parameter.requires_grad, parameter.dtype) for name, parameter in model.named_parameters()},
                [cls.of_module(module) for module in model.modules()],
                [(config.to_dict(), config._attn_implementation) for config in configs.values()],
            ],
        )

    @staticmethod
    def of_module(module: nn.Module) -> tuple:
        hooks = [len(value) for name, value in vars(module).items() if name.endswith("_hooks")]
        return type(module), sorted(vars(module)), hooks, module.training

    def changed_in(self, model: PreTrainedModel) -> set[str]:
        now = {name: value for name, value in model.named_parameters() if name in self.weights}
        return {name for name, value in now.items() if not torch.equal(value, self.weights[name])}

    def __eq__(self, other: "State") -> bool:
        return (
            list(self.weights) == list(other.weights)
            and all(torch.equal(value, other.weights[name]) for name, value in self.weights.items())
            and self.rest == other.rest
        )


def test_every_method_of_the_package_is_here():
    public = {getattr(peft_edu, name) for name in peft_edu.__all__}
    methods = {each for each in public if isinstance(each, type) and issubclass(each, Method)}
    assert {type(method) for method in METHODS} == methods - {SeveralLoRAs}  # which trains nothing


def inputs_for(method: Method, task: str = "classify") -> dict[str, Tensor]:
    """A batch. P-tuning acts on its pseudo tokens alone, so its texts have two."""
    inputs = batch(task)
    if isinstance(method, PTuning):
        ids = inputs["input_ids"].clone()
        ids[:, [1, 4]] = torch.tensor([-1, -2])
        return inputs | {"input_ids": ids}
    return inputs


def logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def with_gradient(model: PreTrainedModel) -> set[str]:
    """What a step can change: trained, and not multiplied with zero (a key's bias does not move a softmax)."""
    model(**inputs_for(attached(model))).loss.backward()
    found = {name for name, each in trainable(model).items() if each.grad is not None and each.grad.abs().max() > 1e-7}
    model.zero_grad()
    return found


def move(model: PreTrainedModel) -> None:
    """Stand in for training: what is trained is not at its start any more."""
    torch.manual_seed(1)
    for parameter in trainable(model).values():
        parameter.data += 0.2 * torch.randn_like(parameter)


def moved(method: Method, family: str, task: str, dtype=torch.float64) -> PreTrainedModel:
    model = replace(method).attach(tiny(family, task, dtype))
    move(model)
    return model


def language_task(method: Method) -> str:
    return "tag" if isinstance(method, HeadOnly) else "language"  # a language model has no task head to train


def writes(method: Method, family: str) -> bool:
    return family in LANGUAGE_MODELS and language_task(method) == "language"


def text_logits(model: PreTrainedModel, task: str, ids: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Logits of the text itself. Positions count its tokens only, as generate() does."""
    wide = torch.nn.functional.pad(ids, padding, value=PAD)
    mask = torch.nn.functional.pad(torch.ones_like(ids), padding)
    inputs = {"input_ids": wide, "attention_mask": mask}
    family = model.config.model_type
    if family not in ("t5", "roberta"):  # T5's positions are relative, and RoBERTa counts for itself
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    if family == "t5" and task == "language":
        return logits(model, inputs | {"decoder_input_ids": batch()["input_ids"]})
    return logits(model, inputs)[:, padding[0] : padding[0] + ids.shape[1]]


class Promises:
    def test_training_starts_at_the_base_model(self, method, family):
        model = tiny(family, "classify")
        before = logits(model, batch("classify"))
        replace(method).attach(model)
        assert torch.equal(logits(model, inputs_for(method)), before) == method.starts_at_base

    def test_the_base_is_frozen_but_for_the_head_and_what_it_unfreezes(self, method, family, monkeypatch):
        model, method, asked = tiny(family, "classify"), replace(method), []
        base = set(model.parameters())

        def unfreeze(part):
            asked.append(part)
            Method.unfreeze(method, part)

        monkeypatch.setattr(method, "unfreeze", unfreeze)
        method.attach(model)
        expected = {each for part in asked for each in (part.parameters() if isinstance(part, nn.Module) else [part])}
        assert {parameter for parameter in base if parameter.requires_grad} == expected & base
        assert all(parameter in expected for part in head(model) for parameter in part.parameters())

    def test_gradients_reach_what_is_trained_and_nothing_else(self, method, family):
        model = replace(method).attach(tiny(family, "classify"))
        model(**inputs_for(method)).loss.backward()
        reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert reached == set(trainable(model)) != set()

    def test_training_changes_what_is_trained_and_nothing_else(self, method, family):
        model = tiny(family, "classify")
        base = State.of(model)
        replace(method).attach(model)
        start = State.of(model)
        fit(model, [inputs_for(method)], steps=3, lr=0.01)
        assert base.weights.keys() <= model.state_dict().keys()
        assert with_gradient(model) <= start.changed_in(model) <= set(trainable(model))

    def test_detaching_leaves_no_trace(self, method, family):
        model = tiny(family, "classify")
        before, method = State.of(model), replace(method)
        fit(method.attach(model), [inputs_for(method)], steps=2, lr=0.01)
        assert State.of(model) != before
        assert method.detach() is model
        assert State.of(model) == before
        assert attached(model) is None

    def test_switched_off_it_is_the_base_model_and_then_itself_again(self, method, family):
        task = language_task(method)
        base = State.of(model := tiny(family, task, torch.float64))
        plain = logits(model, batch(task)) if not isinstance(method, PTuning) else None  # whose tokens the base lacks
        (method := replace(method)).attach(model)
        move(model)
        moved_logits, attached_state = logits(model, inputs_for(method, task)), State.of(model)
        with method.off() as same:
            assert same is model and base.changed_in(model) == set()
            if plain is not None:
                assert torch.equal(logits(model, batch(task)), plain)
        assert State.of(model) == attached_state
        assert torch.equal(logits(model, inputs_for(method, task)), moved_logits)
        method.detach()
        assert State.of(model) == base

    def test_a_second_method_is_refused(self, method, family):
        model = replace(method).attach(tiny(family, "classify"))
        before = State.of(model)
        with pytest.raises(RuntimeError, match="is attached to this model: detach it before attaching HeadOnly"):
            HeadOnly().attach(model)
        assert State.of(model) == before

    def test_a_failure_while_attaching_leaves_no_trace(self, method, family, monkeypatch):
        model, method = tiny(family, "classify"), replace(method)
        before, insert = State.of(model), method.insert

        def insert_and_fail(model):
            insert(model)
            raise OSError("the disk is on fire")

        monkeypatch.setattr(method, "insert", insert_and_fail)
        with pytest.raises(OSError, match="on fire"):
            method.attach(model)
        assert State.of(model) == before
        assert attached(model) is None

    def test_saved_and_loaded_it_is_the_same_model(self, method, family, tmp_path):
        model = moved(method, family, "classify")
        save(model, tmp_path / "saved")
        again = load(tiny(family, "classify", torch.float64), tmp_path / "saved")
        assert attached(again) == attached(model).saved()[0]
        assert torch.equal(logits(again, inputs_for(method)), logits(model, inputs_for(method)))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_new_parameters_take_the_dtype_of_the_model(self, method, family, dtype):
        model = moved(method, family, "classify", dtype)
        loss = model(**inputs_for(method)).loss
        loss.backward()
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        assert loss.isfinite()

    def test_a_copy_is_independent(self, method, family):
        base = tiny(family, "classify", torch.float64)
        model = replace(method).attach(base)
        start = logits(model, inputs_for(method))
        twin = copy.deepcopy(model)
        move(twin)
        assert torch.equal(logits(model, inputs_for(method)), start)
        assert not torch.equal(logits(twin, inputs_for(method)), start)
        attached(twin).detach()
        assert State.of(twin) == State.of(tiny(family, "classify", torch.float64))
        assert attached(model) == method

    @pytest.mark.parametrize("padding", [(2, 0), (0, 2)], ids=["left", "right"])
    def test_padding_does_not_leak(self, method, family, padding):
        task = language_task(method)
        model = moved(method, family, task, torch.float32)  # Llama's eager softmax is in float32, whatever the model is
        ids = inputs_for(method, "language")["input_ids"]
        assert torch.allclose(text_logits(model, task, ids, padding), text_logits(model, task, ids), atol=2e-5)

    def test_gradient_checkpointing_changes_nothing(self, method, family):
        gradients = []
        for checkpointing in (False, True):
            model = moved(method, family, "classify").train()
            if checkpointing:
                model.gradient_checkpointing_enable()
                assert model.is_gradient_checkpointing
            torch.manual_seed(0)  # the same dropout
            model(**inputs_for(method)).loss.backward()
            gradients.append([parameter.grad for parameter in trainable(model).values()])
        assert all(torch.allclose(*pair, atol=1e-12) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("method, family", CASES)
class TestContract(Promises):
    """On the families of the table."""


GENERATING = [
    pytest.param({"do_sample": False}, id="greedy"),
    pytest.param({"num_beams": 3}, id="beams"),
    pytest.param({"do_sample": True, "top_k": 5}, id="sampling"),
]


@pytest.mark.parametrize("how", GENERATING)
@pytest.mark.parametrize("method, family", [case for case in CASES if writes(*case.values)])
def test_generation_is_the_same_with_and_without_cache(method, family, how):
    model = moved(method, family, "language", torch.float32)  # in float64 Llama has no numbers for padded rows
    ids = torch.nn.functional.pad(inputs_for(method, "language")["input_ids"], (2, 0), value=PAD)
    settings = {"attention_mask": (ids != PAD).long(), "min_new_tokens": 8, "max_new_tokens": 8} | how
    written = []
    for cache in (True, False):
        torch.manual_seed(0)
        written.append(model.generate(ids, use_cache=cache, **settings))
    assert torch.equal(*written)


# What Trainer optimises and a compiler sees does not depend on the family, but for methods that touch attention or the
# input: these are compiled in a decoder too, and in an encoder with a decoder.
ONE_OF_EACH = {type(method): method for method in METHODS}.values()
TOUCHING = (LoRA, PrefixTuning, PromptTuning)
ON_BERT = [case for case in CASES if case.values[0] in ONE_OF_EACH and case.values[1] == "bert"]
COMPILED = ON_BERT + [
    case for case in CASES if case.values[1] in ("gpt2", "t5")
    and case.values[0] in ONE_OF_EACH and type(case.values[0]) in TOUCHING
]  # fmt: skip


@pytest.mark.parametrize("method, family", ON_BERT)
def test_trainer_trains_what_is_trained_and_nothing_else(method, family, tmp_path):
    model = tiny(family, "classify")
    replace(method).attach(model)
    start = State.of(model)
    rows = [{name: tensor[i] for name, tensor in inputs_for(method).items()} for i in range(3)]
    arguments = TrainingArguments(
        tmp_path,
        max_steps=2,
        learning_rate=0.01,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    optimised = {p for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimised == set(trainable(model).values())
    assert with_gradient(model) <= start.changed_in(model) <= set(trainable(model))


@pytest.mark.parametrize("method, family", COMPILED)
def test_compiled_it_is_the_same_model(method, family):
    model = moved(method, family, "classify")
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(logits(compiled, inputs_for(method)), logits(model, inputs_for(method)), atol=1e-10)


# ------------------------------------------------------------------------------------------------ one family more
OPT = Family(
    blocks=("decoder.layers",),
    maps={"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
          "output": "self_attn.out_proj", "up": "fc1", "down": "fc2"},
    sublayer_outputs="self_attn.out_proj | fc2",
    attention="self_attn",
    stack="decoder",
    positions="decoder.embed_positions",
    head=("score",),
)  # fmt: skip
OPT_SIZES = {"hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OPT_METHODS = [method for method in METHODS if not isinstance(method, HeadOnly)]  # transformers has no tagger for OPT


@pytest.fixture
def opt(monkeypatch):
    monkeypatch.setitem(FAMILIES, "opt", OPT)  # all that the package needs
    monkeypatch.setitem(SIZES, "opt", OPT_SIZES | {"ffn_dim": 64})
    monkeypatch.setitem(LANGUAGE_MODELS, "opt", AutoModelForCausalLM)


@pytest.mark.usefixtures("opt")
@pytest.mark.parametrize("method, family", [pytest.param(each, "opt", id=f"{each}") for each in OPT_METHODS])
class TestAFurtherFamily(Promises):
    """One entry in the table, and every method keeps every promise."""

    def test_it_generates_the_same_with_and_without_cache(self, method, family):
        test_generation_is_the_same_with_and_without_cache(method, family, {"do_sample": False})


def test_a_family_that_is_not_in_the_table(opt, monkeypatch):
    model = tiny("opt")
    monkeypatch.delitem(FAMILIES, "opt")
    with pytest.raises(ValueError, match="'opt'; known are .*write its names into FAMILIES in peft_edu/anatomy.py"):
        LoRA().attach(model)
