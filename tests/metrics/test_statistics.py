"""Intervals: the self-checks T42 and T43 of spec/metrics.md, and what must hold for any data."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.metrics import statistics
from wagle.metrics.statistics import (
    NO_WIDTH,
    auc_interval,
    auc_replicates,
    bootstrap_interval,
    cluster_interval,
    composite_interval,
    draws,
    paired_difference,
    percentiles,
    same_records,
    width_note,
    wilson_interval,
)
from wagle.system.errors import WagleError


def test_t42_the_bootstrap_of_ten_zeros_and_ones():
    assert bootstrap_interval([0, 0, 1, 1, 1, 0, 1, 1, 0, 1], 0) == pytest.approx((0.3, 0.9))


@pytest.mark.parametrize(
    ("successes", "count", "expected"),
    [
        (6, 10, (0.312674, 0.831820)),
        (0, 100, (0.0, 0.036993)),
        (100, 100, (1 - 0.036993, 1.0)),
    ],
)
def test_t42_wilson_intervals(successes, count, expected):
    assert wilson_interval(successes, count) == pytest.approx(expected, abs=1e-6)


def test_the_bootstrap_is_a_plain_loop_over_its_draws():
    values = [0.1, 0.7, 0.4, 0.9, 0.2]
    generator = np.random.default_rng(3)
    means = [sum(values[i] for i in row) / 5 for row in generator.integers(0, 5, (10_000, 5))]
    expected = np.quantile(means, 0.025), np.quantile(means, 0.975)
    assert bootstrap_interval(values, 3) == pytest.approx(expected)


def test_draws_that_do_not_fit_into_memory_at_once_are_the_same(monkeypatch):
    values = [0.1, 0.7, 0.4, 0.9, 0.2, 0.5, 0.3]
    rows = {str(i): v for i, v in enumerate(values)}
    other = {str(i): v + 0.1 for i, v in enumerate(values[:4])}

    def intervals():
        return (
            bootstrap_interval(values, 3),
            cluster_interval(values, list("aabbccd"), 3),
            composite_interval([rows, other, rows], sum, 3),
        )

    whole = intervals()
    monkeypatch.setattr("wagle.metrics.statistics._BLOCK", 7 * 999)
    assert intervals() == whole


def test_the_bootstrap_depends_on_its_seed_alone():
    values = [0.1, 0.7, 0.4, 0.95, 0.2, 0.33, 0.58]
    np.random.seed(0)  # noqa: NPY002
    once = bootstrap_interval(values, 1)
    np.random.seed(1)  # noqa: NPY002
    assert bootstrap_interval(values, 1) == once
    assert bootstrap_interval(values, 2) != once


@pytest.mark.parametrize("values", [[0.25], [0.25] * 7])
def test_equal_values_have_an_interval_without_width(values):
    assert bootstrap_interval(values) == (0.25, 0.25)


@given(st.integers(1, 200), st.data())
def test_a_wilson_interval_holds_its_share_and_stays_within_zero_and_one(count, data):
    successes = data.draw(st.integers(0, count))
    low, high = wilson_interval(successes, count)
    rounding = 1e-12  # at 0 and at 1 the edge is a difference of two equal numbers
    assert 0 <= low <= successes / count + rounding
    assert successes / count - rounding <= high <= 1
    assert low < high
    mirrored = wilson_interval(count - successes, count)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


# Clusters


def test_a_cluster_interval_draws_whole_clusters():
    values, clusters = [1.0, 2.0, 3.0, 10.0, 4.0], ["a", "a", "a", "b", "c"]
    groups = [[1.0, 2.0, 3.0], [10.0], [4.0]]
    means = []
    for row in np.random.default_rng(5).integers(0, 3, (10_000, 3)):
        drawn = [value for i in row for value in groups[i]]
        means.append(sum(drawn) / len(drawn))
    expected = np.quantile(means, 0.025), np.quantile(means, 0.975)
    assert cluster_interval(values, clusters, 5) == pytest.approx(expected)


def test_clusters_of_equal_records_make_the_interval_wider():
    values = [float(i // 20) for i in range(200)]
    wide = cluster_interval(values, [str(i // 20) for i in range(200)])
    narrow = bootstrap_interval(values)
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_clusters_of_one_record_each_are_the_plain_bootstrap():
    values = [0.1, 0.7, 0.4, 0.95]
    assert cluster_interval(values, list("abcd"), 2) == pytest.approx(bootstrap_interval(values, 2))


def test_a_cluster_interval_needs_a_name_per_value():
    with pytest.raises(WagleError, match="2 values and 1 cluster names"):
        cluster_interval([1.0, 2.0], ["a"])


@pytest.mark.parametrize(("values", "note"), [([0.5, 0.5], True), ([0.5, 0.6], False)])
def test_equal_values_come_with_a_note(values, note):
    assert (width_note(values) is not None) == note


# AUC

GREATER, SMALLER = [0.9, 0.8, 0.4, 0.6, 0.7], [0.7, 0.4, 0.1, 0.3, 0.5]


def test_t43_the_auc_interval_draws_the_greater_set_first():
    assert auc_interval(GREATER, SMALLER, 0) == pytest.approx((0.56, 1.0))


def test_auc_replicates_are_a_plain_loop_over_pairs():
    generator = np.random.default_rng(4)
    one, other = [1.0, 2.0, 2.0], [2.0, 0.5]
    for replicate in auc_replicates(one, other, 4)[:50]:
        drawn = [one[i] for i in generator.integers(0, 3, 3)]
        against = [other[i] for i in generator.integers(0, 2, 2)]
        pairs = [(a > b) + (a == b) / 2 for a in drawn for b in against]
        assert replicate == pytest.approx(sum(pairs) / 6)


@pytest.mark.parametrize(("n", "expected"), [(100, 0.041), (400, 0.020)])
def test_the_spread_of_auc_replicates_is_that_of_hanley_and_mcneil(n, expected):
    generator = np.random.default_rng(1)
    replicates = auc_replicates(generator.normal(size=n), generator.normal(size=n))
    area, first, second = 0.5, 0.5 / 1.5, 2 * 0.25 / 1.5
    variance = area * (1 - area) + (n - 1) * (first - area**2 + second - area**2)
    error = (variance / n**2) ** 0.5
    assert error == pytest.approx(expected, abs=5e-4)
    assert replicates.std() == pytest.approx(error, rel=0.1)  # one sample's spread, not A = 1/2's


# Composites and differences


def harmonic(means):
    return len(means) / sum(1 / m for m in means)


def test_the_composite_of_one_component_is_the_plain_bootstrap():
    rows = {f"retain[{i}]": v for i, v in enumerate([0.1, 0.7, 0.4, 0.9, 0.2])}
    assert composite_interval([rows], lambda means: means[0], 3) == pytest.approx(
        bootstrap_interval(list(rows.values()), 3)
    )


def test_components_over_the_same_records_share_their_draws():
    rows = {f"retain[{i}]": v for i, v in enumerate([0.1, 0.7, 0.4, 0.9, 0.2])}
    mirrored = {place: 1 - value for place, value in reversed(rows.items())}
    assert composite_interval([rows, mirrored], sum) == pytest.approx((1, 1))


def test_components_over_other_records_are_drawn_apart():
    one = {f"retain[{i}]": v for i, v in enumerate([0.2, 0.8])}
    other = {f"world[{i}]": 1 - v for i, v in enumerate([0.2, 0.8])}
    low, high = composite_interval([one, other], harmonic)
    assert low < harmonic([0.5, 0.5]) < high


def test_a_composite_that_is_not_finite_is_an_error():
    with pytest.raises(WagleError, match="not finite"):
        composite_interval([{"a": 0.0, "b": 1.0}], lambda means: means[0] * float("inf"))
    with pytest.raises(WagleError, match="component 1 of a composite has no records"):
        composite_interval([{"a": 1.0}, {}], sum)


def test_a_paired_difference_flips_every_sign_in_every_way():
    one = {"a": 0.5, "b": 0.9, "c": 0.3, "d": 0.8, "e": 0.7}
    other = {"e": 0.55, "d": 0.6, "c": 0.35, "b": 0.6, "a": 0.4}
    gaps = [one[place] - other[place] for place in one]
    flipped = [
        abs(sum(s * g for s, g in zip(signs, gaps, strict=True)))
        for signs in itertools.product((1, -1), repeat=5)
    ]
    found = paired_difference(one, other)
    assert found.mean == pytest.approx(sum(gaps) / 5)
    assert found.p == pytest.approx(sum(f >= abs(sum(gaps)) - 1e-12 for f in flipped) / 32)
    assert found.interval == pytest.approx(bootstrap_interval(gaps))
    assert found.n == 5


def test_a_clear_difference_of_many_records_has_the_smallest_p_of_the_draws():
    one = {str(i): 1.0 + i / 100 for i in range(40)}
    other = dict.fromkeys(one, 0.0)
    assert paired_difference(one, other).p == pytest.approx(2 / 10_000)
    assert paired_difference(other, one).mean == -paired_difference(one, other).mean


def test_equal_models_do_not_differ_and_one_record_proves_nothing():
    same = {"a": 0.5, "b": 0.25}
    assert paired_difference(same, dict(same)) == (0.0, (0.0, 0.0), 1.0, 2)
    assert paired_difference({"a": 1.0}, {"a": 0.0}).p == 1.0


def test_a_paired_difference_refuses_other_records():
    with pytest.raises(WagleError, match=r"2 and 1 were given, and b is only in one"):
        paired_difference({"a": 1.0, "b": 1.0}, {"a": 1.0})


# ---------------------------------------------------------------------------------------------
# Pieces by hand


def test_percentiles_are_linear_between_two_replicates():
    assert percentiles(np.arange(41.0)) == (1.0, 39.0)  # places 0.025 and 0.975 of 40
    assert percentiles(np.array([0.0, 1.0])) == pytest.approx((0.025, 0.975))
    assert percentiles(np.array([7.0])) == (7.0, 7.0)


@pytest.mark.parametrize("block", [1, 7, 1 << 22])
def test_all_replicates_are_drawn_once_whatever_fits_into_memory(monkeypatch, block):
    monkeypatch.setattr(statistics, "REPLICATES", 50)
    monkeypatch.setattr(statistics, "_BLOCK", block)
    found = list(draws(np.random.default_rng(0), 3))
    assert {d.shape[1] for d in found} == {3}
    assert all(len(d) <= max(1, block // 3) for d in found)
    whole = np.concatenate(found)
    assert np.array_equal(whole, np.random.default_rng(0).integers(0, 3, (50, 3)))


@given(st.integers(1, 60), st.data())
def test_wilsons_interval_is_its_formula(count, data):
    successes = data.draw(st.integers(0, count))
    z, share = 1.959963984540054, successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) * z / (1 + z**2 / count)
    low, high = wilson_interval(successes, count)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_a_note_on_width_is_for_equal_values_only():
    assert width_note([0.5, 0.5]) == width_note([1]) == NO_WIDTH
    assert width_note([0.5, 0.25]) is width_note([]) is None


def test_one_value_is_its_own_interval_and_one_cluster_too():
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    assert cluster_interval([0.0, 1.0, 0.5], ["a", "a", "a"]) == (0.5, 0.5)


def test_an_auc_of_sets_that_do_not_overlap_has_no_spread():
    assert auc_interval([3.0, 4.0], [1.0]) == (1.0, 1.0)
    assert auc_interval([1.0], [3.0, 4.0]) == (0.0, 0.0)
    assert auc_interval([2.0], [2.0, 2.0]) == (0.5, 0.5)


def test_differences_have_the_sign_of_the_first_model():
    one, other = {"a": 0.75, "b": 0.5}, {"b": 0.25, "a": 0.25}
    assert paired_difference(one, other).mean == 0.375
    assert paired_difference(other, one).mean == -0.375
    assert paired_difference(one, other).p == 0.5  # of four ways, two are as far from 0


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({}, {"a": 1.0}, "x needs at least one record for each model"),
        ({"a": 1.0}, {}, "x needs at least one record for each model"),
        (
            {"b": 1.0, "c": 1.0},
            {"b": 1.0, "a": 0.0, "d": 0.0},
            "x needs the same records: 2 and 3 were given, and a is only in one; evaluate both "
            "models on the same split and settings",
        ),
    ],
)
def test_records_that_are_not_the_same_are_counted_and_the_first_is_named(one, other, said):
    with pytest.raises(WagleError) as caught:
        same_records(one, other, "x")
    assert str(caught.value) == said


def test_records_in_another_order_are_the_same():
    same_records({"a": 1.0, "b": 2.0}, {"b": 0.0, "a": 0.0}, "x")
