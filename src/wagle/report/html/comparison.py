"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from wagle.report.compared import CONTROL, comparison_notes, comparison_rows, shown_ratios
from wagle.report.html.charts import chart_of, svg
from wagle.report.html.filling import fill
from wagle.system.files.atomic import write_text

_SHOWN = 0.8  # share of the retain probability before: where a drawn curve ends


def write_comparison(found: Mapping[str, Any], path: Path) -> None:
    """Write the page as one HTML file that opens without a network."""
    write_text(path, render_comparison(found))


def render_comparison(found: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        found: the content of ``comparison.json``: figures, differences, curves; no record text.
    """
    means = {name: fmean(found[name]) if found[name] else None for name in ("before", "reference")}
    return fill(
        "comparison",
        found=found,
        roles=[],
        means=means,
        tables=[{"ratio": r, "rows": comparison_rows(found, r)} for r in shown_ratios(found)],
        notes=comparison_notes(found),
        charts=_charts(found, means["reference"]),
        control=CONTROL,
    )


def _charts(found: Mapping[str, Any], goal: float | None) -> list[dict[str, Any]]:
    """A chart for every arm at every ratio, with the control's curves behind."""
    controls = {arm["ratio"]: arm for arm in found["arms"] if arm["arm"] == CONTROL}
    behind = {None: next(iter(controls.values())), **controls}
    return [
        {
            "name": arm["name"],
            "behind": _behind(arm, behind),
            "svg": _curves(arm, behind, goal, found),
        }
        for arm in found["arms"]
    ]


def _behind(arm: Mapping[str, Any], controls: Mapping[float | None, Mapping[str, Any]]) -> str:
    return "" if arm["arm"] == CONTROL else str(controls[arm["ratio"]]["name"])


def _curves(
    arm: Mapping[str, Any],
    controls: Mapping[float | None, Mapping[str, Any]],
    goal: float | None,
    found: Mapping[str, Any],
) -> Markup:
    """The compared figure against the retain probability, one line per unit."""
    import altair as alt

    x = alt.X(
        "kept:Q",
        title="retain probability, share of before",
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(grid=False, tickCount=6),
    )
    y = alt.Y(
        "figure:Q",
        title="forget figure",
        scale=alt.Scale(zero=True, nice=True),
        axis=alt.Axis(grid=True, tickCount=5),
    )
    layers = []
    kinds = (
        [(controls[arm["ratio"]], "var(--retain)", [4, 3], 1.4)] if _behind(arm, controls) else []
    )
    for drawn, colour, dash, width in [*kinds, (arm, "var(--after)", [1, 0], 2.2)]:
        for unit in drawn["units"]:
            rows = [
                {"order": i, "kept": kept, "figure": figure}
                for i, (kept, figure) in enumerate(shown(unit["curve"], _SHOWN))
            ]
            line = chart_of(rows).mark_line(color=colour, strokeDash=dash, strokeWidth=width)
            layers.append(line.encode(x=x, y=y, order="order:Q"))
    share = chart_of([{"kept": found["share"]}]).encode(x=x)
    layers.append(share.mark_rule(strokeWidth=1.5, color="var(--ink)", strokeDash=[7, 3]))
    if goal is not None:
        rule = chart_of([{"figure": goal}]).encode(y=y)
        layers.append(rule.mark_rule(strokeWidth=2, color="var(--reference)", strokeDash=[7, 3]))
    title = f"{arm['name']}: forget figure against the retain probability, one line per unit"
    return svg(alt.layer(*layers).properties(height=190), title)


def shown(curve: Sequence[Sequence[float]], end: float) -> list[list[float]]:
    """A curve [kept share, figure] up to where it first falls to ``end``, interpolated linearly.

    Anything beyond would shrink the part that matters.
    """
    kept = [list(curve[0])]
    for (high, figure), (low, after) in pairwise(curve):
        if low <= end < high:
            part = (high - end) / (high - low)
            return [*kept, [end, figure + part * (after - figure)]]
        kept.append([low, after])
    return kept
