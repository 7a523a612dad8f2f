import json
from dataclasses import replace

import peft
import pytest
import torch
from families import SIZES, batch, tiny
from safetensors.torch import load_file, save_file
from torch import nn

from peft_edu import HeadOnly, LoRA, PrefixTuning, PromptTuning, PTuning, PTuningV2, from_peft, to_peft, trainable
from peft_edu.method import attached

ALL = ("query", "key", "value", "output", "up", "down")
THEIR_TARGETS = {
    "gpt2": ["c_attn"],
    "bert": ["query", "output.dense"],
    "roberta": ["query", "value"],
    "deberta-v2": ["query_proj", "key_proj"],
    "t5": ["q", "wo"],
    "t5-gated": ["v", "wi_0"],
    "llama": ["q_proj", "down_proj"],
    "qwen2": ["gate_proj", "o_proj"],
}
THEIR_HEADS = {
    "deberta-v2": ["pooler", "classifier"],
    "t5": ["classification_head"],
    "t5-gated": ["classification_head"],
}


def base(family: str, task: str):
    return tiny(family, task, torch.float64)


def logits(model, task: str):
    with torch.no_grad():
        return model(**batch(task)).logits


def move(model) -> None:
    for parameter in trainable(model).values():
        nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize(
    "task, targets",
    [("language", ALL), ("classify", ("query", "value")), ("tag", ("output",)), ("language", ("down",))],
)
def test_peft_opens_what_we_write(family, task, targets, tmp_path):
    model = LoRA(rank=2, targets=targets).attach(base(family, task))
    move(model)
    theirs = peft.PeftModel.from_pretrained(base(family, task), to_peft(model, tmp_path / "ours")).eval()
    assert torch.allclose(logits(theirs, task), logits(model, task), atol=1e-6)
    adapted = {id(module.weight) for module in theirs.modules() if hasattr(module, "lora_A")}
    assert len(adapted) == len({id(target.module) for target, _ in attached(model).updates})


def their_model(family: str, task: str = "language", **options) -> peft.PeftModel:
    """A model of peft's, away from its start."""
    settings = {"r": 2, "lora_alpha": 6, "lora_dropout": 0.1, "target_modules": THEIR_TARGETS[family]} | options
    if task != "language":
        settings["task_type"] = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS"}[task]
    model = peft.get_peft_model(base(family, task), peft.LoraConfig(**settings)).eval()
    move(model)
    return model


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("task", ["language", "classify", "tag"])
def test_we_open_what_peft_writes(family, task, tmp_path):
    heads = THEIR_HEADS.get(family) if task == "classify" else None  # names that peft does not save by itself
    theirs = their_model(family, task, modules_to_save=heads)
    theirs.save_pretrained(tmp_path)
    model = from_peft(base(family, task), tmp_path)
    method = attached(model)
    assert (method.rank, method.alpha, method.dropout) == (2, 6, 0.1)
    assert torch.allclose(logits(model, task), logits(theirs, task), atol=1e-6)


def test_a_fused_map_comes_back_as_three(tmp_path):
    their_model("gpt2").save_pretrained(tmp_path)
    method = attached(from_peft(base("gpt2", "language"), tmp_path))
    assert method.targets == ("query", "key", "value")
    query, key, value = (update.A for _, update in method.updates[:3])
    assert torch.equal(query, key) and torch.equal(query, value)


def test_there_and_back(tmp_path):
    model = LoRA(rank=2, alpha=6, dropout=0.1, targets=ALL).attach(base("llama", "classify"))
    move(model)
    again = from_peft(base("llama", "classify"), to_peft(model, tmp_path / "ours"))
    assert attached(again) == attached(model)
    assert all(torch.equal(value, trainable(model)[name]) for name, value in trainable(again).items())


@pytest.mark.parametrize("targets, k", [(("value",), 1), (("query", "value"), 2), (ALL, 3)])
def test_gpt2s_stacked_pairs_come_back_with_the_larger_rank(targets, k, tmp_path):
    model = LoRA(rank=2, alpha=6, targets=targets).attach(base("gpt2", "language"))
    move(model)
    again = from_peft(base("gpt2", "language"), to_peft(model, tmp_path / "ours"))
    assert (attached(again).rank, attached(again).alpha) == (k * 2, k * 6)
    assert torch.allclose(logits(again, "language"), logits(model, "language"), atol=1e-12)


def test_a_method_that_peft_has_not(tmp_path):
    with pytest.raises(TypeError, match=r"peft has LoRA, .* PTuning and PTuningV2, but HeadOnly\(\) is attached"):
        to_peft(HeadOnly().attach(base("bert", "classify")), tmp_path)
    with pytest.raises(TypeError, match="but nothing is attached"):
        to_peft(base("bert", "classify"), tmp_path)


def change_config(folder, option: str, setting) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {option: setting}))


def refused(folder, message: str, family: str = "llama", task: str = "language", error=ValueError) -> None:
    model = base(family, task)
    names = list(model.state_dict())
    with pytest.raises(error, match=message):
        from_peft(model, folder)
    assert list(model.state_dict()) == names
    assert attached(model) is None


OTHER_FUNCTIONS = [("use_rslora", True), ("use_dora", True), ("rank_pattern", {"q_proj": 3}), ("lora_bias", True)]
OTHER_FUNCTIONS += [("layer_replication", [[0, 1], [0, 1]]), ("bias", "all"), ("qalora_group_size", 8)]
OTHER_FUNCTIONS += [("use_superlora", True), ("a_variant_of_next_year", {"depth": 2})]
STARTS = ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "mine", {}, None]
OTHER_FUNCTIONS += [("init_lora_weights", start) for start in STARTS]


@pytest.mark.parametrize("option, setting", OTHER_FUNCTIONS)
def test_what_is_more_than_lora_is_refused(option, setting, tmp_path):
    their_model("llama").save_pretrained(tmp_path)
    change_config(tmp_path, option, setting)
    refused(tmp_path, f"adapter_config.json sets {option} to .*, which LoRA here does not have")


HARMLESS = [("a_variant_of_next_year", False), ("use_dora", None), ("alpha_pattern", None), ("inference_mode", True)]
HARMLESS += [("init_lora_weights", start) for start in (True, False, "gaussian", "eva", "orthogonal")]


@pytest.mark.parametrize("option, setting", HARMLESS)
def test_options_that_change_nothing_are_no_obstacle(option, setting, tmp_path):
    theirs = their_model("llama")
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, option, setting)
    ours = from_peft(base("llama", "language"), tmp_path)
    assert torch.allclose(logits(ours, "language"), logits(theirs, "language"), atol=1e-6)


def test_a_variant_of_virtual_tokens_is_refused(tmp_path):
    to_peft(PromptTuning(3).attach(base("gpt2", "language")), tmp_path / "ours")
    change_config(tmp_path / "ours", "use_super_prompts", True)
    refused(tmp_path / "ours", "sets use_super_prompts to True, which PromptTuning here does not have", family="gpt2")


def test_peft_s_auto_class_finds_the_base(tmp_path):
    for family, auto in (("gpt2", peft.AutoPeftModelForCausalLM), ("t5", peft.AutoPeftModelForSeq2SeqLM)):
        base(family, "language").save_pretrained(tmp_path / family)
        kind = type(base(family, "language"))
        model = kind.from_pretrained(tmp_path / family, attn_implementation="eager")
        move(LoRA(rank=2).attach(model))
        theirs = auto.from_pretrained(to_peft(model, tmp_path / f"{family}-lora"), attn_implementation="eager")
        assert torch.allclose(logits(theirs.eval(), "language"), logits(model.eval(), "language"), atol=1e-6)


class TestBesideTheMethod:
    """peft keeps whole modules that were trained beside LoRA."""

    @pytest.mark.parametrize("family, parts", [("llama", ["model.norm"]), ("gpt2", ["transformer.ln_f"])])
    @pytest.mark.parametrize("task", ["language", "classify"])
    def test_peft_opens_them(self, family, parts, task, tmp_path):
        model = LoRA(rank=2).attach(base(family, task))
        for part in parts:
            model.get_submodule(part).requires_grad_(True)
        move(model)
        folder = to_peft(model, tmp_path / "ours")
        theirs = peft.PeftModel.from_pretrained(base(family, task), folder).eval()
        assert torch.allclose(logits(theirs, task), logits(model, task), atol=1e-6)
        again = from_peft(base(family, task), folder)
        assert torch.allclose(logits(again, task), logits(model, task), atol=1e-12)
        before = base(family, task).state_dict()
        attached(again).detach()
        assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())

    def test_we_open_peft_s(self, tmp_path):
        theirs = their_model("llama", modules_to_save=["embed_tokens", "norm"])
        theirs.save_pretrained(tmp_path)
        ours = from_peft(base("llama", "language"), tmp_path)
        assert torch.allclose(logits(ours, "language"), logits(theirs, "language"), atol=1e-6)
        assert {"model.embed_tokens.weight", "model.norm.weight"} <= trainable(ours).keys()

    @pytest.mark.parametrize(
        "method, part, message",
        [
            (
                LoRA(2),
                "transformer.wte.weight",
                "wte.weight was trained too, and peft keeps that only in whole",
            ),
            (
                LoRA(2),
                "transformer.h.0.ln_1.bias",
                "ln_1.bias was trained too, .* whole modules that share no weight",
            ),
            (LoRA(2), "transformer.h.0.attn.c_attn.weight", "c_attn.weight was trained too"),
            (PromptTuning(2), "transformer.ln_f.weight", "ln_f.weight was trained too"),
        ],
    )
    def test_what_peft_cannot_keep_is_refused(self, method, part, message, tmp_path):
        model = replace(method).attach(base("gpt2", "language"))
        model.get_parameter(part).requires_grad_(True)
        with pytest.raises(ValueError, match=message):
            to_peft(model, tmp_path / "ours")
        assert not (tmp_path / "ours").exists()

    def test_beside_virtual_tokens_peft_keeps_the_head_alone(self, tmp_path):
        model = PrefixTuning(2, hidden=0).attach(base("gpt2", "language"))
        model.transformer.ln_f.requires_grad_(True)
        with pytest.raises(ValueError, match="transformer.ln_f was trained too, and peft keeps virtual tokens and the"):
            to_peft(model, tmp_path / "ours")

    def test_a_head_that_was_frozen_since_is_written(self, tmp_path):
        model = LoRA(rank=2).attach(base("bert", "classify"))
        move(model)
        model.requires_grad_(False)
        theirs = peft.PeftModel.from_pretrained(base("bert", "classify"), to_peft(model, tmp_path / "ours")).eval()
        assert torch.allclose(logits(theirs, "classify"), logits(model, "classify"), atol=1e-6)


def test_a_compiled_model_is_looked_through(tmp_path):
    model = LoRA(rank=2).attach(base("llama", "language"))
    move(model)
    folder = to_peft(torch.compile(model, backend="eager"), tmp_path / "ours")
    assert torch.equal(logits(from_peft(base("llama", "language"), folder), "language"), logits(model, "language"))


def test_peft_s_float32_is_rounded_into_a_model_in_bfloat16(tmp_path):
    theirs = peft.get_peft_model(
        tiny("llama", dtype=torch.bfloat16), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    ).eval()
    move(theirs)
    assert {parameter.dtype for parameter in trainable(theirs).values()} == {torch.float32}
    theirs.save_pretrained(tmp_path)
    ours = from_peft(tiny("llama", dtype=torch.bfloat16), tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    written = load_file(tmp_path / "adapter_model.safetensors")
    for target, update in attached(ours).updates[:2]:
        name = f"base_model.model.model.layers.0.{target.name}.lora_A.weight"
        assert torch.equal(update.A, written[name].bfloat16())
    difference = (logits(ours, "language") - logits(theirs, "language")).abs().max()
    assert difference < 0.02 * logits(theirs, "language").abs().max()  # bfloat16 has 2 to 3 digits


def test_another_method_of_peft_s_is_refused(tmp_path):
    config = peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    peft.get_peft_model(base("llama", "language"), config).save_pretrained(tmp_path)
    refused(tmp_path, "is of the type IA3; LORA, PREFIX_TUNING, PROMPT_TUNING, P_TUNING can be read")


def test_a_head_that_peft_did_not_save_is_missed(tmp_path):
    their_model("t5", "classify").save_pretrained(tmp_path)
    refused(tmp_path, "classification_head.dense.bias is only in the model", family="t5", task="classify")


def test_maps_outside_the_blocks_are_refused(tmp_path):
    their_model("bert", target_modules=["dense"]).save_pretrained(tmp_path)
    refused(tmp_path, r"cls.predictions.transform.dense.lora_A.weight is only in the file", family="bert")


def test_some_layers_only_are_refused(tmp_path):
    their_model("llama", layers_to_transform=[1]).save_pretrained(tmp_path)
    refused(tmp_path, r"model.layers.0.*lora_\w+.A is only in the model")


def test_a_file_of_another_model_is_refused(tmp_path):
    their_model("llama").save_pretrained(tmp_path)
    refused(tmp_path, "no map of BertForMaskedLM is in the file, which has model.layers.0", family="bert")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file(
        {name: torch.cat([value, value]) for name, value in tensors.items()}, tmp_path / "adapter_model.safetensors"
    )
    refused(
        tmp_path, r"self_attn.q_proj is a map of \(32, 32\) in this model, but the file has A \(4, 32\) and B \(64, 2\)"
    )


def test_a_file_of_another_rank_is_refused(tmp_path):
    their_model("llama").save_pretrained(tmp_path)
    change_config(tmp_path, "r", 3)
    refused(tmp_path, r"lora_query.A is \(2, 32\) in the file, but \(3, 32\) in the model")


def test_a_folder_that_is_none(tmp_path):
    refused(tmp_path, "adapter_config.json does not exist", error=FileNotFoundError)
    their_model("llama").save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    message = "adapter_model.safetensors does not exist.*: its .bin is a pickle, which may hold code, and is not read"
    refused(tmp_path, message, error=FileNotFoundError)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    refused(tmp_path, "is not a complete safetensors file")
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "is of the type None; LORA, PREFIX_TUNING, PROMPT_TUNING, P_TUNING can be read")


def test_an_adapter_that_lies_one_folder_down_is_pointed_at(tmp_path):
    their_model("llama").save_pretrained(tmp_path / "run" / "my adapter")
    refused(
        tmp_path / "run", "adapter_config.json does not.* there is one in .*/run/my adapter", error=FileNotFoundError
    )


PREFIXES = [("gpt2", "language"), ("llama", "language"), ("qwen2", "language"), ("gpt2", "classify"), ("llama", "tag")]
PREFIXES += [("bert", "classify"), ("roberta", "classify"), ("bert", "tag")]
PROMPTS = [("gpt2", "language"), ("llama", "language"), ("qwen2", "language"), ("t5", "language")]
VIRTUAL = [(PrefixTuning(length=3, hidden=hidden), *case) for case in PREFIXES for hidden in (0, 5)]
VIRTUAL += [(PTuningV2(length=3, dropout=0.1), "bert", task) for task in ("classify", "tag")]
VIRTUAL += [(PromptTuning(length=3), *case) for case in PROMPTS]
TYPES = {"language": "CAUSAL_LM", "classify": "SEQ_CLS", "tag": "TOKEN_CLS"}


def text_logits(model, task: str, length: int = 7):
    """peft leaves the virtual tokens of a prompt in the logits."""
    found = logits(model, task)
    return found if task == "classify" else found[:, -length:]


@pytest.mark.parametrize("method, family, task", VIRTUAL)
def test_peft_opens_virtual_tokens(method, family, task, tmp_path):
    model = replace(method).attach(base(family, task))
    move(model)
    theirs = peft.PeftModel.from_pretrained(base(family, task), to_peft(model, tmp_path / "ours")).eval()
    assert torch.allclose(text_logits(theirs, task), logits(model, task), atol=1e-6)  # Llama's softmax is in float32


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "t5"])
@pytest.mark.parametrize("encoder", ["lstm", "none"])
def test_peft_opens_pseudo_tokens_in_front(family, encoder, tmp_path):
    """peft takes the text alone, and we take it with the pseudo tokens."""
    model = PTuning("[P] [P] {text}", encoder).attach(base(family, "language"))
    move(model)
    text = batch()
    inputs = {name: text[name] for name in ("attention_mask", "input_ids")}
    ours = {name: torch.nn.functional.pad(tensor, (2, 0), value=1) for name, tensor in inputs.items()}
    ours["input_ids"][:, :2] = torch.tensor([-1, -2])
    words = {"decoder_input_ids": text["input_ids"]} if family == "t5" else {}
    theirs = peft.PeftModel.from_pretrained(base(family, "language"), to_peft(model, tmp_path / "ours")).eval()
    prompt = from_peft(base(family, "language"), tmp_path / "ours")
    with torch.no_grad():
        expected = model(**ours, **words).logits[:, -7:]
        assert torch.allclose(theirs(**inputs, **words).logits[:, -7:], expected, atol=1e-6)
        assert torch.allclose(prompt(**inputs, **words).logits, expected, atol=1e-6)


@pytest.mark.parametrize("encoder", ["LSTM", "MLP"])
def test_we_open_peft_s_p_tuning_as_a_prompt(encoder, tmp_path):
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=3,
        encoder_hidden_size=16,
        encoder_reparameterization_type=encoder,
    )
    theirs = peft.get_peft_model(base("gpt2", "language"), config).double().eval()
    move(theirs)
    theirs.save_pretrained(tmp_path)
    ours = from_peft(base("gpt2", "language"), tmp_path)
    assert attached(ours) == PromptTuning(3, init="random")
    assert torch.allclose(logits(ours, "language"), text_logits(theirs, "language"), atol=1e-6)


@pytest.mark.parametrize("method, family, task", VIRTUAL[1::2])
def test_we_open_virtual_tokens_of_peft(method, family, task, tmp_path):
    kind = peft.PrefixTuningConfig if isinstance(method, PrefixTuning) else peft.PromptTuningConfig
    task_type = "SEQ_2_SEQ_LM" if family == "t5" else TYPES[task]
    model = peft.get_peft_model(base(family, task), kind(task_type=task_type, num_virtual_tokens=3)).double().eval()
    move(model)
    model.save_pretrained(tmp_path / "theirs")
    ours = from_peft(base(family, task), tmp_path / "theirs")
    assert torch.allclose(logits(ours, task), text_logits(model, task), atol=1e-6)


@pytest.mark.parametrize(
    "method, family, task, message",
    [
        (PromptTuning(3), "bert", "classify", "the head of BertForSequenceClassification would read the virtual"),
        (PromptTuning(3, members=2), "gpt2", "language", "peft holds one prompt, and here are 2"),
        (PrefixTuning(3), "t5", "language", "the prefix of T5ForConditionalGeneration is in the decoder alone"),
        (PrefixTuning(3, shift=False), "gpt2", "language", "positions start behind the prefix, and here shift=False"),
        (PrefixTuning(3), "bert", "language", "peft has no task for BertForMaskedLM"),
        (PTuningV2(3, layers=(1,)), "bert", "tag", r"in peft every layer has a prefix, and here the layers \(1,\)"),
        (PTuning("[P] {text} [P]"), "gpt2", "language", "peft has pseudo tokens in front alone, and the template is"),
        (PTuning("[P] {text}", joint=True), "gpt2", "language", r"the model was trained too \(joint=True\)"),
        (PrefixTuning(3), "qwen2", "sliding", "the prefix of Qwen2ForCausalLM leaves the window of attention"),
        (PTuning("[P] {text}"), "bert", "classify", "the head of BertForSequenceClassification would read the virt"),
    ],
)
def test_what_peft_would_compute_otherwise_is_refused(method, family, task, message, tmp_path):
    model = base(family, task.replace("sliding", "language"))
    if task == "sliding":
        model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ValueError, match=message):
        to_peft(replace(method).attach(model), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_table_that_does_not_fit(tmp_path):
    to_peft(PrefixTuning(3).attach(base("gpt2", "language")), tmp_path / "ours")
    save_file({"prompt_embeddings": torch.zeros(3, 7)}, tmp_path / "ours" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"prompt_embeddings is \(3, 7\), but 3 virtual tokens of .* are \(3, 128\)"):
        from_peft(base("gpt2", "language"), tmp_path / "ours")
    save_file({"other": torch.zeros(3, 7)}, tmp_path / "ours" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"prompt_embeddings is \(0,\), but 3 virtual tokens of .* are \(3, 128\)"):
        from_peft(base("gpt2", "language"), tmp_path / "ours")


@pytest.mark.parametrize(
    "method, name, tensor, message",
    [
        (LoRA(2), "lora_B", torch.tensor(1.0), r"q_proj is a map of .* the file has A \(2, 32\) and B \(\) for it"),
        (LoRA(2), "lora_A", torch.tensor(1.0), r"q_proj is a map of .* the file has A \(\) and B \(32, 2\) for it"),
        (LoRA(2), "lora_A", torch.full((2, 32), float("nan")), "q.*A is torch.float32 in .*, and not all of it is"),
        (PromptTuning(4), "prompt", torch.tensor(1.0), r"prompt_embeddings is \(\), but 4 virtual .* are \(4, 32\)"),
        (PromptTuning(4), "prompt", torch.ones(5, 32), r"prompt_embeddings is \(5, 32\), but 4 virtual tokens"),
        (PrefixTuning(4), "prompt", torch.ones(4, 63), r"prompt_embeddings is \(4, 63\), but 4 virtual .* \(4, 64\)"),
    ],
)
def test_tensors_that_are_made_up(method, name, tensor, message, tmp_path):
    to_peft(replace(method).attach(base("llama", "language")), tmp_path / "ours")
    file = tmp_path / "ours" / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if name in key)
    save_file(tensors | {key: tensor}, file)
    refused(tmp_path / "ours", message)


@pytest.mark.parametrize(
    "length, message", [(2, r"\(4, 32\), but 2 virtual"), ("4", "length is '4'"), (None, "length is No")]
)
def test_a_prompt_is_not_cut_in_silence(length, message, tmp_path):
    to_peft(PromptTuning(4).attach(base("gpt2", "language")), tmp_path / "ours")
    change_config(tmp_path / "ours", "num_virtual_tokens", length)
    refused(tmp_path / "ours", message, family="gpt2")


def test_the_number_of_heads_is_that_of_the_model(tmp_path):
    model = PrefixTuning(3, hidden=0).attach(base("llama", "language"))
    move(model)
    to_peft(model, tmp_path / "ours")
    for heads in ("4", -1, 1.0):
        change_config(tmp_path / "ours", "num_attention_heads", heads)
        assert torch.equal(
            logits(from_peft(base("llama", "language"), tmp_path / "ours"), "language"), logits(model, "language")
        )
