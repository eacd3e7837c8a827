import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wagle.mask import packing
from wagle.mask.packing import bits_per_level, level_counts, pack, unpack


@given(st.lists(st.integers(0, 15), min_size=1, max_size=70), st.sampled_from([1, 4]))
def test_packed_levels_come_back(values, bits):
    level = torch.tensor([min(v, 2**bits - 1) for v in values], dtype=torch.uint8)
    packed = pack(level, bits)
    assert len(packed) == math.ceil(len(values) * bits / 8)
    assert torch.equal(unpack(packed, bits, len(values)), level)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=70), st.sampled_from([1, 4]))
def test_packed_levels_are_counted_without_unpacking(values, bits):
    values = [min(v, 2**bits - 1) for v in values]
    found = level_counts(pack(torch.tensor(values, dtype=torch.uint8), bits), bits)
    assert found.tolist() == [values.count(level) for level in range(1, 2**bits)]


def test_one_ratio_takes_one_bit_and_a_ladder_four():
    assert bits_per_level([0.8]) == 1
    assert bits_per_level([0.1, 0.8]) == bits_per_level([i / 15 for i in range(1, 16)]) == 4


def test_the_first_level_lies_in_the_lowest_bits():
    assert pack(torch.tensor([1, 2, 15], dtype=torch.uint8), 4).tolist() == [0x21, 0x0F]
    assert pack(torch.tensor([1, 1, 0, 0, 0, 0, 0, 0, 1], dtype=torch.uint8), 1).tolist() == [3, 1]
    assert unpack(torch.tensor([0x21, 0xF0], dtype=torch.uint8), 4, 4).tolist() == [1, 2, 0, 15]
    assert unpack(torch.tensor([0b10000010], dtype=torch.uint8), 1, 8).tolist() == [
        0,
        1,
        *[0] * 5,
        1,
    ]


@pytest.mark.parametrize("bits", [1, 4])
def test_levels_of_nothing_are_no_bytes(bits):
    none = torch.zeros(0, dtype=torch.uint8)
    assert pack(none, bits).shape == (0,)
    assert unpack(none, bits, 0).shape == (0,)
    assert level_counts(none, bits).tolist() == [0] * (2**bits - 1)


@pytest.mark.parametrize("bits", [1, 4])
def test_levels_that_do_not_lie_side_by_side_are_packed_in_their_own_order(bits):
    level = torch.tensor([[1, 0, 1], [0, 1, 1]], dtype=torch.uint8)
    for view in (level.T, level[:, ::2], level[1:], level.flatten()[1:]):
        assert torch.equal(pack(view, bits), pack(view.reshape(-1).clone(), bits))
        assert unpack(pack(view, bits), bits, view.numel()).tolist() == view.reshape(-1).tolist()


@pytest.mark.parametrize("bits", [1, 4])
def test_counting_in_parts_gives_the_same(monkeypatch, bits):
    level = (torch.arange(101) * 7 % 2**bits).to(torch.uint8)
    whole = level_counts(pack(level, bits), bits)
    monkeypatch.setattr(packing, "_CHUNK", 3)
    assert torch.equal(level_counts(pack(level, bits), bits), whole)


def test_a_part_of_what_is_packed_can_be_read_from_its_beginning():
    level = torch.tensor([3, 1, 4, 1, 5], dtype=torch.uint8)
    for count in range(6):
        assert unpack(pack(level, 4), 4, count).tolist() == level[:count].tolist()
