"""Saving like another folder: precisions, names, and which files go along."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import make_model
from wagle.model.saving import check_names, copy_other_files, save_model, saved_dtypes, write_shard
from wagle.system.errors import WagleError
from wagle.system.files.tensors import TensorFile


@pytest.fixture
def mixed(tmp_path):
    """A folder in bfloat16, one norm in float32; and its live model, wider."""
    folder, model = tmp_path / "base", make_model("llama-tied")
    model.save_pretrained(folder)
    kinds = load_file(folder / "model.safetensors")
    kinds = {n: t if n == "model.norm.weight" else t.bfloat16() for n, t in kinds.items()}
    write_shard(folder / "model.safetensors", kinds)
    return folder, model


def test_each_parameter_has_the_precision_that_its_folder_stores(mixed):
    folder, model = mixed
    kinds = saved_dtypes(model, folder)
    assert set(kinds) == {n for n, _ in model.named_parameters()}
    assert [n for n, kind in kinds.items() if kind == torch.float32] == ["model.norm.weight"]
    assert set(kinds.values()) == {torch.float32, torch.bfloat16}


def test_integers_and_what_is_no_parameter_have_no_precision(tmp_path):
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.zeros(2))
    model.counts = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    model.register_buffer("table", torch.zeros(2))
    (tmp_path / "config.json").write_text("{}")
    stored = {"weight": torch.zeros(2).half(), "counts": torch.zeros(2).int()}
    save_file({**stored, "table": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert saved_dtypes(model, tmp_path) == {"weight": torch.float16}


def test_a_model_is_rounded_to_the_precision_of_its_folder(mixed, tmp_path):
    folder, model = mixed
    with torch.no_grad():
        model.model.norm.weight[0] = 1 + 2**-12  # bfloat16 has 8 bits
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1 + 2**-12
    save_model(model, folder, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found["model.norm.weight"][0] == 1 + 2**-12
    assert found["model.layers.0.mlp.up_proj.weight"][0, 0] == 1
    assert found["model.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16


def test_a_tensor_that_the_model_lacks_is_named_before_anything_is_written(mixed, tmp_path):
    folder, model = mixed
    tensors = load_file(folder / "model.safetensors")
    write_shard(folder / "model.safetensors", {**tensors, "model.extra": torch.zeros(1)})
    with pytest.raises(
        WagleError, match=r"the model has no tensor 'model\.extra' that its folder h"
    ):
        save_model(model, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    check_names(folder, [*tensors, "model.extra", "one more"])


def test_a_transposed_tensor_is_written_row_by_row(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"w": torch.zeros(3, 2)}, folder / "model.safetensors")
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.arange(6.0).view(2, 3).T)
    save_model(model, folder, tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].tolist() == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]


def test_only_files_without_weights_go_along(tmp_path):
    source, target = tmp_path / "m", tmp_path / "copy"
    (source / "templates" / "deep").mkdir(parents=True)
    target.mkdir()
    kept = [
        *("config.json", "model.safetensors.index.json", "README.md", "merges.txt", "binary"),
        *("templates/a.jinja", "templates/deep/b.json", "training.ptx"),
    ]
    left = [
        *("model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin", "x.pth"),
        *("pytorch_model.bin.index.json", "tf.h5", "flax.msgpack", "a.gguf", "a.onnx", "a.npz"),
        *(
            "last.ckpt",
            "optimizer.pt",
            ".hidden",
            "templates/c.bin",
            "templates/deep/d.safetensors",
        ),
    ]
    for name in (*kept, *left):
        (source / name).write_text(name)
    copy_other_files(source, target)
    found = [p for p in target.rglob("*") if p.is_file()]
    assert sorted(str(p.relative_to(target)) for p in found) == sorted(kept)
    assert all(p.read_text() == str(p.relative_to(target)) for p in found)


def test_a_shard_says_that_it_is_of_torch(tmp_path):
    write_shard(tmp_path / "x", {"w": torch.zeros(2)})
    assert b'"__metadata__":{"format":"pt"}' in (tmp_path / "x").read_bytes()
    with TensorFile(tmp_path / "x") as file:
        assert file.metadata == {}  # ours would stand under another key
