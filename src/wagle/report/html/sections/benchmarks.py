"""The benchmarks section: what each found in the model before and after and in the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wagle.evaluation.figures import ROLES
from wagle.evaluation.result import Evaluation
from wagle.recipe.recipe import Recipe
from wagle.report.html.figure_tables import figure_table
from wagle.report.html.page import Page
from wagle.report.html.section import Section
from wagle.report.leading import headlines
from wagle.report.settings import described


def benchmarks(page: Page) -> Section | None:
    """What the benchmarks found, if any were asked."""
    found = benchmark_parts(page.benchmarks, page.recipe, page.short)
    if not found:
        return None
    return Section("benchmarks", "Benchmarks", 30, {"benchmarks": found})


def benchmark_parts(
    found: Mapping[str, Mapping[str, Evaluation]], recipe: Recipe, short: Callable[[str], str]
) -> list[dict[str, Any]]:
    """What the page shows for every benchmark that was asked.

    Args:
        found: the evaluations, by the recipe's name for the benchmark and by role.
        recipe: says how they were asked.
        short: cuts paths to names.
    """
    asked = {one.called: one for one in recipe.evaluation.benchmarks}
    return [
        {
            "label": label,
            "settings": short(described(asked[label].name, asked[label].settings)),
            **_tables(evaluations, short),
        }
        for label, evaluations in found.items()
        if label in asked and any(e.figures for e in evaluations.values())
    ]


def _tables(evaluations: Mapping[str, Evaluation], short: Callable[[str], str]) -> dict[str, Any]:
    roles = [role for role in ROLES if role in evaluations]
    known = dict.fromkeys(
        (name, metric)
        for role in roles
        for name, figures in evaluations[role].figures.items()
        for metric in figures
    )
    first = headlines(known)
    rest: dict[str, list[tuple[str, str]]] = {}
    for pair in known:
        if pair not in first:
            rest.setdefault(pair[0], []).append(pair)
    return {
        "roles": roles,
        "first": figure_table(evaluations, {"": first}, short),
        "rest": figure_table(evaluations, rest, short),
        "count": len(known) - len(first),
    }
