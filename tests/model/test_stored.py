"""Folders from strangers: what they hold is checked against their configuration."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import MORE_FAMILIES, make_model
from wagle.model.loading import empty_model, load_model, load_tokenizer
from wagle.model.stored import INDEX, check_config, weight_files
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError

LOADERS = (load_model, empty_model)
FAMILIES = sorted({*MORE_FAMILIES} - {"gemma2", "gemma3", "phi", "qwen3"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Makes a fresh copy of a family's folder."""
    home = tmp_path_factory.mktemp("folders")
    made = {}

    def copy(family="llama-tied"):
        if family not in made:
            made[family] = home / family
            make_model(family).save_pretrained(made[family])
        out = home / f"{family}-{len(list(home.iterdir()))}"
        shutil.copytree(made[family], out)
        return out

    return copy


def change(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


def refused(call, message):
    with pytest.raises(WagleError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_that_lacks_any_of_its_tensors_is_refused(folders, family):
    folder = folders(family)
    for make in LOADERS:
        make(folder)  # as it was saved
    whole = load_file(folder / "model.safetensors")
    for gone in sorted(whole)[:: max(1, len(whole) // 4)]:
        rest = {name: tensor for name, tensor in whole.items() if name != gone}
        save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})
        for make in LOADERS:
            refused(
                lambda make=make: make(folder), r"lacks .* of the model|stores .* says|cannot load"
            )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_hidden_layers": 3}, r"lacks model\.layers\.2\.input_layernorm\.weight and 8 more"),
        (
            {"num_hidden_layers": 1},
            r"holds model\.layers\.1\..* and 8 more tensors, which the model",
        ),
        ({"model_type": "qwen2"}, r"lacks model\.layers\.0\.self_attn\.k_proj\.bias"),
        ({"model_type": "gpt2"}, r"lacks|holds"),
        ({"tie_word_embeddings": False}, r"lacks lm_head\.weight"),
        (
            {"intermediate_size": 56},
            r"mlp\.gate_proj\.weight as \(48, 32\).* says \(56, 32\)|cannot",
        ),
        ({"vocab_size": 401}, r"embed_tokens\.weight as \(400, 32\).*\(401, 32\)|cannot load"),
        ({"dtype": "bfloat16"}, r"in float32, but its config\.json says dtype: bfloat16"),
        ({"dtype": "float64"}, r"in float32, but its config\.json says dtype: float64"),
        ({"num_hidden_layers": 0}, r"says num_hidden_layers: 0, but a model has 1 to 10000"),
        ({"num_hidden_layers": -1}, r"says num_hidden_layers: -1"),
        ({"num_hidden_layers": 1_000_000}, r"says num_hidden_layers: 1000000, but a model has"),
        ({"num_hidden_layers": 9_999}, r"9999, but the weight files hold 20 tensors in all"),
        ({"text_config": {"num_hidden_layers": 10**15}}, r"says num_hidden_layers: 10000"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(folders, settings, message):
    folder = folders()
    change(folder, **settings)
    for make in LOADERS:
        start = time.monotonic()
        refused(lambda make=make: make(folder), message)
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32, torch.uint8])
def test_weights_of_another_dtype_than_the_configuration_says_are_refused(folders, dtype):
    folder = folders()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(48, 32, dtype=dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    name = str(dtype).removeprefix("torch.")
    for make in LOADERS:
        refused(lambda make=make: make(folder), rf"up_proj\.weight in {name}, but its config\.json")


def test_some_weights_may_be_in_float32(folders):
    folder = folders()
    tensors = load_file(folder / "model.safetensors")
    less = {n: t if "norm" in n else t.bfloat16() for n, t in tensors.items()}
    save_file(less, folder / "model.safetensors", metadata={"format": "pt"})
    change(folder, dtype="bfloat16")
    for make in LOADERS:
        make(folder)


def test_a_surplus_tensor_is_refused_unless_older_versions_stored_it(folders):
    folder = folders()
    tensors = load_file(folder / "model.safetensors")
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    save_file({**tensors, **old}, folder / "model.safetensors", metadata={"format": "pt"})
    for make in LOADERS:
        make(folder)
    save_file({**tensors, "stray": torch.zeros(2)}, folder / "model.safetensors")
    for make in LOADERS:
        refused(lambda make=make: make(folder), "holds stray, which the model in its config.json")


def test_the_weights_of_a_base_model_load_under_their_prefix(folders):
    folder = folders()
    whole = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in whole.items()}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    for make in LOADERS:
        make(folder)


# ---------------------------------------------------------------------------------------------
# The index of several weight files


def sharded(folders):
    folder = folders()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    homes = {}
    for number, name in enumerate(sorted(tensors)):
        homes[name] = f"model-{number % 2}.safetensors"
    for home in set(homes.values()):
        part = {name: tensors[name] for name in homes if homes[name] == home}
        save_file(part, folder / home, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    return folder, homes


def test_an_index_may_name_files_beside_it(folders):
    folder, _ = sharded(folders)
    assert [file.name for file in weight_files(folder)] == [
        "model-0.safetensors",
        "model-1.safetensors",
    ]
    for make in LOADERS:
        make(folder)


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": null}']
)
def test_an_index_without_a_weight_map_is_one_line(folders, text):
    folder, _ = sharded(folders)
    (folder / INDEX).write_text(text)
    for make in (*LOADERS, fingerprint):
        refused(lambda make=make: make(folder), "has no weight_map that names the file of every")


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", 5, None, ["x"]]
)
def test_an_index_that_leaves_its_folder_is_one_line(folders, name):
    folder, homes = sharded(folders)
    shutil.copyfile(folder / "model-0.safetensors", folder.parent / "other.safetensors")
    homes = {**homes, sorted(homes)[0]: name}
    (folder / INDEX).write_text(json.dumps({"weight_map": homes}))
    for make in (*LOADERS, fingerprint):
        refused(
            lambda make=make: make(folder), "which is no name of a safetensors file in its fold"
        )


def test_an_index_that_names_what_is_not_there_is_one_line(folders):
    folder, _ = sharded(folders)
    (folder / "model-1.safetensors").unlink()
    for make in (*LOADERS, fingerprint):
        refused(lambda make=make: make(folder), r"lacks its weight file model-1\.safetensors")


def test_a_tensor_in_two_files_and_weights_beside_an_index_are_refused(folders):
    folder, _ = sharded(folders)
    shutil.copyfile(folder / "model-0.safetensors", folder / "model.safetensors")
    for make in LOADERS:  # wagle would read the index, transformers the single file
        refused(lambda make=make: make(folder), "holds model.safetensors and an index of other")
    (folder / "model.safetensors").unlink()
    shutil.copyfile(folder / "model-0.safetensors", folder / "model-1.safetensors")
    for make in LOADERS:
        refused(lambda make=make: make(folder), "in two files")


# ---------------------------------------------------------------------------------------------
# Configurations, tokenizers, pickles


def test_a_configuration_of_another_shape_is_one_line(folders):
    folder = folders()
    (folder / "config.json").write_text("[]")
    for make in (*LOADERS, check_config):
        refused(lambda make=make: make(folder), "is no configuration of a model")


def test_an_adapter_inside_a_model_folder_is_refused(folders):
    folder = folders()
    (folder / "adapter_config.json").write_text("{}")
    for make in LOADERS:
        refused(
            lambda make=make: make(folder), "a model and an adapter .* name it as model.adapter"
        )


def test_a_pickle_is_never_opened(folders):
    folder = folders()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for make in LOADERS:
        refused(lambda make=make: make(folder), "lacks its weight file model.safetensors")


def test_a_tokenizer_with_tokens_beyond_the_vocabulary_is_refused(model_folder, tokenizer):
    size = len(tokenizer)
    change(model_folder, vocab_size=size)
    load_tokenizer(model_folder)  # as large is fine
    change(model_folder, vocab_size=size - 3)
    refused(
        lambda: load_tokenizer(model_folder),
        rf"has 3 tokens beyond the model's vocabulary of {size - 3} "
        rf"\(ids {size - 3} to {size - 1}, first ",
    )
    change(model_folder, vocab_size=size)
    longer = load_tokenizer(model_folder)
    longer.add_tokens(["<new>"])
    longer.save_pretrained(model_folder)
    refused(lambda: load_tokenizer(model_folder), rf"has 1 tokens .* \(id {size}, first '<new>'\)")
