"""Settings in one line."""

from __future__ import annotations

from wagle.report.settings import described, listed


def test_a_name_stands_alone_or_with_its_settings():
    assert described("npo", {}) == "npo"
    assert described("npo", {"beta": 0.1, "data": "x"}) == "npo (beta 0.1, data x)"


def test_the_members_of_a_list_are_divided_as_asked():
    assert listed({"rows": [1, 2.50]}) == "rows 1 2.5"
    assert listed({"include": ["a*", "b*"]}, "; ") == "include a*; b*"
