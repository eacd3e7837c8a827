"""Metrics of likelihoods: the self-checks T1 to T10 of spec/metrics.md."""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.metrics.likelihood import (
    RATIOS,
    accuracy,
    closer_to_1,
    know,
    log_truth_ratio,
    log_truth_ratio_arithmetic,
    option_probability,
    probability,
    published_ratio,
    true_better,
)

WRONG = [1.0, 1.5, 2.0, 1.2, 1.8]
MEANS = st.floats(0, 1000)


def sum_and_mean(*probabilities):
    total = math.fsum(-math.log(p) for p in probabilities)
    return total, total / len(probabilities)


def test_t1_the_probability_is_the_geometric_mean_over_tokens():
    total, mean = sum_and_mean(0.5, 0.25, 0.125)
    assert total == pytest.approx(4.158883, abs=1e-6)
    assert mean == pytest.approx(1.386294, abs=1e-6)
    assert probability(mean) == pytest.approx(0.25)
    assert math.exp(-total) == pytest.approx(0.015625)  # the joint probability, which is not it


def test_t2_the_eos_counts_as_a_token():
    _, mean = sum_and_mean(0.5, 0.25, 0.125, 0.9)
    assert mean == pytest.approx(1.066061, abs=1e-6)
    assert probability(mean) == pytest.approx(0.344362, abs=1e-6)


def test_t3_the_mean_is_over_the_scored_tokens_and_not_one_more():
    total, mean = sum_and_mean(0.5, 0.25, 0.125)
    assert probability(total / 4) == pytest.approx(0.353553, abs=1e-6)
    assert probability(mean) == pytest.approx(0.25)


def test_a_probability_of_a_huge_loss_is_zero_without_a_warning():
    assert probability(0.0) == 1.0
    assert probability(1e6) == 0.0


def test_t4_the_option_probability_is_a_softmax_over_mean_losses():
    assert option_probability(1.0, [2.0, 2.0, 3.0]) == pytest.approx(0.534447, abs=1e-6)


def test_the_option_probability_of_collapsed_answers_is_still_a_share():
    assert option_probability(5000.0, [5000.0] * 3) == pytest.approx(0.25)
    assert option_probability(5000.0, [1.0]) == 0.0
    assert option_probability(1.0, [5000.0]) == 1.0


def test_t5_the_two_truth_ratios_differ_in_the_mean_over_wrong_answers():
    assert math.exp(log_truth_ratio(0.8, WRONG)) == pytest.approx(0.496585, abs=1e-6)
    assert math.exp(log_truth_ratio_arithmetic(0.8, WRONG)) == pytest.approx(0.530942, abs=1e-6)


@pytest.mark.parametrize(
    ("right", "ratio", "closer", "better", "share"),
    [
        (0.8, 0.496585, 0.496585, 0.503415, 0.668188),  # T6
        (2.0, 1.648721, 0.606531, 0.0, 0.377541),  # T7
    ],
)
def test_t6_t7_the_transforms_of_the_ratio(right, ratio, closer, better, share):
    log_ratio = log_truth_ratio(right, WRONG)
    assert math.exp(log_ratio) == pytest.approx(ratio, abs=1e-6)
    assert closer_to_1(log_ratio) == pytest.approx(closer, abs=1e-6)
    assert true_better(log_ratio) == pytest.approx(better, abs=1e-6)
    assert know(log_ratio) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.parametrize("mean", [50.0, 1000.0])
def test_t8_equally_collapsed_answers_are_equally_likely(name, mean):
    log_ratio = RATIOS[name](mean, [mean] * 5)  # an epsilon below would make 1.93e-12 of R = 1
    assert math.exp(log_ratio) == pytest.approx(1.0)
    assert closer_to_1(log_ratio) == pytest.approx(1.0)
    assert know(log_ratio) == pytest.approx(0.5)


def test_t9_huge_ratios_neither_overflow_nor_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [closer_to_1(100.0), closer_to_1(-999.0)] == [pytest.approx(3.72e-44, rel=1e-3), 0.0]
        assert [true_better(100.0), true_better(-999.0)] == [0.0, 1.0]
        assert [know(100.0), know(-999.0)] == [pytest.approx(3.72e-44, rel=1e-3), 1.0]
        assert [true_better(5000.0), know(5000.0), closer_to_1(5000.0)] == [0.0, 0.0, 0.0]


def test_t10_one_collapsed_record_outweighs_the_published_mean():
    ratios = [0.5, 0.8, 40.0]
    raw = [published_ratio(1.0, [1.0 - math.log(r)]) for r in ratios]
    logs = [math.log(r) for r in ratios]
    assert sum(raw) / 3 == pytest.approx(13.7667, abs=1e-4)
    assert sum(map(closer_to_1, logs)) / 3 == pytest.approx(0.441667, abs=1e-6)
    assert sum(map(true_better, logs)) / 3 == pytest.approx(0.233333, abs=1e-6)


def test_the_published_ratio_ends_where_its_epsilon_takes_over():
    assert published_ratio(2000.0, [0.0]) == pytest.approx(1e12)
    assert published_ratio(50.0, [50.0]) == pytest.approx(1.93e-10, rel=1e-2)  # it should be 1


def test_the_true_answer_must_beat_every_wrong_one():
    assert accuracy(0.9, WRONG) == 1.0
    assert accuracy(1.0, WRONG) == 0.0


@given(MEANS, MEANS)
def test_swapping_right_and_wrong_inverts_the_ratio(right, wrong):
    for ratio in RATIOS.values():
        assert ratio(right, [wrong]) == pytest.approx(-ratio(wrong, [right]), abs=1e-9)


@given(MEANS, st.lists(MEANS, min_size=1, max_size=6))
def test_every_transform_stays_between_0_and_1(right, wrong):
    for ratio in RATIOS.values():
        for transform in (closer_to_1, true_better, know):
            assert 0 <= transform(ratio(right, wrong)) <= 1
    assert 0 <= option_probability(right, wrong) <= 1 + 1e-12
