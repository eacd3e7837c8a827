"""The section on what is served: the unlearned model in every form of the recipe."""

from __future__ import annotations

from collections.abc import Mapping

from wagle.report.html.page import Page
from wagle.report.html.section import Section, table_section
from wagle.report.numbers import or_dash, small

_FIGURES = (
    ("forget", "probability"),
    ("forget", "paraphrased"),
    ("forget", "extraction_strength"),
    ("forget", "rouge_l"),
    ("retain", "probability"),
    ("retain_heldout", "probability"),
    ("general", "probability"),
)


def served(page: Page) -> Section | None:
    """A row per form beside the model as it is, if the recipe names any."""
    made = page.state.get("deploy", {})
    after = page.evaluations.get("after")
    if not made.get("forms") or after is None:
        return None
    judged = page.state.get("after", {}).get("served", {})
    sides = {"as it is": after.summary()}
    sides |= {form: found["summary"] for form, found in made["forms"].items()}
    shown = [
        pair for pair in _FIGURES if any(_of(side, *pair) is not None for side in sides.values())
    ]
    rows = [
        [
            form,
            *(or_dash(_of(side, *pair), small) for pair in shown),
            judged.get(form, {}).get("verdict", ""),
        ]
        for form, side in sides.items()
    ]
    return table_section(
        "served",
        "What is served",
        45,
        lead=f"The unlearned model in the forms in which it will be served; {made['compared_with']}. "
        "A leak in any of them is a leak of the run.",
        heads=("form", *(".".join(pair) for pair in shown), "verdict"),
        rows=rows,
    )


def _of(side: Mapping[str, Mapping[str, float | None]], name: str, metric: str) -> float | None:
    return side.get(name, {}).get(metric)
