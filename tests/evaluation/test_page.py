"""The page of the benchmarks' settings is made from the code."""

from pathlib import Path

import pytest

from wagle.evaluation.page import benchmarks_page
from wagle.evaluation.table import BENCHMARKS

WRITTEN = Path(__file__).parents[2] / "docs" / "benchmark-settings.md"


def test_the_page_of_benchmarks_is_what_the_docstrings_say():
    assert WRITTEN.read_text() == benchmarks_page(), "write it again: make pages"


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_has_a_section_with_its_data(name):
    section = benchmarks_page().partition(f"## {name}\n")[2].partition("\n## ")[0]
    assert "| `data` | " in section
    assert "None: " not in section
    assert "`seed`" not in section
