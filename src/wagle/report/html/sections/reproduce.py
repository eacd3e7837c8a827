"""The section on reproducing the run: the recipe, the cost of the stages, and the machine."""

from __future__ import annotations

from wagle.report.disclosure import public_recipe
from wagle.report.html.page import Page
from wagle.report.html.section import Section
from wagle.report.numbers import size


def reproduce(page: Page) -> Section:
    """The recipe without paths, the stages with their times, and the environment."""
    text = page.short(page.recipe_text)
    context = {
        "recipe_text": text,
        "shortened": text != page.recipe_text,
        "hidden": public_recipe(page.recipe) != page.recipe,
        "stages": [(name, found) for name, found in page.state.items() if "seconds" in found],
        "environment": {
            key: size(value) if key.endswith("_bytes") else page.short(str(value))
            for key, value in page.environment.items()
            if key != "argv"
        },
    }
    return Section("reproduce", "Reproduce", 90, context)
