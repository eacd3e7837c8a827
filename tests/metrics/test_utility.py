"""Figures made of figures: the self-checks T11 to T15 and T41 of spec/metrics.md."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.metrics.utility import (
    UTILITY,
    forget_quality,
    forget_retain_ks,
    harmonic_mean,
    memorization_score,
    model_utility,
    overall_score,
    privacy_score,
    unlearning_average,
    utility_average,
    utility_score,
)
from wagle.system.errors import WagleError

NINE = [
    *(0.8802840008, 0.8264372397, 0.5138097598),
    *(0.3915799226, 0.8145, 0.5022027051),
    *(0.4279515926, 0.8022792023, 0.6156096616),
]


def nested(values):
    made = {}
    for (name, metric), value in zip(UTILITY, values, strict=True):
        made.setdefault(name, {})[metric] = value
    return made


def test_t11_the_harmonic_mean_of_nine_is_that_of_a_public_log():
    assert harmonic_mean(dict(zip("abcdefghi", NINE, strict=True))) == pytest.approx(
        0.589292, abs=1e-6
    )
    assert model_utility(nested(NINE)) == pytest.approx(0.589292, abs=1e-6)


@pytest.mark.parametrize("place", range(9))
def test_t11_any_member_of_zero_makes_zero(place):
    assert model_utility(nested([*NINE[:place], 0.0, *NINE[place + 1 :]])) == 0.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "world_facts.rouge_l is missing"),
        (-0.1, "world_facts.rouge_l is -0.1"),
        (math.nan, "world_facts.rouge_l is nan"),
        (math.inf, "world_facts.rouge_l is inf"),
    ],
)
def test_a_member_that_is_no_share_is_an_error_that_names_it(value, message):
    values = nested(NINE)
    values["world_facts"]["rouge_l"] = value
    with pytest.raises(WagleError, match=message):
        model_utility(values)


def test_a_harmonic_mean_of_nothing_is_an_error():
    with pytest.raises(WagleError, match="at least one"):
        harmonic_mean({})


def test_model_utility_is_unchanged_by_forget_figures():
    values = nested(NINE)
    assert model_utility({**values, "forget": {"rouge_l": 0.0}}) == model_utility(values)


def test_t12_forget_quality_is_the_same_for_ratios_and_their_inverses():
    one, other = [0.1, 0.2, 0.3, 0.4], [0.3, 0.5, 0.6, 0.7]
    for map_ in (float, lambda x: 1 / x, math.log):
        found = forget_quality(list(map(map_, one)), list(map(map_, other)))
        assert found.statistic == 0.75
        assert found.p == pytest.approx(0.228571, abs=1e-6)
        assert found.counts == (4, 4)
        assert not found.at_floor
        assert found.note is None


def test_t13_ties_are_fine():
    found = forget_quality([0.5, 0.5, 0.5, 0.6], [0.5, 0.6, 0.6, 0.6])
    assert found.statistic == 0.5
    assert found.p == pytest.approx(0.771429, abs=1e-6)


def test_all_values_equal_are_one_distribution():
    found = forget_quality([0.5] * 3, [0.5] * 3)
    assert (found.statistic, found.p, found.log10_p, found.at_floor) == (0.0, 1.0, 0.0, False)


@pytest.mark.parametrize(
    ("n", "m", "p"), [(400, 400, 1.063590e-239), (40, 300, 9.791164e-53), (40, 40, 1.86e-23)]
)
def test_t14_samples_that_do_not_overlap_reach_the_floor(n, m, p):
    found = forget_quality(list(range(n)), [i + 1e6 for i in range(m)])
    assert found.p == pytest.approx(p, rel=2e-3 if n == m == 40 else 1e-6)
    assert found.log10_p == pytest.approx(math.log10(found.p), abs=1e-9)
    assert found.at_floor
    assert f"the floor for {n} and {m} records" in found.note


def test_the_floor_has_a_logarithm_even_where_p_is_no_float():
    found = forget_quality(list(range(800)), [i + 1e6 for i in range(800)])
    assert found.p == 0.0
    assert found.log10_p == pytest.approx(math.log10(2) - math.log10(math.comb(1600, 800)))


def test_t15_a_shifted_sample():
    one = np.linspace(0, 1, 400)
    found = forget_quality((one + 0.1).tolist(), one.tolist())
    assert found.statistic == pytest.approx(0.1)
    assert found.p == pytest.approx(0.036570, abs=1e-6)
    assert found.log10_p == pytest.approx(math.log10(0.036570), abs=1e-4)
    assert found.shift == pytest.approx(0.1)  # the first is the higher one


def test_a_model_against_itself_has_forget_quality_1():
    values = [0.3, -0.4, 1.2, 0.0]
    found = forget_quality(values, values)
    assert (found.p, found.shift) == (1.0, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_truth_ratio_that_is_not_finite_is_refused(value):
    with pytest.raises(WagleError, match=f"truth ratio 1 is {value}"):
        forget_quality([0.1, 0.2], [0.1, value])


def test_forget_quality_of_no_records_is_refused():
    with pytest.raises(WagleError, match="got 0 and 1"):
        forget_quality([], [0.1])


def test_the_published_figure_is_highest_before_unlearning():
    retain = [0.1, 0.2, 0.3, 0.4, 0.5]
    before = forget_retain_ks([0.11, 0.21, 0.31, 0.41, 0.51], retain)  # it knows both sets
    retrained = forget_retain_ks([1.1, 1.2, 1.3, 1.4, 1.5], retain)
    assert before.p > 0.9 > 0.05 > retrained.p


@pytest.mark.parametrize(("count", "shift"), [(5, 1), (400, 1), (400, 5)])
def test_a_p_that_scipy_rounds_above_1_is_no_warning(count, shift):
    one = list(range(count))
    assert forget_quality(one, [i + shift - 0.5 for i in one]).p == pytest.approx(1.0, abs=0.01)


def test_the_aggregates_are_harmonic_means():
    assert memorization_score(0.5, 0.5, 0.5, 0.5) == pytest.approx(0.5)
    assert memorization_score(1.0, 0.0, 0.0, 0.0) == 0.0
    assert memorization_score(0.0, 0.5, 0.0, 0.5) == pytest.approx(4 / 6)
    assert privacy_score({"loss": 1.0, "zlib": 0.5}) == pytest.approx(2 / 3)
    assert utility_score(0.3, 0.6, 0.9, 0.8) == pytest.approx(2 / 3)  # fluency counts as 1
    assert overall_score(1.0, 0.5, 1.0) == pytest.approx(0.75)


def test_an_aggregate_names_what_it_lacks():
    with pytest.raises(WagleError, match="privacy of zlib is missing"):
        privacy_score({"loss": 1.0, "zlib": None})


def test_a_model_that_had_nothing_before_lost_nothing():
    assert utility_score(0.3, 0.6, 0.9, 0.0) is utility_score(0.3, 0.0, 0.9, 0.8) is None


def test_t41_the_published_average_of_unlearning():
    assert unlearning_average(0.9, 0.5, 0.1, 0.05) == pytest.approx(0.8125)


def test_the_published_average_of_utility_is_over_six_numbers():
    values = {"retain": (0.1, 0.2), "real_authors": (0.3, 0.4), "world_facts": (0.5, 0.6)}
    assert utility_average(values) == pytest.approx(0.35)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=9))
def test_a_harmonic_mean_is_between_the_least_and_the_most_and_scales(values):
    found = harmonic_mean({str(i): v for i, v in enumerate(values)})
    assert min(values) * (1 - 1e-12) <= found <= max(values) * (1 + 1e-12)
    assert found == pytest.approx(statistics.harmonic_mean(values), rel=1e-9)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_zero_does_not_hide_a_member_that_is_none(bad):
    with pytest.raises(
        WagleError, match=f"b is {bad}; the members of a harmonic mean are 0 or more"
    ):
        harmonic_mean({"a": 0.0, "b": bad})
    with pytest.raises(WagleError, match="b is missing; a harmonic mean needs all of a, b"):
        harmonic_mean({"a": 0.0, "b": None})


def test_a_distance_says_to_which_side_and_has_a_note_at_its_floor_only():
    apart = forget_quality([1.0, 2.0, 6.0], [10.0, 20.0])
    assert apart.shift == -13.0  # medians 2 and 15
    assert (apart.statistic, apart.counts, apart.at_floor) == (1.0, (3, 2), True)
    assert apart.p == pytest.approx(2 / 10)  # of C(5, 3) orders, two
    assert apart.log10_p == pytest.approx(math.log10(0.2))
    assert apart.note == "the floor for 3 and 2 records: no overlap at all"
    touching = forget_quality([1.0, 10.0], [10.0, 20.0])
    assert (touching.at_floor, touching.note, touching.shift) == (False, None, -9.5)
    assert touching.log10_p == pytest.approx(math.log10(touching.p))


def test_a_gain_counts_as_no_loss_and_a_loss_by_its_share():
    assert utility_score(0.9, 0.6, 0.4, 0.8) == pytest.approx(2 / 3)  # 1 and 0.5
    assert utility_score(0.0, 0.6, 0.8, 0.8) == 0.0
    assert utility_score(0.6, float("nan"), 0.8, 0.8) is None
