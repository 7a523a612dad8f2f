import hashlib
import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from families import batch, tiny
from safetensors.torch import load_file
from torch import nn

from peft_edu import LoRA, count, load, save, trainable
from peft_edu.method import attached
from peft_edu.storage.folder import read_json, tensor_bytes, write_folder


def learned(family: str = "gpt2", task: str = "classify", dtype=torch.float32, method=None):
    model = (method or LoRA(rank=4)).attach(tiny(family, task, dtype))
    for parameter in trainable(model).values():
        nn.init.normal_(parameter, std=0.2)
    return model


def logits(model):
    with torch.no_grad():
        return model(**batch("classify")).logits


@pytest.fixture
def folder(tmp_path) -> Path:
    return save(learned(), tmp_path / "saved")


def edit(folder: Path, **changes) -> None:
    recipe = json.loads((folder / "recipe.json").read_text()) | changes
    (folder / "recipe.json").write_text(json.dumps(recipe))


def exchange(folder: Path, data: bytes) -> None:
    """Replace the tensors, with a checksum to match, as someone with bad intentions would."""
    (folder / "learned.safetensors").write_bytes(data)
    edit(folder, sha256=hashlib.sha256(data).hexdigest())


def refused(folder: Path, message: str, family: str = "gpt2", task: str = "classify", error=ValueError) -> None:
    """Loading raises this message, and the model is as if nothing had been tried."""
    model = tiny(family, task)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=message):
        load(model, folder)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert attached(model) is None


def header(tensors: dict) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


class TestCount:
    def test_shared_parameters_count_once(self):
        model = tiny("gpt2")
        assert count(model).total == sum(parameter.numel() for parameter in model.parameters())
        assert count(model).total == sum(
            value.numel() for name, value in model.state_dict().items() if name != "lm_head.weight"
        )

    def test_head_and_share(self):
        result = count(LoRA(rank=4).attach(tiny("bert", "classify")))
        assert (result.trainable, result.head) == (2 * 2 * 4 * (32 + 32) + 3 * 32 + 3, 3 * 32 + 3)
        assert result.share == result.trainable / result.total

    def test_a_frozen_head_is_not_counted_as_trained(self):
        model = tiny("bert", "classify")
        model.requires_grad_(False)
        assert count(model).trainable == count(model).head == 0

    def test_it_reads_well(self):
        assert repr(count(LoRA(rank=4).attach(tiny("bert", "classify")))).startswith("1,123 of ")
        assert repr(count(LoRA(rank=4).attach(tiny("bert", "classify")))).endswith("), 99 of them in the task head")
        assert "head" not in repr(count(LoRA(rank=4).attach(tiny("bert"))))

    def test_the_meta_device_has_numbers_without_memory(self):
        with torch.device("meta"):
            on_meta = LoRA(rank=4).attach(tiny("t5"))
        assert count(on_meta) == count(LoRA(rank=4).attach(tiny("t5")))
        assert {parameter.device.type for parameter in on_meta.parameters()} == {"meta"}


class TestSave:
    def test_a_folder_holds_the_recipe_and_the_learned_parameters(self, folder):
        assert sorted(path.name for path in folder.iterdir()) == ["learned.safetensors", "recipe.json"]
        recipe = json.loads((folder / "recipe.json").read_text())
        assert (recipe["method"], recipe["fields"]["rank"], recipe["format"]) == ("LoRA", 4, 1)
        assert recipe["model"] == {
            "class": "GPT2ForSequenceClassification", "family": "gpt2", "blocks": 2, "width": 32, "vocabulary": 64,
        }  # fmt: skip

    def test_what_is_frozen_is_not_written(self, folder):
        size = sum(4 * parameter.numel() for parameter in trainable(learned()).values())
        assert size < (folder / "learned.safetensors").stat().st_size < size + 2000

    def test_saving_again_replaces(self, folder):
        model = learned(method=LoRA(rank=2))
        save(model, folder)
        assert torch.equal(logits(load(tiny("gpt2", "classify"), folder)), logits(model))
        assert [path.name for path in folder.parent.iterdir()] == ["saved"]

    def test_nothing_attached(self):
        with pytest.raises(RuntimeError, match="no method is attached to this GPT2LMHeadModel"):
            save(tiny("gpt2"), "nowhere")

    def test_a_folder_with_other_things_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(FileExistsError, match="holds other things .*thesis.tex.* name a new folder"):
            save(learned(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize("broken", ["write_bytes", "rename"])
    def test_a_failure_leaves_what_was_there(self, folder, monkeypatch, broken):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        works = getattr(Path, broken)

        def full_disk(self, *arguments):
            if self.name in ("learned.safetensors", "new"):
                raise OSError("no space left on device")
            return works(self, *arguments)

        monkeypatch.setattr(Path, broken, full_disk)
        with pytest.raises(OSError, match="no space left"):
            save(learned(method=LoRA(rank=2)), folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["saved"]


class TestLoad:
    def test_a_file_of_another_model(self, folder):
        refused(folder, "trained on .*'GPT2ForSeq.*'family': 'gpt2'.* this model is .*'family': 'bert'", family="bert")
        refused(folder, "GPT2ForSequenceClassification.*GPT2LMHeadModel", task="language")

    def test_a_file_of_another_number_of_labels(self, tmp_path):
        model = learned()
        model.config.num_labels, model.score = 5, nn.Linear(32, 5, bias=False)
        refused(save(model, tmp_path / "five"), r"score.weight is \(5, 32\) in the file, but \(3, 32\) in the model")

    def test_a_file_of_another_rank(self, folder):
        edit(folder, fields={"rank": 2})
        refused(folder, r"lora_query.A is \(4, 32\) in the file, but \(2, 32\) in the model")

    def test_a_file_of_other_targets(self, folder):
        edit(folder, fields={"rank": 4, "targets": ["query"]})
        refused(folder, r"does not fit the file: .*lora_value.A is only in the file \(4 such names\)")
        edit(folder, fields={"rank": 4, "targets": ["query", "key", "value"]})
        refused(folder, r"does not fit the file: .*lora_key.A is only in the model \(4 such names\)")

    def test_a_file_of_another_method(self, folder):
        edit(folder, method="HeadOnly", fields={})
        refused(folder, r"HeadOnly\(\) does not fit the file: .*lora_query.A is only in the file \(8 such names\)")

    def test_a_method_that_is_loaded_already(self, folder):
        model = load(tiny("gpt2", "classify"), folder)
        with pytest.raises(RuntimeError, match="LoRA.* is attached to this model: detach it"):
            load(model, folder)

    @pytest.mark.parametrize("method", ["DoRA", "../../evil", ["LoRA"], None, "Method"])
    def test_an_unknown_method(self, folder, method):
        edit(folder, method=method)
        refused(folder, "names the method .*; peft_edu has .*LoRA")

    @pytest.mark.parametrize(
        "fields", [{"rank": 0}, {"rank": "8"}, {"alpha": "big"}, {"__class__": 1}, ["rank"], {"weights": "../other"}, 3]
    )
    def test_fields_that_describe_nothing(self, folder, fields):
        edit(folder, fields=fields)
        refused(folder, "recipe.json does not describe a LoRA")

    def test_a_rank_of_a_billion(self, folder):
        edit(folder, fields={"rank": 10**9})
        refused(folder, "rank 1000000000 exceeds 32")

    @pytest.mark.parametrize("recipe", ["", "{", "[]", "\x00", '"LoRA"'])
    def test_a_recipe_that_is_none(self, folder, recipe):
        (folder / "recipe.json").write_text(recipe)
        refused(folder, "recipe.json (is not JSON|holds a)")

    def test_a_recipe_of_another_format(self, folder):
        edit(folder, format=2)
        refused(folder, "is not a recipe of format 1")

    def test_a_recipe_that_points_elsewhere(self, folder):
        edit(folder, file="../../../etc/passwd")
        refused(folder, "is not a recipe of format 1: it holds .*, file")

    @pytest.mark.parametrize("name", ["recipe.json", "learned.safetensors"])
    def test_a_missing_file(self, folder, name):
        (folder / name).unlink()
        refused(folder, f"{name} does not exist", error=FileNotFoundError)

    @pytest.mark.parametrize("length", [0, 4, 100, -1])
    def test_a_truncated_file(self, folder, length):
        data = (folder / "learned.safetensors").read_bytes()[:length]
        (folder / "learned.safetensors").write_bytes(data)
        refused(folder, "damaged, or exchanged")
        exchange(folder, data)
        refused(folder, "is not a complete safetensors file")

    def test_a_flipped_bit(self, folder):
        data = bytearray((folder / "learned.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "learned.safetensors").write_bytes(data)
        refused(folder, "damaged, or exchanged")

    def test_a_pickle_is_not_run(self, folder, tmp_path):
        class Evil:
            def __reduce__(self):
                return Path.touch, (tmp_path / "owned",)

        exchange(folder, pickle.dumps(Evil()))
        refused(folder, "is not a complete safetensors file")
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("shape", [[10**9, 10**9], [10**9, 0], [2**63, 2]])
    def test_a_shape_of_a_billion_rows(self, folder, shape):
        tensors = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name in trainable(learned())}
        exchange(folder, header(tensors))
        refused(folder, "is not a complete safetensors file|in the file, but")

    def test_a_number_format_that_torch_does_not_have(self, folder):
        exchange(folder, header({"score.weight": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}) + b"\0")
        refused(folder, "learned.safetensors is not a complete safetensors file")

    def test_whole_numbers_are_no_weights(self, folder):
        tensors = load_file(folder / "learned.safetensors")
        exchange(folder, tensor_bytes({name: value.long() for name, value in tensors.items()}))
        refused(folder, "is torch.int64 in the file, and the model's torch.float32 would lose digits")

    def test_bfloat16_into_float32_loses_nothing(self, tmp_path):
        model = learned(dtype=torch.bfloat16)
        save(model, tmp_path / "half")
        again = load(tiny("gpt2", "classify"), tmp_path / "half")
        for name, parameter in trainable(again).items():
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, trainable(model)[name].float())

    @pytest.mark.parametrize("wide, narrow", [(torch.float64, torch.float32), (torch.float32, torch.bfloat16)])
    def test_digits_are_not_lost_in_silence(self, tmp_path, wide, narrow):
        save(learned(dtype=wide), tmp_path / "wide")
        with pytest.raises(
            ValueError, match=rf"{wide} in the file.* {narrow} would lose digits: model.to\({wide}\) first"
        ):
            load(tiny("gpt2", "classify", narrow), tmp_path / "wide")

    def test_a_loaded_model_detaches_to_its_own_base(self, folder):
        base = tiny("gpt2", "classify", seed=1)
        before = {name: value.clone() for name, value in base.state_dict().items()}
        attached(load(base, folder)).detach()
        assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_json_that_is_nested_without_end(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="deep.json is not JSON"):
        read_json(tmp_path / "deep.json")


def test_the_folder_that_one_works_in_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for folder in (".", ".."):
        with pytest.raises(ValueError, match="is where this program works, and would be replaced"):
            write_folder(folder, {"file": b""})
    assert Path.cwd() == tmp_path / "inner"
