import pytest
import torch
from safetensors.torch import load_file, save_file

from wagle.system.tensors import TensorFile, save_tensors, types_by_name

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
