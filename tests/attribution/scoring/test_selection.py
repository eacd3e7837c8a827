from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wagle.attribution.scoring import selection
from wagle.attribution.scoring.candidates import in_order, uniform_chunk
from wagle.attribution.scoring.ratios import exact_count, read_ladder
from wagle.attribution.scoring.selection import (
    Levels,
    count_bins,
    count_fours,
    count_levels,
    kth_largest,
    octaves,
    row_levels,
    thresholds,
)
from wagle.system.errors import WagleError

# Few distinct values, so that ties are everywhere; signed zeros and denormals among them.
VALUES = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0, 1.0000001, -2.5, 3e38, -3e38, 0.1])
SCORES = st.lists(
    VALUES | st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60
)


def _chunks(values, size):
    whole = torch.tensor(values, dtype=torch.float32)
    return lambda work: ((f"p{i}", work(part)) for i, part in enumerate(whole.split(size)))


def _select(values, counts, size):
    chunks = _chunks(values, size)
    levels = Levels(thresholds(chunks, counts))
    return torch.cat([levels.settle(draft) for _, draft in chunks(levels.draft)])


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


def test_the_histogram_of_boundary_bins_may_be_counted_in_several_parts(monkeypatch):
    monkeypatch.setattr(selection, "_WAITING", 100)
    values = (torch.arange(2000) % 700).float().div(7).tolist()
    counts = [3, 500, 1_001]
    assert torch.equal(_select(values, counts, 64), _sorted_levels(values, counts))


@given(SCORES, st.data())
def test_rows_are_each_a_stable_sort(values, data):
    width = data.draw(st.integers(1, len(values)))
    rows = torch.tensor(values, dtype=torch.float32)[: len(values) // width * width].view(-1, width)
    counts = sorted(data.draw(st.lists(st.integers(0, width), min_size=1, max_size=4)))
    expected = [_sorted_levels(row.tolist(), counts) for row in rows]
    assert torch.equal(row_levels(rows, counts), torch.stack(expected))


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


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        ([], "a ladder has 1 to 15 ratios, not 0"),
        ([i / 16 for i in range(1, 17)], "a ladder has 1 to 15 ratios, not 16"),
        ([0.5, 0.1], "must ascend without repeats"),
        ([0.1, "0.10"], "must ascend without repeats"),
        (["1/3"], "ratio '1/3' is not a number"),
        ([True], "ratio True is not a number"),
    ],
)
def test_a_ladder_that_is_none_is_refused(ratio, said):
    with pytest.raises(WagleError, match=said):
        read_ladder(ratio)


def test_a_ratio_may_select_nothing_of_a_few():
    assert exact_count(0.001, 100) == 0


def test_random_draws_depend_on_seed_name_and_index_alone():
    whole = uniform_chunk(3, "a.weight", 0, 64)
    assert torch.equal(uniform_chunk(3, "a.weight", 16, 40), whole[16:56])
    assert torch.equal(uniform_chunk(3, "a.weight", 13, 7), whole[13:20])
    assert not torch.equal(uniform_chunk(4, "a.weight", 0, 64), whole)
    assert not torch.equal(uniform_chunk(3, "b.weight", 0, 64), whole)
    many = uniform_chunk(0, "x", 0, 200_000)
    assert many.min() >= 0
    assert many.max() < 1
    assert abs(many.mean().item() - 0.5) < 0.003  # 4.6 standard errors


@given(SCORES)
def test_octaves_count_every_score_once(values):
    scores = torch.tensor(values, dtype=torch.float32)
    found = octaves(scores, count_bins(scores))
    expected = torch.zeros(256, dtype=torch.int64)
    for value in scores.double().tolist():
        normal = value >= 2.0**-126
        exponent = torch.frexp(torch.tensor(value, dtype=torch.float64)).exponent.item() - 1
        expected[255 if value <= 0 else exponent + 127 if normal else 0] += 1
    assert torch.equal(found, expected)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=50))
def test_levels_are_counted_four_at_a_time(values):
    level = torch.tensor(values, dtype=torch.uint8)
    found = count_levels(count_fours(level))
    assert found[1:].tolist() == [values.count(which) for which in range(1, 16)]


def test_work_in_two_threads_comes_back_in_order_and_its_errors_too():
    assert list(in_order(lambda n: n * n, range(50))) == [n * n for n in range(50)]
    assert list(in_order(str, [])) == []
    found = in_order(lambda n: 1 // (3 - n), range(50))
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
