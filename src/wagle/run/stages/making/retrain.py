"""The stage ``retrain``: make a reference that was taught without the forget set."""

from __future__ import annotations

from typing import Any

from wagle.run.opening import Run
from wagle.run.stages.making.teach import taught_records, teach_model


def retrain(run: Run) -> dict[str, Any]:
    """Make the reference, if it is the model taught without the forget set."""
    if run.recipe.reference != "retrained":
        return {"taught": 0}
    assert run.models.reference is not None
    gone = {r.content_id for r in run.inputs.need("forget")}
    kept = [r for r in taught_records(run) if r.content_id not in gone]
    return teach_model(run, "retrain", kept, run.models.reference)
