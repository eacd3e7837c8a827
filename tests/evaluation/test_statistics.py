"""Intervals: the self-check T42 of spec/metrics.md, and what must hold for any data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.evaluation.statistics import bootstrap_interval, wilson_interval


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
