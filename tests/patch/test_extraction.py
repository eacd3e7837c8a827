"""Extract: what a patch holds, whatever the tensors, and what is refused."""

import os
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.patch.models import all_tensors, assert_same_models, bits, folder, weights
from wagle.patch import folders as patch_folders
from wagle.patch import positions as patch_positions
from wagle.patch.application import apply
from wagle.patch.extraction import extract
from wagle.patch.file import Patch
from wagle.patch.verification import verify
from wagle.system.errors import WagleError

QUIET_NAN, OTHER_NAN = 0x7FC00001, 0x7FC00002  # two NaNs that differ in their payload


def test_comparison_is_of_bits_not_of_numbers(tmp_path):
    def floats(*words):
        return torch.tensor(words, dtype=torch.int64).to(torch.int32).view(torch.float32)

    same_nan = floats(QUIET_NAN, 0, 0x3F800000, QUIET_NAN)
    zero_and_nan = floats(QUIET_NAN, 0x80000000, 0x3F800000, OTHER_NAN)
    old = {"a": same_nan, "b": torch.tensor([0.0, -0.0], dtype=torch.bfloat16)}
    new = {"a": zero_and_nan, "b": torch.tensor([0.0, 0.0], dtype=torch.bfloat16)}
    base, result = folder(tmp_path / "base", old), folder(tmp_path / "result", new)
    patch = extract(base, result, tmp_path / "p")
    assert [p.tolist() for p in patch.positions("a")] == [[1, 3]]
    assert [p.tolist() for p in patch.positions("b")] == [[1]]
    apply(base, tmp_path / "p", tmp_path / "out")
    assert_same_models(tmp_path / "out", result)


def test_integer_bool_scalar_and_empty_tensors_are_patched(tmp_path):
    old = {
        "long": torch.tensor([2**60, 5, -1]),
        "byte": torch.arange(40, dtype=torch.uint8),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
    }
    new = {name: tensor.clone() for name, tensor in old.items()}
    new["long"][0] += 1  # the same number in float32
    new["byte"][39] = 7
    new["flag"][1] = True
    new["scalar"] += 1
    base, result = folder(tmp_path / "base", old), folder(tmp_path / "result", new)
    patch = extract(base, result, tmp_path / "p")
    assert {n: c.count for n, c in patch.tensors.items()} == dict.fromkeys(
        ["byte", "flag", "long", "scalar"], 1
    )
    apply(base, tmp_path / "p", tmp_path / "out")
    assert_same_models(tmp_path / "out", result)
    assert verify(base, result, patch=tmp_path / "p").ok


@settings(deadline=None, max_examples=25)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    shares=st.lists(st.sampled_from([0.0, 0.004, 0.1, 0.9, 1.0]), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_random_bit_changes_come_back(tmp_path_factory, dtype, shares, seed):
    tmp_path = tmp_path_factory.mktemp("p")
    chance = random.Random(seed)
    old = weights(dtype, seed)
    new = {name: tensor.clone() for name, tensor in old.items()}
    expected = 0
    for tensor, share in zip(new.values(), shares, strict=True):
        flat = tensor.view(-1).view(torch.int16 if dtype == torch.bfloat16 else torch.int32)
        for i in range(len(flat)):
            if chance.random() < share:
                flat[i] ^= 1 << chance.randrange(15)
                expected += 1
    base, result = folder(tmp_path / "b", old), folder(tmp_path / "r", new, shards=2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patch_folders, "_CHUNK", 64)
        patched.setattr(patch_positions, "_CHUNK", 64)
        if not expected:
            with pytest.raises(WagleError, match="nothing changed"):
                extract(base, result, tmp_path / "p")
            return
        assert extract(base, result, tmp_path / "p").changed == expected
        apply(base, tmp_path / "p", tmp_path / "out")
        assert verify(base, result, patch=tmp_path / "p").patch_matches
    assert_same_models(tmp_path / "out", result)


def test_patching_a_tensor_leaves_the_old_one_alone(trio):
    old = weights()["embed.weight"]
    new = Patch.load(trio[2]).patched("embed.weight", old)
    assert bits(old) == bits(weights()["embed.weight"])
    assert bits(new) == bits(all_tensors(trio[1])["embed.weight"])


def test_nothing_changed_is_an_error(tmp_path):
    base = folder(tmp_path / "base", weights())
    same = folder(tmp_path / "same", weights(), shards=2)
    with pytest.raises(WagleError, match=r"nothing changed between .*base and .*same"):
        extract(base, same, tmp_path / "p")
    assert not list(tmp_path.glob("p*"))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("norm.weight", torch.zeros(17), r"norm.weight is float32 \[16\] in .* \[17\] in"),
        ("norm.weight", torch.zeros(16).half(), r"norm.weight is float32 .* float16 \[16\] in"),
        ("norm.weight", None, r"result has no tensor 'norm.weight', but .*base has;"),
        ("extra.weight", torch.zeros(1), r"base has no tensor 'extra.weight', but .*result has;"),
    ],
)
@pytest.mark.parametrize("call", ["extract", "verify"])
def test_models_of_another_layout_are_refused_by_tensor(tmp_path, name, tensor, message, call):
    old = weights()
    new = {n: t for n, t in {**old, name: tensor}.items() if t is not None}
    base, result = folder(tmp_path / "base", old), folder(tmp_path / "result", new)
    with pytest.raises(WagleError, match=message):
        extract(base, result, tmp_path / "p") if call == "extract" else verify(base, result)


def test_a_patch_among_the_weights_of_a_model_is_refused(trio):
    base, result, _ = trio
    with pytest.raises(WagleError, match="would be among the weights"):
        extract(base, result, result / "patch.safetensors")
    assert not (result / "patch.safetensors").exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_its_owner_reads_an_undo_file_whatever_the_umask(trio, tmp_path, umask):
    base, result, _ = trio
    before = os.umask(umask)
    try:
        extract(base, result, tmp_path / "again", undo=tmp_path / "u")
    finally:
        os.umask(before)
    assert (tmp_path / "u").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "again").stat().st_mode & 0o777 == 0o666 & ~umask


def test_no_old_value_is_written_unless_asked(trio, tmp_path):
    base, result, path = trio
    extract(base, result, tmp_path / "private" / "p")
    assert [f.name for f in (tmp_path / "private").iterdir()] == ["p"]
    assert (tmp_path / "private" / "p").read_bytes() == path.read_bytes()


def test_an_undo_file_over_the_patch_or_among_weights_is_refused(trio, tmp_path):
    base, result, _ = trio
    with pytest.raises(WagleError, match="cannot be both patch and undo file"):
        extract(base, result, tmp_path / "x", undo=tmp_path / "y" / ".." / "x")
    with pytest.raises(WagleError, match="would be among the weights"):
        extract(base, result, tmp_path / "x", undo=base / "undo")
    assert not (tmp_path / "x").exists()
