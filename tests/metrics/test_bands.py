"""Bands: where a figure should lie."""

import math

import pytest

from wagle.metrics.bands import Band, acceptable


def test_both_ends_of_a_band_belong_to_it_and_nan_does_not():
    band = Band(0.13, 0.19)
    assert [band.contains(v) for v in (0.13, 0.16, 0.19, 0.1299, 0.1901, math.nan)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_middle_third_has_the_same_centre():
    middle = Band(0.13, 0.19).middle
    assert middle == pytest.approx((0.15, 0.17))
    assert middle.centre == pytest.approx(Band(0.13, 0.19).centre) == pytest.approx(0.16)


@pytest.mark.parametrize(
    ("value", "interval", "band"),
    [
        (0.16, (0.13, 0.19), (0.13, 0.19)),
        (0.16, (0.02, 0.30), (0.08, 0.30)),  # never under half
        (0.16, None, (0.16, 0.16)),
    ],
)
def test_a_references_band_is_its_interval_but_never_under_half_of_it(value, interval, band):
    assert acceptable(value, interval) == band
