"""Lesson 04: what the learner builds and trains: the prompt that goes in and comes out again, and its method.

The checks know no name of a piece inside: they look at what the stack of blocks reads, and at what comes out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from peft_edu.lab.exercises.check import Misconception, NotWritten, exercise, same, tensors
from peft_edu.lab.exercises.prompt_tuning import prompt_inputs, prompt_mask, prompt_positions, start_rows
from peft_edu.lab.exercises.whole_method import expect_a_method, put_in
from peft_edu.method import METHODS, Method

IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 1, 2]])
PADDED = {  # the second row is shorter
    "right": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    "left": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
}


def tiny_decoder() -> GPT2LMHeadModel:
    """A random GPT-2 of two blocks, in float64."""
    torch.manual_seed(0)
    sizes = {"n_positions": 24, "n_embd": 8, "n_layer": 2, "n_head": 2, "initializer_range": 0.5}
    config = GPT2Config(vocab_size=9, bos_token_id=0, eos_token_id=0, pad_token_id=0, **sizes)
    return GPT2LMHeadModel(config).double().eval()


class SoftPrompt(nn.Module):
    """P (p, d): in front of the text's embeddings, and taken out again behind the last block."""

    def __init__(self, start):
        super().__init__()
        self.P = nn.Parameter(start.clone())

    def splice(self, stack, inputs, named):
        (ids,) = inputs
        mask = torch.ones_like(ids) if named["attention_mask"] is None else named["attention_mask"]
        named["inputs_embeds"] = prompt_inputs(stack.get_input_embeddings()(ids), self.P)
        named["attention_mask"] = prompt_mask(mask, len(self.P))
        named["position_ids"] = prompt_positions(named["attention_mask"])
        return (), named

    def take_out(self, stack, inputs, output):
        output.last_hidden_state = output.last_hidden_state[:, len(self.P) :]
        return output


@exercise(
    "prompt.module",
    reference=SoftPrompt,
    hints=(
        "What is trained is an nn.Parameter: `self.P = nn.Parameter(...)`, made of a copy of start.",
        "`stack.get_input_embeddings()(ids)` are the embeddings of the text, (b, t, d).",
        "Three entries of `named` are new: inputs_embeds, attention_mask, position_ids. You have a function for each.",
        "The positions are those of the whole: of the mask with the prompt in front.",
        "`output.last_hidden_state` is (b, p + t, d): what is behind the first p places is the text's. "
        "Set it, and return output.",
    ),
)
def _module(cls) -> None:
    """class SoftPrompt(nn.Module): SoftPrompt(start) holds P, a parameter that starts as start (p, d). splice(stack,
    inputs, named) gives (), named with inputs_embeds, attention_mask and position_ids of [P; E(x)]. take_out(stack,
    inputs, output) cuts the first p places off output.last_hidden_state"""
    if not issubclass(cls, nn.Module):
        raise Misconception("SoftPrompt is no nn.Module: write class SoftPrompt(nn.Module)")
    (start,) = tensors((3, 8))
    before = start.clone()
    prompt = cls(start)
    P = _expect_parameter(prompt, start)
    stack = tiny_decoder().transformer.requires_grad_(False)
    for side, mask in PADDED.items():
        _expect_spliced(prompt, stack, mask, P, side)
    try:
        prompt.splice(stack, (IDS,), {"attention_mask": None, "position_ids": None, "inputs_embeds": None})
    except (AttributeError, TypeError) as error:
        raise Misconception(
            "where no row is padded there is no mask, and attention_mask is None: keep the line that makes one"
        ) from error
    _expect_taken_out(prompt, stack)
    with torch.no_grad():
        P.add_(1)
    if not torch.equal(start, before):
        raise Misconception("P and start share their numbers, so training changes start, too: start.clone()")


def _expect_parameter(prompt: nn.Module, start: Tensor) -> nn.Parameter:
    every = list(prompt.parameters())
    if not every:
        raise Misconception("nothing in it would be trained: P is an nn.Parameter, set on self in __init__")
    if len(every) > 1 or every[0].shape != start.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in every)
        raise Misconception(
            f"for a start of {tuple(start.shape)} one parameter of that shape is asked for, got {shapes}"
        )
    if not every[0].requires_grad:
        raise Misconception("P is frozen: it is the only thing that is trained")
    if every[0].dtype != start.dtype:
        raise Misconception(f"P is {every[0].dtype}, and start is {start.dtype}")
    if not torch.equal(every[0], start):
        raise Misconception("P does not start as start: the model would be asked something else than the words say")
    if getattr(prompt, "P", None) is not every[0]:
        raise Misconception("well done, but later cells read the parameter as P: set it as self.P")
    return every[0]


def _expect_spliced(prompt: nn.Module, stack: nn.Module, mask: Tensor, P: Tensor, side: str) -> None:
    asked = {"attention_mask": mask.clone(), "position_ids": None, "inputs_embeds": None, "use_cache": False}
    given = prompt.splice(stack, (IDS,), dict(asked))
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], dict):
        raise Misconception("splice gives two things back, a tuple and a dict: return (), named")
    first, named = given
    if len(first) and first[0] is not None:
        raise Misconception(
            "the ids are handed on beside the embeddings: the stack takes one of the two, return (), named"
        )
    if all(named.get(key) is value or key == "attention_mask" for key, value in asked.items()) and (
        named.get("attention_mask").shape == mask.shape
    ):
        raise NotWritten("splice changes nothing in named yet. Three entries are new")
    if named.get("input_ids") is not None:
        raise Misconception("input_ids are in named beside the embeddings: the stack takes one of the two")
    if named.get("use_cache") is not False:
        raise Misconception("something of named got lost: change its entries, and hand the others on")
    whole = prompt_mask(mask, 3)
    text = stack.get_input_embeddings()(IDS)
    if named.get("inputs_embeds") is None:
        raise Misconception('the embeddings are missing: named["inputs_embeds"] is what the stack reads instead of ids')
    behind = torch.cat([text, P.expand(2, -1, -1)], 1)
    wrong = {
        "the prompt stands behind the text: a decoder's text would never see it": behind,
        "position embeddings are added by the stack itself: hand on the words' alone": prompt_inputs(text, P)
        + stack.wpe(prompt_positions(whole)),
    }
    same(named["inputs_embeds"], prompt_inputs(text, P), wrong, "inputs_embeds is not [P; E(x)]")
    wrong = {
        "the virtual tokens are masked: nobody could attend to them": torch.cat([torch.zeros(2, 3), mask], 1).double(),
        "the mask lets all through, padding too": torch.ones(2, 7).double(),
    }
    if named["attention_mask"] is None or named["attention_mask"].shape == mask.shape:
        raise Misconception("the mask is as long as before: the text's last tokens would have none")
    same(named["attention_mask"], whole.double(), wrong, "the attention mask is not that of [P; E(x)]")
    _expect_positions(named.get("position_ids"), mask, whole, side)
    if not named["inputs_embeds"].requires_grad:
        raise Misconception("no gradient reaches P: is there a detach(), a .data or a no_grad?")


def _expect_positions(positions: Tensor | None, mask: Tensor, whole: Tensor, side: str) -> None:
    seen, right = whole.bool(), prompt_positions(whole)
    if positions is None:
        raise Misconception(
            "the positions are left to the stack, which counts padding, too: give position_ids of the whole mask"
        )
    if positions.shape != whole.shape:
        told = f"position_ids is {tuple(positions.shape)}, and the text with its prompt {tuple(whole.shape)}"
        raise Misconception(f"{told}: take those of the mask that has the prompt in front")
    if torch.equal(positions[seen], right[seen]):
        return
    own = torch.cat([torch.arange(3).expand(2, 3), prompt_positions(mask)], 1)
    if torch.equal(positions[seen], own[seen]):
        raise Misconception("text and prompt both start at position 0: the text's positions come behind the prompt's")
    if side == "left" and torch.equal(positions, torch.arange(7).expand(2, 7)):
        raise Misconception("padding is counted: with padding on the left the text would stand too far behind")
    raise Misconception(f"position_ids are {positions[1].tolist()} for the mask {whole[1].tolist()}: count its ones")


def _expect_taken_out(prompt: nn.Module, stack: nn.Module) -> None:
    (states,) = tensors((2, 7, 8))
    output = BaseModelOutputWithPast(last_hidden_state=states)
    given = prompt.take_out(stack, (), output)
    given = output if given is None else given  # a hook that gives nothing back may have changed the output itself
    if isinstance(given, Tensor):
        raise Misconception("these are the states alone: set output.last_hidden_state, and return output")
    if given["last_hidden_state"] is states:
        raise Misconception("nothing is taken out: the head would write a word for each virtual token")
    left = given["last_hidden_state"]
    if isinstance(left, Tensor) and left.ndim == 3 and left.shape[1] != 4 and left.shape[1] != 3:
        raise Misconception(f"of 3 + 4 places {left.shape[1]} are left: the text has 4")
    if isinstance(left, Tensor) and left.shape == (2, 3, 8):
        raise Misconception("the prompt is kept, and the text is taken out")
    wrong = {"the end is cut off: the prompt stands in front": states[:, :-3]}
    same(left, states[:, 3:], wrong, "what is left is not the text's")


@dataclass
class MyPrompt(Method):
    length: int = 5
    start: tuple = ()

    def insert(self, model):
        stack = model.base_model
        words = stack.get_input_embeddings().weight.detach()
        ids = self.start or torch.randperm(len(words))[: self.length].tolist()
        self.configure(model.generation_config, "use_cache", False)
        prompt = SoftPrompt(start_rows(words, ids, self.length))
        self.add(stack, "my_prompt", prompt)
        self.hook(stack.register_forward_pre_hook(prompt.splice, with_kwargs=True))
        self.hook(stack.register_forward_hook(prompt.take_out))


METHODS.pop("MyPrompt")  # `check` puts on the list what the lesson goes on with: the learner's, or this one


@exercise(
    "prompt.insert",
    reference=MyPrompt,
    hints=(
        "Four lines: make a SoftPrompt, add it, and two hooks, one in front of the stack and one behind it.",
        "It starts at `start_rows(words, ids, self.length)`.",
        "`self.add(stack, a name, the prompt)` makes it a child of the stack: trained, and saved.",
        "`self.hook(stack.register_forward_pre_hook(prompt.splice, with_kwargs=True))`: with_kwargs hands on `named`.",
        "`self.hook(stack.register_forward_hook(prompt.take_out))`.",
    ),
)
def _insert(cls) -> None:
    """class MyPrompt(Method), a @dataclass with length and start: insert(self, model) adds a SoftPrompt to the stack,
    by self.add, and hooks its splice in front of the stack and its take_out behind it, by self.hook"""
    expect_a_method(cls, length=3, start=(1, 2))
    model = tiny_decoder()
    words = model.get_input_embeddings().weight.detach().clone()
    _expect_added(cls(length=3, start=(1, 2)), tiny_decoder())
    with put_in(method := cls(length=3, start=(1, 2)), model, "the prompt's parameters"):
        if not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            raise Misconception("the prompt is there, but nobody calls it: the two hooks are missing")
        P = _expect_start(method, words[[1, 2, 1]])
        _expect_in_use(model, P)
    _expect_drawn(cls, words)


def _expect_added(method: Method, model: PreTrainedModel) -> None:
    """A language model has no head: where nothing was added, attach finds nothing to train."""
    hooks = []
    method.hook = lambda handle: (hooks.append(handle), type(method).hook(method, handle))
    try:
        method.attach(model)
    except ValueError as error:
        if "leaves nothing to train" not in str(error):
            raise
        if hooks or any(each._forward_hooks or each._forward_pre_hooks for each in model.modules()):
            raise Misconception(
                "it is hooked, but not added: without self.add nothing of it is trained or saved"
            ) from error
        raise NotWritten("insert adds nothing yet. Put a SoftPrompt on stack, and hook it") from error


def _expect_start(method: Method, right: Tensor) -> Tensor:
    every = [parameter for child in method.added for parameter in child.parameters()]
    if len(every) != 1 or every[0].shape != right.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in every) or "nothing"
        raise Misconception(
            f"MyPrompt(length=3) is to train one prompt of {tuple(right.shape)}, and trains {shapes}: use self.length"
        )
    same(every[0], right, {}, "with start=(1, 2) and length 3 it does not start as the words 1, 2 and 1 again")
    return every[0]


@torch.no_grad()
def _expect_in_use(model: PreTrainedModel, P: Tensor) -> None:
    """The model's answers are those of a model that is fed [P; E(x)] by hand: in a batch, with padding, and writing."""
    P.add_(torch.randn(P.shape, generator=torch.Generator().manual_seed(1), dtype=P.dtype))
    for mask in PADDED.values():
        logits = _run(model, input_ids=IDS, attention_mask=mask).logits
        if logits.shape[1] != 4:
            told = {
                7: "the hook take_out behind the stack is missing",
                1: "the hook splice before the stack is missing",
            }
            raise Misconception(told.get(logits.shape[1], f"4 tokens come in, and {logits.shape[1]} places come out"))
        seen, right = mask.bool(), by_hand(IDS, mask, P)
        if not torch.allclose(logits[seen], right[seen], rtol=0, atol=1e-9):
            raise Misconception(
                "the model does not answer as one that is fed [P; E(x)] by hand: is each hook there once?"
            )
    left = {"input_ids": IDS, "attention_mask": PADDED["left"]}
    plain = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0, "eos_token_id": 99}
    forgotten = 'it writes something else than it scores: keep the line with "use_cache"'
    try:
        written = model.generate(**left, **plain)
    except (RuntimeError, IndexError, ValueError) as error:
        raise Misconception(forgotten) from error
    with_first = torch.cat([IDS, written[:, 4:5]], 1), torch.cat([PADDED["left"], torch.ones(2, 1).long()], 1)
    second = by_hand(*with_first, P)[:, -1].argmax(-1)
    if not torch.equal(written[:, 5], second):
        raise Misconception(forgotten)


def by_hand(ids: Tensor, mask: Tensor, P: Tensor) -> Tensor:
    """The logits (b, t, v) of the tiny decoder for [P; E(x)], without any hook."""
    plain = tiny_decoder()
    whole = prompt_mask(mask, len(P))
    embeddings = prompt_inputs(plain.get_input_embeddings()(ids), P)
    fed = {"inputs_embeds": embeddings, "attention_mask": whole, "position_ids": prompt_positions(whole)}
    return plain(**fed).logits[:, len(P) :].detach()


def _run(model: PreTrainedModel, **batch: Tensor):
    try:
        return model(**batch)
    except TypeError as error:
        if "positional argument" not in str(error):
            raise
        raise Misconception(
            "a hook does not get what it asks for: the pre-hook needs with_kwargs=True, the other one comes without"
        ) from error
    except ValueError as error:
        if "unpack" not in str(error):
            raise
        raise Misconception("the hook stands where no ids come in: it belongs to stack, and not to model") from error


def _expect_drawn(cls, words: Tensor) -> None:
    """Without a start the tokens are drawn, no token twice."""
    (method := cls(length=5)).attach(tiny_decoder())
    (P,) = (parameter for child in method.added for parameter in child.parameters())
    same_as = (P[:, None] == words[None]).all(-1)
    if P.shape != (5, 8) or not same_as.any(1).all() or same_as.any(0).sum() != 5:
        raise Misconception("without a start the prompt starts as different words, drawn by torch.randperm")
