import hashlib
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import make_model
from wagle.errors import WagleError
from wagle.model import (
    _TokenNLL,
    fingerprint,
    load_model,
    load_tokenizer,
    place,
    save_model,
    weight_files,
)


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
        assert (out / file.name).read_bytes() == file.read_bytes()
    for file in base.glob("*.safetensors"):
        old, new = load_file(file), load_file(out / file.name)
        assert list(old) == list(new)
        for name in old:
            assert torch.equal(old[name], new[name]) == ("0.mlp.up_proj" not in name)
    again = AutoModelForCausalLM.from_pretrained(out)
    assert fingerprint(again) == fingerprint(model)
    assert load_tokenizer(out).chat_template == tokenizer.chat_template


def test_places_of_parameters():
    assert place("model.layers.3.mlp.up_proj.weight") == ("3", "mlp.up_proj.weight")
    assert place("transformer.h.11.attn.c_attn.bias") == ("11", "attn.c_attn.bias")
    assert place("model.layers.2.mlp.experts.7.w1.weight") == ("2", "mlp.experts.7.w1.weight")
    assert place("lm_head.weight") == ("", "lm_head.weight")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist"),
        (lambda f: f.mkdir(), "holds no config.json"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{}")), "cannot load the model in"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{")), "cannot load the model in"),
    ],
)
def test_a_folder_that_is_no_model_is_a_one_line_error(tmp_path, make, message):
    make(tmp_path / "m")
    with pytest.raises(WagleError, match=message) as caught:
        load_model(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_missing_shards_and_tokenizers_are_named(tmp_path):
    make_model("gpt2").save_pretrained(tmp_path / "m", max_shard_size="20KB")
    lost = weight_files(tmp_path / "m")[1]
    lost.unlink()
    with pytest.raises(WagleError, match=f"lacks its weights {lost.name}"):
        fingerprint(tmp_path / "m")
    with pytest.raises(WagleError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "m")


def test_an_index_decides_which_files_are_weights(tmp_path):
    make_model("gpt2").save_pretrained(tmp_path / "m")
    save_file({"x": torch.zeros(1)}, tmp_path / "m" / "adapter_model.safetensors")
    assert [f.name for f in weight_files(tmp_path / "m")] == ["model.safetensors"]
    assert not json.loads((tmp_path / "m" / "config.json").read_text()).get("quantization_config")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cross_entropy_of_many_rows_is_the_plain_one(dtype):
    torch.manual_seed(0)
    logits = torch.randn(37, 50).mul(4).to(dtype).requires_grad_()
    target = torch.randint(50, (37,))
    weight = torch.rand(37)
    nll, hit = _TokenNLL.apply(logits, target)
    plain = F.cross_entropy(logits.float(), target, reduction="none")
    torch.testing.assert_close(nll, plain, rtol=1e-5, atol=1e-5)
    assert nll.dtype == torch.float32
    assert torch.equal(hit, logits.float().argmax(-1) == target)
    (ours,) = torch.autograd.grad((nll * weight).sum(), logits)
    (theirs,) = torch.autograd.grad((plain * weight).sum(), logits)
    assert ours.dtype == dtype
    torch.testing.assert_close(
        ours, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6
    )


def test_the_cross_entropy_has_a_second_derivative_and_takes_no_rows():
    torch.manual_seed(0)
    logits = torch.randn(5, 7, requires_grad=True)
    target = torch.randint(7, (5,))

    def curvature(nll):
        (first,) = torch.autograd.grad(nll.sum(), logits, create_graph=True)
        return torch.autograd.grad((first**2).sum(), logits)[0]

    plain = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(curvature(_TokenNLL.apply(logits, target)[0]), curvature(plain))
    nll, hit = _TokenNLL.apply(logits[:0], target[:0])
    assert nll.shape == hit.shape == (0,)
