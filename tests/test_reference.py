"""Methods beside the libraries that a reader already trusts, in float64: output, gradients, three optimiser steps.

LoRA's alpha / r is a power of two. Multiplying with it is exact, so that it does not matter whether the output is
scaled, as peft does, or B, as we do. A last digit would: the norms of T5, Llama and Qwen2 compute in float32.
"""

from collections.abc import Iterator
from pathlib import Path

import loralib
import peft
import pytest
import torch
from families import batch, fill, fill_adapter, tiny
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import DynamicCache

from peft_edu import Adapter, LoRA, PrefixTuning, PromptTuning, PTuning, PTuningV2, trainable
from peft_edu.lora import LowRankUpdate

RANK, ALPHA = 4, 16
PEFT_NAMES = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "deberta-v2": ["query_proj", "value_proj"],
    "t5": ["q", "v"],
    "t5-gated": ["q", "v"],
    "llama": ["q_proj", "v_proj"],
    "qwen2": ["q_proj", "v_proj"],
}


def base(family: str) -> nn.Module:
    return tiny(family, dtype=torch.float64)


def lora(family: str, targets=("query", "value")) -> tuple[nn.Module, list[tuple[str, LowRankUpdate]]]:
    """A model with LoRA away from its start, and the updates with the paths of their modules."""
    method = LoRA(rank=RANK, alpha=ALPHA, targets=targets)
    model = method.attach(base(family))
    for _, update in method.updates:
        nn.init.normal_(update.B, std=0.2)
    names = {module: name for name, module in model.named_modules()}
    return model, [(names[target.module], update) for target, update in method.updates]


def close(mine: Tensor, theirs: Tensor, bound: float = 1e-12) -> bool:
    return torch.allclose(mine, theirs, rtol=1e-10, atol=bound)


def assert_equal_training(model: nn.Module, other: nn.Module, pairs: list[tuple[Tensor, Tensor, slice]]) -> None:
    """`pairs`: a parameter of ours, the reference's parameter, and which of its rows are ours."""
    mine, theirs = trainable(model).values(), trainable(other).values()
    assert {id(parameter) for parameter, _, _ in pairs} == {id(parameter) for parameter in mine}
    assert sum(parameter.numel() for parameter in mine) == sum(parameter.numel() for parameter in theirs)
    with torch.no_grad():
        for parameter, reference, rows in pairs:
            reference[rows] = parameter
    optimisers = torch.optim.AdamW(mine, lr=0.01), torch.optim.AdamW(theirs, lr=0.01)
    for _ in range(3):
        outputs = model(**batch()), other(**batch())
        assert close(outputs[0].logits, outputs[1].logits)
        for output, optimiser in zip(outputs, optimisers, strict=True):
            optimiser.zero_grad()
            output.loss.backward()
        assert all(close(parameter.grad, reference.grad[rows]) for parameter, reference, rows in pairs)
        assert all(parameter.grad.any() for parameter in mine)
        for optimiser in optimisers:
            optimiser.step()
        assert all(close(parameter, reference[rows]) for parameter, reference, rows in pairs)


@pytest.mark.parametrize("family", PEFT_NAMES)
def test_lora_is_that_of_hf_peft(family):
    model, updates = lora(family)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=PEFT_NAMES[family])
    other = peft.get_peft_model(base(family), config).eval()
    pairs = []
    for name, update in updates:
        reference = other.base_model.model.get_submodule(name)
        pairs.append((update.A, reference.lora_A["default"].weight, slice(None)))
        pairs.append((update.B, reference.lora_B["default"].weight, slice(None)))
    assert_equal_training(model, other, pairs)


def test_lora_is_that_of_loralib():
    model, updates = lora("bert")
    other, pairs = base("bert"), []
    for name, update in updates:
        linear = other.get_submodule(name)
        reference = loralib.Linear(32, 32, r=RANK, lora_alpha=ALPHA, merge_weights=False).double()
        reference.load_state_dict(linear.state_dict(), strict=False)
        other.set_submodule(name, reference)
        pairs += [(update.A, reference.lora_A, slice(None)), (update.B, reference.lora_B, slice(None))]
    loralib.mark_only_lora_as_trainable(other)
    assert_equal_training(model, other, pairs)


def test_lora_on_a_fused_map_is_that_of_loralib():
    model, updates = lora("gpt2")
    other, pairs = base("gpt2"), []
    for i, (name, update) in enumerate(updates):
        part = i % 2  # query, value, query, value: two updates a module
        if part == 0:
            reference = loralib.MergedLinear(
                32,
                96,
                r=RANK,
                lora_alpha=ALPHA,
                enable_lora=[True, False, True],
                fan_in_fan_out=True,
                merge_weights=False,
            ).double()
            reference.load_state_dict(other.get_submodule(name).state_dict(), strict=False)
            other.set_submodule(name, reference)
        pairs.append((update.A, reference.lora_A, slice(part * RANK, (part + 1) * RANK)))
        pairs.append((update.B, reference.lora_B, slice(part * 32, (part + 1) * 32)))
    loralib.mark_only_lora_as_trainable(other)
    assert_equal_training(model, other, pairs)


def test_lora_on_a_fused_map_has_the_output_and_gradients_of_hf_peft():
    """peft shares one A among query, key and value. Its gradient is the sum of ours, and after a step ours differ."""
    model, updates = lora("gpt2", targets=("query", "key", "value"))
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["c_attn"], fan_in_fan_out=True)
    other = peft.get_peft_model(base("gpt2"), config).eval()
    modules = {}
    for name, update in updates:
        modules.setdefault(name, []).append(update)
    references = {name: other.base_model.model.get_submodule(name) for name in modules}
    with torch.no_grad():
        for name, three in modules.items():
            for update in three:
                update.A.copy_(references[name].lora_A["default"].weight)
            references[name].lora_B["default"].weight.copy_(torch.cat([update.B for update in three]))
    outputs = model(**batch()), other(**batch())
    assert close(outputs[0].logits, outputs[1].logits)
    for output in outputs:
        output.loss.backward()
    for name, three in modules.items():
        A, B = (getattr(references[name], letter)["default"].weight for letter in ("lora_A", "lora_B"))
        assert close(sum(update.A.grad for update in three), A.grad)
        assert close(torch.cat([update.B.grad for update in three]), B.grad)


GOLDEN = load_file(Path(__file__).parent / "golden" / "adapters.safetensors")


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "t5", "llama"])
def test_the_adapter_is_that_of_the_adapters_library(family):
    """Its numbers were made once, by golden/adapters_library.py. It keeps the LayerNorms frozen.

    T5's norms compute in float32, and their last digits differ between the two versions of transformers, without any
    adapter, too: so its bound is 1e-6, and it is not trained, since AdamW turns the sign of the smallest gradient
    into a whole step. The loss of causal models is computed in float32 from logits in float64: what flows back of it
    differs between processors, by 1e-9 where it was seen, and what three steps make of it by 2e-8.
    """
    bound, steps = (1e-6, 1) if family == "t5" else (1e-12, 3)
    flows_back, trained = (1e-8, 1e-6) if family in ("gpt2", "llama") else (bound, bound)
    model = base(family)
    fill(model)
    method = Adapter(bottleneck=4, norms=False)
    method.attach(model)
    learned = {}
    for number, adapter in enumerate(method.added):
        fill_adapter(number, adapter.down, adapter.up)
        learned |= {f"{family}.{number}.{part}": parameter for part, parameter in adapter.named_parameters()}
    assert {f"{name}.grad" for name in learned} == {n for n in GOLDEN if n.startswith(f"{family}.") and "grad" in n}
    optimizer = torch.optim.AdamW(learned.values(), lr=0.01)
    for step in range(steps):
        output = model(**batch())
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            assert close(output.logits, GOLDEN[f"{family}.logits"], bound)
            assert all(close(weight.grad, GOLDEN[f"{name}.grad"], flows_back) for name, weight in learned.items())
        optimizer.step()
    if steps == 3:
        assert all(close(weight, GOLDEN[f"{name}.after"], trained) for name, weight in learned.items())


# ------------------------------------------------------------------------------------------ prefix and prompt tuning
def steps_of(model, parameters, inputs, theirs=lambda output: output) -> Iterator[tuple[Tensor, list, list]]:
    """Three optimiser steps: the logits, the gradients, and what the parameters are then."""
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        output = model(**inputs)
        output.loss.backward()
        gradients = [parameter.grad.clone() for parameter in parameters]
        optimizer.step()
        yield theirs(output.logits.detach()), gradients, [parameter.detach().clone() for parameter in parameters]


def exact(family: str) -> nn.Module:
    """With SDPA: the softmax of Llama's eager attention is in float32, whatever the model is."""
    model = base(family)
    model.set_attn_implementation("sdpa")
    return model


def their_layers(embedding: Tensor, layers: int, heads: int) -> list[Tensor]:
    """peft keeps a prefix as (p, layers 2 heads w); ours are (2, heads, p, w), one a layer."""
    split = embedding.view(len(embedding), layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
    return list(split)


@pytest.mark.parametrize("family, hidden", [("gpt2", 0), ("gpt2", 16), ("llama", 0), ("qwen2", 0)])
def test_prefix_tuning_is_that_of_hf_peft(family, hidden):
    """peft hands its prefix over as past_key_values, with a mask over it, and text starts at position p, as with us.

    With an MLP peft gives P' the width of keys and values, we that of the model, as the paper: they differ in Llama.
    """
    method = PrefixTuning(length=3, hidden=hidden)
    model = method.attach(base(family))
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=bool(hidden), encoder_hidden_size=hidden or None
    )
    other = peft.get_peft_model(exact(family), config).double().eval()
    theirs, heads = other.prompt_encoder["default"], 2 if family in ("llama", "qwen2") else 4
    if hidden:
        trunk = method.added[0].trunk
        ours = [trunk.start, trunk.down.weight, trunk.down.bias]
        maps = [prefix.up for prefix in method.added]
        names = ("embedding.weight", "transform.0.weight", "transform.0.bias", "transform.2.weight", "transform.2.bias")
        references = [theirs.get_parameter(name) for name in names]
        pieces = [*ours, torch.cat([up.weight for up in maps]), torch.cat([up.bias for up in maps])]

        def joined(values):
            """Ours as they are in peft: the last linear maps of all layers, one under the other."""
            return [*values[:3], torch.cat(values[3::2]), torch.cat(values[4::2])]

        ours += [parameter for up in maps for parameter in (up.weight, up.bias)]
        split = list
    else:
        ours = [prefix.keys_values for prefix in method.added]
        references = [theirs.embedding.weight]
        pieces = [torch.stack(ours).permute(3, 0, 1, 2, 4).reshape(3, -1)]
        joined = list

        def split(values):
            return their_layers(values[0], len(ours), heads)

    with torch.no_grad():
        for reference, piece in zip(references, pieces, strict=True):
            reference.copy_(piece)
    assert sum(p.numel() for p in ours) == sum(p.numel() for p in trainable(other).values())
    for mine, reference in zip(steps_of(model, ours, batch()), steps_of(other, references, batch()), strict=True):
        assert close(mine[0], reference[0])
        for kind in (1, 2):
            assert all(close(*pair) for pair in zip(joined(mine[kind]), split(reference[kind]), strict=True))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_a_prefix_is_a_cache_at_equal_positions(family):
    """The other road to the same place: past_key_values, which shift positions by p and want a mask over p + t."""
    method = PrefixTuning(length=3, hidden=0)
    model = method.attach(base(family))
    plain, inputs = exact(family), batch()
    cache = DynamicCache(config=plain.config)
    for layer, prefix in enumerate(method.added):
        cache.update(*prefix.keys_values.detach().expand(3, -1, -1, -1, -1).unbind(1), layer)
    mask = torch.ones(3, 10, dtype=torch.long)
    theirs = plain(input_ids=inputs["input_ids"], attention_mask=mask, past_key_values=cache).logits
    assert close(model(**inputs).logits, theirs)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_prompt_tuning_is_that_of_hf_peft(family):
    """peft leaves the virtual tokens in the logits, and so its loss also asks the last one for the first word."""
    inputs = batch()
    inputs["labels"] = inputs["labels"].clone()
    inputs["labels"][:, 0] = -100
    method = PromptTuning(length=3)
    model = method.attach(base(family))
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    other = peft.get_peft_model(base(family), config).double().eval()
    ours, theirs = [method.added[0].embeddings], [other.prompt_encoder["default"].embedding.weight]
    theirs[0].data.copy_(ours[0][0])
    text = steps_of(other, theirs, inputs, theirs=lambda logits: logits[:, 3:])
    for mine, reference in zip(steps_of(model, ours, inputs), text, strict=True):
        assert close(mine[0], reference[0])
        assert close(mine[1][0][0], reference[1][0]) and close(mine[2][0][0], reference[2][0])


# ------------------------------------------------------------------------------------------------- P-tuning v1 and v2
def pseudo_in_front(n: int) -> dict[str, Tensor]:
    """A batch whose texts start with n pseudo tokens, which are asked for nothing."""
    inputs = batch()
    ids = torch.cat([-torch.arange(1, n + 1).expand(3, -1), inputs["input_ids"]], 1)
    labels = torch.cat([torch.full((3, n), -100), inputs["labels"]], 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def matched(method, parameters: list[Tensor]) -> list[Tensor]:
    """Ours in the order of the reference's, which take our values: the starts first, then the encoder's."""
    [pseudo] = method.added
    ours = [pseudo.start, *pseudo.encoder.parameters()]
    with torch.no_grad():
        for mine, reference in zip(ours, parameters, strict=True):
            reference.copy_(mine)
    return ours


def assert_same_steps(model, ours, inputs, other, theirs, their_inputs) -> None:
    pairs = zip(steps_of(model, ours, inputs), steps_of(other, theirs, their_inputs), strict=True)
    for (logits, gradients, parameters), (their_logits, their_gradients, their_parameters) in pairs:
        assert close(logits, their_logits)
        assert all(close(*pair) for pair in zip(gradients, their_gradients, strict=True))
        assert all(close(*pair) for pair in zip(parameters, their_parameters, strict=True))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_p_tuning_is_that_of_hf_peft(family, encoder):
    """peft's MLP has three maps, the paper's and ours two: its middle one is taken out."""
    method = PTuning("[P] [P] [P] {text}", encoder)
    model = method.attach(base(family))
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=3,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=16 if encoder == "lstm" else 32,  # of each direction
    )
    other = peft.get_peft_model(base(family), config).double().eval()
    theirs = other.prompt_encoder["default"]
    if encoder == "mlp":
        del theirs.mlp_head[2:4]
    references = list(theirs.parameters())
    assert_same_steps(model, matched(method, references), pseudo_in_front(3), other, references, batch())


class Lama(nn.Module):
    """P-tuning's encoder for facts as the authors' code has it, around a BERT that reads embeddings."""

    def __init__(self, bert: nn.Module, width: int = 32, n: int = 9):
        super().__init__()
        self.bert = bert.requires_grad_(False)
        self.embedding = nn.Embedding(n, width)
        self.lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.double()

    def forward(self, input_ids, attention_mask, labels):
        embeddings = self.bert.get_input_embeddings()(input_ids.clamp(min=0))
        replaced = self.mlp(self.lstm(self.embedding(torch.arange(9))[None])[0]).squeeze(0)
        for row in range(len(input_ids)):
            for number in range(9):
                place = (input_ids[row] == -1 - number).nonzero()[0, 0]
                embeddings[row, place] = replaced[number]
        return self.bert(inputs_embeds=embeddings, attention_mask=attention_mask, labels=labels)


def test_p_tuning_is_that_of_the_authors():
    """Their template (3, 3, 3): pseudo tokens before the mask, between it and the subject, and at the end."""
    method = PTuning("[P] [P] [P] [MASK] [P] [P] [P] {subject} [P] [P] [P]")
    model = method.attach(base("bert"))
    other = Lama(base("bert"))
    first, second, third = -torch.arange(1, 10).view(3, 3)
    rows = [torch.cat([first, torch.tensor([5]), second, subject, third]) for subject in batch()["input_ids"][:, :2]]
    ids = torch.stack(rows)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.where(ids == 5, ids, -100)}
    references = [parameter for parameter in other.parameters() if parameter.requires_grad]
    assert_same_steps(model, matched(method, references), inputs, other, references, inputs)


class PrefixEncoder(nn.Module):
    """P-tuning v2's encoder as the authors' code has it, around a BERT that is given a cache."""

    def __init__(self, bert: nn.Module, hidden: int, p: int = 3, layers: int = 2, heads: int = 4, width: int = 8):
        super().__init__()
        self.bert, self.heads, self.width = bert.requires_grad_(False), heads, width
        self.bert.classifier.requires_grad_(True)
        both, model_width = layers * 2 * heads * width, heads * width
        self.embedding = nn.Embedding(p, model_width if hidden else both)
        mlp = nn.Sequential(nn.Linear(model_width, hidden), nn.Tanh(), nn.Linear(hidden, both)) if hidden else None
        self.trans = mlp
        self.double()

    def forward(self, input_ids, attention_mask, labels):
        prefix = self.embedding.weight if self.trans is None else self.trans(self.embedding.weight)
        rows, p = len(input_ids), len(prefix)
        split = prefix.expand(rows, -1, -1).view(rows, p, -1, self.heads, self.width).permute(2, 0, 3, 1, 4).split(2)
        cache = DynamicCache()
        for layer, (key, value) in enumerate(split):
            cache.update(key, value, layer)
        mask = torch.cat([torch.ones(rows, p, dtype=torch.long), attention_mask], 1)
        return self.bert(input_ids=input_ids, attention_mask=mask, labels=labels, past_key_values=cache)


@pytest.mark.parametrize("task", ["classify", "tag"])
@pytest.mark.parametrize("hidden", [0, 16])
def test_p_tuning_v2_is_that_of_the_authors(task, hidden):
    method = PTuningV2(length=3, hidden=hidden)
    model = method.attach(tiny("bert", task, torch.float64))
    other = PrefixEncoder(tiny("bert", task, torch.float64), hidden)
    their_head, our_head = list(other.bert.classifier.parameters()), list(model.classifier.parameters())
    if hidden:
        trunk, maps = method.added[0].trunk, [prefix.up for prefix in method.added]
        ours = [trunk.start, trunk.down.weight, trunk.down.bias, *(p for up in maps for p in (up.weight, up.bias))]
        references = [other.embedding.weight, *other.trans.parameters()]

        def joined(values):
            """Ours as they are in their code: the last linear maps of all layers, one under the other."""
            return [*values[:3], torch.cat(values[3:-2:2]), torch.cat(values[4:-2:2]), *values[-2:]]

    else:
        ours, references = [prefix.keys_values for prefix in method.added], [other.embedding.weight]

        def joined(values):
            return [torch.stack(values[:-2]).permute(3, 0, 1, 2, 4).reshape(3, -1), *values[-2:]]

    ours, references = ours + our_head, references + their_head
    with torch.no_grad():
        for reference, mine in zip(references, joined(ours), strict=True):
            reference.copy_(mine)
    inputs = batch(task)
    for mine, theirs in zip(steps_of(model, ours, inputs), steps_of(other, references, inputs), strict=True):
        assert close(mine[0], theirs[0])
        for kind in (1, 2):
            assert all(close(*pair) for pair in zip(joined(mine[kind]), theirs[kind], strict=True))
