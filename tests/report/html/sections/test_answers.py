"""The section of answers."""

from __future__ import annotations

from dataclasses import replace

from tests.report.pages import (
    full,
)
from wagle.report.html.rendering import render


def test_answers_stand_side_by_side_and_a_cut_one_says_so(html):
    assert "1 record of the forget set" in html
    assert "(cut off at 128 tokens)" in html
    assert html.count('<article class="pair">') == 1


def test_texts_are_hidden_without_answers():
    found = render(replace(full(), answers={}))
    assert "report.show_text: true" in found
    assert "Who?" not in found
