"""The statistics of a comparison, against values worked out by hand or taken from tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wagle.comparison.statistics import holm, mean_difference, read_at, smallest_difference
from wagle.system.errors import WagleError


def test_a_figure_is_read_where_the_kept_one_falls_to_the_share():
    # 0.8 * 0.95 = 0.76 lies a quarter of the way from 0.78 to 0.70
    found = read_at([0, 2, 4], [0.80, 0.78, 0.70], [0.9, 0.5, 0.1], 0.95)
    assert found.figure == pytest.approx(0.5 - 0.25 * 0.4)
    assert found.step == pytest.approx(2.5)
    assert not found.at_least


def test_a_fall_at_the_first_look_is_read_between_the_start_and_that_look():
    found = read_at([0, 3], [1.0, 0.5], [0.9, 0.2], 0.95)  # a tenth of the way
    assert found == pytest.approx((0.83, False, 0.3))


def test_a_share_that_is_reached_exactly_counts_as_reached():
    assert read_at([0, 1], [0.5, 0.475], [0.9, 0.4], 0.95) == pytest.approx((0.4, False, 1.0))


def test_the_first_crossing_counts_even_if_the_kept_figure_recovers():
    once = read_at([0, 1, 2], [1.0, 0.9, 1.0], [0.8, 0.6, 0.3], 0.95)
    again = read_at([0, 1, 2, 3, 4], [1.0, 0.9, 1.0, 0.9, 0.8], [0.8, 0.6, 0.3, 0.2, 0.1], 0.95)
    assert once == again == pytest.approx((0.7, False, 0.5))


@pytest.mark.parametrize("kept", [[1.0, 0.99, 0.96], [1.0, 1.1, 1.2]])
def test_a_run_that_ends_above_the_share_is_read_at_its_end_as_at_least(kept):
    assert read_at([0, 1, 2], kept, [0.9, 0.2, 0.3], 0.95) == (0.3, True, 2)


def test_a_run_of_one_look_is_read_there():
    assert read_at([0], [0.7], [0.9], 0.95) == (0.9, True, 0)


def test_a_model_that_knows_nothing_to_keep_is_an_error():
    with pytest.raises(WagleError, match="zero probability before unlearning"):
        read_at([0, 1], [0.0, 0.0], [0.1, 0.1], 0.95)


def test_a_paired_difference_matches_one_worked_out_by_hand():
    # mean -2, deviations 1, 0, -1: sd 1, error 1/sqrt(3); t(0.975; 2) = 4.302653
    found = mean_difference([-1.0, -2.0, -3.0])
    reach = 4.302653 / math.sqrt(3)
    assert found.mean == -2
    assert found.interval == pytest.approx((-2 - reach, -2 + reach), rel=1e-6)
    # with two degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2); t = 2 sqrt(3)
    assert found.p == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(14), rel=1e-9)
    assert found.units == 3


def test_one_unit_has_a_difference_and_nothing_else():
    assert mean_difference([0.25]) == (0.25, None, None, None, 1)


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (-0.5, 0.0)])
def test_differences_without_spread_have_a_point_for_an_interval(value, p):
    assert mean_difference([value] * 3) == (value, (value, value), p, 0.0, 3)


@pytest.mark.parametrize(("count", "effect"), [(5, 1.68), (10, 1.0), (34, 0.5)])
def test_the_smallest_difference_agrees_with_tables_of_power(count, effect):
    # the smallest effects, in spreads, of a paired t test, two-sided at 5 %, with a power of 80 %
    assert smallest_difference(1.0, count) == pytest.approx(effect, rel=0.02)


def test_the_smallest_difference_is_what_simulated_units_show_in_four_of_five_cases():
    effect = smallest_difference(0.3, 4)
    draws = np.random.default_rng(0).normal(effect, 0.3, (200_000, 4))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / 2)
    assert np.mean(np.abs(t) > 3.182446) == pytest.approx(0.8, abs=0.005)  # t(0.975; 3)


def test_the_smallest_difference_scales_with_the_spread_and_falls_with_the_units():
    found = [smallest_difference(1.0, count) for count in range(2, 60)]
    assert found == sorted(found, reverse=True)
    assert smallest_difference(0.25, 7) == pytest.approx(0.25 * found[5])


def test_holm_matches_an_example_worked_out_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 -> 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stays_within_1_and_leaves_a_single_test_as_it_is():
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []
