"""The section on what changed: every set of records, before, after and in the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wagle.evaluation.figures import FORGOTTEN, OVERALL, ROLES, Figure
from wagle.evaluation.verdict import probes_of
from wagle.metrics.table import ALL, METRICS, NATS, WRITTEN
from wagle.report.figure_notes import other_count
from wagle.report.html.charts import points_chart
from wagle.report.html.figure_tables import figure_table, ratio, sides
from wagle.report.html.page import Page
from wagle.report.html.section import Section

# membership figures other than AUC and leakage
_FOLDED = ("tpr_", "rel_diff", "privacy_", "privleak_")


def changed(page: Page) -> Section:
    """A table and a chart for each set, and figures made from several."""
    context = {
        "recipe": page.recipe,
        "roles": page.roles,
        "forget": _rows(page, "forget"),
        "kept": {name: _rows(page, name) for name in page.kept},
        "gone": {FORGOTTEN: _rows(page, FORGOTTEN)} if FORGOTTEN in page.measured else {},
        "overall": _overall(page, page.short),
    }
    return Section("changed", "What changed", 20, context)


def _overall(page: Page, short: Callable[[str], str]) -> dict[str, Any] | None:
    """Figures made from several sets, or only with a reference, such as forget quality."""
    found = [e.figures.get(OVERALL, {}) for e in page.evaluations.values()]
    pairs = [(OVERALL, metric) for metric in dict.fromkeys(m for names in found for m in names)]
    rest = [pair for pair in pairs if pair[1].startswith(_FOLDED)]
    first = [pair for pair in pairs if pair not in rest]
    if not pairs:
        return None
    return {
        "first": figure_table(page.evaluations, {"": first}, short),
        "rest": figure_table(page.evaluations, {"": rest}, short),
        "count": len(rest),
    }


def _rows(page: Page, name: str) -> dict[str, Any]:
    """A set's table and chart; the forget set also has rows for what was not measured.

    For other sets, the shares of empty and cut-off answers are shown only if they rose.
    """
    count = page.count(name)
    after = page.evaluations.get("after")
    probes = probes_of(after) if after is not None else ()
    figures = {metric: page.figures(name, metric) for metric in ALL}
    figures = {m: found for m, found in figures.items() if found or m in METRICS}
    rows = [
        {
            "metric": metric,
            "unit": ALL[metric].unit,
            "n": other_count(found, count),
            "counts": (name, metric) in probes,
            "figures": found,
            "against": _against(found.get("after"), found.get("reference")),
            "ratio": ratio(found),
        }
        for metric, found in figures.items()
        if name == "forget" or (found and not (metric in WRITTEN and _quiet(found)))
    ]
    shown = ROLES if name == "forget" else ("before", "after")
    points = {
        metric: {r: f for r in shown if (f := found.get(r)) and f.value is not None}
        for metric, found in figures.items()
        if metric not in WRITTEN and ALL[metric].unit != NATS  # the chart goes from 0 to 1
    }
    chart = points_chart(points, f"{name}: figures with intervals, {', '.join(shown)}")
    return {"rows": rows, "chart": chart, "count": count}


def _against(after: Figure | None, reference: Figure | None) -> str:
    """Where the figure after lies relative to the reference's interval."""
    if after is None or reference is None or None in (after.value, reference.value):
        return ""
    if after.number > reference.high:
        return "above"
    return "below" if after.number < reference.low else "inside"


def _quiet(found: Mapping[str, Figure]) -> bool:
    """Whether a share of answers did not rise."""
    before, after = sides(found)
    return after is None or before is None or after <= before
