import math

import torch
from hypothesis import given
from hypothesis import strategies as st

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
