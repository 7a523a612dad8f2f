import errno
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
import safetensors.torch
import torch
from families import batch, tiny
from safetensors.torch import load_file
from torch import nn

from peft_edu import FullFineTuning, LoRA, PTuning, count, load, save, to_peft, trainable
from peft_edu.method import attached
from peft_edu.storage import checkpoint
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
            "labels": ["LABEL_0", "LABEL_1", "LABEL_2"],
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
        with pytest.raises(FileExistsError, match="holds other things .*thesis.tex.* name a new one"):
            save(learned(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize("broken", ["write_bytes", "rename"])
    def test_a_failure_leaves_what_was_there(self, folder, monkeypatch, broken):
        monkeypatch.setattr(sys, "platform", "without an exchange")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        works = getattr(Path, broken)

        def full_disk(self, *arguments):
            if self.name in ("learned.safetensors", ".new"):
                raise OSError(errno.ENOSPC, "no space left on device")
            return works(self, *arguments)

        monkeypatch.setattr(Path, broken, full_disk)
        with pytest.raises(OSError, match=r"where all is as it was \(no space left on device\): free some space"):
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
        five = save(model, tmp_path / "five")
        refused(five, "'LABEL_3', 'LABEL_4'.*, but this model is .*'LABEL_2'.*: take one that is the same")
        description = json.loads((five / "recipe.json").read_text())["model"]
        edit(five, model={name: value for name, value in description.items() if name != "labels"})
        refused(five, r"score.weight is \(5, 32\) in the file, but \(3, 32\) in the model")

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
        refused(folder, "is torch.int64 in the file, and not all of it is a finite torch.float32")

    def test_bfloat16_into_float32_loses_nothing(self, tmp_path):
        model = learned(dtype=torch.bfloat16)
        save(model, tmp_path / "half")
        again = load(tiny("gpt2", "classify"), tmp_path / "half")
        for name, parameter in trainable(again).items():
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, trainable(model)[name].float())

    @pytest.mark.parametrize("wide, narrow", [(torch.float64, torch.float32), (torch.float32, torch.bfloat16)])
    def test_numbers_are_rounded_to_the_models_precision(self, tmp_path, wide, narrow):
        model = learned(dtype=wide)
        again = load(tiny("gpt2", "classify", narrow), save(model, tmp_path / "wide"))
        for name, parameter in trainable(again).items():
            assert torch.equal(parameter, trainable(model)[name].to(narrow))

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300])
    def test_numbers_that_the_model_cannot_hold(self, tmp_path, number):
        folder = save(learned(dtype=torch.float64), tmp_path / "saved")
        tensors = load_file(folder / "learned.safetensors")
        tensors["score.weight"][1, 2] = number
        exchange(folder, safetensors.torch.save(tensors))
        refused(folder, "score.weight is torch.float64 in the file, and not all of it is a finite torch.float32")

    def test_an_interrupt_while_filling_leaves_the_model_untouched(self, folder, monkeypatch):
        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "_fill", interrupted)
        refused(folder, "", error=KeyboardInterrupt)

    def test_a_loaded_model_detaches_to_its_own_base(self, folder):
        base = tiny("gpt2", "classify")
        nn.init.ones_(base.score.weight)
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


class TestWhatIsKept:
    """A method knows from `attach` on what it trains; what is trained beside it is known by `requires_grad`."""

    @pytest.mark.parametrize("method", [LoRA(), FullFineTuning(), PTuning("[P] {text}", encoder="mlp")])
    @pytest.mark.parametrize("frozen", ["all", "the head"])
    def test_what_was_frozen_since_is_saved(self, method, frozen, tmp_path):
        model = learned(method=replace(method))
        best = save(model, tmp_path / "best")
        before = load_file(best / "learned.safetensors")
        (model if frozen == "all" else model.score).requires_grad_(False)
        after = load_file(save(model, best) / "learned.safetensors")
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(logits(load(tiny("gpt2", "classify"), best)), logits(model))

    @pytest.mark.parametrize("part", ["transformer.wte", "transformer.ln_f", "transformer.h.1.mlp.c_fc.bias"])
    @pytest.mark.parametrize("by", ["hand", "the method"])
    def test_what_was_trained_beside_the_method_is_saved_and_loaded(self, part, by, tmp_path):
        model = LoRA(rank=4).attach(tiny("gpt2", "classify"))
        found = model.get_parameter(part) if part.endswith("bias") else model.get_submodule(part)
        found.requires_grad_(True) if by == "hand" else attached(model).unfreeze(found)
        for parameter in trainable(model).values():
            nn.init.normal_(parameter, std=0.2)
        if by == "the method":
            model.requires_grad_(False)
        folder = save(model, tmp_path / "saved")
        beside = json.loads((folder / "recipe.json").read_text())["beside"]
        assert beside and all(name.startswith(part) for name in beside)
        base = tiny("gpt2", "classify")
        before = {name: value.clone() for name, value in base.state_dict().items()}
        again = load(base, folder)
        assert torch.equal(logits(again), logits(model))
        attached(again).detach()
        assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())

    def test_names_that_only_a_recipe_knows_are_refused(self, folder):
        edit(folder, beside=["transformer.ln_f.weight", "evil", ["nested"]])
        refused(folder, r"transformer.ln_f.weight is only in the model \(1 such names\)")

    def test_words_that_were_added_are_trained_with_their_embedding(self, tmp_path):
        def longer(seed):
            model = tiny("gpt2", "classify")
            torch.manual_seed(seed)
            model.resize_token_embeddings(70)
            return model

        model = LoRA(rank=4).attach(longer(1))
        alone = save(model, tmp_path / "alone")
        with pytest.raises(ValueError, match="trained on other weights: .*wte.* New words start at random: unfreeze"):
            load(longer(2), alone)
        attached(model).unfreeze(model.get_input_embeddings())
        ids = torch.tensor([[3, 69, 1]])
        again = load(longer(2), save(model, tmp_path / "with words"))
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)

    @pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
    def test_a_wrapper_is_looked_through(self, wrap, tmp_path):
        model = learned()
        assert torch.equal(logits(load(tiny("gpt2", "classify"), save(wrap(model), tmp_path / "x"))), logits(model))

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_what_is_not_finite_is_not_saved(self, number, folder):
        before = (folder / "learned.safetensors").read_bytes()
        model = learned()
        model.score.weight.data[0, 0] = number
        with pytest.raises(ValueError, match="nothing was saved: score.weight holds nan or inf"):
            save(model, folder)
        assert (folder / "learned.safetensors").read_bytes() == before

    def test_meta_has_nothing_to_save_and_no_place_to_load_into(self, folder):
        with torch.device("meta"):
            model, other = LoRA(rank=4).attach(tiny("gpt2", "classify")), tiny("gpt2", "classify")
        for write in (save, to_peft):
            with pytest.raises(ValueError, match=r"nothing was saved: .*, or \(on meta\) no numbers at all"):
                write(model, folder)
        with pytest.raises(ValueError, match="GPT2ForSequenceClassification is on meta, .*: load its weights first"):
            load(other, folder)


class TestTheBaseIsKnownAgain:
    def test_other_weights_of_the_same_sizes_are_refused(self, folder):
        other = tiny("gpt2", "classify", seed=1)
        with pytest.raises(ValueError, match="trained on other weights: the last row of transformer.wte.weight"):
            load(other, folder)
        assert attached(other) is None

    @pytest.mark.parametrize("which", range(8))
    def test_each_number_of_the_sample_counts(self, tmp_path, which):
        folder = save(learned("bert"), tmp_path / "saved")
        weights = json.loads((folder / "recipe.json").read_text())["weights"]
        name = sorted(weights)[which]
        weights[name][0] *= 1 + 4 * torch.finfo(torch.float32).eps  # four units in the last place
        edit(folder, weights=weights)
        refused(folder, f"trained on other weights: the last row of {name} goes up to", family="bert")

    @pytest.mark.parametrize("family", ["bert", "t5"])
    def test_a_base_into_which_another_update_was_merged_is_refused(self, family, tmp_path):
        folder = save(learned(family), tmp_path / "saved")
        base = tiny(family, "classify")
        merged = LoRA(rank=2)
        for parameter in trainable(merged.attach(base)).values():
            nn.init.normal_(parameter, std=0.2)
        merged.merge()
        with pytest.raises(ValueError, match="trained on other weights: the last row of .*(query|value|q|v).weight"):
            load(base, folder)
        merged.unmerge()
        merged.detach()
        assert attached(load(base, folder)) == LoRA(rank=4)

    def test_a_part_of_a_fused_map_counts(self, tmp_path):
        """The largest number of GPT-2's c_attn is a key's here; a merged LoRA changes queries and values alone."""
        base, again = tiny("gpt2", "classify"), tiny("gpt2", "classify")
        for model in (base, again):
            for name, weight in model.named_parameters():
                if name.endswith("c_attn.weight"):
                    weight.data[-1, model.config.hidden_size] = 10.0
        folder = save(LoRA(rank=4).attach(base), tmp_path / "saved")
        merged = LoRA(rank=2)
        for parameter in trainable(merged.attach(again)).values():
            nn.init.normal_(parameter, std=0.02)
        merged.merge()
        with pytest.raises(ValueError, match="trained on other weights: the last row of .*c_attn.weight sums up to"):
            load(again, folder)

    def test_a_folder_that_keeps_the_largest_numbers_alone_is_read(self, folder):
        weights = json.loads((folder / "recipe.json").read_text())["weights"]
        edit(folder, weights={name: sample[:2] for name, sample in weights.items()})
        assert attached(load(tiny("gpt2", "classify"), folder)) == LoRA(rank=4)

    @pytest.mark.parametrize("saved, here", [("float64", "bfloat16"), ("bfloat16", "float32"), ("float16", "float64")])
    def test_the_same_weights_are_known_in_another_precision(self, saved, here, tmp_path):
        saved, here = getattr(torch, saved), getattr(torch, here)
        save(learned(dtype=saved), tmp_path / "saved")
        assert attached(load(tiny("gpt2", "classify", here), tmp_path / "saved")) == LoRA(rank=4)

    def test_what_replaces_all_weights_needs_no_base(self, tmp_path):
        model = learned(method=FullFineTuning())
        again = load(tiny("gpt2", "classify", seed=1), save(model, tmp_path / "full"))
        assert torch.equal(logits(again), logits(model))

    def test_a_folder_of_an_older_version_is_read(self, folder):
        recipe = json.loads((folder / "recipe.json").read_text())
        del recipe["weights"], recipe["beside"], recipe["model"]["labels"]
        (folder / "recipe.json").write_text(json.dumps(recipe))
        assert attached(load(tiny("gpt2", "classify", seed=1), folder)) == LoRA(rank=4)

    @pytest.mark.parametrize("family", ["bert", "roberta", "t5", "deberta-v2"])
    @pytest.mark.parametrize("order", [("bad", "good", "fair"), ("fair", "bad", "good")])
    def test_labels_in_another_order_keep_their_meaning(self, family, order, tmp_path):
        model, other = learned(family), tiny(family, "classify")
        model.config.id2label = dict(enumerate(("good", "bad", "fair")))
        other.config.id2label = dict(enumerate(order))
        load(other, save(model, tmp_path / "saved"))
        where = [("good", "bad", "fair").index(label) for label in order]
        assert torch.allclose(logits(other), logits(model)[:, where], atol=1e-6)

    def test_a_head_without_names_takes_those_of_each_task(self, tmp_path):
        saved = {}
        for task in (("good", "bad", "fair"), ("cat", "dog", "cow")):
            model = learned()
            model.config.id2label = dict(enumerate(task))
            saved[task] = save(model, tmp_path / task[0])
        base = tiny("gpt2", "classify")
        for task, folder in saved.items():
            load(base, folder)
            assert tuple(base.config.id2label.values()) == task and base.config.label2id[task[2]] == 2
            attached(base).detach()
            assert base.config.id2label[0] == "LABEL_0" and base.config.label2id["LABEL_2"] == 2

    def test_other_labels_are_refused(self, folder):
        other = tiny("gpt2", "classify")
        other.config.id2label = dict(enumerate(("good", "bad", "LABEL_2")))
        with pytest.raises(ValueError, match="LABEL_1.*, but this model is .*'good', 'bad'.*: take one that is"):
            load(other, folder)

    @pytest.mark.parametrize("model", [None, 3, [], {"labels": 3}, {"labels": [1, "b", None]}])
    @pytest.mark.parametrize("weights", [{}, {"transformer.wte.weight": "0"}, {"transformer.wte.weight": []}, 3])
    def test_a_description_that_is_none(self, folder, model, weights):
        edit(folder, model=model)
        refused(folder, "recipe.json (does not describe a model|was trained on)")
        edit(save(learned(), folder), weights=weights or [["a", "b"]])
        refused(folder, "does not describe a model|recipe.json does not") if weights else None


class TestHostile:
    def test_files_have_a_limit(self, folder):
        with (folder / "recipe.json").open("r+b") as file:
            file.truncate(10**12)
        refused(folder, "recipe.json is larger than the 1,048,576 bytes")
        save(learned(), folder)
        with (folder / "learned.safetensors").open("r+b") as file:
            file.truncate(10**12)
        refused(folder, "learned.safetensors is larger than the 67,...,... bytes that it could need for this model")

    def test_fields_that_are_nested_without_end(self, folder):
        recipe = json.loads((folder / "recipe.json").read_text()) | {"fields": {"targets": "here"}}
        for depth in (900, 990):
            (folder / "recipe.json").write_text(json.dumps(recipe).replace('"here"', "[" * depth + "]" * depth))
            refused(folder, "recipe.json (does not describe a LoRA|is not JSON)")

    @pytest.mark.parametrize("fields", [None, "rank", [["rank", 8]], 0])
    def test_fields_are_names_with_values(self, folder, fields):
        edit(folder, fields=fields)
        refused(folder, "recipe.json does not describe a LoRA: its fields are .*, no names with values")

    @pytest.mark.parametrize("name", ["recipe.json", "learned.safetensors"])
    def test_what_may_not_be_read(self, folder, name, monkeypatch):
        works = Path.open

        def forbidden(self, *arguments):
            if self.name == name:
                raise PermissionError(errno.EACCES, "Permission denied")
            return works(self, *arguments)

        monkeypatch.setattr(Path, "open", forbidden)
        message = rf"{name} cannot be read \(Permission denied\): .*ask for the right"
        refused(folder, message, error=PermissionError)

    def test_a_pipe_is_not_waited_for(self, folder):
        (folder / "learned.safetensors").unlink()
        os.mkfifo(folder / "learned.safetensors")
        refused(folder, "learned.safetensors does not exist, or is no regular file", error=FileNotFoundError)


class TestPlaces:
    @pytest.mark.parametrize("folder", [None, 5, b"/some", ["a"]])
    @pytest.mark.parametrize("call", [save, to_peft, load])
    def test_what_is_no_path(self, folder, call):
        with pytest.raises(TypeError, match=f"expected the path of a folder, got {type(folder).__name__}"):
            call(tiny("gpt2", "classify") if call is load else learned(), folder)

    @pytest.mark.parametrize(
        "folder, message, error",
        [
            ("a\0b", "there can be no folder .*null", ValueError),
            ("~nobody-of-this-name/x", "there can be no folder '~nobody", ValueError),
            ("/", "/ is where this program works, and would be replaced", ValueError),
            ("/dev/null", "/dev/null is a file, so there can be no folder", NotADirectoryError),
            ("/dev/null/x", "/dev/null is a file, so there can be no folder", NotADirectoryError),
            ("/proc/x", "nothing can be kept in /proc/x .*: .*name another", OSError),
            ("x" * 300, "nothing can be kept in .*File name too long.*: .*name another", OSError),
        ],
    )
    def test_where_nothing_can_be_saved(self, folder, message, error):
        with pytest.raises(error, match=message):
            save(learned(), folder)

    def test_links_in_a_circle_and_pipes(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(ValueError, match="there can be no folder .*a"):
            save(learned(), tmp_path / "a")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(NotADirectoryError, match="pipe is a file, so there can be no folder .*pipe: name another"):
            save(learned(), tmp_path / "pipe")

    def test_a_name_may_be_as_long_as_the_disk_allows(self, tmp_path):
        assert attached(load(tiny("gpt2", "classify"), save(learned(), tmp_path / ("x" * 250)))) == LoRA(rank=4)

    def test_the_home_folder_has_a_sign(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert save(learned(), "~/mine") == tmp_path / "mine"
        assert attached(load(tiny("gpt2", "classify"), "~/mine")) == LoRA(rank=4)

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_link_is_what_it_leads_to(self, tmp_path, exists):
        if exists:
            save(learned(), tmp_path / "large disk")
        (tmp_path / "link").symlink_to(tmp_path / "large disk")
        save(learned(method=LoRA(rank=2)), tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert attached(load(tiny("gpt2", "classify"), tmp_path / "large disk")) == LoRA(rank=2)

    def test_what_other_programs_leave_is_no_obstacle(self, folder):
        (folder / ".DS_Store").write_text("")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / "README.md").write_text("my notes")
        save(learned(method=LoRA(rank=2)), folder)
        assert (folder / "README.md").read_text() == "my notes"
        assert attached(load(tiny("gpt2", "classify"), folder)) == LoRA(rank=2)

    @pytest.mark.parametrize("name", ["recipe.json", "learned.safetensors", "README.md"])
    def test_a_folder_by_the_name_of_a_file_is_left_alone(self, folder, name):
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
        (folder / name / "mine").write_text("years of work")
        with pytest.raises(FileExistsError, match=f"holds other things .{name}"):
            save(learned(), folder)
        assert (folder / name / "mine").read_text() == "years of work"


DEAD = subprocess.Popen([sys.executable, "-c", ""])
DEAD.wait()


class TestKilled:
    """A process of the number DEAD was killed while it saved."""

    def test_between_two_renames_the_old_one_is_found_again(self, folder):
        hidden = folder.parent / f".saved-{DEAD.pid}-abc"
        hidden.mkdir()
        folder.rename(hidden / "saved")
        assert attached(load(tiny("gpt2", "classify"), folder)) == LoRA(rank=4)
        assert [path.name for path in folder.parent.iterdir()] == ["saved"]

    def test_what_it_left_is_removed(self, folder):
        for name in (f".saved-{DEAD.pid}-abc", f".saved-{os.getpid()}-abc", f".other-{DEAD.pid}-abc", ".saved-x-abc"):
            (folder.parent / name / "new").mkdir(parents=True)
        save(learned(), folder)
        left = {path.name for path in folder.parent.iterdir()}
        assert left == {"saved", f".saved-{os.getpid()}-abc", f".other-{DEAD.pid}-abc", ".saved-x-abc"}

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges folders in one step")
    def test_the_name_is_never_empty(self, folder, monkeypatch):
        works, seen = Path.rename, []

        def watched(self, target):
            seen.append(folder.exists())
            return works(self, target)

        monkeypatch.setattr(Path, "rename", watched)
        save(learned(method=LoRA(rank=2)), folder)
        assert all(seen) and attached(load(tiny("gpt2", "classify"), folder)) == LoRA(rank=2)

    @pytest.mark.skipif(sys.platform != "linux", reason="it looks up names in /proc")
    def test_files_are_on_the_disk_before_they_have_their_name(self, folder, monkeypatch):
        synced = []
        monkeypatch.setattr(
            os, "fsync", lambda opened: synced.append(Path(os.readlink(f"/proc/self/fd/{opened}")).name)
        )
        save(learned(), folder)
        assert synced == ["recipe.json", "learned.safetensors", ".new", folder.parent.name]

    def test_several_may_save_under_one_name(self, tmp_path):
        errors = []

        def write(mark):
            for _ in range(20):
                try:
                    write_folder(tmp_path / "one", {"a": mark * 9, "b": mark * 9})
                except OSError as error:
                    errors.append(error)

        threads = [Thread(target=write, args=(mark,)) for mark in (b"1", b"2", b"3")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert (tmp_path / "one" / "a").read_bytes() == (tmp_path / "one" / "b").read_bytes()
        assert [path.name for path in tmp_path.iterdir()] == ["one"]
