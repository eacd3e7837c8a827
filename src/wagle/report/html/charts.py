"""The charts of a report: plain numbers in, one inline SVG out, or "" if there is nothing to show.

Colours are CSS variables of the page (``--ink``, ``--after``, ...), so a chart follows light, dark
and print. Charts are narrow, so that their text stays legible on a phone. Nothing may use clip
paths or gradients: Vega numbers those across charts, and the same page would not have the same
bytes twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from wagle.evaluation.figures import Figure

WIDTH = 440  # width of a whole chart, in its own units
_ROW = 30  # height of a row of points
POINTS = 300  # at most, in a line
HEAT = (0.05, 1.0)  # opacity of the palest and the strongest cell of a heat map
_DOTS = 40  # up to this many, every point is marked
_FONT = "Helvetica, Arial, Liberation Sans, sans-serif"  # the widths that vl-convert measures with


def points_chart(rows: Mapping[str, Mapping[str, Figure]], title: str) -> Markup:
    """Figures of one set: a row per metric, with before, after and reference and their intervals.

    Args:
        rows: the available figures, by metric and role (``before``, ``after``, ``reference``).
        title: what the chart shows, for those who cannot see it.
    """
    names = [metric for metric, found in rows.items() if found]
    if not names:
        return Markup("")
    import altair as alt

    data = _points(rows)
    ends = [row[key] for row in data for key in ("low", "high")]
    shares = all(0 <= end <= 1 for end in ends)
    x = alt.X(
        "value:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1]) if shares else alt.Scale(zero=False, nice=True),
        axis=alt.Axis(tickCount=5, grid=True),
    )
    y = alt.Y("metric:N", sort=names, title=None, axis=alt.Axis(grid=False, ticks=False))
    beside = alt.YOffset("side:Q", scale=alt.Scale(domain=[0, 1], range=[0, _ROW]))
    layers = _marks(chart_of(data).encode(x=x, y=y), beside)
    chart = alt.layer(*layers).properties(height=alt.Step(_ROW, **{"for": "position"}))
    return svg(chart, title)


def _points(rows: Mapping[str, Mapping[str, Figure]]) -> list[dict[str, Any]]:
    """A point with its interval for every figure that can be drawn."""
    return [
        {
            "metric": metric,
            "role": role,
            "side": {"before": 0.28, "after": 0.72}.get(role, 0.5),
            "value": figure.number,
            "low": figure.low,
            "high": figure.high,
        }
        for metric, found in rows.items()
        for role, figure in found.items()
        if all(map(math.isfinite, (figure.number, figure.low, figure.high)))
    ]


def _marks(base: Any, beside: Any) -> list[Any]:
    """The reference as a band with a tick; before and after as spans with a point, side by side."""
    import altair as alt

    def only(role: str) -> Any:
        return base.transform_filter(f"datum.role === '{role}'")

    spans = alt.X("low:Q")
    goal = only("reference")
    layers = [
        goal.mark_bar(height=26, color="var(--reference)", opacity=0.22).encode(spans, x2="high:Q"),
        goal.mark_tick(thickness=2.5, height=26, color="var(--reference)"),
    ]
    for role, filled in (("before", False), ("after", True)):
        colour = f"var(--{role})"
        here = only(role).encode(yOffset=beside)
        layers += [
            here.mark_rule(strokeWidth=2, color=colour).encode(spans, x2="high:Q"),
            here.mark_point(
                shape="circle" if filled else "square",
                size=58,
                strokeWidth=2,
                stroke=colour,
                fill=colour if filled else "var(--panel)",
                opacity=1,
            ),
        ]
    return layers


def lines_chart(
    history: Sequence[Mapping[str, Any]],
    lines: Mapping[str, bool],
    title: str,
    *,
    y_title: str,
    x_title: str = "step",
    goal: float | None = None,
) -> Markup:
    """Figures over the steps of a training run.

    Args:
        history: the figures of every step, with ``step``.
        lines: by figure, whether its line is dashed; ``forget_nll`` has the colour ``--forget``,
            ``after`` has ``--after``.
        title: what the chart shows, for those who cannot see it.
        y_title: the title above the vertical axis.
        x_title: the title below the horizontal axis.
        goal: the height of the reference's horizontal line.
    """
    import altair as alt

    layers: list[Any] = []
    number = alt.Axis(grid=True, tickCount=5)
    steps = alt.Axis(grid=False, tickMinStep=1, tickCount=6)
    for name, dashed in lines.items():
        colour = f"var(--{re.split('[._]', name)[0]})"
        found = [
            {"step": row["step"], "value": row[name]}
            for row in history
            if _finite(row.get(name)) and _finite(row.get("step"))
        ]
        if not found:
            continue
        here = chart_of(thin(found)).encode(
            x=alt.X("step:Q", title=x_title, axis=steps),
            y=alt.Y("value:Q", title=y_title, axis=number, scale=alt.Scale(zero=True, nice=5)),
        )
        dash = [6, 4] if dashed else [1, 0]
        layers.append(here.mark_line(strokeWidth=2.2, color=colour, strokeDash=dash))
        if len(found) <= _DOTS:
            layers.append(here.mark_circle(size=28, color=colour, opacity=1))
    if not layers:
        return Markup("")
    if goal is not None and math.isfinite(goal):
        rule = chart_of([{"goal": goal}]).encode(y=alt.Y("goal:Q"))
        layers.append(rule.mark_rule(strokeWidth=2, color="var(--reference)", strokeDash=[7, 3]))
    return svg(alt.layer(*layers).properties(height=190), title)


def density_chart(blocks: Mapping[str, tuple[int, int]], overall: float, title: str) -> Markup:
    """The share of selected weights in every block, with a line at the share over all weights."""
    data: list[dict[str, Any]] = [
        {"block": block, "share": selected / weights}
        for block, (selected, weights) in blocks.items()
        if weights
    ]
    if not data:
        return Markup("")
    import altair as alt

    x = _blocks_axis([row["block"] for row in data], 0.2)
    end = top([row["share"] for row in data], overall)
    y = alt.Y(
        "share:Q",
        title="share selected",
        scale=alt.Scale(domain=[0, end]),
        axis=alt.Axis(tickCount=5, format=".0%" if end > 0.05 else ".2~%"),
    )
    bars = chart_of(data).mark_bar(color="var(--bar)").encode(x=x, y=y)
    line = chart_of([{"share": overall}]).encode(y=alt.Y("share:Q"))
    rule = line.mark_rule(strokeWidth=2, color="var(--ink)", strokeDash=[7, 3])
    return svg(alt.layer(bars, rule).properties(height=170), title)


def heat_chart(
    cells: Mapping[tuple[str, str], tuple[int, int]], ends: tuple[float, float], title: str
) -> Markup:
    """The share of selected weights by block (a column each) and kind of module (a row each).

    Args:
        cells: by block and kind, (selected, weights).
        ends: the shares at which a cell is palest and strongest; values beyond look the same.
        title: what the chart shows, for those who cannot see it.
    """
    data: list[dict[str, Any]] = [
        {"block": block, "kind": kind.removesuffix(".weight"), "share": selected / weights}
        for (block, kind), (selected, weights) in cells.items()
        if weights
    ]
    if not data:
        return Markup("")
    import altair as alt

    kinds = list(dict.fromkeys(row["kind"] for row in data))
    x = _blocks_axis(list(dict.fromkeys(row["block"] for row in data)), 0.06)
    y = alt.Y(
        "kind:N",
        sort=kinds,
        title=None,
        scale=alt.Scale(paddingInner=0.1, paddingOuter=0),
        axis=alt.Axis(grid=False, ticks=False, domain=False),
    )
    low, high = ends
    shade = alt.Opacity(
        "share:Q",
        legend=None,
        scale=alt.Scale(domain=[low, high if high > low else low + 1], range=HEAT, clamp=True),
    )
    cell = chart_of(data).mark_rect(color="var(--heat)", aria=False)
    return svg(cell.encode(x=x, y=y, opacity=shade).properties(height=alt.Step(22)), title)


def scores_chart(bins: Mapping[int, float], threshold: float | None, title: str) -> Markup:
    """Shares of weights by the power of two that their score reaches, and the mask's threshold.

    Args:
        bins: the share of weights by floor(log2(score)).
        threshold: the least selected score, if it is known and above 0.
        title: what the chart shows, for those who cannot see it.
    """
    if not bins:
        return Markup("")
    import altair as alt

    data = [{"from": e, "to": e + 1, "share": share} for e, share in sorted(bins.items())]
    x = alt.X(
        "from:Q",
        title="log2 of the score",
        scale=alt.Scale(domain=[min(bins), max(bins) + 1], nice=False, zero=False),
        axis=alt.Axis(grid=False, tickCount=8, tickMinStep=1),
    )
    y = alt.Y("share:Q", title="share of weights", axis=alt.Axis(tickCount=4, format=".0%"))
    bars = chart_of(data).mark_rect(color="var(--bar)", aria=False, x2Offset=-1)
    layers = [bars.encode(x=x, x2="to:Q", y=y, y2=alt.datum(0))]
    if threshold is not None and threshold > 0 and math.isfinite(threshold):
        at = chart_of([{"at": math.log2(threshold)}]).encode(x=alt.X("at:Q"))
        layers.append(at.mark_rule(strokeWidth=2, color="var(--ink)", strokeDash=[7, 3]))
    return svg(alt.layer(*layers).properties(height=150), title)


def _blocks_axis(names: list[str], gap: float) -> Any:
    """A column for each block, at most about 12 of them labelled."""
    import altair as alt

    return alt.X(
        "block:N",
        sort=names,
        title="block",
        scale=alt.Scale(paddingInner=gap, paddingOuter=gap / 2),
        axis=alt.Axis(labelAngle=0, values=names[:: math.ceil(len(names) / 12)], ticks=False),
    )


def top(shares: Sequence[float], overall: float) -> float:
    """Where an axis of shares ends: at 1, or lower if all of them are small."""
    most = max([*shares, overall, 1e-9])
    return 1.0 if most > 0.5 else min(1.0, most * 1.2)


def thin(rows: Sequence[Any]) -> list[Any]:
    """At most about 300 of ``rows``, evenly spaced, including the first and the last."""
    every = math.ceil(len(rows) / POINTS)
    kept = list(rows[::every]) if every else []
    return kept if not rows or (len(rows) - 1) % every == 0 else [*kept, rows[-1]]


def chart_of(rows: list[dict[str, Any]]) -> Any:
    """An altair chart of these rows, without marks yet."""
    import altair as alt

    return alt.Chart({"values": rows})


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def svg(chart: Any, title: str) -> Markup:
    """The chart as inline SVG for a page: it scales, has a title and refers to no address."""
    import altair as alt
    import vl_convert

    axis = {
        "labelFontSize": 13,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "labelPadding": 6,
        "labelLimit": 220,
        "labelColor": "var(--ink)",
        "titleColor": "var(--muted)",
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "gridColor": "var(--grid)",
    }
    fit = {"type": "fit-x", "contains": "padding"}
    chart = chart.properties(width=WIDTH, autosize=fit, padding=4).configure(
        background="transparent", font=_FONT, axis=axis, view={"stroke": None}
    )
    text = vl_convert.vegalite_to_svg(
        chart.to_dict(),
        vl_version="v" + ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]),
        allowed_base_urls=[],
    )
    width, height = re.findall(r'(?:width|height)="([\d.]+)"', text)[:2]
    body = text[text.index(">") + 1 :]
    return Markup(
        f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{body}'
    )
