import pytest
import torch
from families import batch, tiny
from torch import nn

import peft_edu
from peft_edu import LoRA, PromptTuning, SeveralLoRAs, count, load, save, to_peft, trainable
from peft_edu.method import attached

FAMILIES = ("gpt2", "llama", "bert", "t5")
RECIPES = {
    "one": LoRA(rank=2, alpha=8),
    "two": LoRA(rank=4, targets=("value", "up")),
    "three": LoRA(rank=3, targets=("key",)),
}


def trained(family: str, method, seed: int):
    model = method.attach(tiny(family, dtype=torch.float64))
    torch.manual_seed(seed)
    for parameter in trainable(model).values():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def folders(request, tmp_path) -> dict[str, str]:
    """Three LoRAs of one base, that differ in rank, scale and targets."""
    for seed, (name, method) in enumerate(RECIPES.items()):
        save(trained(request.param, LoRA(method.rank, method.alpha, targets=method.targets), seed), tmp_path / name)
    return {name: str(tmp_path / name) for name in RECIPES}


def several(family: str, folders: dict[str, str]) -> tuple[SeveralLoRAs, nn.Module]:
    method = SeveralLoRAs(folders)
    return method, method.attach(tiny(family, dtype=torch.float64))


@torch.no_grad()
def logits(model, rows=slice(None)):
    return model(**{name: value[rows] for name, value in batch().items()}).logits


def of_each(folders: dict[str, str], family: str) -> dict[str, torch.Tensor]:
    return {name: logits(load(tiny(family, dtype=torch.float64), folder)) for name, folder in folders.items()}


@pytest.mark.parametrize("folders, family", [(each, each) for each in FAMILIES], indirect=["folders"])
class TestOnEachFamily:
    def test_one_of_them_is_what_loading_it_gives(self, folders, family):
        method, model = several(family, folders)
        for name, expected in of_each(folders, family).items():
            method.use(name)
            assert torch.allclose(logits(model), expected, atol=1e-12)
        method.use(None)
        assert torch.equal(logits(model), logits(tiny(family, dtype=torch.float64)))

    def test_a_row_has_its_own(self, folders, family):
        alone = of_each(folders, family) | {None: logits(tiny(family, dtype=torch.float64))}
        method, model = several(family, folders)
        for chosen in (["three", None, "one"], ["two", "two", "three"]):
            method.use(chosen)
            together = logits(model)
            for row, name in enumerate(chosen):
                assert torch.allclose(together[row], alone[name][row], atol=1e-12)

    def test_a_sum_merged_is_the_sum(self, folders, family):
        method, model = several(family, folders)
        method.use({"one": 0.3, "two": -1})
        expected = logits(model)
        for _, stacked in method.targets:
            parts = [stacked.B * (stacked.place == i) @ stacked.A for i in range(2)]
            assert torch.allclose(stacked.weight, 0.3 * parts[0] - parts[1], atol=1e-15)  # 0.3 as exact as the model
        assert torch.allclose(logits(method.merge()), expected, atol=1e-12)
        assert attached(model) is None

    def test_detached_the_base_is_untouched(self, folders, family):
        method, model = several(family, folders)
        assert count(model).trainable == 0
        assert torch.equal(logits(method.detach()), logits(tiny(family, dtype=torch.float64)))


@pytest.mark.parametrize("folders", ["gpt2"], indirect=True)
def test_it_generates_row_by_row(folders):
    ids = batch()["input_ids"]
    method, model = several("gpt2", folders)
    method.use(["one", "three", None])
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    together = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    for row, name in enumerate(("one", "three", None)):
        method.use(name)
        one = ids[row : row + 1]
        assert torch.equal(together[row], model.generate(one, attention_mask=torch.ones_like(one), **settings)[0])


@pytest.mark.parametrize("folders", ["llama"], indirect=True)
def test_a_folder_of_hf_peft_is_one_of_them(folders, tmp_path):
    model = load(tiny("llama", dtype=torch.float64), folders["one"])
    to_peft(model, tmp_path / "peft")
    method, model = several("llama", {"own": folders["one"], "theirs": str(tmp_path / "peft")})
    of_own = logits(model)
    method.use("theirs")
    assert torch.allclose(logits(model), of_own, atol=1e-6)  # HF peft's folder is float32


@pytest.mark.parametrize("folders", ["gpt2"], indirect=True)
@pytest.mark.parametrize(
    "chosen, message",
    [
        ("four", "the LoRA is 'four', but must be one of 'one', 'two', 'three'"),
        ({"one": "much"}, "the weight of one is 'much', but must be a finite number"),
        (["one", "four", None], "the LoRA is 'four'"),
        ([], "chosen is .., but must be a name, None, a dict of weights, or a list for the rows"),
        (1, "chosen is 1, but must be a name"),
    ],
)
def test_a_choice_that_there_is_not(folders, chosen, message):
    method, model = several("gpt2", folders)
    before = logits(model)
    with pytest.raises(ValueError, match=message):
        method.use(chosen)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("folders", ["gpt2"], indirect=True)
def test_a_batch_of_another_size_is_told(folders):
    method, model = several("gpt2", folders)
    method.use(["one", "two"])
    with pytest.raises(ValueError, match="LoRAs were chosen for 2 rows, and the batch has 3"):
        logits(model)


@pytest.mark.parametrize("folders", ["gpt2"], indirect=True)
def test_rows_of_their_own_do_not_merge_and_nothing_is_saved(folders, tmp_path):
    method, model = several("gpt2", folders)
    method.use(["one", "two", None])
    with pytest.raises(ValueError, match="each row has a LoRA of its own"):
        method.merge()
    with pytest.raises(TypeError, match="kept in its own folder already"):
        save(model, tmp_path / "all")
    with pytest.raises(ValueError, match="nothing in this GPT2LMHeadModel is trainable"):
        peft_edu.fit(model, [batch()], steps=1, lr=1e-3)


def test_what_does_not_add_up_is_refused(tmp_path):
    save(trained("gpt2", PromptTuning(2), 0), tmp_path / "prompt")
    model = LoRA(2).attach(tiny("gpt2", dtype=torch.float64))
    attached(model).unfreeze(model.transformer.ln_f)
    save(model, tmp_path / "beside")
    for folder, message in (("prompt", "only LoRAs add up"), ("beside", "transformer.ln_f.weight was trained too")):
        base = tiny("gpt2", dtype=torch.float64)
        with pytest.raises((TypeError, ValueError), match=message):
            SeveralLoRAs({"it": str(tmp_path / folder)}).attach(base)
        assert attached(base) is None and torch.equal(logits(base), logits(tiny("gpt2", dtype=torch.float64)))
    with pytest.raises(ValueError, match="a GPT2ForSequenceClassification comes with a task head"):
        SeveralLoRAs({"it": str(tmp_path / "beside")}).attach(tiny("gpt2", "classify"))
    with pytest.raises(ValueError, match="must be a dict: names, and the folder"):
        SeveralLoRAs(["one"])
