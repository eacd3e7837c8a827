"""Figures: means with intervals, what is joined, and what cannot be one."""

from __future__ import annotations

import math

import pytest

from wagle.evaluation.figures import (
    HIGHER,
    LOWER,
    TARGET,
    Figure,
    Measured,
    Written,
    distance_figures,
    joined,
    mean_figure,
)
from wagle.metrics.statistics import NO_WIDTH
from wagle.metrics.utility import Distance
from wagle.system.errors import WagleError


def test_a_figure_counts_its_records_unless_it_says_how_many():
    rows = {"a": 1.0, "b": 2.0}
    assert Figure(1.5, None, "none", rows).n == 2
    assert Figure(1.5, None, "none", rows, count=0).n == 0
    assert Figure(1.5, None, "none").n == 0


def test_the_ends_are_those_of_the_interval_or_the_value_itself():
    found = Figure(0.5, (0.25, 0.75), "bootstrap")
    assert (found.low, found.number, found.high) == (0.25, 0.5, 0.75)
    bare = Figure(0.0, None, "none")
    assert (bare.low, bare.number, bare.high) == (0.0, 0.0, 0.0)


def test_of_what_both_hold_the_second_counts():
    def figure(value):
        return Figure(value, None, "none")

    one, other, third = figure(1.0), figure(2.0), figure(3.0)
    said = {"forget": [Written("forget[0]", "q", "a", "s", True)]}
    found = joined(
        Measured({"forget": {"a": one, "b": one}, "retain": {"a": one}}, said, {"x": 1, "y": 1}),
        Measured({"forget": {"b": other}, "overall": {"c": third}}, {}, {"y": 2}),
    )
    assert found.figures == {
        "forget": {"a": one, "b": other},
        "retain": {"a": one},
        "overall": {"c": third},
    }
    assert list(found.figures) == ["forget", "retain", "overall"]
    assert (found.texts, found.summary) == (said, {"x": 1, "y": 2})


def test_a_mean_has_its_records_and_lies_inside_its_interval():
    rows = {f"forget[{i}]": value for i, value in enumerate((0.0, 0.5, 1.0, 0.5))}
    found = mean_figure(rows, unit="recall", direction=HIGHER, target="reference")
    assert (found.value, found.per_record, found.unit, found.n) == (0.5, rows, "recall", 4)
    assert (found.direction, found.target) == (HIGHER, "reference")
    assert found.interval is not None
    assert 0.0 <= found.low < 0.5 < found.high <= 1.0
    assert found.interval_method == "bootstrap 95 %, 10000 replicates"


@pytest.mark.parametrize(("right", "of"), [(0, 4), (1, 4), (4, 4), (7, 10)])
def test_the_interval_of_a_share_is_wilsons(right, of):
    z = 1.959963984540054
    share = right / of
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    rows = {str(i): float(i < right) for i in range(of)}
    found = mean_figure(rows, unit="share of answers", share=True)
    assert found.interval == pytest.approx((centre - reach, centre + reach), abs=1e-12)
    assert found.interval_method == "wilson 95 %"


def test_a_seed_decides_the_interval_alone():
    rows = {str(i): math.sqrt(i) for i in range(30)}
    one, same, other = (mean_figure(rows, unit="x", seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.interval != other.interval
    assert one.value == other.value


def test_one_record_has_a_mean_and_says_that_its_interval_is_no_spread():
    found = mean_figure({"forget[0]": 0.25}, unit="share")
    assert found.value == 0.25
    assert found.interval == (0.25, 0.25)
    assert found.note == NO_WIDTH
    assert mean_figure({"a": 1.0, "b": 0.5}, unit="share").note is None


def test_the_note_that_is_given_is_the_one_that_stands():
    rows = {"a": 0.0, "b": 1.0}
    assert mean_figure(rows, unit="share", note="mine").note == "mine"


def test_a_mean_of_nothing_is_an_error():
    with pytest.raises(WagleError, match=r"a mean \(recall\) needs at least one record"):
        mean_figure({}, unit="recall")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named_by_its_record(value):
    with pytest.raises(WagleError, match=r"forget\[1\]: nats is (nan|-?inf); the model's answers"):
        mean_figure({"forget[0]": 1.0, "forget[1]": value}, unit="nats")


def test_a_distance_is_four_figures_of_both_sets_of_records():
    found = distance_figures("quality", Distance(0.01, 0.25, (3, 4), -2.0, False, 0.5))
    assert {name: (f.value, f.direction, f.unit) for name, f in found.items()} == {
        "quality": (0.01, HIGHER, "p of Kolmogorov-Smirnov"),
        "quality_log10": (-2.0, HIGHER, "log10 p"),
        "quality_distance": (0.25, LOWER, "D"),
        "quality_shift": (0.5, TARGET, "difference of medians"),
    }
    assert found["quality_shift"].target == 0
    assert {f.n for f in found.values()} == {7}
    assert {f.interval for f in found.values()} == {None}


def test_a_p_that_no_number_can_hold_has_no_logarithm_and_says_so():
    found = distance_figures("quality", Distance(0.0, 1.0, (3, 4), None, False, 0.5))
    assert found["quality"].value == 0.0
    assert found["quality_log10"].value is None
    assert found["quality_log10"].note == "p is too small for a number"


def test_two_samples_apart_say_that_p_is_at_its_floor():
    found = distance_figures("quality", Distance(0.0625, 1.0, (3, 4), -1.2, True, 0.5))
    said = "the floor for 3 and 4 records: no overlap at all"
    assert [found[name].note for name in ("quality", "quality_log10")] == [said, said]
    assert found["quality_distance"].note is None
