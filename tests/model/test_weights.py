import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.conftest import make_model
from wagle.model.loading import load_model, load_tokenizer
from wagle.model.saving import save_model
from wagle.model.weights import (
    _AS_STORED,
    Weights,
    fingerprint,
    own_tensors,
    place_buffers,
    stored_tensors,
    weight_files,
)
from wagle.system.errors import WagleError


def test_a_fingerprint_is_the_one_that_the_design_describes(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file(
        {"b": torch.tensor([[1.0, 2.0]]), "a": torch.tensor([0.5])}, folder / "model.safetensors"
    )
    digest = hashlib.sha256()
    digest.update(b"a\0[1]\0" + torch.tensor([0.5]).numpy().tobytes())
    digest.update(b"b\0[1, 2]\0" + torch.tensor([1.0, 2.0]).numpy().tobytes())
    assert fingerprint(folder) == digest.hexdigest()


def test_a_fingerprint_does_not_depend_on_folder_shards_or_lossless_upcasts(any_model, tmp_path):
    live = any_model.to(torch.bfloat16)
    live.save_pretrained(tmp_path / "one")
    live.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(weight_files(tmp_path / "many")) > 1
    want = fingerprint(live)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "many") == want
    assert fingerprint(load_model(tmp_path / "one", "float32")) == want
    with torch.no_grad():
        next(live.parameters()).view(-1)[0] += 1
    assert fingerprint(live) != want


@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_a_saved_model_differs_from_its_base_in_weights_only(tmp_path, tokenizer, shards):
    base, out = tmp_path / "base", tmp_path / "out"
    model = make_model("llama-tied")
    model.save_pretrained(base, max_shard_size=shards)
    tokenizer.save_pretrained(base)
    (base / "pytorch_model.bin").write_bytes(b"old weights")
    (base / "model.gguf").write_bytes(b"old weights")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.add_(1)
    save_model(model, base, out)
    names = {p.name for p in base.iterdir()} - {"pytorch_model.bin", "model.gguf"}
    assert {p.name for p in out.iterdir()} == names
    for file in base.glob("*.json"):
        if file.name not in ("config.json", "tokenizer_config.json"):  # for transformers 4, too
            assert (out / file.name).read_bytes() == file.read_bytes()
    said, now = (json.loads((home / "config.json").read_text()) for home in (base, out))
    assert now == {**said, "rope_theta": said["rope_parameters"]["rope_theta"]}
    for file in base.glob("*.safetensors"):
        old, new = load_file(file), load_file(out / file.name)
        assert list(old) == list(new)
        for name in old:
            assert torch.equal(old[name], new[name]) == ("0.mlp.up_proj" not in name)
    again = AutoModelForCausalLM.from_pretrained(out)
    assert fingerprint(again) == fingerprint(model)
    assert load_tokenizer(out).chat_template == tokenizer.chat_template


def test_missing_shards_and_tokenizers_are_named(tmp_path):
    make_model("gpt2").save_pretrained(tmp_path / "m", max_shard_size="20KB")
    lost = weight_files(tmp_path / "m")[1]
    lost.unlink()
    with pytest.raises(WagleError, match=f"lacks its weight file {lost.name}"):
        fingerprint(tmp_path / "m")
    with pytest.raises(WagleError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "m")


def test_an_index_decides_which_files_are_weights(tmp_path):
    make_model("gpt2").save_pretrained(tmp_path / "m")
    save_file({"x": torch.zeros(1)}, tmp_path / "m" / "adapter_model.safetensors")
    assert [f.name for f in weight_files(tmp_path / "m")] == ["model.safetensors"]
    assert not json.loads((tmp_path / "m" / "config.json").read_text()).get("quantization_config")


@pytest.mark.parametrize("family", ["mixtral", "qwen2-moe"])
def test_experts_that_a_folder_stores_apart_come_as_the_models_parameters(family, tmp_path):
    model = make_model(family)
    model.save_pretrained(tmp_path)
    weights = Weights(tmp_path)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    assert not weights.has(name)  # on disk each expert is by itself
    assert torch.equal(weights.get(name), model.get_parameter(name))
    assert torch.equal(
        weights.read(name, 7, 99), model.get_parameter(name).detach().reshape(-1)[7:99]
    )
    assert weights.names() == sorted({n for n, _ in model.named_parameters()})
    with pytest.raises(WagleError, match=r"has no weights for model\.nothing"):
        weights.get("model.nothing")


@pytest.mark.parametrize("kind", _AS_STORED)
def test_what_is_read_without_asking_transformers_is_not_converted_by_it(kind):
    assert _AS_STORED[kind] == MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    assert get_checkpoint_conversion_mapping(kind) is None
    assert get_checkpoint_conversion_mapping(_AS_STORED[kind]) is None


# ---------------------------------------------------------------------------------------------
# Weights by name


@pytest.mark.parametrize("size", ["1GB", "20KB"])
def test_the_tensors_of_a_folder_come_in_name_order_whatever_its_shards(tmp_path, size):
    model = make_model("gpt2")
    model.save_pretrained(tmp_path, max_shard_size=size)
    names = []
    for name, stored in stored_tensors(tmp_path):
        wanted = model.get_parameter(name)
        assert (stored.shape, stored.dtype) == (wanted.shape, wanted.dtype)
        assert [len(part) for part in stored.parts(7)] == [len(p) for p in wanted.view(-1).split(7)]
        assert torch.equal(torch.cat([*stored.parts(7)]), wanted.view(-1))
        names.append(name)
    assert names == sorted(dict(model.named_parameters()))


def test_the_tensors_of_a_live_model_have_ties_once_and_saved_buffers_too():
    model = make_model("llama-tied")
    model.register_buffer("counts", torch.arange(3))
    model.register_buffer("scratch", torch.zeros(1), persistent=False)
    found = dict(own_tensors(model))
    assert list(found) == sorted(found)
    assert set(found) == {n for n, _ in model.named_parameters()} | {"counts"}
    assert "lm_head.weight" not in found
    assert not any(t.requires_grad for t in found.values())


def test_buffers_that_a_folder_holds_have_its_values_and_the_others_stay(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    module = torch.nn.Module()
    module.inner = torch.nn.Module()
    module.inner.register_buffer("table", torch.tensor([1.0, 2.0]))
    module.register_buffer("own", torch.tensor([3.0]))
    save_file({"inner.table": torch.tensor([8.0, 9.0])}, tmp_path / "b" / "model.safetensors")
    weights = Weights(tmp_path / "b")
    place_buffers(module, weights, torch.device("cpu"))
    weights.close()
    assert module.inner.table.tolist() == [8, 9]
    assert module.own.tolist() == [3]
    assert dict(module.named_buffers()).keys() == {"inner.table", "own"}


def test_weights_are_read_in_the_order_of_the_names_and_in_the_dtype_that_is_asked_for(tmp_path):
    make_model("mixtral").save_pretrained(tmp_path)
    weights = Weights(tmp_path)
    names = ["model.layers.0.mlp.experts.down_proj", "model.norm.weight"]  # one is converted
    found = weights.load(names, torch.bfloat16)
    assert list(found) == names
    assert {t.dtype for t in found.values()} == {torch.bfloat16}
    assert weights.dtype == torch.float32
    assert weights.count() == sum(p.numel() for p in make_model("mixtral").parameters())
    found[names[1]].fill_(5)
    assert not (weights.get(names[1]) == 5).any()  # fresh memory
    weights.close()


def test_a_folder_of_integers_has_no_dtype(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.arange(3)}, tmp_path / "model.safetensors")
    with pytest.raises(WagleError, match="holds no floating-point weights"):
        _ = Weights(tmp_path).dtype
