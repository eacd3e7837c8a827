"""The answers section: what the models said to some forget records, if texts may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wagle.report.html.page import Page
from wagle.report.html.section import Section


def answers(page: Page) -> Section:
    """Questions with each model's answers, or why there are none."""
    context = {"recipe": page.recipe, "pairs": _pairs(page.answers)}
    return Section("answers", "Answers before and after", 80, context, link="Answers")


def _pairs(answers: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The questions with each model's answers, in their order."""
    found: dict[str, dict[str, Any]] = {}
    for role, said in answers.items():
        for one in said:
            pair = found.setdefault(
                one["place"],
                {key: one[key] for key in ("place", "question", "expected")} | {"said": {}},
            )
            pair["said"][role] = one
    return list(found.values())
