"""Models with and without weights, tokenizers, and names of models."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import dynamic_module_utils

import wagle
from tests.conftest import make_model
from wagle.model import loading
from wagle.model.loading import empty_model, load_model, load_tokenizer, resolve_model
from wagle.recipe.reading import load_recipe
from wagle.run.inputs import Inputs
from wagle.run.models import Models
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


# ---------------------------------------------------------------------------------------------
# Code in a model folder

_CONFIG = """
import pathlib
pathlib.Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig


class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def coded(model_folder, tmp_path, monkeypatch):
    """A folder whose configuration, model and tokenizer are code, and the file that it makes."""
    mark = tmp_path / "ran"
    (model_folder / "own.py").write_text(_CONFIG.format(mark=str(mark)))
    for name, changed in (
        (
            "config.json",
            {
                "model_type": "own",
                "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
            },
        ),
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "OwnTokenizer",
                "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
            },
        ),
    ):
        file = model_folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # as `yes |` answers
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    return model_folder, mark


@pytest.mark.parametrize("load", [load_model, empty_model, load_tokenizer])
def test_code_of_a_folder_never_runs_unasked_and_nothing_asks(coded, load):
    folder, mark = coded
    with pytest.raises(WagleError, match=r"model\.trust_remote_code: true in the recipe") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_code_runs_where_it_is_trusted(coded):
    folder, mark = coded
    assert type(load_tokenizer(folder, trust_remote_code=True)).__name__ == "OwnTokenizer"
    assert mark.exists()
    assert type(load_model(folder, trust_remote_code=True)).__name__ == "OwnModel"
    assert type(empty_model(folder, trust_remote_code=True)).__name__ == "OwnModel"


def test_a_folder_of_a_known_kind_loads_without_the_code_beside_it(coded):
    folder, mark = coded
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    for load in (load_model, empty_model):
        assert type(load(folder)).__name__ == "LlamaForCausalLM"
    assert not mark.exists()


@pytest.mark.parametrize("trust", [True, False])
def test_a_recipe_says_whether_code_may_run(coded, tmp_path, trust):
    folder, mark = coded
    asked = {"path": str(folder), "trust_remote_code": trust}
    recipe = load_recipe({"name": "x", "model": asked, "forget": "demo:forget"})
    models = Models(tmp_path, recipe)
    inputs = Inputs(recipe, models)
    for call in (models.structure, lambda: models.load(folder), lambda: inputs.encoder):
        if trust:
            call()
        else:
            with pytest.raises(WagleError, match="trust_remote_code"):
                call()
    assert mark.exists() == trust


def test_every_loader_of_transformers_is_told_whom_to_trust():
    calls = re.compile(r"\b(?:Auto\w+|auto)\.from_(?:pretrained|config)\(")
    found = 0
    for file in Path(wagle.__file__).parent.rglob("*.py"):
        text = file.read_text()
        for call in calls.finditer(text):
            depth, end = 1, call.end()
            while depth:
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            assert "trust_remote_code=" in text[call.end() : end], f"{file}: {call.group()}"
            found += 1
    assert found >= 8
