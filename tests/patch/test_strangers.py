"""Patches from strangers: files that are whole, and whose content contradicts itself."""

import pytest
import torch

from tests.mutants import flipped, parts, resealed, survives
from wagle.patch.application import apply
from wagle.patch.file import FORMAT, Patch
from wagle.system.errors import WagleError
from wagle.system.files.checked import save_checked


def use(path):
    """Everything that a patch is read for, apart from its base."""
    patch = Patch.load(path)
    for name, change in patch.tensors.items():
        found = sum(len(where) for where in patch.positions(name))
        assert found == change.count == len(patch.values(name))
        if change.size < 1 << 20:
            patch.patched(name, torch.zeros(change.shape, dtype=getattr(torch, change.dtype)))


def test_flipped_bytes_of_a_patch_are_refused_in_one_line(trio):
    path = trio[2]
    whole = path.read_bytes()
    accepted = 0
    for number in range(300):
        mutant = flipped(whole, number)
        path.write_bytes(mutant)
        accepted += survives(lambda: use(path), number) and mutant != whole
    assert accepted <= 3  # a byte of padding in the header says nothing


def test_other_content_with_the_right_checksum_is_refused_or_makes_sense(trio, tmp_path):
    base, _, path = trio
    tensors, metadata = parts(path)
    accepted = 0
    for number in range(300):
        try:
            resealed(path, tensors, metadata, FORMAT, number)
        except ValueError:
            continue  # a NaN cannot be written
        accepted += survives(lambda: use(path), number)
        survives(lambda number=number: apply(base, path, tmp_path / f"out{number}"), number)
    assert accepted < 150


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [1 << 59, 1 << 59]},
        {"shape": [1] * 65},
        {"shape": [1 << 59] * 60_000},
        {"count": 1 << 59},
        {"count": 0},
        {"encoding": "all"},
        {"encoding": "bits"},
        {"encoding": []},
        {"dtype": "float16"},
        {"dtype": None},
        {"more": 1},
    ],
)
def test_a_change_that_cannot_be_is_one_line(trio, fields):
    path = trio[2]
    tensors, metadata = parts(path)
    metadata["tensors"]["embed.weight"].update(fields)
    save_checked(path, tensors, metadata, FORMAT)
    with pytest.raises(WagleError, match=r"^patch .* is corrupt: invalid fields; make it again$"):
        Patch.load(path)


def test_a_tensor_that_no_change_names_is_one_line(trio):
    path = trio[2]
    tensors, metadata = parts(path)
    save_checked(path, {**tensors, "more": torch.zeros(1)}, metadata, FORMAT)
    with pytest.raises(WagleError, match="is corrupt: invalid fields"):
        Patch.load(path)
