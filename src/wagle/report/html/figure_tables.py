"""Tables of figures on a page: a row per figure, with every model's value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wagle.evaluation.figures import HIGHER, LOWER, ROLES, Figure
from wagle.evaluation.result import Evaluation
from wagle.report.figure_notes import notes, other_count


def figure_table(
    evaluations: Mapping[str, Evaluation],
    groups: Mapping[str, Sequence[tuple[str, str]]],
    short: Callable[[str], str],
) -> dict[str, Any]:
    """Rows by group, and what readers need to know about them.

    Args:
        evaluations: the evaluations by role.
        groups: by heading, the pairs of set and metric that any evaluation has; a group without a
            heading covers several sets.
        short: cuts paths in notes to names.
    """
    named: list[tuple[str, Mapping[str, Figure]]] = []
    made: dict[str, list[dict[str, Any]]] = {}
    for group, pairs in groups.items():
        for name, metric in pairs:
            found = {
                role: figure
                for role in ROLES
                if role in evaluations
                and (figure := evaluations[role].figures.get(name, {}).get(metric))
            }
            one = next(iter(found.values()))
            named.append((f"{name}.{metric}", found))
            row = {
                "set": "" if group else name,
                "metric": metric,
                "unit": one.unit,
                "n": other_count(found, 0),
                "figures": found,
                "better": _better(one),
            }
            made.setdefault(group, []).append(row)
    return {"groups": made, "notes": {short(text): of for text, of in notes(named).items()}}


def _better(figure: Figure) -> str:
    """Which way a figure should go, in words."""
    if figure.direction in (HIGHER, LOWER):
        return figure.direction
    if isinstance(figure.target, float | int):
        return f"{figure.target:g}"
    return "" if figure.target is None else f"as the {figure.target}"


def ratio(found: Mapping[str, Figure]) -> float | None:
    """The value after over that before; None if one is missing or the latter is 0."""
    before, after = sides(found)
    return after / before if before and after is not None else None


def sides(found: Mapping[str, Figure]) -> tuple[float | None, float | None]:
    """The values before and after."""
    before, after = found.get("before"), found.get("after")
    return before.value if before else None, after.value if after else None
