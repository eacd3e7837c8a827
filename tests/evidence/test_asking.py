"""What an audit compares: pure functions of figures per record."""

import pytest

from wagle.evidence.asking import compare, contradiction
from wagle.evidence.protocol import Protocol

PROTOCOL = Protocol(10, tolerance=0.005, odd_ones=0.1)


def figures(metric, *values):
    return {metric: {f"forget[{i}]": value for i, value in enumerate(values)}}


@pytest.mark.parametrize(("gap", "differs"), [(0.0, False), (0.0049, False), (0.0051, True)])
def test_a_probability_may_differ_by_the_tolerance(gap, differs):
    own, told = figures("probability", 0.5, 0.25), figures("probability", 0.5, 0.25 + gap)
    assert (contradiction(own, told, PROTOCOL) is not None) == differs


@pytest.mark.parametrize(
    ("odd", "count", "differs"), [(1, 4, False), (2, 4, True), (2, 20, False), (3, 20, True)]
)
def test_counted_tokens_may_differ_in_one_record_of_ten_but_in_one(odd, count, differs):
    own = figures("exact_memorization", *[0.5] * count)
    told = figures("exact_memorization", *[0.75] * odd, *[0.5] * (count - odd))
    assert (contradiction(own, told, PROTOCOL) is not None) == differs


def test_a_figure_that_a_pack_does_not_tell_is_a_contradiction():
    own = figures("probability", 0.5, 0.5)
    assert contradiction(own, {}, PROTOCOL) == "the pack tells no probability of forget[0]"
    assert contradiction(own, figures("probability", 0.5), PROTOCOL).endswith("forget[1]")


def test_means_are_taken_over_the_records_that_all_were_asked_about():
    (one,) = compare(
        figures("probability", 0.1, 0.3),
        figures("probability", 0.9, 0.7, 0.0),
        figures("probability", 0.2, 0.2, 0.9),
    )
    assert (one.n, one.model, one.base, one.reference) == pytest.approx((2, 0.2, 0.8, 0.2))
    assert (one.low, one.high) == pytest.approx((0.2, 0.2))
    assert not one.leaks
    assert one.fails_before


def test_above_the_interval_of_the_reference_is_a_leak_and_without_one_nothing_is():
    (one,) = compare(figures("probability", 0.31, 0.31), None, figures("probability", 0.1, 0.3))
    assert one.leaks
    assert not one.fails_before
    (one,) = compare(figures("probability", 0.9), figures("probability", 0.9), None)
    assert (one.leaks, one.fails_before) == (False, False)
    assert compare(figures("paraphrased", 0.9), figures("probability", 0.9), None)[0].base is None
