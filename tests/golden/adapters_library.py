"""Makes adapters.safetensors: what the `adapters` library (1.3.0, transformers 4.57) computes with Houlsby's adapter.

It pins an older transformers, so its numbers are made once, in an environment of their own:

    python3 -m venv golden && golden/bin/pip install torch==2.13.0 adapters==1.3.0
    golden/bin/python tests/golden/adapters_library.py

All weights follow from names and numbers, so that the test has the same ones without a copy of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import adapters  # noqa: E402
import torch  # noqa: E402
from adapters.methods.modeling import Adapter  # noqa: E402
from families import batch, fill, fill_adapter, tiny  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

FAMILIES = ("bert", "roberta", "gpt2", "t5", "llama")


def train(family):
    model = tiny(family, dtype=torch.float64)
    fill(model)
    adapters.init(model)
    houlsby = adapters.DoubleSeqBnConfig(non_linearity="gelu", reduction_factor=8, cross_adapter=family == "t5")
    model.add_adapter("a", config=houlsby)
    model.train_adapter("a")
    model.double().eval()
    places = [module for module in model.modules() if isinstance(module, Adapter)]
    parts = []
    for i, place in enumerate(places):
        parts.append((place.adapter_down[0], place.adapter_up))
        fill_adapter(i, *parts[-1])
    model.requires_grad_(False)  # the library leaves BERT's language-model head trained
    trained = [parameter.requires_grad_(True) for _, _, _, parameter in named(parts)]
    optimizer, found = torch.optim.AdamW(trained, lr=0.01), {}
    for step in range(3):
        output = model(**batch())
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            found["logits"] = output.logits.detach().clone()
            found |= {f"{i}.{j}.{name}.grad": p.grad.clone() for i, j, name, p in named(parts)}
        optimizer.step()
    return found | {f"{i}.{j}.{name}.after": p.detach().clone() for i, j, name, p in named(parts)}


def named(parts):
    for i, pair in enumerate(parts):
        for j, part in zip(("down", "up"), pair, strict=True):
            for name, parameter in part.named_parameters():
                yield i, j, name, parameter


if __name__ == "__main__":
    numbers = {f"{family}.{name}": value for family in FAMILIES for name, value in train(family).items()}
    save_file(numbers, Path(__file__).with_name("adapters.safetensors"))
    print(len(numbers), "tensors")
