"""Reading a gradient store by parts."""

import pytest
import torch

from tests.attribution.scoring.made import LINEAR, SHAPES, TRANSPOSED, make_store
from wagle.attribution.store import GradientStore, weight_stamps
from wagle.system.atomic import write_json
from wagle.system.errors import WagleError
from wagle.system.tensors import save_tensors


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
    save_tensors(folder / "input_square-0.safetensors", {"a": torch.ones(1, 2)}, {})
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
