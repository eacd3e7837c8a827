"""The stage ``before``: evaluate the model that should forget."""

from __future__ import annotations

from typing import Any

from wagle.evaluation.table import make_task
from wagle.evaluation.tasks.questions import qa
from wagle.run.integrity.roles import check_run_reference, check_run_roles
from wagle.run.opening import Run
from wagle.run.stages.measuring.evaluations import asked_how, measure
from wagle.run.stages.measuring.knowing import never_known


def before(run: Run) -> dict[str, Any]:
    found = measure(run, "before", run.models.base)
    unknown = never_known(run)
    if unknown:
        return {**found, "unknown": unknown}
    labels = [benchmark.called for benchmark in run.recipe.evaluation.benchmarks]
    check_run_reference(run, run.recipe, labels)  # before unlearning is paid for
    return found


def check(run: Run) -> None:
    """Check that everything that will be asked of a model can be asked."""
    run.inputs.need("forget")
    if "before" not in run.state["stages"]:
        check_run_roles(run.models)
    asked = run.recipe.evaluation
    qa(run.inputs.encoder, sets=run.inputs.sets, **asked_how(asked))
    for benchmark in asked.benchmarks:
        make_task(benchmark.name, run.inputs.encoder, benchmark.settings, seed=run.recipe.seed)
