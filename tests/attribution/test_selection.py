from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wagle.attribution.scoring import uniform_chunk
from wagle.attribution.selection import exact_count, kth_largest, levels, thresholds
from wagle.errors import WagleError

# Few distinct values, so that ties are everywhere; signed zeros and denormals among them.
VALUES = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0, 1.0000001, -2.5, 3e38, -3e38, 0.1])
SCORES = st.lists(
    VALUES | st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60
)


def _chunks(values, size):
    whole = torch.tensor(values, dtype=torch.float32)
    return lambda: ((f"p{i}", part) for i, part in enumerate(whole.split(size)))


def _select(values, counts, size):
    chunks = _chunks(values, size)
    return torch.cat([level for _, level in levels(chunks, thresholds(chunks, counts))])


def _sorted_levels(values, counts):
    """The slow way: a full stable sort, larger first, earlier first on ties."""
    ranks = sorted(
        range(len(values)), key=lambda i: -torch.tensor(values[i], dtype=torch.float32).item()
    )
    expected = torch.zeros(len(values), dtype=torch.uint8)
    for count in counts:
        expected[ranks[:count]] += 1
    return expected


@given(SCORES, st.data())
def test_selection_equals_a_full_stable_sort(values, data):
    count = st.integers(1, len(values))
    counts = sorted(data.draw(st.sets(count, min_size=1, max_size=5)))
    size = data.draw(st.integers(1, len(values)))
    assert torch.equal(_select(values, counts, size), _sorted_levels(values, counts))


def test_selection_equals_a_stable_sort_on_many_ties():
    torch.manual_seed(0)
    values = torch.randint(0, 50, (20_000,)).float().div(7).tolist()
    counts = [1, 37, 5_000, 12_345, 20_000]
    assert torch.equal(_select(values, counts, 777), _sorted_levels(values, counts))


@given(SCORES, st.data())
def test_the_kth_largest_is_that_of_a_sort(values, data):
    count = data.draw(st.integers(1, len(values)))
    expected = torch.tensor(values, dtype=torch.float32).sort(descending=True).values[count - 1]
    assert kth_largest(_chunks(values, 7), count) == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), -float("nan")])
def test_a_score_that_is_not_finite_names_its_parameter(bad):
    with pytest.raises(WagleError, match="a score of p1 is not finite"):
        _select([1.0, 2.0, 3.0, bad], [2], 2)


@given(st.decimals(min_value="0.001", max_value=1, places=3), st.integers(1000, 10**12))
def test_counts_are_exact_on_the_decimal(ratio, total):
    expected = Fraction(ratio) * total
    assert exact_count(str(ratio), total) == exact_count(float(ratio), total) == int(expected)


def test_float_error_does_not_lose_a_weight():
    assert int(100 * 0.29) == 28  # what the published code does
    assert exact_count(0.29, 100) == 29


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, "nan", "half"])
def test_a_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(WagleError, match="ratio"):
        exact_count(ratio, 100)


def test_a_ratio_that_selects_nothing_is_refused():
    with pytest.raises(WagleError, match="selects none"):
        exact_count(0.001, 100)


def test_random_draws_depend_on_seed_name_and_index_alone():
    whole = uniform_chunk(3, "a.weight", 0, 64)
    assert torch.equal(uniform_chunk(3, "a.weight", 16, 40), whole[16:56])
    assert not torch.equal(uniform_chunk(4, "a.weight", 0, 64), whole)
    assert not torch.equal(uniform_chunk(3, "b.weight", 0, 64), whole)
    many = uniform_chunk(0, "x", 0, 200_000)
    assert many.min() >= 0
    assert many.max() < 1
    assert abs(many.mean().item() - 0.5) < 0.003  # 4.6 standard errors
