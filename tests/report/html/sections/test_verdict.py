"""The verdict, the warnings and the tiles."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.report.pages import (
    bare,
    full,
    with_after,
)
from wagle.evaluation.verdict import INCONCLUSIVE, LEAKS, NO_LEAK, OVER
from wagle.report.html.rendering import render


@pytest.mark.parametrize("word", [NO_LEAK, LEAKS, OVER, INCONCLUSIVE])
def test_verdict_stands_in_the_banner_with_its_reasons(word):
    page = render(with_after(full(), verdict=word, reasons=["Because of <this>."]))
    assert re.search(rf'<h2 class="word" id="verdict">{word}</h2>', page)
    assert "<li>Because of &lt;this&gt;.</li>" in page
    assert "Probes are not proof" in page
    assert "forgotten" not in page.lower()


def test_a_run_without_verdict_is_inconclusive():
    assert "inconclusive" in render(replace(bare(), state={}))


def test_warnings_of_the_run_are_shown_and_no_box_without_any(html):
    assert "1 warning of this run" in html
    assert "of this run</h2>" not in render(replace(full(), warnings=[]))


def test_a_path_in_a_warning_is_cut_and_other_slashes_are_not():
    page = replace(full(), warnings=["mask /srv/a/b.safetensors, 3/4 of and/or https://x.org/a/b"])
    assert "mask …/b.safetensors, 3/4 of and/or https://x.org/a/b" in render(page)
