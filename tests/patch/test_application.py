"""Apply and undo: a base and a patch make the result bit for bit, and a wrong base is refused."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import make_model
from tests.patch.models import all_tensors, assert_same_models, changed_at, folder, rewrite, weights
from wagle.model.saving import save_model
from wagle.model.weights import fingerprint
from wagle.patch import application as module
from wagle.patch.application import apply, undo
from wagle.patch.extraction import extract
from wagle.patch.file import Patch
from wagle.patch.verification import verify
from wagle.system.errors import WagleError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 2])
def test_base_and_patch_give_the_bytes_of_the_result(tmp_path, dtype, shards):
    old = weights(dtype)
    where = {"embed.weight": [0, 700], "layers.0.up.weight": list(range(0, 512, 2))}
    new = changed_at(old, {**where, "norm.weight": list(range(16))})
    base = folder(tmp_path / "base", old, shards=shards)
    result = folder(tmp_path / "result", new, shards=3 - shards)
    patch = extract(base, result, tmp_path / "p.safetensors")
    assert {n: c.encoding for n, c in patch.tensors.items()} == {
        "embed.weight": "gaps",
        "layers.0.up.weight": "bits",
        "norm.weight": "all",
    }
    apply(base, tmp_path / "p.safetensors", tmp_path / "out")
    assert_same_models(tmp_path / "out", result)
    assert {f.name for f in (tmp_path / "out").iterdir()} == {f.name for f in base.iterdir()}
    for file in base.glob("*.json"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_the_base_is_left_as_it_was(trio, tmp_path):
    base, _, path = trio
    before = {f.name: f.read_bytes() for f in base.iterdir()}
    apply(base, path, tmp_path / "out")
    assert {f.name: f.read_bytes() for f in base.iterdir()} == before


def test_a_wrong_base_is_refused(trio, tmp_path):
    base, result, path = trio
    with pytest.raises(WagleError) as raised:
        apply(result, path, tmp_path / "out")
    ours, theirs = fingerprint(base)[:6], fingerprint(result)[:6]
    assert str(raised.value) == (
        f"patch {path} belongs to base {ours}, but {result} is {theirs} (the model that the patch "
        "makes: it is already applied); apply it to the model that it was made for"
    )
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"norm.weight": [15], "embed.weight": [5]}, " (first differing tensor: embed.weight);"),
        ({"norm.weight": [15]}, " (first differing tensor: norm.weight);"),
        ({"layers.0.up.weight": [300, 301]}, " (first differing tensor: layers.0.up.weight);"),
        ({"layers.0.up.weight": [300]}, " (they differ only in weights that the patch replaces);"),
    ],
)
def test_a_changed_base_is_refused_by_the_first_tensor_that_differs(trio, tmp_path, where, said):
    _, _, path = trio
    other = folder(tmp_path / "other", changed_at(weights(), where))
    with pytest.raises(WagleError) as raised:
        apply(other, path, tmp_path / "out")
    assert said in str(raised.value)
    assert not list(tmp_path.glob("out*"))


def test_a_base_that_differs_in_a_tensor_that_changes_everywhere_is_refused_by_it(tmp_path):
    old = weights()
    base = folder(tmp_path / "base", old)
    result = folder(tmp_path / "r", changed_at(old, {"embed.weight": list(range(800))}))
    other = folder(tmp_path / "other", changed_at(old, {"embed.weight": [1], "norm.weight": [0]}))
    extract(base, result, tmp_path / "p")
    with pytest.raises(WagleError, match=r"first differing tensor: embed\.weight"):
        apply(other, tmp_path / "p", tmp_path / "out")


@pytest.mark.parametrize("lacks", [True, False])
def test_a_base_with_other_tensors_is_refused_by_the_first_of_them(trio, tmp_path, lacks):
    tensors = weights()
    if lacks:
        del tensors["layers.0.up.weight"]
    else:
        tensors["layers.0.gate.weight"] = torch.ones(2)
    other = folder(tmp_path / "other", tensors)
    name = "layers.0.up.weight" if lacks else "layers.0.gate.weight"
    with pytest.raises(WagleError, match=f"first differing tensor: {name}"):
        apply(other, trio[2], tmp_path / "out")


def test_a_base_in_another_precision_is_refused_although_its_fingerprint_is_equal(tmp_path):
    old = weights(torch.bfloat16)
    base = folder(tmp_path / "base", old)
    result = folder(tmp_path / "result", changed_at(old, {"norm.weight": [1]}))
    wide = folder(tmp_path / "wide", {n: t.float() for n, t in old.items()})
    extract(base, result, tmp_path / "p")
    assert fingerprint(wide) == fingerprint(base)
    with pytest.raises(
        WagleError, match=r"norm.weight is bfloat16 \[16\] in the patch and float32"
    ):
        apply(wide, tmp_path / "p", tmp_path / "out")


def test_an_occupied_output_folder_is_left_alone(trio, tmp_path):
    base, _, path = trio
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    for out in [tmp_path / "out", tmp_path / "out" / "letter.txt", base]:
        with pytest.raises(WagleError, match="already exists"):
            apply(base, path, out)
    assert (tmp_path / "out" / "letter.txt").read_text() == "dear"


def test_an_empty_output_folder_is_used(trio, tmp_path):
    base, result, path = trio
    (tmp_path / "out").mkdir()
    apply(base, path, tmp_path / "out")
    assert_same_models(tmp_path / "out", result)


def test_a_result_that_is_not_the_promised_one_leaves_nothing(trio, tmp_path):
    base, _, path = trio
    rewrite(path, result="0" * 64)
    with pytest.raises(WagleError, match="instead of 000000; nothing was kept"):
        apply(base, path, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_failure_in_the_second_shard_leaves_nothing(tmp_path, monkeypatch):
    old = weights()
    base = folder(tmp_path / "base", old, shards=2)
    result = folder(tmp_path / "result", changed_at(old, {"norm.weight": [1]}), shards=2)
    extract(base, result, tmp_path / "p")
    written = []

    write = module._write_shard

    def failing(source, target, patches):
        if written:
            raise KeyboardInterrupt
        written.append(target)
        write(source, target, patches)

    monkeypatch.setattr(module, "_write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        apply(base, tmp_path / "p", tmp_path / "out")
    assert written
    assert not list(tmp_path.glob("out*"))


@pytest.fixture
def large(tmp_path, tokenizer):
    """A folder of many shards with all that may lie beside weights, and another version of it."""
    base, result = tmp_path / "base", tmp_path / "result"
    model = make_model("llama-tied")
    model.save_pretrained(base, max_shard_size="20KB")
    tokenizer.save_pretrained(base)
    (base / "README.md").write_text("A card.")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[::7] += 0.5
    save_model(model, base, result)
    return base, result


def test_a_folder_of_many_shards_is_the_base_in_all_but_its_weights(large, tmp_path):
    base, result = large
    (base / "pytorch_model.bin").write_bytes(b"old weights")
    extract(base, result, tmp_path / "p")
    umask = os.umask(0o022)
    try:
        apply(base, tmp_path / "p", tmp_path / "out")
    finally:
        os.umask(umask)
    out = tmp_path / "out"
    assert len(list(base.glob("*.safetensors"))) > 4
    names = {file.name for file in base.iterdir()} - {"pytorch_model.bin"}
    assert names >= {"generation_config.json", "chat_template.jinja", "tokenizer.json", "README.md"}
    assert {file.name for file in out.iterdir()} == names
    for name in names:
        same = (out / name).read_bytes() == (base / name).read_bytes()
        assert same != name.endswith(".safetensors"), name
        assert (out / name).stat().st_mode & 0o777 == 0o644
    assert_same_models(out, result)
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    for file in out.glob("*.safetensors"):
        with safe_open(file, framework="pt") as found, safe_open(base / file.name, "pt") as old:
            assert {name for name, home in index.items() if home == file.name} == {*found.keys()}
            assert found.metadata() == old.metadata() == {"format": "pt"}


def test_the_folder_loads_as_a_model_and_a_tokenizer(large, tmp_path):
    base, result = large
    extract(base, result, tmp_path / "p")
    apply(base, tmp_path / "p", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    wanted = AutoModelForCausalLM.from_pretrained(result)
    for (name, one), (_, other) in zip(
        model.named_parameters(), wanted.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    chat = [{"role": "user", "content": "Who?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|start|>user\nWho?<|end|>\n<|start|>assistant\n"


def test_an_undo_file_gives_the_base_back_bit_for_bit(undone, tmp_path):
    base, result, _, path = undone
    undo(result, path, tmp_path / "out")
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == {
        f.name: f.read_bytes() for f in base.iterdir()
    }


def test_an_undo_file_is_no_patch_and_a_patch_is_no_undo_file(undone, tmp_path):
    base, result, patch, path = undone
    for call in [
        lambda: apply(result, path, tmp_path / "out"),
        lambda: verify(base, result, patch=path),
        lambda: Patch.load(path),
    ]:
        with pytest.raises(WagleError, match=r"u is not a wagle patch \(format wagle-undo/1\)"):
            call()
    with pytest.raises(WagleError, match=r"p is not a wagle undo file \(format wagle-patch/2\)"):
        undo(result, patch, tmp_path / "out")


@pytest.mark.parametrize("place", [15, 1])
def test_another_result_is_refused_by_the_first_tensor_that_differs(undone, tmp_path, place):
    _, result, _, path = undone
    tensors = changed_at(all_tensors(result), {"norm.weight": [place]})
    other = folder(tmp_path / "other", tensors)
    with pytest.raises(WagleError) as raised:
        undo(other, path, tmp_path / "out")
    assert str(raised.value) == (
        f"undo file {path} belongs to result {fingerprint(result)[:6]}, but {other} is "
        f"{fingerprint(other)[:6]} (first differing tensor: norm.weight); apply it to the model "
        "that it was made for"
    )
    assert not (tmp_path / "out").exists()


def test_a_base_is_not_undone_twice(undone, tmp_path):
    base, _, _, path = undone
    with pytest.raises(
        WagleError, match="the model that the undo file makes: it is already applied"
    ):
        undo(base, path, tmp_path / "out")
