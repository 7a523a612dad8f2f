"""What every method that a learner writes is asked: it is one, the model stays as it was, it goes without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from peft_edu.anatomy import head_parameters
from peft_edu.lab.exercises.check import Misconception, same
from peft_edu.method import Method

IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 1, 2]])


def tiny_model(kind: str, width: int = 8, blocks: int = 3) -> PreTrainedModel:
    """A random model in float64."""
    sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": blocks, "num_attention_heads": 2}
    own = {"llama": {"num_key_value_heads": 1}, "gpt2": {"bos_token_id": 1, "eos_token_id": 1}}.get(kind, {})
    config = AutoConfig.for_model(kind, vocab_size=9, num_labels=2, pad_token_id=0, **sizes, **own)
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").double().eval()


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def expect_a_method(cls: type, **fields) -> None:
    """A Method that can be made with these fields."""
    if not isinstance(cls, type):
        raise Misconception("a class is asked for, by its name alone: class ...(Method)")
    if not issubclass(cls, Method):
        raise Misconception(f"{cls.__name__} is no Method: write class {cls.__name__}(Method)")
    try:
        cls(**fields)
    except TypeError as error:
        given = ", ".join(f"{name}={value}" for name, value in fields.items())
        raise Misconception(
            f"{cls.__name__}({given}) does not work ({error}): is @dataclass above the class?"
        ) from error


def ask_hook(f, module: nn.Module, x: Tensor, right: Tensor, wrong: dict[str, Tensor], name: str) -> None:
    """f(module, inputs, output) is asked for a new output; what was added to the module has this name."""
    output = module(x).detach()
    before = output.clone()
    result = f(module, (x,), output)
    if not torch.equal(output, before):
        raise Misconception(
            "the output is changed in place (by += or add_): somebody may have kept it. Return a new one"
        )
    same(result, right, wrong)
    if not result.requires_grad:
        raise Misconception(f"no gradient reaches {name}: is there a detach(), a .data or a no_grad?")
    module.register_forward_hook(f)
    try:
        module(x)
    except RecursionError:
        raise Misconception("it calls the module again, which calls the hook again, for ever: use output") from None


@contextmanager
def put_in(method: Method, model: PreTrainedModel, trained: str, unfrozen: bool = False) -> Iterator[None]:
    """The method attached, for as long as this lasts; before and afterwards the model is what it was.

    trained: what the method trains, in words. unfrozen: whether that may be the model's own parameters.
    """
    before, modes = weights(model), {p: p.requires_grad for p in model.parameters()}
    method.attach(model)
    named, heads = dict(model.named_parameters()), head_parameters(model)
    known = named.keys() & before.keys()
    if any(not torch.equal(named[name], before[name]) for name in known):
        raise Misconception("a weight of the model is changed by insert: what is pretrained stays as it is")
    moved = [name for name in sorted(known) if named[name].requires_grad and named[name] not in heads]
    if moved and not unfrozen:
        raise Misconception(
            f"{moved[0]} is trained: the model stays frozen, only {trained} and the task head are trained"
        )
    if gone := before.keys() - model.state_dict().keys():
        raise Misconception(f"{min(gone)} is gone: a module of the model was replaced. Keep it, and add yours to it")
    added = {parameter for child in method.added for parameter in child.parameters()}
    if by_hand := [name for name, parameter in named.items() if name not in before and parameter not in added]:
        raise Misconception(f"{by_hand[0]} is put in by hand: self.add(module, name, child) can take it off again")
    if any(not parameter.requires_grad for parameter in added):
        raise Misconception(f"a part of what was added is frozen: {trained} are trained")
    yield
    method.detach()
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise Misconception("after detach a hook is still there: register it through self.hook(...)")
    if left := model.state_dict().keys() - before.keys():
        raise Misconception(f"after detach {min(left)} is still there: put it in by self.add(...)")
    if any(not torch.equal(value, before[name]) for name, value in model.state_dict().items()):
        raise Misconception("after detach the weights are not what they were")
    if any(p.requires_grad != was for p, was in modes.items()):
        raise Misconception("after detach other parameters are trained than before: use self.unfreeze(...)")
