import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from wagle.system.errors import WagleError
from wagle.system.files import checked, tensors
from wagle.system.files.checked import load_checked, save_checked, tensors_digest
from wagle.system.files.tensors import TensorFile, save_tensors, types_by_name

KINDS = types_by_name()
UNREAD = {"torch.float8_e8m0fnu", "torch.float4_e2m1fn_x2"}  # scales and codes; no weights


def some(kind):
    return torch.tensor([0, 1, 0, 1], dtype=torch.uint8).to(kind)


@pytest.mark.parametrize("name", KINDS)
def test_a_dtype_is_called_what_safetensors_calls_it(name, tmp_path):
    value = some(KINDS[name])
    save_tensors(tmp_path / "ours", {"x": value}, {})
    save_file({"x": value}, tmp_path / "theirs")
    for file in ("ours", "theirs"):
        assert f'"{name}"'.encode() in (tmp_path / file).read_bytes()
        with TensorFile(tmp_path / file) as opened:
            assert opened.dtype("x") == KINDS[name]
            assert torch.equal(opened.read_all("x").to(torch.complex64), value.to(torch.complex64))
    assert load_file(tmp_path / "ours")["x"].dtype == KINDS[name]


def test_every_dtype_of_weights_that_safetensors_writes_is_known(tmp_path):
    written = set()
    for kind in {value for value in vars(torch).values() if isinstance(value, torch.dtype)}:
        try:
            save_file({"x": torch.zeros(16, dtype=torch.uint8).view(kind)}, tmp_path / "x")
        except (KeyError, RuntimeError, TypeError, NotImplementedError):
            continue  # of this one there is no file
        written.add(kind)
    assert {kind for kind in written if str(kind) not in UNREAD} == set(KINDS.values())


# ---------------------------------------------------------------------------------------------
# Parts and digests


def digest_by_hand(tensors):
    """The documented digest: name, type, shape and bytes, in name order."""
    text = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        text.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        text.update(bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()))
    return text.hexdigest()


MIXED = {
    "odd": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "half": torch.arange(6).view(2, 3).to(torch.bfloat16),
    "turned": torch.arange(12.0).view(3, 4).T,  # not contiguous
    "none": torch.empty(0, 5),
    "one": torch.tensor(2.5),
}


@pytest.mark.parametrize("chunk", [1, 5, 1 << 22])
def test_a_digest_does_not_depend_on_the_parts_that_a_file_is_read_in(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(checked, "CHUNK", chunk)
    save_tensors(tmp_path / "x", MIXED, {})
    with TensorFile(tmp_path / "x") as file:
        assert checked._file_digest(file) == tensors_digest(MIXED) == digest_by_hand(MIXED)


def test_a_digest_sees_names_types_and_shapes():
    base = {"a": torch.zeros(2, 2)}
    others = [
        {"b": torch.zeros(2, 2)},
        {"a": torch.zeros(4)},
        {"a": torch.zeros(2, 2, dtype=torch.int32)},
        {"a": -torch.zeros(2, 2)},
    ]
    assert len({tensors_digest(found) for found in (base, *others)}) == 5


def test_wide_tensors_come_first_so_that_all_are_aligned(tmp_path):
    save_tensors(tmp_path / "x", MIXED, {"z": 1, "a": None})
    with TensorFile(tmp_path / "x") as file:
        # by width, then by name; "none" takes no bytes, so it begins where "one" does
        assert sorted(file.names, key=lambda n: (file.offset(n), n)) == [
            *("none", "one", "turned", "half", "odd")
        ]
        for name in file.names:
            assert file.offset(name) % MIXED[name].element_size() == 0
            assert (file.dtype(name), file.shape(name)) == (MIXED[name].dtype, MIXED[name].shape)
        assert file.metadata == {"z": 1, "a": None}
    raw = (tmp_path / "x").read_bytes()
    assert int.from_bytes(raw[:8], "little") % 8 == 0
    assert b'{\\"a\\":null,\\"z\\":1}' in raw  # sorted, without blanks


def test_a_part_of_a_tensor_is_that_slice_of_the_flat_one(tmp_path):
    save_tensors(tmp_path / "x", MIXED, {})
    with TensorFile(tmp_path / "x") as file:
        for name in ("turned", "half", "odd"):
            flat = MIXED[name].reshape(-1)
            for start in range(len(flat) + 1):
                for stop in range(start, len(flat) + 1):
                    assert torch.equal(file.read(name, start, stop), flat[start:stop])


def test_whole_tensors_come_in_fresh_memory_with_their_shape(tmp_path):
    save_tensors(tmp_path / "x", MIXED, {})
    with TensorFile(tmp_path / "x") as file:
        for name, tensor in MIXED.items():
            found = file.read_all(name)
            assert found.shape == tensor.shape
            assert torch.equal(found, tensor)
        file.read_all("one").fill_(7)
        assert file.get("one") == 2.5


def test_floats_are_converted_on_the_way_and_integers_are_not(tmp_path):
    given = {"w": torch.tensor([1.0, 1 + 2**-12]), "n": torch.tensor([300])}
    save_tensors(tmp_path / "x", given, {}, dtype=torch.bfloat16)
    found = load_file(tmp_path / "x")
    assert found["w"].dtype == torch.bfloat16
    assert found["w"].tolist() == [1.0, 1.0]  # rounded
    assert (found["n"].dtype, found["n"].tolist()) == (torch.int64, [300])


def test_a_file_without_tensors_keeps_its_metadata(tmp_path):
    save_tensors(tmp_path / "x", {}, {"why": "nothing changed"})
    with TensorFile(tmp_path / "x") as file:
        assert file.names == []
        assert file.metadata == {"why": "nothing changed"}


def test_metadata_with_nan_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="Out of range float values"):
        save_tensors(tmp_path / "x", {}, {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_cut_off_while_it_is_open_is_said(tmp_path):
    save_tensors(tmp_path / "x", {"w": torch.arange(1000.0)}, {})
    with TensorFile(tmp_path / "x") as file:
        os.truncate(tmp_path / "x", file.offset("w") + 100)
        assert file.read("w", 0, 25).tolist() == list(range(25))
        with pytest.raises(WagleError, match=r"x was truncated while being read; make it again"):
            file.read("w", 20, 30)


def test_missing_and_truncated_files_are_named_by_what_they_are(tmp_path):
    with pytest.raises(WagleError, match=r"^weight file .*/no does not exist$"):
        TensorFile(tmp_path / "no", "weight file")
    (tmp_path / "cut").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    with pytest.raises(WagleError, match=r"^mask .*/cut is truncated or corrupt \(.+\); make it"):
        TensorFile(tmp_path / "cut", "mask")


def test_closing_twice_is_harmless_and_releases_the_file(tmp_path):
    save_tensors(tmp_path / "x", {"w": torch.zeros(3)}, {})
    file = TensorFile(tmp_path / "x")
    handle = file._handle
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
    file.close()
    assert file._handle == -1


def test_a_checksum_covers_the_metadata_and_the_format_is_kept_apart(tmp_path):
    save_checked(tmp_path / "x", {"w": torch.ones(2)}, {"score": "a", "of": (1, 2)}, "wagle-y/3")
    found, metadata = load_checked(tmp_path / "x", "y", "wagle-y/4")  # older ones are read
    assert metadata == {"score": "a", "of": [1, 2]}
    assert found["w"].tolist() == [1.0, 1.0]
    raw = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(raw.replace(b'\\"score\\":\\"a\\"', b'\\"score\\":\\"b\\"'))
    with pytest.raises(WagleError, match=r"y .*x is corrupt: its checksum does not match; make it"):
        load_checked(tmp_path / "x", "y", "wagle-y/4")


@pytest.mark.parametrize("version", ["0", "5", "04", "4 ", "-1", ""])
def test_only_whole_versions_up_to_the_newest_are_read(tmp_path, version):
    save_checked(tmp_path / "x", {}, {}, f"wagle-y/{version}")
    with pytest.raises(
        WagleError, match=f"has format wagle-y/{version}; this wagle reads wagle-y/4"
    ):
        load_checked(tmp_path / "x", "y", "wagle-y/4")


# ---------------------------------------------------------------------------------------------
# Files from strangers


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def about(text):
    return {"__metadata__": {"wagle": text}}


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 5000, "[]", "null", "{"]
)
def test_metadata_that_cannot_be_read_is_one_line(tmp_path, text):
    path = written(tmp_path / "x", about(text))
    with pytest.raises(WagleError, match="its metadata cannot be read; make it again"):
        TensorFile(path, "mask")


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b'{"a":' * 5000, b""),
        ({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 60]}}, b"1234"),
        ({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, b"1234"),
        (b" " * ((1 << 25) + 1), b"1"),
    ],
)
def test_a_header_that_cannot_be_is_one_line(tmp_path, header, data):
    with pytest.raises(WagleError, match=r"^mask .*/x (is truncated or|holds 'a' as|has a header)"):
        TensorFile(written(tmp_path / "x", header, data), "mask")


def test_a_digest_covers_every_byte_and_is_made_while_the_file_is_written(tmp_path):
    save_tensors(tmp_path / "x", MIXED, {"format": "f"}, digest=True)
    with TensorFile(tmp_path / "x") as file:
        file.check(needed=True)
        told = file.metadata["digest"]
        assert torch.equal(file.read_all("half"), MIXED["half"])
    whole = (tmp_path / "x").read_bytes()
    assert told == hashlib.sha256(whole[8:].replace(told.encode(), b"0" * 64)).hexdigest()
    (tmp_path / "x").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with (
        TensorFile(tmp_path / "x", "store") as file,
        pytest.raises(WagleError, match=r"store .*/x is corrupt: its digest does not match"),
    ):
        file.check(needed=False)
    save_tensors(tmp_path / "y", MIXED, {"format": "f"})
    with TensorFile(tmp_path / "y") as file:
        file.check(needed=False)
        with pytest.raises(WagleError, match="its digest does not match"):
            file.check(needed=True)


def test_an_open_file_is_released_without_a_word_when_the_interpreter_ends(tmp_path, monkeypatch):
    save_tensors(tmp_path / "x", MIXED, {})
    file = TensorFile(tmp_path / "x")
    handle = file._handle
    monkeypatch.setattr(tensors, "os", None)  # as modules are then
    file.__del__()
    monkeypatch.undo()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
