"""The stage ``retrain``: make a reference that was taught without the forget set."""

from __future__ import annotations

from typing import Any

from wagle.data.records import Record
from wagle.run.opening import Run
from wagle.run.stages.making.teach import taught_records, teach_model
from wagle.system.errors import WagleError


def retrain(run: Run) -> dict[str, Any]:
    """Make the reference, if it is the model taught without the forget set."""
    if run.recipe.reference != "retrained":
        return {"taught": 0}
    assert run.models.reference is not None
    return teach_model(run, "retrain", _kept(run), run.models.reference)


def _kept(run: Run) -> list[Record]:
    """What is taught, without the forget set."""
    gone = {r.content_id for r in run.inputs.need("forget")}
    return [r for r in taught_records(run) if r.content_id not in gone]


def check(run: Run) -> None:
    """Refuse a reference that would be the model itself, because no forget record is taught."""
    if run.recipe.reference == "retrained" and len(_kept(run)) == len(taught_records(run)):
        raise WagleError(
            "reference is 'retrained', but finetune teaches no record of the forget set, so the "
            "reference would be the model itself; teach the forget set, or set it to untaught"
        )
