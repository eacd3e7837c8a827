"""The control arms section: what the same unlearning does with other choices of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wagle.evaluation.figures import OVERALL, Figure
from wagle.evaluation.result import Evaluation
from wagle.report.attack_findings import MAIN, Found, by_rate, read_figure
from wagle.report.html.charts import lines_chart
from wagle.report.html.page import Arm, Page
from wagle.report.html.section import Section

OWN, REFERENCE = "this mask", "reference"
_FIGURES = (
    ("forget", "probability"),
    ("forget", "paraphrased"),
    ("forget", "extraction_strength"),
    ("forget", "exact_memorization"),
    ("forget", "rouge_l"),
    (OVERALL, "forget_quality"),
    ("retain", "probability"),
    ("retain_heldout", "probability"),
    ("general", "accuracy"),
)
_CURVE = "forget.probability"
_COLOURS = {OWN: "after"}  # each other arm has a colour of its own name


def controls(page: Page) -> Section | None:
    """The control arms next to the run itself, if there are any."""
    after, made = page.evaluations.get("after"), page.state.get("unlearn", {})
    if after is None:
        return None
    word = page.state.get("after", {}).get("verdict", "")
    own = Arm(after, page.attacks, made.get("selected", 0), made.get("steps", 0), word)
    found = control_parts(own, page.controls, page.evaluations.get("reference"))
    if found is None:
        return None
    return Section("controls", "Control arms", 50, {"controls": found}, link="Controls")


def control_parts(
    own: Arm, controls: Mapping[str, Arm], reference: Evaluation | None
) -> dict[str, Any] | None:
    """What the page shows for the control arms; None if there are none.

    Args:
        own: the run itself.
        controls: what was found about each control arm, by arm.
        reference: the evaluation of the model that never learned the forget set.
    """
    if not controls:
        return None
    arms = {OWN: own, **controls}
    columns = [*arms, *([REFERENCE] if reference is not None else [])]
    rows = []
    for name, metric in _FIGURES:
        found = {arm: f for arm, one in arms.items() if (f := _of(one.evaluation, name, metric))}
        goal = _of(reference, name, metric) if reference is not None else None
        if found:
            beside = {REFERENCE: goal} if goal is not None else {}
            rows.append({"name": f"{name}.{metric}", "figures": {**found, **beside}})
    made = [(label, one) for label, one in own.attacks.items() if one["attack"] in MAIN]
    return {
        "columns": columns,
        "facts": [
            (arm, f"{one.selected:,}", f"{one.steps:,}", one.verdict) for arm, one in arms.items()
        ],
        "rows": rows,
        "attacks": [(label, _attack_rows(arms, label, one)) for label, one in made],
        "curves": [
            {
                "label": f"{label}, learning rate {rate}" if rate else label,
                "chart": _curve(arms, label, one, steps),
            }
            for label, one in made
            if one["attack"] == "relearning"
            for rate, steps in by_rate(one["roles"]["after"]["states"]).items()
        ],
        "legend": [(f"curve-{_COLOURS.get(column, column)}", column) for column in columns],
    }


def _of(found: Evaluation, name: str, metric: str) -> Figure | None:
    return found.figures.get(name, {}).get(metric)


def _attack_rows(arms: Mapping[str, Arm], label: str, own: Found) -> list[dict[str, Any]]:
    """The main figures of an attack, state by state, for every arm."""
    rows = []
    for name in MAIN[own["attack"]]:
        for state, figures in own["roles"]["after"]["states"].items():
            if name not in figures:
                continue
            found = {
                arm: figure
                for arm, one in arms.items()
                if (figure := read_figure(one.attacks.get(label, own), "after", state, name))
            }
            goal = read_figure(own, "reference", state, name)
            beside = {REFERENCE: goal} if goal is not None else {}
            rows.append({"name": f"{name}, {state}", "figures": {**found, **beside}})
    return rows


def _curve(
    arms: Mapping[str, Arm], label: str, own: Found, steps: Sequence[tuple[int, str]]
) -> Any:
    """Relearning at one rate, one line per arm."""
    points: list[dict[str, Any]] = []
    for step, state in steps:
        row: dict[str, Any] = {"step": step}
        sides: Sequence[tuple[str, Found, str]] = [
            *(
                (_COLOURS.get(arm, arm), one.attacks.get(label, own), "after")
                for arm, one in arms.items()
            ),
            (REFERENCE, own, "reference"),
        ]
        for line, found, role in sides:
            figure = read_figure(found, role, state, _CURVE)
            if figure is not None:
                row[line] = figure.value
        points.append(row)
    lines = {_COLOURS.get(arm, arm): False for arm in arms} | {REFERENCE: True}
    return lines_chart(points, lines, f"{_CURVE} by step, a line for each arm", y_title=_CURVE)
