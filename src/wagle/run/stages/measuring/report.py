"""The stage ``report``: put everything on one page."""

from __future__ import annotations

from typing import Any

from wagle.evaluation.figures import ROLES
from wagle.evaluation.result import read_evaluation
from wagle.recipe.reading import dump_recipe
from wagle.report.disclosure import public_recipe
from wagle.report.files import read_answers, read_attack, read_environment, read_state, told
from wagle.report.html.page import Arm, Page
from wagle.report.html.rendering import write_report
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask


def report(run: Run) -> dict[str, Any]:
    write_report(report_page(run), run.folder / "report.html")
    return {"bytes": (run.folder / "report.html").stat().st_size}


def report_page(run: Run) -> Page:
    """Everything that the report shows, collected from the run folder."""
    text = run.recipe.report
    said: dict[str, list[dict[str, Any]]] = {}
    if text.show_text:
        for role in ("before", "after"):
            path = run.private / f"answers-{role}.json"
            if role == "after" and run.evaluation(role) is None:
                continue
            said[role] = read_answers(path).get("forget", [])[: text.pairs]
    stopped = "skipped" in run.state["stages"].get("unlearn", {})
    mask = None if stopped else chosen_mask(run)
    labels = [benchmark.called for benchmark in run.recipe.evaluation.benchmarks]
    asked = {label: {r: e for r in ROLES if (e := run.evaluation(r, label))} for label in labels}
    paths = {a.called: run.folder / "attacks" / f"{a.called}.json" for a in run.recipe.attacks}
    return Page(
        recipe=run.recipe,
        recipe_text=dump_recipe(public_recipe(run.recipe)),
        state=run.state["stages"],
        evaluations={role: e for role in ROLES if (e := run.evaluation(role))},
        history=[line for line in run.logged("unlearn") if "step" in line],
        teaching=[line for line in run.logged("teach") if "step" in line],
        warnings=run.warnings(),
        density={by: mask.density(by) if mask else {} for by in ("block", "kind", "parameter")},
        answers=said,
        environment=read_environment(run.folder / "environment.json"),
        benchmarks=asked,
        attacks={label: read_attack(path) for label, path in paths.items() if path.is_file()},
        controls={
            arm: _arm(run, arm) for arm in run.state["stages"].get("controls", {}).get("arms", [])
        },
    )


def _arm(run: Run, arm: str) -> Arm:
    """The figures of a control arm's model."""
    folder = run.folder / "controls" / arm
    done = read_state(folder / "state.json")["stages"]
    paths = {a.called: folder / "attacks" / f"{a.called}.json" for a in run.recipe.attacks}
    return Arm(
        read_evaluation(folder / "evaluation" / "after.json"),
        {label: read_attack(path) for label, path in paths.items() if path.is_file()},
        told(done, "unlearn", "selected"),
        told(done, "unlearn", "steps"),
        told(done, "after", "verdict"),
    )
