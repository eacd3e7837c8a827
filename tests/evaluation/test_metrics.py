"""Metrics: the self-checks T1, T2, T5 to T9, T16 to T20 and T31 of spec/metrics.md."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.evaluation.metrics import (
    METRICS,
    accuracy,
    extraction_strength,
    know,
    log_truth_ratio,
    probability,
    rouge_l,
)

WRONG = [1.0, 1.5, 2.0, 1.2, 1.8]


def mean_nll(*probabilities):
    return sum(-math.log(p) for p in probabilities) / len(probabilities)


def test_t1_the_probability_is_the_geometric_mean_over_tokens():
    assert mean_nll(0.5, 0.25, 0.125) == pytest.approx(1.386294, abs=1e-6)
    assert probability(mean_nll(0.5, 0.25, 0.125)) == pytest.approx(0.25)


def test_t2_the_eos_counts_as_a_token():
    assert probability(mean_nll(0.5, 0.25, 0.125, 0.9)) == pytest.approx(0.344362, abs=1e-6)


def test_a_probability_of_a_huge_loss_is_zero_without_a_warning():
    assert probability(0.0) == 1.0
    assert probability(1e6) == 0.0


def test_t5_the_truth_ratio_takes_the_geometric_mean_of_wrong_answers():
    assert math.exp(log_truth_ratio(0.8, WRONG)) == pytest.approx(0.496585, abs=1e-6)


@pytest.mark.parametrize(
    ("right", "wrong", "ratio", "share"),
    [
        (0.8, WRONG, 0.496585, 0.668188),  # T6
        (2.0, WRONG, 1.648721, 0.377541),  # T7
        (50.0, [50.0] * 5, 1.0, 0.5),  # T8: an epsilon in the denominator would give 1.93e-12
        (1000.0, [1000.0] * 3, 1.0, 0.5),
    ],
)
def test_t6_t7_t8_know_is_the_share_of_the_right_answer(right, wrong, ratio, share):
    log_ratio = log_truth_ratio(right, wrong)
    assert math.exp(log_ratio) == pytest.approx(ratio, abs=1e-6)
    assert know(log_ratio) == pytest.approx(share, abs=1e-6)


def test_t9_know_of_a_huge_ratio_neither_overflows_nor_warns():
    assert know(100.0) == pytest.approx(3.72e-44, rel=1e-3)
    assert know(-999.0) == 1.0
    assert know(999.0) == 0.0
    assert know(1e6) == 0.0


@given(st.floats(-50, 50))
def test_swapping_right_and_wrong_turns_know_round(log_ratio):
    assert know(log_ratio) + know(-log_ratio) == pytest.approx(1)
    assert 0 <= know(log_ratio) <= 1


@given(st.floats(0, 9), st.floats(0, 9))
def test_swapping_right_and_one_wrong_answer_inverts_the_ratio(right, wrong):
    assert log_truth_ratio(right, [wrong]) == -log_truth_ratio(wrong, [right])


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (1.0, [1.1, 2.0], 1.0),
        (1.0, [2.0, 0.9], 0.0),
        (1.0, [1.0, 2.0], 0.0),  # a tie is wrong
        (1.0, [1.0], 0.0),
    ],
)
def test_accuracy_is_one_where_the_right_answer_beats_every_wrong_one(right, wrong, expected):
    assert accuracy(right, wrong) == expected


@pytest.mark.parametrize(
    ("reference", "answer", "recall"),
    [
        ("The cat sat on the mat.", "the cat lay on a mat", 0.666667),  # T16
        (
            "The author was born in Taipei, Taiwan.",
            "Born in Taiwan, the author writes.",
            0.428571,
        ),  # T17: recall, neither precision (0.5) nor F (0.461538)
        ("writing novels quickly", "writes novel quick", 0.666667),  # T18: 0 without stems
        ("the council of ministers", "the council met ministers today", 0.75),  # T19
        ("北京", "北京", 0.0),  # T20
        ("", "abc", 0.0),
        ("abc", "", 0.0),
        ("Ada Holm", "It is ADA HOLM, they say.", 1.0),
    ],
)
def test_t16_to_t20_rouge_l_is_a_recall_of_stems(reference, answer, recall):
    assert rouge_l(reference, answer) == pytest.approx(recall, abs=1e-6)


@pytest.mark.parametrize(
    ("said", "strength"),
    [((5, 1, 9, 2), 0.5), ((5, 7, 9, 1), 0.0), ((1, 1, 1, 1), 0.0), ((1, 1, 1, 2), 0.25)],
)
def test_t31_extraction_strength_has_no_floor(said, strength):
    hits = [a == b for a, b in zip(said, (5, 7, 9, 2), strict=True)]
    assert extraction_strength(hits) == strength


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_extraction_strength_is_one_less_the_share_that_must_be_given(hits):
    shortest = next(k for k in range(len(hits) + 1) if all(hits[k:]))
    assert extraction_strength(hits) == pytest.approx(1 - shortest / len(hits))


def test_every_metric_says_its_direction_and_unit():
    assert all(m.direction in {"higher", "lower", "target"} and m.unit for m in METRICS.values())
    assert [name for name, m in METRICS.items() if m.share] == ["accuracy"]
