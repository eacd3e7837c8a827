"""The sections of a run's page, one file each.

To add one: a file here with a function of the file's name, which takes the page and returns its
``Section``, or None if there is nothing to show; and a test next to the others. A section that is
one table needs no template (``table_section``); any other has a template of its name in
``templates/sections/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wagle.system.shelf import Shelf

if TYPE_CHECKING:
    from wagle.report.html.page import Page
    from wagle.report.html.section import Section

SECTIONS: Shelf[Section | None] = Shelf(__name__)


def made_sections(page: Page) -> list[Section]:
    """The sections that the page shows, in order."""
    found = [make(page) for make in SECTIONS.values()]
    return sorted((one for one in found if one is not None), key=lambda one: one.place)
