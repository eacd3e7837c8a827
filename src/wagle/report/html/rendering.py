"""A run's page: its sections in order, after the verdict."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from wagle.report.html.filling import fill
from wagle.report.html.page import Page
from wagle.report.html.sections import made_sections
from wagle.system.files.atomic import write_text


def write_report(page: Page, path: Path) -> None:
    """Write the page as one HTML file that opens without a network."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML; every text from a model or a record is escaped."""
    shown = [
        {
            "anchor": one.anchor,
            "title": one.title,
            "link": one.link or one.title,
            "html": Markup(fill(f"sections/{one.template or one.anchor}", **one.context)),
        }
        for one in made_sections(page)
    ]
    return fill(
        "page",
        name=page.recipe.name,
        verdict=page.verdict,
        sections=shown,
        roles=page.roles,
        version=page.environment.get("wagle", ""),
    )
