"""What a report shows, and the one page that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wagle.evaluation.figures import FORGOTTEN, GONE, HOLDOUT, OVERALL, SETS, Figure
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import INCONCLUSIVE, LEAKS, NO_LEAK, OVER, probes_of
from wagle.metrics.table import ALL, METRICS, NATS, WRITTEN
from wagle.recipe.recipe import Recipe
from wagle.report.html.asked import Shortener, facts, record_sets
from wagle.report.html.attacks import attack_sections, public_recipe
from wagle.report.html.benchmarks import benchmark_sections, figure_table
from wagle.report.html.charts import POINTS, lines_chart, points_chart
from wagle.report.html.controls import Arm, control_section
from wagle.report.html.density import heat, scores, weights
from wagle.report.html.templates import size, templates
from wagle.report.rows import ROLES, other_count
from wagle.system.atomic import write_text

# figures of membership, beside AUC and leakage
_FOLDED = ("tpr_", "rel_diff", "privacy_", "privleak_")
_KINDS = {NO_LEAK: "clear", LEAKS: "leak", OVER: "over", INCONCLUSIVE: "open"}  # CSS classes
_MEANINGS = {
    NO_LEAK: "These probes find no more of the forget set than in a model that never learned it.",
    LEAKS: "At least one probe finds more of the forget set than in a model that never learned it.",
    OVER: "The model is worse on the forget set than a model that never learned it: the damage goes "
    "too far, and itself tells that something was removed.",
    INCONCLUSIVE: "These probes cannot tell whether the forget set is gone.",
}


@dataclass(frozen=True)
class Page:
    """All that a report shows, as plain data: nothing here reads a run folder.

    Attributes:
        recipe: what was asked.
        recipe_text: the resolved recipe as YAML.
        state: per finished stage, its seconds, peak memory and results.
        evaluations: by role: ``before``, ``after``, ``reference`` (the last may be missing).
        history: the figures of every unlearning step.
        teaching: the figures of every teaching step, if the model was taught here.
        warnings: what the run warned about.
        density: per ``block``, ``kind`` of module and ``parameter``, (selected, weights).
        answers: by role, question/expected/said of some forget records; empty unless asked for.
        environment: versions and machine.
        benchmarks: by what the recipe calls a benchmark, its evaluations by role.
        attacks: by what the recipe calls an attack, what its ``wagle-attack/1`` file holds.
        controls: by arm, what was found of its model.
    """

    recipe: Recipe
    recipe_text: str
    state: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Evaluation]
    history: list[dict[str, Any]]
    teaching: list[dict[str, Any]]
    warnings: list[str]
    density: Mapping[str, Mapping[str, tuple[int, int]]]
    answers: Mapping[str, list[dict[str, Any]]]
    environment: Mapping[str, Any]
    benchmarks: Mapping[str, Mapping[str, Evaluation]] = field(default_factory=dict)
    attacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    controls: Mapping[str, Arm] = field(default_factory=dict)


def write_report(page: Page, path: Path) -> None:
    """Write the page as one HTML file that opens without network."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML; every text from a model or a record is escaped."""
    recipe, state = page.recipe, page.state
    short = Shortener(recipe)
    goal = _figure(page, "reference", "forget", "probability")
    template = templates().get_template("page.html.j2")
    return template.render(
        name=recipe.name,
        recipe=recipe,
        verdict=_verdict(page),
        warnings=[short(line) for line in page.warnings],
        tiles=_tiles(page),
        asked=facts(recipe, state, goal),
        sets=record_sets(recipe, lambda name: _count(page, name)),
        forget=_rows(page, "forget"),
        kept={name: _rows(page, name) for name in _kept(page)},
        gone={FORGOTTEN: _rows(page, FORGOTTEN)} if FORGOTTEN in _measured(page) else {},
        overall=_overall(page, short),
        roles=[role for role in ROLES if role in page.evaluations],
        benchmarks=benchmark_sections(page.benchmarks, recipe, short),
        weights=weights(recipe, state, page.density, page.evaluations),
        heat=heat(page.density),
        scores=scores(recipe, state),
        training=_training(page, goal),
        attacks=attack_sections(page.attacks, short),
        controls=_controls(page),
        pairs=_pairs(page.answers),
        recipe_text=short(page.recipe_text),
        shortened=short(page.recipe_text) != page.recipe_text,
        hidden=public_recipe(recipe) != recipe,
        stages=[(name, found) for name, found in state.items() if "seconds" in found],
        environment={
            key: size(value) if key.endswith("_bytes") else short(str(value))
            for key, value in page.environment.items()
            if key != "argv"
        },
    )


# ---------------------------------------------------------------------------------------------
# What each section shows


def _controls(page: Page) -> dict[str, Any] | None:
    after, made = page.evaluations.get("after"), page.state.get("unlearn", {})
    if after is None:
        return None
    word = page.state.get("after", {}).get("verdict", "")
    own = Arm(after, page.attacks, made.get("selected", 0), made.get("steps", 0), word)
    return control_section(own, page.controls, page.evaluations.get("reference"))


def _verdict(page: Page) -> dict[str, Any]:
    found = page.state.get("after", {})
    word = found.get("verdict", INCONCLUSIVE)
    return {
        "word": word,
        "kind": _KINDS.get(word, "open"),
        "meaning": _MEANINGS.get(word, ""),
        "reasons": found.get("reasons", ["The run has no verdict."]),
    }


def _measured(page: Page) -> list[str]:
    """The sets that any evaluation has figures of."""
    names = [name for found in page.evaluations.values() for name in found.figures]
    return [*dict.fromkeys([name for name in SETS if name in names] + names)]


def _kept(page: Page) -> list[str]:
    """The sets that must stay."""
    return [name for name in _measured(page) if name not in (*GONE, HOLDOUT, OVERALL)]


def _overall(page: Page, short: Callable[[str], str]) -> dict[str, Any] | None:
    """What is made of several sets, or only beside a reference, such as forget quality."""
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


def _figure(page: Page, role: str, name: str, metric: str) -> Figure | None:
    found = page.evaluations.get(role)
    return found.figures.get(name, {}).get(metric) if found else None


def _rows(page: Page, name: str) -> dict[str, Any]:
    """A table of a set and its chart; the forget set has a row for what was not measured, too.

    Of other sets, how many answers are empty or cut off is shown where there are more than before.
    """
    count = _count(page, name)
    after = page.evaluations.get("after")
    probes = probes_of(after) if after is not None else ()
    figures = {
        metric: {role: f for role in ROLES if (f := _figure(page, role, name, metric))}
        for metric in ALL
    }
    figures = {m: found for m, found in figures.items() if found or m in METRICS}
    rows = [
        {
            "metric": metric,
            "unit": ALL[metric].unit,
            "n": other_count(found, count),
            "counts": (name, metric) in probes,
            "figures": found,
            "against": _against(found.get("after"), found.get("reference")),
            "ratio": _ratio(found),
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
    """Where the figure after lies, seen from the reference's interval."""
    if after is None or reference is None or None in (after.value, reference.value):
        return ""
    if after.number > reference.high:
        return "above"
    return "below" if after.number < reference.low else "inside"


def _ratio(found: Mapping[str, Figure]) -> float | None:
    before, after = _sides(found)
    return after / before if before and after is not None else None


def _quiet(found: Mapping[str, Figure]) -> bool:
    """Whether a share of answers did not rise."""
    before, after = _sides(found)
    return after is None or before is None or after <= before


def _sides(found: Mapping[str, Figure]) -> tuple[float | None, float | None]:
    """The values before and after."""
    before, after = found.get("before"), found.get("after")
    return before.value if before else None, after.value if after else None


def _count(page: Page, name: str) -> int | None:
    """How many records a set has: as the run counted them, else as the figures do."""
    for found in page.evaluations.values():
        counted = found.details.get("data", {}).get("sets", {}).get(name, {}).get("n")
        if counted is not None:
            return int(counted)
    counts = [f.n for e in page.evaluations.values() for f in e.figures.get(name, {}).values()]
    return max(counts, default=None)


def _tiles(page: Page) -> dict[str, Any]:
    """Probability at a glance: of the forget set by role, of the kept sets after over before."""
    kept = {
        name: ratio
        for name in _kept(page)
        if (ratio := _ratio({r: f for r in ROLES if (f := _figure(page, r, name, "probability"))}))
    }
    forget = {role: _figure(page, role, "forget", "probability") for role in ROLES}
    return {"forget": forget, "kept": kept}


def _training(page: Page, goal: Figure | None) -> dict[str, Any]:
    return {
        "steps": len(page.history),
        "taught": len(page.teaching),
        "most": POINTS,
        "goal": goal,
        "loss": lines_chart(
            page.history,
            {"forget_nll": False, "retain_nll": True},
            "loss of forget and retain records per unlearning step",
            y_title="mean NLL, nats",
        ),
        "probability": lines_chart(
            page.history,
            {"forget.probability": False},
            "probability of the forget set while unlearning",
            y_title="forget probability",
            goal=goal.value if goal else None,
        ),
        "teaching": lines_chart(
            page.teaching,
            {"retain_nll": False},
            "loss of the taught records per step",
            y_title="mean NLL, nats",
        ),
    }


def _pairs(answers: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The questions with what each model said, in the order in which they come."""
    found: dict[str, dict[str, Any]] = {}
    for role, said in answers.items():
        for one in said:
            pair = found.setdefault(
                one["place"],
                {key: one[key] for key in ("place", "question", "expected")} | {"said": {}},
            )
            pair["said"][role] = one
    return list(found.values())
