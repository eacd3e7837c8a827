"""The stage ``reference``: evaluate the model that never learned the forget set, or a stand-in."""

from __future__ import annotations

from typing import Any

from wagle.evaluation.stand_in import STAND_IN
from wagle.recipe.recipe import NO_REFERENCE
from wagle.run.opening import Run
from wagle.run.stages.measuring.evaluations import measure, measure_twins, reference_entry


def reference(run: Run) -> dict[str, Any]:
    if run.models.reference is not None:
        found = measure(run, "reference", run.models.reference)
    else:
        found = {"summary": None} if run.recipe.reference == NO_REFERENCE else measure_twins(run)
    entry = reference_entry(run)
    return found if entry is None or entry["kind"] != STAND_IN else {**found, **entry}
