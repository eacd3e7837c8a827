"""The section of how to do it again."""

from __future__ import annotations

from tests.report.pages import (
    text,
)


def test_stages_have_times_and_peaks_and_a_sum(html):
    shown = text(html)
    assert "mask 1.5 s 2.50 GB" in shown
    assert "after 1 min 15 s" in shown
    assert "all 1 min 21 s" in shown
    assert "wagle run recipe.yaml" in shown
