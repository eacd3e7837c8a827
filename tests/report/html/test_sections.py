"""Sections are found by their files, and stand in the order of their places."""

from __future__ import annotations

import sys
from dataclasses import replace

from tests.report.pages import EVIL, full, part, text
from wagle.report.html import sections
from wagle.report.html.rendering import render
from wagle.report.html.sections import SECTIONS, made_sections

COSTS = """
from wagle.report.html.section import table_section

def costs(page):
    if not page.history:
        return None
    rows = [(name, found["seconds"], 12_345) for name, found in page.state.items()]
    rows.append((page.warnings[0], 0.25, 1))
    return table_section(
        "costs", "Costs", 65, lead="What it took.", heads=("stage", "seconds", "joules"), rows=rows
    )
"""


def test_every_section_has_a_function_of_its_name_and_the_order_of_the_page():
    assert "__init__" not in SECTIONS
    made = made_sections(full())
    known = ["verdict", "asked", "changed", "weights", "training", "answers", "reproduce"]
    assert [one.anchor for one in made if one.anchor in known] == known
    assert {one.anchor for one in made} <= set(SECTIONS)
    assert len({one.place for one in made}) == len(made)


def test_one_more_section_is_one_file_and_needs_no_template(tmp_path, monkeypatch):
    (tmp_path / "costs.py").write_text(COSTS)
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    page = full()
    html = render(page)
    assert "Weights Costs Training" in text(html)
    found = part(html, "costs")
    shown = text("<body>" + found)
    assert "Costs What it took. stage seconds joules teach 1.500 12,345 mask" in shown
    assert EVIL not in found
    assert found.count('<td class="num">') == 2 * len(page.state) + 2
    assert 'id="costs"' not in render(replace(page, history=[]))
    sys.modules.pop("wagle.report.html.sections.costs")
