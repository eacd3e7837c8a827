"""The section of benchmarks: what each found in the model before and after, and in the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from wagle.evaluation.figures import FORGOTTEN, HIGHER, LOWER, OVERALL, Figure
from wagle.evaluation.result import Evaluation
from wagle.recipe.recipe import Recipe
from wagle.report.html.asked import described
from wagle.report.rows import ROLES, notes, other_count

HEADLINES = (
    "forget.extraction_strength",
    "forget.exact_memorization",
    "forget.truth_ratio",
    "forget.know",
    "forget.verbmem",
    "forget.verbmem_extraction_strength",
    "forget.verbmem_exact_memorization",
    "forget.knowmem",
    "retain.knowmem",
    "context.accuracy",
    "*.template_mean",
    "*.toxic_rate",
    f"{OVERALL}.model_utility",
    f"{OVERALL}.utility_proxy",
    f"{OVERALL}.forget_quality",
    f"{OVERALL}.privleak",
)
OWN = (  # of the benchmark qa
    "forget.probability",
    "forget.paraphrased",
    "forget.extraction_strength",
    "forget.exact_memorization",
    "forget.know",
    f"{FORGOTTEN}.probability",
    "retain.probability",
    "retain_heldout.probability",
    "general.probability",
    f"{OVERALL}.forget_quality",
    f"{OVERALL}.privleak",
)
_MOST = 8  # figures that lead where a benchmark has none of these


def headlines(
    figures: Iterable[tuple[str, str]], *, own_records: bool = False
) -> list[tuple[str, str]]:
    """The figures of a benchmark that are read first.

    Args:
        figures: pairs of set and metric.
        own_records: whether they are of ``qa``, which knows no composites: its sets stand for them.

    Returns:
        Those of HEADLINES (of OWN), in that order; else the composites and the figures of a group of tasks;
        else the first figure of every set. At most eight of these.
    """
    known = list(dict.fromkeys(figures))
    leading = OWN if own_records else HEADLINES
    found = [pair for name in leading for pair in known if fnmatchcase(".".join(pair), name)]
    if found:
        return found
    firsts: dict[str, tuple[str, str]] = {}
    for pair in known:
        firsts.setdefault(pair[0], pair)
    # a group of lm-eval has the name that those of its tasks begin with
    groups = [s for s in firsts if any(other.startswith(f"{s}_") for other in firsts)]
    lead = [pair for pair in known if pair[0] == OVERALL] + [firsts[s] for s in groups]
    return (lead or list(firsts.values()))[:_MOST]


def benchmark_sections(
    found: Mapping[str, Mapping[str, Evaluation]], recipe: Recipe, short: Callable[[str], str]
) -> list[dict[str, Any]]:
    """What the page shows of every benchmark that was asked.

    Args:
        found: by what the recipe calls it and role.
        recipe: says how it was asked.
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


def figure_table(
    evaluations: Mapping[str, Evaluation],
    groups: Mapping[str, Sequence[tuple[str, str]]],
    short: Callable[[str], str],
) -> dict[str, Any]:
    """Rows by group, and what has to be known of them.

    Args:
        evaluations: by role.
        groups: by the heading, pairs of set and metric that some evaluation has; a group without a
            heading is of several sets.
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
