"""Charts: what is drawn of long and of broken rows."""

from __future__ import annotations

import math

import pytest

from wagle.report.html.charts import POINTS, lines_chart, thin


@pytest.mark.parametrize("count", [0, 1, 2, POINTS, POINTS + 1, 2 * POINTS + 1, 12_345])
def test_thinned_rows_are_few_and_keep_both_ends(count):
    rows = list(range(count))
    kept = thin(rows)
    assert len(kept) <= POINTS + 1
    assert kept[:1] + kept[-1:] == rows[:1] + rows[-1:]
    assert kept == sorted(set(kept))


def test_values_that_are_not_finite_are_left_out_of_a_line():
    rows = [{"step": i, "forget_nll": v} for i, v in enumerate([1.0, math.nan, math.inf, 2.0])]
    drawn = lines_chart(rows, {"forget_nll": False}, "a title", y_title="nats")
    assert "NaN" not in drawn
    assert drawn.count('aria-roledescription="circle"') == 2
    assert lines_chart(rows[1:3], {"forget_nll": False}, "a title", y_title="nats") == ""
