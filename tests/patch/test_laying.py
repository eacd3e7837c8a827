"""A base under patches, its blocks on disk, is the model that the patches make."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import make_model
from wagle.model.streaming.opening import stream_of
from wagle.model.weights import fingerprint
from wagle.patch import laying
from wagle.patch.application import apply, load_patched
from wagle.patch.extraction import extract
from wagle.patch.laying import open_patched
from wagle.system.errors import WagleError
from wagle.system.mapped import is_mapped


def moved(model, seed, share=0.3, everywhere=(), untouched=()):
    """The model with some weights changed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            chosen = torch.rand(parameter.shape) < (1.0 if name in everywhere else share)
            if name not in untouched:
                parameter[chosen] += 0.25
    return model


def save(model, folder):
    model.save_pretrained(folder)
    return folder


def same(model, other):
    ids = torch.randint(0, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, other(ids).logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "qwen3"])
def test_a_patch_lies_over_blocks_stem_and_head(family, dtype, tmp_path):
    base = save(make_model(family).to(dtype), tmp_path / "base")
    names = [name for name, _ in make_model(family).named_parameters() if ".1." in name]
    model = moved(make_model(family).to(dtype), 1, everywhere=names[:1])
    made = save(model, tmp_path / "made")
    extract(base, made, tmp_path / "one.safetensors")
    before = [file.read_bytes() for file in sorted(base.iterdir())]
    laid, mark = open_patched(base, tmp_path / "one.safetensors")
    assert stream_of(laid).overlay
    same(laid, load_patched(base, tmp_path / "one.safetensors"))
    same(laid, model.float())
    assert mark == apply(base, tmp_path / "one.safetensors", tmp_path / "out").fingerprint
    assert [file.read_bytes() for file in sorted(base.iterdir())] == before


@pytest.mark.parametrize("small", [1 << 30, 0])
@pytest.mark.parametrize("chain", [True, False])
def test_of_several_patches_the_later_one_wins_in_memory_or_in_files(
    chain, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(laying, "_SMALL", small)
    base = save(make_model("llama-untied"), tmp_path / "base")
    layer = "model.layers.{}.mlp.up_proj.weight"
    first = moved(make_model("llama-untied"), 1, everywhere=[layer.format(0)])
    one = save(first, tmp_path / "one")
    start = first if chain else make_model("llama-untied")
    two = save(moved(start, 2, everywhere=[layer.format(1)]), tmp_path / "two")
    extract(base, one, tmp_path / "1.safetensors")
    extract(one if chain else base, two, tmp_path / "2.safetensors")
    patches = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    laid, mark = open_patched(base, patches)
    same(laid, load_patched(base, patches))
    assert (mark is None) == (not chain)
    assert fingerprint(laid) == fingerprint(load_patched(base, patches))
    for over in stream_of(laid).overlay.values():
        assert is_mapped(over.values) == (not small)
        assert over.index is None or is_mapped(over.index) == (not small)


def test_a_wrong_base_is_refused_as_apply_does(tmp_path):
    base = save(make_model("llama-untied"), tmp_path / "base")
    made = save(moved(make_model("llama-untied"), 1), tmp_path / "made")
    other = save(make_model("llama-untied", seed=5), tmp_path / "other")
    extract(base, made, tmp_path / "one.safetensors")
    refusals = []
    for work in (
        lambda: open_patched(other, tmp_path / "one.safetensors"),
        lambda: apply(other, tmp_path / "one.safetensors", tmp_path / "out"),
    ):
        with pytest.raises(WagleError, match="apply it to the model that it was made for") as told:
            work()
        refusals.append(str(told.value))
    assert refusals[0] == refusals[1]
    with pytest.raises(WagleError, match="no patch was given"):
        open_patched(base, [])
