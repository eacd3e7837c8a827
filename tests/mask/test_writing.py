"""Building masks piece by piece."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.mask.made import metadata
from wagle.mask.mask import Mask
from wagle.mask.writing import MaskWriter
from wagle.system.errors import WagleError


@given(st.data(), st.integers(1, 15))
def test_levels_packed_in_any_chunks_give_the_same_bits(data, steps):
    levels = data.draw(st.lists(st.integers(0, steps), min_size=1, max_size=90))
    ends = data.draw(st.lists(st.integers(0, len(levels)), max_size=8))
    flat, ratios = torch.tensor(levels, dtype=torch.uint8), [(i + 1) / 16 for i in range(steps)]
    whole, parts = (MaskWriter({"w": (len(levels),), "v": (3,)}, ratios) for _ in range(2))
    whole.add("w", flat)
    cuts = sorted({0, len(levels), *ends})
    for start, stop in itertools.pairwise(cuts):
        parts.add("w", flat[start:stop])  # at odd offsets too: slices are not aligned
    made = [Mask(*writer.finish([1] * steps, metadata())) for writer in (whole, parts)]
    assert torch.equal(made[0]._packed["w"], made[1]._packed["w"])
    assert torch.equal(made[1].level("w"), flat)
    assert not made[1].level("v").any()


def test_packed_levels_are_these_bytes():
    one = MaskWriter({"w": (10,)}, [0.5])
    one.add("w", torch.tensor([1, 0, 1, 0, 0, 0, 0, 0, 0, 1], dtype=torch.uint8))
    assert one.finish([3], {}).bits["w"].tolist() == [0b101, 0b10]
    four = MaskWriter({"w": (3,)}, [0.1, 0.2, 0.3])
    four.add("w", torch.tensor([1, 2, 3], dtype=torch.uint8))
    assert four.finish([1, 2, 3], {}).bits["w"].tolist() == [0x21, 0x03]


def test_levels_may_be_bools_or_wider_integers():
    for levels in (torch.tensor([True, False]), torch.tensor([1, 0])):
        writer = MaskWriter({"w": (2,)}, [0.5])
        writer.add("w", levels)
        assert Mask(*writer.finish([1], metadata()))["w"].tolist() == [True, False]


def test_too_many_too_few_and_too_high_levels_are_refused():
    writer = MaskWriter({"w": (3,)}, [0.5])
    writer.add("w", torch.ones(2, dtype=torch.uint8))
    with pytest.raises(WagleError, match="w has 3 weights, but got 4 levels"):
        writer.add("w", torch.ones(2, dtype=torch.uint8))
    with pytest.raises(WagleError, match="w has 3 weights, but got only 2 levels"):
        writer.finish([2], {})
    with pytest.raises(WagleError, match="w has level 2 in a ladder of 1 ratios"):
        writer.add("w", torch.tensor([2], dtype=torch.uint8))
