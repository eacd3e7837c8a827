"""Vectors in files that are mapped into memory."""

import gc
import os

import pytest
import torch

from wagle.system.errors import DiskFull
from wagle.system.mapped import Room, is_mapped, let_go, mapped, passing


def _resident():
    """Bytes of files that are mapped and in memory."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssFile"))


def test_a_vector_keeps_its_values_after_its_pages_are_let_go(tmp_path):
    vector = mapped(1 << 22, torch.float32, tmp_path)
    assert not vector.any()
    vector.copy_(torch.arange(1 << 22))
    full = _resident()
    let_go(vector)
    assert full - _resident() > 15e6  # of 16.8 MB
    assert torch.equal(vector, torch.arange(1 << 22, dtype=torch.float32))


def test_no_file_is_left_and_its_space_returns_with_the_vector(tmp_path):
    before = os.statvfs(tmp_path).f_bavail
    vector = mapped(1 << 24, torch.float32, tmp_path)
    assert list(tmp_path.iterdir()) == []
    block = os.statvfs(tmp_path).f_frsize
    assert (before - os.statvfs(tmp_path).f_bavail) * block > 60e6  # reserved, though not written
    del vector
    gc.collect()
    assert (before - os.statvfs(tmp_path).f_bavail) * block < 30e6


def test_other_memory_is_never_let_go():
    vector, number = torch.ones(1 << 16), torch.tensor(3.0)
    let_go(vector, number, None, vector[7:])
    assert vector.all()
    assert number == 3


def test_views_and_parameters_of_a_mapped_vector_are_mapped(tmp_path):
    vector = mapped(4096, torch.bfloat16, tmp_path)
    assert is_mapped(torch.nn.Parameter(vector))
    assert is_mapped(vector[1000:])
    assert not is_mapped(vector.clone())


def test_a_disk_without_room_is_said_in_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFull, match="the disk is full"):
        mapped(10, torch.float32, tmp_path)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_room_keeps_shape_and_dtype(on_disk, tmp_path):
    room = Room(on_disk=on_disk, folder=tmp_path)
    given = torch.arange(12, dtype=torch.int32).view(3, 4)
    kept = room.put(given)
    assert is_mapped(kept) == on_disk
    assert torch.equal(kept, given)
    assert room.put(kept) is kept
    assert room.zeros(0, torch.float32).shape == (0,)
    assert room.zeros(3, torch.int32).tolist() == [0, 0, 0]


def test_lists_are_passed_side_by_side(tmp_path):
    ones = [mapped(3, torch.float32, tmp_path).fill_(n) for n in range(2)]
    twos = [torch.full((3,), float(n)) for n in range(2)]
    assert [bool((a == b).all()) for a, b in passing(ones, twos)] == [True, True]
    with pytest.raises(ValueError, match="shorter"):
        list(passing(ones, twos[:1]))
