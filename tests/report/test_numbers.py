"""Numbers as they are shown: few digits, and nothing small is called zero."""

from __future__ import annotations

import pytest

from wagle.report.numbers import duration, interval, number, or_dash, percent, short, size, small


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        (number, 0.0, "0.000"),
        (number, 0.0004, "< 0.001"),
        (number, -0.0004, "> -0.001"),
        (number, 1234.5, "1,234.500"),
        (small, 3.2e-9, "3.2e-09"),
        (small, 0.0005, "0.001"),
        (short, 12.34, "12.3"),
        (short, 2e-9, "2.0e-09"),
        (short, 123456.0, "1.2e+05"),
        (percent, 1.0, "100 %"),
        (percent, 0.0051, "0.51 %"),
        (percent, 0.3, "30.0 %"),
        (duration, 1.5, "1.5 s"),
        (duration, 75.0, "1 min 15 s"),
        (duration, 7260.0, "2 h 01 min"),
        (size, 999, "999 B"),
        (size, 12_345, "12.35 kB"),
        (size, 2.5e9, "2.50 GB"),
    ],
)
def test_a_number_is_shown_with_the_digits_that_matter(text, value, shown):
    assert text(value) == shown


def test_what_is_not_there_is_a_dash_or_nothing():
    assert or_dash(None) == "-"
    assert or_dash(0.25) == "0.250"
    assert or_dash(3e-9, small) == "3.0e-09"
    assert interval(None, short) == ""
    assert interval((0.25, 10.0), short) == "[0.250, 10.0]"
