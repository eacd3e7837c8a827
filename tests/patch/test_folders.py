"""Two model folders compared by their stored bits."""

import hashlib

import numpy as np
import pytest
import torch

from tests.patch.models import folder, weights
from wagle.patch import folders
from wagle.patch.folders import (
    Kind,
    dtype_name,
    in_step,
    kind_of,
    layout,
    pairs,
    parts_of,
    same_layout,
    stored_bits,
    tensor_digest,
    unequal,
)
from wagle.system.errors import WagleError


def where(old, new):
    parts = [unequal(before, after) for _, before, after in in_step(old, new)]
    return np.concatenate([*parts, np.zeros(0, dtype=bool)]).tolist()


def test_zeros_of_two_signs_differ_and_a_nan_equals_itself():
    nan = float("nan")
    old = torch.tensor([0.0, 0.0, nan, 1.0])
    new = torch.tensor([0.0, -0.0, nan, 1.0 + 2**-23])
    assert where(old, new) == [False, True, False, True]
    other = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert where(old[2:3], other) == [True]  # a NaN of other bits


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_of_every_width_are_compared_entry_by_entry(dtype):
    old = torch.tensor([[0, 1, 1], [0, 0, 1]]).to(dtype)
    new = torch.tensor([[1, 1, 0], [0, 0, 1]]).to(dtype)
    assert where(old, new) == [True, False, True, False, False, False]
    assert len(stored_bits(old)) == 6
    assert stored_bits(old).element_size() == old.element_size()


def test_what_lies_transposed_is_compared_in_its_own_order():
    old = torch.arange(6.0).view(2, 3).T
    new = old.clone(memory_format=torch.contiguous_format)
    new[2, 0] = 9  # entry 4 of three rows of two
    assert where(old, new) == [False] * 4 + [True, False]
    assert where(old.T[:, ::2], new.T[:, ::2]) == [False, True, False, False]


@pytest.mark.parametrize("chunk", [8, 16, 1 << 22])
def test_chunks_do_not_move_a_difference(monkeypatch, chunk):
    monkeypatch.setattr(folders, "_CHUNK", chunk)
    old = torch.zeros(21)
    new = old.clone()
    new[[0, 7, 8, 15, 16, 20]] = 1
    assert np.flatnonzero(where(old, new)).tolist() == [0, 7, 8, 15, 16, 20]
    assert len(list(in_step(old, new))) == -(-21 // chunk)
    digest = hashlib.sha256(b"w\0[21]\0" + new.numpy().tobytes())
    assert tensor_digest("w", new) == digest.hexdigest()[:16]


def test_nothing_and_a_single_number_are_tensors_too():
    assert where(torch.zeros(0), torch.zeros(0)) == []
    assert where(torch.tensor(1.0), torch.tensor(2.0)) == [True]


def test_a_digest_is_of_the_values_in_float32_and_of_name_and_shape():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    same = tensor_digest("w", values)
    assert tensor_digest("w", values.bfloat16()) == same
    assert tensor_digest("w", values.T.contiguous().T) == same
    others = [("v", values), ("w", values.view(4)), ("w", values.T)]
    assert len({same, *(tensor_digest(*other) for other in others)}) == 4


def test_a_kind_is_printed_as_type_and_shape():
    assert str(kind_of(torch.zeros(2, 3, dtype=torch.bfloat16))) == "bfloat16 [2, 3]"
    assert str(Kind("float32", ())) == "float32 []"
    assert dtype_name(torch.float8_e4m3fn) == "float8_e4m3fn"
    assert kind_of(torch.zeros(2)) == ("float32", (2,))


# ---------------------------------------------------------------------------------------------
# Folders


def test_pairs_do_not_depend_on_how_a_folder_is_cut(tmp_path):
    old, new = weights(), weights(seed=1)
    one, other = folder(tmp_path / "a", old), folder(tmp_path / "b", new, shards=3)
    names = []
    for name, before, after in pairs(one, other):
        for stored, wanted in ((before, old[name]), (after, new[name])):
            assert torch.equal(torch.cat([*parts_of(stored)]), wanted.view(-1))
        names.append(name)
    assert names == sorted(old)
    assert same_layout(one, other) == layout(one) == {n: kind_of(t) for n, t in old.items()}


def test_a_tensor_that_one_folder_lacks_is_named_with_the_folder_that_has_it(tmp_path):
    old = weights()
    one = folder(tmp_path / "a", old)
    other = folder(tmp_path / "b", {n: t for n, t in old.items() if n != "norm.weight"})
    for base, result in ((one, other), (other, one)):
        with pytest.raises(WagleError) as caught:
            same_layout(base, result)
        assert str(caught.value) == (
            f"{other} has no tensor 'norm.weight', but {one} has; compare two versions of one model"
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            torch.zeros(4, 4),
            r"norm.weight is float32 \[16\] in .*/a and float32 \[4, 4\] in .*/b; ",
        ),
        (torch.zeros(16).half(), r"norm.weight is float32 \[16\] in .*/a and float16 \[16\] in "),
    ],
)
def test_another_shape_or_precision_is_named_by_the_first_tensor(tmp_path, changed, said):
    one = folder(tmp_path / "a", weights())
    other = folder(tmp_path / "b", {**weights(), "norm.weight": changed})
    with pytest.raises(WagleError, match=said):
        same_layout(one, other)
