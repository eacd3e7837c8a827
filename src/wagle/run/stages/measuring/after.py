"""The stage ``after``: evaluate the unlearned model and judge it."""

from __future__ import annotations

import logging
from typing import Any

from wagle.evaluation.figures import ROLES
from wagle.evaluation.losses import losses
from wagle.evaluation.stand_in import assumptions
from wagle.evaluation.verdict import DAMAGED, OVER, came_back, combine, judge
from wagle.run.opening import Run
from wagle.run.stages.measuring import deploy
from wagle.run.stages.measuring.evaluations import measure
from wagle.system.files.atomic import write_json

logger = logging.getLogger(__name__)
_REMEDY = (
    "Select fewer weights (attribution.ratio), stay close to the original on what must stay "
    "(unlearning.retain_term: kl), put such records into the retain set, or lower the learning rate"
)


def after(run: Run) -> dict[str, Any]:
    details = measure(run, "after", run.folder / "model")
    labels = [benchmark.called for benchmark in run.recipe.evaluation.benchmarks]
    found = {role: run.evaluation(role) for role in ROLES}
    summary: dict[str, Any] = {r: e.summary() if e else None for r, e in found.items()}
    if labels:
        summary["benchmarks"] = {
            label: {
                role: e.summary() if (e := run.evaluation(role, label)) else None for role in ROLES
            }
            for label in labels
        }
    forms = run.state["stages"].get("deploy", {}).get("forms", {})
    if forms:
        summary["served"] = {form: made["summary"] for form, made in forms.items()}
    write_json(run.folder / "evaluation.json", summary)
    now, was = found["after"], found["before"]
    assert now is not None
    assert was is not None
    limits = run.recipe.evaluation.limits
    verdicts = {"": judge(now, was, found["reference"], limits)}
    for label in labels:
        one, other = run.evaluation("after", label), run.evaluation("before", label)
        if one is not None and other is not None and one.details["probes"]:
            verdicts[label] = judge(one, other, run.evaluation("reference", label), limits)
    served = deploy.verdicts(run)
    verdict = combine({**verdicts, **{f"served as {form}": v for form, v in served.items()}})
    if verdict.over and not any(OVER in line for line in run.warnings()):
        logger.warning("over-unlearned: %s", " ".join(verdict.over))
    for loss in losses(now, was, limits):
        if loss.beyond:
            word = DAMAGED if loss.surely_beyond else "perhaps damaged"
            logger.warning("%s: %s %s", word, loss.sentence(), _REMEDY)
    again = came_back(now, was)
    if again is not None:
        logger.warning("%s; set unlearning.earlier: objective to keep it forgotten", again)
    told = {form: {"verdict": v.word, "reasons": list(v.reasons)} for form, v in served.items()}
    return {
        **details,
        "verdict": verdict.word,
        "reasons": [*verdict.reasons, *assumptions(now.details)],
        **({"served": told} if told else {}),
    }
