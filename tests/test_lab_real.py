import re

import pytest
import torch
from transformers import AutoModelForCausalLM, GgufConfig

from peft_edu import LoRA, count
from peft_edu.lab import backbone
from peft_edu.lab.models import real
from peft_edu.lab.paths import data_path

SMOLLM = "smollm2-135m-instruct"
KEPT = f"{SMOLLM}-0.1.2"  # another version of the wheel is unpacked anew
needs_the_wheels = pytest.mark.skipif(
    not all(map(real.installed, real.real_models())), reason="the real models are not installed: make real"
)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A cache in which nothing lies yet."""
    monkeypatch.setenv("PEFT_EDU_WORK", str(tmp_path))
    return tmp_path / "models"


def test_every_model_is_told_with_its_licence_its_wheel_and_both_checksums():
    for known in real.real_models().values():
        assert known.keys() == {
            "about", "licence", "wheel", "version", "megabytes", "sha256", "file", "file_sha256"
        }  # fmt: skip
        assert all(re.fullmatch(r"[0-9a-f]{64}", known[key]) for key in ("sha256", "file_sha256"))
        assert f"\n{known['wheel']}=={known['version']}\n" in (data_path().parent / "constraints.txt").read_text()
        assert known["licence"] == "Apache-2.0" and re.fullmatch(r"[\d.]+", known["version"])


def test_without_its_wheel_a_model_says_how_to_get_it(monkeypatch, elsewhere):
    monkeypatch.setattr(real, "installed", lambda name: None)
    with pytest.raises(
        FileNotFoundError, match=f"{SMOLLM} comes in a wheel of 93 MB that is not installed: `make real`"
    ):
        real.real_model(SMOLLM)
    with pytest.raises(ValueError, match=f"they need no network. After `make real`: {SMOLLM}, minilm-l6"):
        backbone("smollm3")


def test_another_version_of_the_wheel_is_not_taken(monkeypatch):
    known = {name: each | {"version": "0.0.0"} for name, each in real.real_models().items()}
    monkeypatch.setattr(real, "real_models", lambda: known)
    assert not any(map(real.installed, known))


@pytest.mark.parametrize("name", real.real_models())
def test_a_file_with_another_checksum_is_refused(monkeypatch, elsewhere, tmp_path, name):
    (tmp_path / "exchanged.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(real, "installed", lambda name: tmp_path / "exchanged.gguf")
    with pytest.raises(
        ValueError,
        match="is not the file that it should be .its checksum differs.: `.* pip uninstall .*`, then `make real`",
    ):
        real.real_model(name)
    assert not elsewhere.exists()


@needs_the_wheels
def test_an_unpacking_that_is_stopped_leaves_nothing(monkeypatch, elsewhere):
    def stopped(path, folder):
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(real, "unpack", stopped)
    with pytest.raises(KeyboardInterrupt):
        real.real_model(SMOLLM)
    assert list(elsewhere.iterdir()) == []


@needs_the_wheels
def test_somebody_else_may_be_faster(monkeypatch, elsewhere):
    def both(path, folder):
        for each in (folder, elsewhere / KEPT):
            each.mkdir()
            (each / "config.json").write_text("{}")

    monkeypatch.setattr(real, "unpack", both)
    assert real.real_model(SMOLLM) == elsewhere / KEPT
    assert [path.name for path in elsewhere.iterdir()] == [KEPT]


@needs_the_wheels
def test_smollm_answers_and_is_unpacked_once(monkeypatch):
    model, tokenizer = backbone(SMOLLM)
    assert model.dtype == torch.float32 and count(model).total == 134_515_008
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**asked, max_new_tokens=12, do_sample=False)
    said = tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said.strip() == "The capital of France is Paris."
    monkeypatch.setattr(real, "unpack", lambda *places: pytest.fail("unpacked twice"))
    real.real_model(SMOLLM)


@needs_the_wheels
@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_unpacked_it_is_weight_by_weight_what_transformers_reads():
    path = real.installed(SMOLLM)
    read = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).state_dict()
    ours = backbone(SMOLLM, dtype=torch.bfloat16)[0].state_dict()
    assert ours.keys() == read.keys()
    assert all(torch.equal(weight, read[name].to(torch.bfloat16)) for name, weight in ours.items())


@needs_the_wheels
def test_minilm_is_an_encoder_to_put_a_head_on():
    model, tokenizer = backbone("minilm-l6", head="classify", labels=["bad", "good"])
    assert model.dtype == torch.float32 and tokenizer("A fine soup.").input_ids[0] == tokenizer.cls_token_id
    numbers = count(LoRA(rank=8).attach(model))
    assert numbers.trainable - numbers.head == 6 * 2 * 8 * (384 + 384)
