"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from wagle.report.html.charts import chart_of, svg
from wagle.report.html.templates import templates
from wagle.system.atomic import write_text

CONTROL = "random"
_SHOWN = 0.8  # of the retain probability before: where a drawn curve ends
_BOUNDS = {"": "", "at most": "≤ ", "at least": "≥ ", "open": "? "}


def write_comparison(found: Mapping[str, Any], path: Path) -> None:
    """Write the page as one HTML file that opens without network."""
    write_text(path, render_comparison(found))


def render_comparison(found: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        found: what ``comparison.json`` holds: figures, differences, curves; no text of a record.
    """
    environment = templates()
    means = {name: fmean(found[name]) if found[name] else None for name in ("before", "reference")}
    return environment.get_template("comparison.html.j2").render(
        found=found,
        roles=[],
        means=means,
        tables=[{"ratio": r, "rows": comparison_rows(found, r)} for r in shown_ratios(found)],
        notes=comparison_notes(found),
        charts=_charts(found, means["reference"]),
        control=CONTROL,
    )


def shown_ratios(found: Mapping[str, Any]) -> list[float]:
    return [arm["ratio"] for arm in found["arms"] if arm["arm"] == CONTROL]


def comparison_rows(found: Mapping[str, Any], ratio: float) -> list[dict[str, str]]:
    """Every arm at one ratio, what has no ratio too, beside its difference to the control."""
    against = {one["arm"]: one for one in found["differences"] if one["ratio"] == ratio}
    return [
        {
            "name": arm["arm"],
            "selected": f"{arm['selected']:,}",
            "learning_rate": f"{arm['learning_rate']:.2g}{' †' * arm['edge']}",
            "figure": f"{'≤ ' * arm['at_least']}{arm['mean']:.3f}",
            **_difference(against.get(arm["arm"])),
        }
        for arm in found["arms"]
        if arm["ratio"] in (ratio, None)
    ]


def _difference(one: Mapping[str, Any] | None) -> dict[str, str]:
    if one is None:
        return dict.fromkeys(("difference", "interval", "holm", "smallest", "rest"), "")
    rest = one["without_unit_0"]
    return {
        "difference": f"{_BOUNDS[one['bound']]}{one['mean']:+.3f}",
        "interval": _interval(one["interval"]),
        "holm": "" if one["p"] is None else f"{one['holm']:.3f}",
        "smallest": "" if one["smallest"] is None else f"{one['smallest']:.3f}",
        "rest": ""
        if rest is None
        else f"{rest['mean']:+.3f} {_interval(rest['interval'])}".strip(),
    }


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"


def comparison_notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the figures, where it applies."""
    arms = found["arms"]
    early = [arm["name"] for arm in arms if arm["at_least"]]
    broken = [f"{a['name']} (unit {u['unit']})" for a in arms for u in _broken(a)]
    edge = [arm["name"] for arm in arms if arm["edge"]]
    over = [arm["name"] for arm in arms if arm["over"]]
    notes = []
    if early:
        notes.append(
            f"≤ at least this much is forgotten: on some unit the run ended before the retain "
            f"probability had fallen to {found['share']:g} of before, so the figure is that of its "
            f"end ({', '.join(early)}). A difference then is at most (≤), at least (≥), or either (?)."
        )
    if broken:
        notes.append(f"Broke off, and read up to there: {', '.join(broken)}.")
    if edge:
        notes.append(
            f"† the best learning rate is the lowest or highest that was tried ({', '.join(edge)}); "
            "a better one may lie beyond."
        )
    if over:
        notes.append(
            f"Over-unlearned, under half of the reference's figure: {', '.join(over)}. Lower is not "
            "better there."
        )
    if "complement" in {arm["arm"] for arm in arms}:
        notes.append(
            f"complement at a ratio selects all weights that {arms[0]['arm']} leaves out there, so it "
            f"has another number of weights than {CONTROL}."
        )
    if "dense" not in {arm["arm"] for arm in arms}:
        notes.append("There is no dense run beside the masks; add the arm dense.")
    if not found["forget_set_varies"]:
        notes.append(
            "Every unit forgets the same records: units differ in seed and order of teaching alone, "
            "so nothing is shown for other records."
        )
    return notes


def _broken(arm: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"unit": number, **unit}
        for number, unit in enumerate(arm["units"])
        if unit["stopped"] is not None
    ]


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
    """A curve [kept share, figure] up to where it first falls to ``end``, on a straight line.

    What lies beyond would shrink the part that is read.
    """
    kept = [list(curve[0])]
    for (high, figure), (low, after) in pairwise(curve):
        if low <= end < high:
            part = (high - end) / (high - low)
            return [*kept, [end, figure + part * (after - figure)]]
        kept.append([low, after])
    return kept
