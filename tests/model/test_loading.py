"""Models with and without weights, tokenizers, and names of models."""

from pathlib import Path

import pytest
import torch

from tests.conftest import make_model
from wagle.model import loading
from wagle.model.loading import empty_model, load_model, load_tokenizer, resolve_model
from wagle.system.errors import WagleError


@pytest.fixture
def folder(tmp_path):
    make_model("llama-tied").save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_an_empty_model_has_the_names_shapes_and_ties_of_the_full_one(folder):
    empty, full = empty_model(folder), load_model(folder)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (empty, full)]
    assert shapes[0] == shapes[1]
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert empty.lm_head.weight is empty.model.embed_tokens.weight
    assert not empty.training
    own, other = dict(empty.named_buffers()), dict(full.named_buffers())
    assert own.keys() == other.keys() != set()
    assert all(torch.equal(own[n], other[n]) for n in own)  # buffers are real


def test_weights_have_the_dtype_and_the_attention_that_are_asked_for(folder):
    for make in (load_model, empty_model):
        model = make(folder, dtype="bfloat16", attention="eager")
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert model.config._attn_implementation == "eager"
    for make in (load_model, empty_model):
        with pytest.raises(WagleError, match="dtype 'float16'"):
            make(folder, dtype="float16")


def test_what_cannot_be_built_is_one_line(folder):
    (folder / "config.json").write_text('{"model_type": "no such model"}')
    for make, verb in ((load_model, "load"), (empty_model, "build")):
        with pytest.raises(WagleError, match=f"^cannot {verb} the model in .*/m: .") as caught:
            make(folder)
        assert "\n" not in str(caught.value)


def test_a_broken_tokenizer_is_one_line(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(WagleError, match=r"^cannot load the tokenizer in .*/m: .") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)


def test_only_the_word_demo_stands_for_the_demo_model(folder, monkeypatch):
    monkeypatch.setattr(loading, "demo_model", lambda: Path("made"))
    assert resolve_model("demo") == Path("made")
    assert resolve_model(str(folder)) == folder
    with pytest.raises(WagleError, match="model folder demo2 does not exist"):
        resolve_model("demo2")


def test_a_name_that_is_the_bundled_models_and_a_folders_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "demo_model", lambda: Path("made"))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("demo") == Path("made")
    folder.rename(tmp_path / "demo")
    with pytest.raises(WagleError, match=r"demo is both .* write bundled:demo .*, \./demo for"):
        resolve_model("demo")
    assert resolve_model("./demo") == Path("demo")
    assert resolve_model("bundled:demo") == Path("made")
    with pytest.raises(WagleError, match="bundled:demos is no bundled model; write bundled:demo"):
        resolve_model("bundled:demos")
