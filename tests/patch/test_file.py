import dataclasses
import hashlib
import json
import random
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from tests.patch.models import all_tensors, assert_same_models, changed_at, folder, rewrite, weights
from wagle.model.weights import fingerprint
from wagle.patch.application import apply
from wagle.patch.extraction import extract
from wagle.patch.file import FORMAT, Patch
from wagle.system.errors import WagleError
from wagle.system.files.checked import save_checked
from wagle.system.files.tensors import TensorFile, save_tensors


def slow_digest(name, tensor):
    """Of a float32 tensor, as the format describes it."""
    text = f"{name}\0{list(tensor.shape)}\0".encode()
    return hashlib.sha256(text + tensor.numpy().tobytes()).hexdigest()[:16]


def test_the_file_is_what_the_format_says(trio):
    base, result, path = trio
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["wagle"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (metadata["format"], metadata["base"]) == ("wagle-patch/2", fingerprint(base))
    assert metadata["result"] == fingerprint(result)
    assert metadata["tensors"]["embed.weight"] == {
        "shape": [50, 16],
        "dtype": "float32",
        "encoding": "gaps",
        "count": 3,
    }
    assert set(stored) == {
        "embed.weight::values",
        "embed.weight::gaps",
        "layers.0.up.weight::values",
        "layers.0.up.weight::gaps",
    }
    old = all_tensors(base)
    assert metadata["digests"] == {"norm.weight": slow_digest("norm.weight", old["norm.weight"])}
    few = ["embed.weight", "layers.0.up.weight"]  # tensors with few changes: of the result
    assert metadata["digests_after"] == {n: slow_digest(n, all_tensors(result)[n]) for n in few}
    # 0, 3 and 799: none, two, and 795 = 3 * 255 + 30 unchanged weights before
    assert stored["embed.weight::gaps"].tolist() == [0, 2, 255, 255, 255, 30]
    new = all_tensors(result)["embed.weight"].view(-1)
    assert stored["embed.weight::values"].tolist() == new[[0, 3, 799]].tolist()


def test_a_tensor_in_which_many_weights_change_has_the_digest_of_its_old_values(tmp_path):
    old = weights()
    for count, key in [(255, "digests_after"), (256, "digests")]:
        new = changed_at(old, {"embed.weight": list(range(count))})
        base = folder(tmp_path / f"base{count}", old)
        result = folder(tmp_path / f"result{count}", new)
        extract(base, result, tmp_path / f"p{count}")
        with safe_open(tmp_path / f"p{count}", framework="pt") as file:
            found = json.loads(file.metadata()["wagle"])[key]["embed.weight"]
        tensor = (new if key == "digests_after" else old)["embed.weight"]
        assert found == slow_digest("embed.weight", tensor)


def test_a_file_of_the_first_format_is_read_and_applied(tmp_path):
    old = weights()
    where = {"embed.weight": [0, 3, 799], "layers.0.up.weight": list(range(0, 512, 2))}
    base = folder(tmp_path / "base", old)
    result = folder(tmp_path / "result", changed_at(old, where))
    stored, changes = {}, {}
    for name, encoding in [("embed.weight", "gaps"), ("layers.0.up.weight", "bits")]:
        new = all_tensors(result)[name]
        stored[f"{name}::values"] = new.view(-1)[where[name]]
        changes[name] = {
            "shape": list(new.shape),
            "dtype": "float32",
            "encoding": encoding,
            "count": len(where[name]),
        }
    stored["embed.weight::gaps"] = torch.tensor([0, 2, 255, 255, 255, 30], dtype=torch.uint8)
    stored["layers.0.up.weight::bits"] = torch.full((64,), 0b01010101, dtype=torch.uint8)
    ends = {"base": fingerprint(base), "result": fingerprint(result)}
    path = tmp_path / "p"
    save_checked(path, stored, {**ends, "tensors": changes}, "wagle-patch/1")
    apply(base, path, tmp_path / "out")
    assert_same_models(tmp_path / "out", result)
    other = folder(tmp_path / "other", changed_at(old, {"norm.weight": [0]}))
    said = f"belongs to base {ends['base'][:6]}, but {other} is {fingerprint(other)[:6]}; apply it"
    with pytest.raises(WagleError, match=said):
        apply(other, path, tmp_path / "no")


def test_values_stay_in_the_file_until_they_are_asked_for(trio, monkeypatch):
    patch = Patch.load(trio[2])
    asked = []
    read = TensorFile.read
    monkeypatch.setattr(TensorFile, "read", lambda f, n, *at: asked.append(n) or read(f, n, *at))
    patch.patched("embed.weight", weights()["embed.weight"])
    assert sorted(asked) == ["embed.weight::gaps", "embed.weight::values"]


def test_load_and_save_keep_the_patch_to_the_byte(trio, tmp_path):
    path = trio[2]
    patch = Patch.load(path)
    assert patch.changed == 5
    patch.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_patch_holds_no_old_value(tmp_path):
    generator = random.Random(5)
    words = [generator.randrange(0x11111111, 0x7EEEEEEE) for _ in range(400)]
    old = {"w": torch.tensor(words, dtype=torch.int32).view(torch.float32)}
    chosen = {
        "gaps": [5, 77, 390],
        "bits": range(0, 400, 2),
        "rice": [i for i in range(400) if i % 7 in (0, 2)],
        "rice_unchanged": [i for i in range(400) if i % 7 not in (0, 2)],
        "all": range(400),
    }
    for name, where in chosen.items():
        new = {"w": old["w"].clone()}
        new["w"].view(torch.int32)[list(where)] ^= 0x01010101
        base = folder(tmp_path / f"base-{name}", old)
        result = folder(tmp_path / f"result-{name}", new)
        path = tmp_path / f"{name}.safetensors"
        undo = tmp_path / f"{name}.undo"
        assert extract(base, result, path, undo=undo).tensors["w"].encoding == name
        private = undo.read_bytes()
        assert all(struct.pack("<i", words[i]) in private for i in where)
        data = path.read_bytes()
        assert not [word for word in words if struct.pack("<i", word) in data]
        kept = new["w"].view(torch.int32)[list(where)].tolist()
        assert all(struct.pack("<i", word) in data for word in kept)  # the search does find values


def test_a_file_cut_anywhere_is_an_error(trio):
    path = trio[2]
    data = path.read_bytes()
    for length in [0, 4, 8, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(WagleError, match="truncated or corrupt"):
            Patch.load(path)


def test_a_flip_of_any_byte_is_an_error(trio):
    path = trio[2]
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(WagleError, match=r"corrupt|not a wagle patch|has format") as raised:
            Patch.load(path)
        assert "\n" not in str(raised.value)


def test_a_changed_value_says_corrupt_and_what_to_do(trio):
    path = trio[2]
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)
    with pytest.raises(WagleError, match=r"p.safetensors is corrupt: .*; make it again"):
        Patch.load(path)


def test_a_newer_format_is_refused_by_name(trio):
    path = trio[2]
    stored = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["wagle"])
    save_tensors(path, stored, {**metadata, "format": "wagle-patch/3"})
    with pytest.raises(WagleError, match=f"has format wagle-patch/3; this wagle reads {FORMAT}"):
        Patch.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "is not a wagle patch"),
        ({"format": "wagle-mask/1"}, "is not a wagle patch"),
        ({"format": "wagle-undo/1"}, r"is not a wagle patch \(format wagle-undo/1\)"),
        ([1], "is corrupt"),
        ("text", "is corrupt"),
    ],
)
def test_another_kind_of_file_is_not_a_patch(tmp_path, metadata, message):
    save_tensors(tmp_path / "m", {"a": torch.zeros(2)}, metadata)
    with pytest.raises(WagleError, match=message):
        Patch.load(tmp_path / "m")


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 4},
        {"count": 0},
        {"count": 3.0},
        {"shape": (2, 2)},
        {"shape": (-50, -16)},
        {"shape": ("50", 16)},
        {"shape": ()},
        {"dtype": "bfloat16"},
        {"encoding": "bits"},
        {"encoding": "values"},
        {"encoding": "rice"},
        {"encoding": "all"},
        {"encoding": None},
    ],
)
def test_a_patch_at_odds_with_itself_is_refused_though_its_checksum_fits(trio, fields):
    path = trio[2]
    change = Patch.load(path).tensors["embed.weight"]
    tensors = {"embed.weight": dataclasses.replace(change, **fields)}
    rewrite(path, tensors={**Patch.load(path).tensors, **tensors})
    with pytest.raises(WagleError, match="corrupt"):
        Patch.load(path)


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 900), st.floats(-9, 9), st.text(max_size=6)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(
    field=st.sampled_from(["base", "result", "tensors", "digests", "shape", "count", "encoding"]),
    value=JSON,
    code=st.binary(max_size=12),
)
def test_any_fields_and_any_code_are_a_sound_patch_or_refused(tmp_path_factory, field, value, code):
    path = tmp_path_factory.mktemp("p") / "p"
    change = {"shape": [4, 200], "dtype": "float32", "encoding": "rice", "count": 3}
    metadata = {"base": "a", "result": "b", "tensors": {"w": change}, "digests": {}}
    (change if field in change else metadata)[field] = value
    stored = {"w::values": torch.zeros(3), "w::rice": torch.tensor(list(code), dtype=torch.uint8)}
    save_checked(path, stored, metadata, FORMAT)
    try:
        patch = Patch.load(path)
    except WagleError:
        return
    for name, tensor in patch.tensors.items():
        found = [int(p) for part in patch.positions(name) for p in part]
        assert found == sorted(set(found))
        assert len(found) == tensor.count
        assert all(0 <= p < tensor.size for p in found)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=60))
def test_any_file_is_a_one_line_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("p") / "p"
    path.write_bytes(data)
    with pytest.raises(WagleError, match=r"is truncated or corrupt|is not a wagle patch"):
        Patch.load(path)
