"""The stage ``reference``: evaluate the model that never learned the forget set."""

from __future__ import annotations

from typing import Any

from wagle.run.opening import Run
from wagle.run.stages.measuring.evaluations import measure


def reference(run: Run) -> dict[str, Any]:
    return (
        measure(run, "reference", run.models.reference)
        if run.models.reference
        else {"summary": None}
    )
