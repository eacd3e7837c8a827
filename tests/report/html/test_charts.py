"""Charts: what is drawn of long and of broken rows."""

from __future__ import annotations

import math
import re

import pytest

from tests.report.pages import opacities
from wagle.report.html.charts import POINTS, heat_chart, lines_chart, scores_chart, thin


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


def test_a_heat_map_of_equal_shares_is_drawn():
    chart = heat_chart({("0", "w"): (1, 2), ("1", "w"): (1, 2)}, (0.5, 0.5), "a title")
    assert len(set(opacities(chart))) == 1
    assert "NaN" not in chart


def test_bars_of_scores_are_as_high_as_their_shares():
    drawn = scores_chart({-4: 0.5, -3: 0.25, 2: 0.125}, None, "a title")
    bars = [path for path in re.findall(r"<path[^>]*>", drawn) if "var(--bar)" in path]
    heights = [float(re.search(r"h[\d.]+v([\d.]+)h", path)[1]) for path in bars]
    assert [height / heights[0] for height in heights] == [1.0, 0.5, 0.25]
