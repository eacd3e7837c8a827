"""The stage ``before``: evaluate the model that is to forget."""

from __future__ import annotations

from typing import Any

from wagle.run.folder import Run
from wagle.run.stages.measuring.evaluations import measure


def measure_before(run: Run) -> dict[str, Any]:
    return measure(run, "before", run.base)
