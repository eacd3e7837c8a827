"""Adapters: merged exactly, into whole folders; everything that does not fit is refused."""

import json
import shutil
import sys

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.conftest import make_model
from wagle.model.adapters import load_merged, merge_adapter
from wagle.model.loading import load_model
from wagle.model.weights import Weights, fingerprint
from wagle.system.errors import WagleError

# peft 0.21 asks transformers 5.23 by an old name; wagle itself keeps that from its users
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
LORA = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
IDS = torch.arange(20).unsqueeze(0) * 7 % 400


def make_base(folder, family="llama-untied", dtype=torch.float32, seed=0):
    make_model(family, seed).to(dtype).save_pretrained(folder)
    return folder


def make_adapter(folder, base, settings=None, named=None):
    """An adapter as training leaves it: every one of its weights away from where it started."""
    torch.manual_seed(1)
    wrapped = get_peft_model(load_model(base), settings or LoraConfig(**LORA))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return rename(folder, str(base) if named is None else named)


def rename(folder, named):
    config = folder / "adapter_config.json"
    text = json.loads(config.read_text()) | {"base_model_name_or_path": named}
    config.write_text(json.dumps(text))
    return folder


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path, base):
    return make_adapter(tmp_path / "adapter", base)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def refusal(base, adapter):
    with pytest.raises(WagleError) as caught:
        load_merged(base, adapter)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------
# What a merge is


def test_a_merged_weight_is_the_base_plus_the_scaled_product_and_the_rest_is_the_base(
    base, adapter
):
    parts = load_file(adapter / "adapter_model.safetensors")
    before, after = load_model(base).state_dict(), load_merged(base, adapter).state_dict()
    assert list(after) == list(before)
    changed = set()
    for name, weight in before.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" not in parts:
            assert torch.equal(after[name], weight)
            continue
        product = parts[f"{stem}.lora_B.weight"] @ parts[f"{stem}.lora_A.weight"]
        torch.testing.assert_close(after[name], weight + 6 / 4 * product, rtol=0, atol=1e-6)
        changed.add(name.split(".")[-2])
    assert changed == {"q_proj", "down_proj"}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama-untied", LoraConfig(**LORA, use_rslora=True)),
        ("llama-untied", LoraConfig(**LORA, use_dora=True)),
        ("llama-untied", LoraConfig(r=2, target_modules=["lm_head", "v_proj"])),
        ("llama-untied", LoraConfig(**LORA, modules_to_save=["lm_head"])),
        ("llama-tied", LoraConfig(r=2, target_modules="all-linear")),
        ("gpt2", LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)),
        ("llama-untied", IA3Config(target_modules=["v_proj"], feedforward_modules=[])),
    ],
)
def test_a_merged_model_computes_what_peft_computes(tmp_path, family, settings):
    base = make_base(tmp_path / "base", family)
    adapter = make_adapter(tmp_path / "adapter", base, settings)
    theirs = logits(PeftModel.from_pretrained(load_model(base), adapter))
    merged = load_merged(base, adapter)
    torch.testing.assert_close(logits(merged), theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(theirs, logits(load_model(base)), atol=1e-3)


def test_a_merged_model_is_an_ordinary_one(base, adapter):
    plain, merged = load_model(base), load_merged(base, adapter)
    assert type(merged) is type(plain)
    assert not merged.training
    assert [(n, p.requires_grad) for n, p in merged.named_parameters()] == [
        (n, True) for n, _ in plain.named_parameters()
    ]
    assert not hasattr(merged, "peft_config")


def test_a_bfloat16_model_is_rounded_once_after_the_merge(tmp_path, base, adapter):
    exact = load_merged(base, adapter)
    merge_adapter(base, adapter, tmp_path / "out")
    rounded = load_model(tmp_path / "out", "bfloat16")
    for (name, wanted), (_, got) in zip(
        exact.named_parameters(), rounded.named_parameters(), strict=True
    ):
        assert torch.equal(got, wanted.bfloat16()), name
    assert all(b.dtype == torch.float32 for b in rounded.buffers())


# ---------------------------------------------------------------------------------------------
# A merged folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_folder_has_the_files_names_and_precision_of_its_base(tmp_path, tokenizer, dtype):
    base = make_base(tmp_path / "base", "llama-tied", dtype)
    tokenizer.save_pretrained(base)
    adapter = make_adapter(tmp_path / "adapter", base)
    merge_adapter(base, adapter, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in base.iterdir()}
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    said, new = (
        json.loads((home / "config.json").read_text()) for home in (base, tmp_path / "out")
    )
    assert new == {
        **said,
        "rope_theta": said["rope_parameters"]["rope_theta"],
    }  # for transformers 4
    old, new = Weights(base), Weights(tmp_path / "out")
    assert new.names() == old.names()
    assert new.dtype == old.dtype == dtype
    merged = load_merged(base, adapter)
    for name, wanted in merged.named_parameters():
        assert torch.equal(new.get(name), wanted.to(dtype))
    assert fingerprint(tmp_path / "out") != fingerprint(base)


# ---------------------------------------------------------------------------------------------
# Whose base it is


def test_a_base_that_moved_or_was_renamed_is_known_by_its_weights(tmp_path, base, adapter):
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    assert torch.equal(logits(load_merged(moved, adapter)), logits(load_merged(base, adapter)))
    for named in ("", None, str(tmp_path / "gone"), "somebody/model"):
        load_merged(moved, rename(adapter, named))


def test_an_adapter_of_another_folder_is_refused(tmp_path, adapter):
    other = make_base(tmp_path / "other", seed=5)
    said = refusal(other, adapter)
    assert said == (
        f"adapter {adapter} was made for {tmp_path / 'base'} "
        f"({fingerprint(tmp_path / 'base')[:6]}), but this is {other} ({fingerprint(other)[:6]}); "
        "use the adapter with its own base"
    )


def test_an_adapter_of_another_name_is_refused_and_the_way_out_works(base, adapter):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"_name_or_path": "org/chat-7b"}))
    assert load_merged(base, rename(adapter, "org/chat-7b"))
    said = refusal(base, rename(adapter, "org/base-7b"))
    assert said == (
        f"adapter {adapter} was made for org/base-7b, but {base} calls itself org/chat-7b; if they "
        f"are the same, set base_model_name_or_path in the adapter's adapter_config.json to {base}"
    )
    assert load_merged(base, rename(adapter, str(base)))


def test_a_base_in_the_local_hub_cache_is_known_by_its_place(tmp_path, base, adapter, caplog):
    snapshot = tmp_path / "hub" / "models--org--chat-7b" / "snapshots" / "abc"
    shutil.copytree(base, snapshot)
    load_merged(snapshot, rename(adapter, "org/chat-7b"))
    assert not caplog.records
    said = refusal(snapshot, rename(adapter, "org/base-7b"))
    assert said.startswith(
        f"adapter {adapter} was made for org/base-7b, but {snapshot} calls itself org/chat-7b; if"
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("org/chat-7b", "was made for org/chat-7b"),
        (None, "does not name its base"),
        ("/gone/base", None),  # the folder has the same name here
    ],
)
def test_a_base_of_which_no_name_is_known_is_said_once(base, adapter, caplog, named, said):
    load_merged(base, rename(adapter, named))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (said is not None)
    for line in told:
        assert line.startswith(f"adapter {adapter} {said}, and nothing says that {base} is that")


def test_an_adapter_of_another_vocabulary_is_refused(base, adapter, tokenizer):
    rename(adapter, "somebody/model")
    for folder in (base, adapter):
        tokenizer.save_pretrained(folder)
    assert load_merged(base, adapter)
    path = adapter / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(content))
    said = refusal(base, adapter)
    assert said.startswith(f"adapter {adapter} has another vocabulary than {base}: token ")
    path.unlink()
    assert load_merged(base, adapter)


def test_an_adapter_of_another_shape_is_refused(tmp_path, adapter):
    config = make_model("llama-untied").config
    config.intermediate_size = 56
    type(make_model("llama-untied"))(config).save_pretrained(tmp_path / "wide")
    said = refusal(tmp_path / "wide", rename(adapter, "somebody/model"))
    assert said.startswith(f"adapter {adapter} does not fit {tmp_path / 'wide'}: size mismatch for")
    assert "down_proj" in said


def test_an_adapter_of_another_architecture_is_refused(tmp_path, adapter):
    other = make_base(tmp_path / "gpt2", "gpt2")
    said = refusal(other, rename(adapter, "somebody/model"))
    assert said.startswith(f"adapter {adapter} does not fit {other}: Target modules")


def test_an_adapter_of_a_deeper_model_is_refused(tmp_path, base):
    config = make_model("llama-untied").config
    config.num_hidden_layers = 3
    type(make_model("llama-untied"))(config).save_pretrained(tmp_path / "deep")
    adapter = make_adapter(tmp_path / "adapter", tmp_path / "deep", named="somebody/model")
    said = refusal(base, adapter)
    assert said.startswith(f"adapter {adapter} does not fit {base}: the base has no place for its ")
    assert "layers.2." in said
    assert said.endswith("(4 in all)")


def test_an_adapter_that_lacks_weights_is_refused(base, adapter):
    file = adapter / "adapter_model.safetensors"
    parts = load_file(file)
    gone = sorted(name for name in parts if "layers.1" in name and "q_proj" in name)
    save_file({name: part for name, part in parts.items() if name not in gone}, file)
    said = refusal(base, adapter)
    assert said.startswith(
        f"adapter {adapter} does not fit {base}: the adapter lacks base_model.model."
    )
    assert said.endswith("(2 in all)")


def test_an_adapter_with_nan_is_refused(base, adapter):
    file = adapter / "adapter_model.safetensors"
    parts = load_file(file)
    parts[next(iter(parts))].fill_(float("nan"))
    save_file(parts, file)
    assert "NaN" in refusal(base, adapter)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")
@pytest.mark.parametrize(
    "more", [{"target_modules": ["lm_head", "q_proj"]}, {"modules_to_save": ["embed_tokens"]}]
)
def test_a_change_of_one_of_two_tied_tensors_is_refused(tmp_path, more):
    base = make_base(tmp_path / "base", "llama-tied")
    adapter = make_adapter(tmp_path / "adapter", base, LoraConfig(**{**LORA, **more}))
    said = refusal(base, adapter)
    assert said.startswith(f"adapter {adapter} changes base_model.model.")
    assert f"but {base} ties its embeddings and its head; a merge would change both" in said


# ---------------------------------------------------------------------------------------------
# What is no adapter


def test_a_folder_that_is_no_adapter_is_refused(tmp_path, base, adapter):
    said = "holds no adapter_config.json, so it is not an adapter folder"
    assert refusal(base, tmp_path / "nowhere") == f"{tmp_path / 'nowhere'} {said}"
    assert refusal(base, base) == f"{base} {said}"
    (adapter / "adapter_model.safetensors").unlink()
    assert refusal(base, adapter) == f"{adapter} lacks its weight file adapter_model.safetensors"
    torch.save({}, adapter / "adapter_model.bin")
    assert refusal(base, adapter) == (
        f"{adapter} stores its weights in adapter_model.bin, a pickle, which is never opened; save "
        "the adapter as safetensors"
    )


def test_settings_that_cannot_be_read_are_named(base, adapter):
    (adapter / "adapter_config.json").write_text("{")
    assert refusal(base, adapter).startswith(f"cannot read {adapter / 'adapter_config.json'}: ")


def test_an_adapter_without_weights_to_merge_is_refused(tmp_path, base):
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    adapter = make_adapter(tmp_path / "adapter", base, settings)
    said = refusal(base, adapter)
    assert said.startswith(f"adapter {adapter} is ")
    assert "PROMPT_TUNING" in said
    assert said.endswith("has no weights to merge; use an adapter such as LoRA")


def test_without_peft_the_package_to_install_is_named(base, adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert refusal(base, adapter) == "wagle needs peft for adapters: pip install 'wagle[lora]'"
