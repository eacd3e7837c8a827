"""Building masks piece by piece."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.mask.made import metadata
from wagle.mask.mask import Mask
from wagle.mask.writing import MaskWriter, refuse_ladder
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


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([], "a ladder has 1 to 15 ratios, not 0"),
        ([i / 16 for i in range(1, 17)], "a ladder has 1 to 15 ratios, not 16"),
        ([0.5, 0.5], r"the ratios \[0.5, 0.5\] must ascend without repeats"),
        ([0.5, 0.1], r"the ratios \[0.5, 0.1\] must ascend without repeats"),
    ],
)
def test_a_writer_needs_a_ladder(ratios, said):
    with pytest.raises(WagleError, match=f"^{said}$"):
        MaskWriter({"w": (2,)}, ratios)


def test_ratios_are_compared_by_the_number_that_they_stand_for():
    refuse_ladder(["0.5", "0.10"], exact=lambda text: -float(text))
    with pytest.raises(WagleError, match="must ascend"):
        refuse_ladder(["1e-1", "0.1"])
    refuse_ladder([f"0.{i:02}" for i in range(1, 16)])


def test_parameters_may_be_added_in_turns_and_those_without_weights_need_nothing():
    writer = MaskWriter({"a": (5,), "none": (0, 3), "b": (2, 2), "one": ()}, [0.1, 0.5])
    parts = [("a", [2, 0, 1]), ("b", [0, 2, 2]), ("one", [1]), ("a", [1, 2]), ("b", [1])]
    for name, levels in parts:
        writer.add(name, torch.tensor(levels, dtype=torch.uint8))
    mask = Mask(*writer.finish([4, 8], metadata()))
    assert list(mask.shapes) == ["a", "none", "b", "one"]
    assert mask.level("a").tolist() == [2, 0, 1, 1, 2]
    assert mask.level("b").tolist() == [[0, 2], [2, 1]]
    assert mask.level("none").shape == (0, 3)
    assert mask.level("one").item() == 1


def test_a_refused_chunk_is_not_counted():
    writer = MaskWriter({"w": (3,)}, [0.5])
    with pytest.raises(WagleError, match="level 2"):
        writer.add("w", torch.tensor([1, 2], dtype=torch.uint8))
    writer.add("w", torch.tensor([0, 1, 1], dtype=torch.uint8))
    assert Mask(*writer.finish([2], metadata()))["w"].tolist() == [False, True, True]


def test_an_empty_chunk_changes_nothing():
    writer = MaskWriter({"w": (3,)}, [0.5])
    for levels in ([], [1], [], [0, 1]):
        writer.add("w", torch.tensor(levels, dtype=torch.uint8))
    assert writer.finish([2], {}).bits["w"].tolist() == [0b101]


def test_an_empty_chunk_changes_nothing_wherever_it_comes():
    writer = MaskWriter({"w": (3,), "v": (2,)}, [0.5])
    nothing = torch.tensor([], dtype=torch.uint8)
    for part in (nothing, torch.tensor([1, 0, 1], dtype=torch.uint8), nothing):
        writer.add("w", part)
    bits = writer.finish([2], {}).bits
    assert bits["w"].tolist() == [0b101]
    assert bits["v"].tolist() == [0]
