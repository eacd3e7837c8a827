"""The sections of a run's page, one file each.

To add one: a file here with a function of the file's name, which takes the page and returns its
``Section``, or None where there is nothing to show; and a test beside the others. A section that is
one table needs no template (``table_section``); any other has a template of its name in
``templates/sections/``.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wagle.report.html.page import Page
    from wagle.report.html.section import Section


def section_names() -> list[str]:
    """The sections there are: the names of the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def made_sections(page: Page) -> list[Section]:
    """What the page shows, in order."""
    makers = [getattr(import_module(f"{__name__}.{name}"), name) for name in section_names()]
    found: list[Section | None] = [make(page) for make in makers]
    return sorted((one for one in found if one is not None), key=lambda one: one.place)
