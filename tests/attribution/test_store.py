"""Reading a gradient store by parts."""

import json

import pytest
import torch

import wagle
from tests.attribution.scoring.made import LINEAR, SHAPES, TRANSPOSED, make_store
from tests.mutants import changed, flipped, survives
from wagle.attribution.store import GradientStore, weight_stamps
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json
from wagle.system.files.reading import read_json
from wagle.system.files.seals import content_digest
from wagle.system.files.tensors import TensorFile, save_tensors


@pytest.mark.parametrize("name", LINEAR)
def test_layer_inputs_are_read_as_if_they_had_the_shape_of_the_weight(name):
    store = make_store()
    whole = store.get("input_square", name).expand(SHAPES[name]).reshape(-1)
    shape = store.get("input_square", name).shape
    assert shape == ((4, 1) if name in TRANSPOSED else (1, SHAPES[name][1]))
    for start in range(len(whole)):
        for stop in range(start + 1, len(whole) + 1):
            assert torch.equal(store.read("input_square", name, start, stop), whole[start:stop])


def test_inputs_of_experts_broadcast_over_all_but_the_last_dimension():
    name = "layers.1.mlp.experts.up"  # (2, 3, 4)
    inputs = torch.rand(2, 1, 4)
    store = make_store({"input_square": {name: inputs}})
    whole = inputs.expand(2, 3, 4).reshape(-1)
    for start, stop in ((0, 24), (5, 7), (11, 13), (23, 24)):
        assert torch.equal(store.read("input_square", name, start, stop), whole[start:stop])


def test_parts_are_float32_whatever_is_stored_and_however_it_lies():
    turned = torch.randn(4, 7).T.bfloat16()  # not contiguous
    store = make_store({"grad_forget": {"embed.weight": turned}})
    found = store.read("grad_forget", "embed.weight", 3, 9)
    assert found.dtype == torch.float32
    assert found.tolist() == turned.contiguous().view(-1)[3:9].float().tolist()
    assert store.get("grad_forget", "embed.weight") is turned


def test_what_was_not_collected_is_named():
    store = make_store(quantities=["grad_forget"])
    assert store.has("grad_forget", "embed.weight")
    assert not store.has("grad_retain", "embed.weight")
    assert not store.has("grad_forget", "lm_head.weight")
    for ask in (store.get, lambda *what: store.read(*what, 0, 1)):
        with pytest.raises(
            WagleError, match=r"the gradient store has no grad_retain for embed.weigh"
        ):
            ask("grad_retain", "embed.weight")
    with pytest.raises(
        WagleError, match=r"has no input_square for layers.0.ln_1.bias; make it again"
    ):
        make_store().read("input_square", "layers.0.ln_1.bias", 0, 1)


def test_a_parameter_has_as_many_weights_as_its_shape_says():
    store = make_store()
    assert store.size("layers.1.mlp.experts.up") == 24
    assert store.size("layers.0.ln_1.bias") == 5
    store.shapes["one"] = ()
    assert store.size("one") == 1


def saved(folder, **changes):
    """A small store on disk, its parameter in two shards of one quantity."""
    about = {
        "format": "wagle-gradients/2",
        "parameters": [["a", [2]], ["b", [1]]],
        "quantities": ["grad_forget"],
        "transposed": [],
        "model": {"folder": None, "fingerprint": "a1", "files": None},
        "records": {"forget": ["x"], "retain": ["y"]},
    }
    folder.mkdir()
    write_json(folder / "store.json", {**about, **changes})
    save_tensors(folder / "grad_forget-00000.safetensors", {"a": torch.tensor([1.0, 2.0])}, {})
    save_tensors(folder / "grad_forget-head.safetensors", {"b": torch.tensor([3.0])}, {})
    save_tensors(
        folder / "weight-x.safetensors", {n: torch.ones(2)[: 2 - (n == "b")] for n in "ab"}, {}
    )
    return folder


def test_a_store_on_disk_finds_a_parameter_in_any_of_its_shards(tmp_path):
    store = GradientStore.open(str(saved(tmp_path / "s")))
    assert store.shapes == {"a": (2,), "b": (1,)}
    assert store.read("grad_forget", "a", 1, 2).tolist() == [2]
    assert store.read("grad_forget", "b", 0, 1).tolist() == [3]
    assert store.get("weight", "a").tolist() == [1, 1]
    store.check_weights()  # they lie in the store: nothing can have changed


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("store.json", "s is not a gradient store; make one: wagle attribute RECIPE"),
        ("grad_forget-head.safetensors", "s lacks grad_forget for b; make it again"),
        ("weight-x.safetensors", "s lacks weight for a; make it again"),
    ],
)
def test_a_store_that_lacks_a_file_is_refused_when_it_is_opened(tmp_path, lost, said):
    (saved(tmp_path / "s") / lost).unlink()
    with pytest.raises(WagleError, match=said):
        GradientStore.open(tmp_path / "s")


def test_layer_inputs_may_be_missing_of_some_parameters_and_other_quantities_not(tmp_path):
    folder = saved(tmp_path / "s", quantities=["grad_forget", "input_square"])
    save_tensors(folder / "input_square-0.safetensors", {"a": torch.ones(1)}, {})
    store = GradientStore.open(folder)
    assert store.has("input_square", "a")
    assert not store.has("input_square", "b")


def test_a_stamp_changes_with_the_file_and_not_with_its_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_tensors(tmp_path / "model.safetensors", {"w": torch.ones(1)}, {})
    ((name, size, when),) = weight_stamps(tmp_path)
    stat = (tmp_path / "model.safetensors").stat()
    assert (name, size, when) == ("model.safetensors", stat.st_size, stat.st_mtime_ns)
    (tmp_path / "README.md").write_text("x")
    assert weight_stamps(tmp_path) == [[name, size, when]]


# ---------------------------------------------------------------------------------------------
# Stores that were altered


def digested(folder):
    """A store with digests, as ``gradients`` writes it."""
    saved(folder)
    for file in folder.glob("*.safetensors"):
        with TensorFile(file) as opened:
            tensors = {name: opened.read_all(name) for name in opened.names}
        save_tensors(file, tensors, {"format": "wagle-gradients/2"}, digest=True)
    about = read_json(folder / "store.json")
    write_json(folder / "store.json", {**about, "digest": content_digest(about)})
    return folder


def test_every_flipped_byte_of_a_store_is_found_where_it_is_read(tmp_path):
    folder = digested(tmp_path / "s")
    store = GradientStore.open(folder)
    assert store.read("grad_forget", "a", 0, 2).tolist() == [1, 2]
    assert "digest" not in store.metadata
    file = folder / "grad_forget-00000.safetensors"
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(WagleError, match=r"make it again|has no .* for a|lacks grad_forget"):
            GradientStore.open(folder).read("grad_forget", "a", 0, 2)


def test_a_file_of_a_store_is_compared_with_its_digest_once_and_only_if_it_is_read(
    tmp_path, monkeypatch
):
    folder, checked = digested(tmp_path / "s"), []
    check = TensorFile.check
    monkeypatch.setattr(
        TensorFile, "check", lambda f, **k: checked.append(f.path.name) or check(f, **k)
    )
    store = GradientStore.open(folder)
    assert checked == []
    for _ in range(3):
        store.read("grad_forget", "a", 0, 1)
        store.get("grad_forget", "a")
    assert checked == ["grad_forget-00000.safetensors"]


def test_a_store_of_an_older_wagle_has_no_digests_and_is_read(tmp_path):
    store = GradientStore.open(saved(tmp_path / "s"))
    assert store.read("grad_forget", "b", 0, 1).tolist() == [3]


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": None},
        {"parameters": []},
        {"parameters": [["a", [2]], ["a", [2]]]},
        {"parameters": [["a", [-2]]]},
        {"parameters": [["a", [2.0]]]},
        {"parameters": [["a", [1 << 62]]]},
        {"parameters": [["a", [1] * 65]]},
        {"parameters": [[1, [2]]]},
        {"quantities": "grad_forget"},
        {"quantities": ["../x"]},
        {"quantities": [["grad_forget"]]},
        {"transposed": 1},
        {"transposed": [[]]},
        {"model": "m"},
        {"model": {"fingerprint": "a1"}},
        {"model": {"folder": 1, "fingerprint": "a1"}},
        {"model": {"folder": None, "fingerprint": None}},
        {"records": None},
        {"records": {"forget": 3}},
        {"records": {"forget": [], "retain": None}},
    ],
)
def test_a_description_of_wrong_types_is_one_line(tmp_path, changes):
    folder = saved(tmp_path / "s", **changes)
    with pytest.raises(WagleError, match=r"store\.json is corrupt: invalid fields; make"):
        GradientStore.open(folder)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"'])
def test_a_description_that_is_no_table_is_one_line(tmp_path, text):
    (saved(tmp_path / "s") / "store.json").write_text(text)
    with pytest.raises(WagleError, match=r"store\.json is corrupt"):
        GradientStore.open(tmp_path / "s")


def test_an_edited_description_is_found(tmp_path):
    folder = digested(tmp_path / "s")
    about = read_json(folder / "store.json")
    write_json(folder / "store.json", {**about, "transposed": ["a"]})
    with pytest.raises(WagleError, match=r"store\.json is corrupt: its digest does not match"):
        GradientStore.open(folder)


@pytest.mark.parametrize(
    "tensor", [torch.ones(3), torch.ones(2, 1), torch.ones(2, dtype=torch.int32)]
)
def test_tensors_that_do_not_fit_the_parameters_are_refused_when_opened(tmp_path, tensor):
    folder = saved(tmp_path / "s")
    save_tensors(folder / "grad_forget-00000.safetensors", {"a": tensor}, {})
    with pytest.raises(WagleError, match=r"holds grad_forget of a as .*, not of shape \[2\]"):
        GradientStore.open(folder)


def use(folder):
    """Everything that a store is read for."""
    store = GradientStore.open(folder)
    store.check_weights()
    for name in store.shapes:
        for quantity in ("weight", *store.quantities):
            if store.has(quantity, name):
                store.get(quantity, name)
                store.read(quantity, name, 0, store.size(name))
    wagle.Mask.from_scores(store, score="magnitude", ratio=0.5)


def test_descriptions_and_files_from_strangers_are_refused_in_one_line_or_make_sense(tmp_path):
    folder = digested(tmp_path / "s")
    whole = {file: file.read_bytes() for file in sorted(folder.iterdir())}
    about = read_json(folder / "store.json")
    del about["digest"]
    accepted = 0
    for number in range(300):
        for file, data in whole.items():
            file.write_bytes(data)
        if number % 2:
            file = list(whole)[number % len(whole)]
            file.write_bytes(flipped(whole[file], number))
        else:  # with the right digest
            mutant = changed(about, number)
            if isinstance(mutant, dict) and "\\ud800" not in json.dumps(mutant):
                mutant["digest"] = content_digest(mutant)
            (folder / "store.json").write_text(json.dumps(mutant))
        accepted += survives(lambda: use(folder), number)
    assert accepted < 150


def test_a_store_without_the_stamps_of_its_model_compares_the_weights(tmp_path, model_folder):
    """Found by bench.fuzz: store:832."""
    told = {"folder": str(model_folder), "fingerprint": fingerprint(model_folder)}
    GradientStore.open(saved(tmp_path / "a", model=told)).check_weights()
    store = GradientStore.open(saved(tmp_path / "b", model={**told, "fingerprint": "00"}))
    with pytest.raises(WagleError, match="is no longer the model of this gradient store"):
        store.check_weights()
