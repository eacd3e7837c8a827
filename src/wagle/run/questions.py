"""What is asked about sets of records, as a recipe says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.evaluation.measuring import ASKED
from wagle.recipe.sections.evaluation import EvaluationSettings
from wagle.run.opening import Run


def questions_about(run: Run, asked: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """What ``evaluate`` needs to ask about sets of records as a recipe says."""
    settings, seed = run.recipe.evaluation, run.recipe.seed
    most = settings.records
    sets = {
        name: read_records(
            records,
            name=name,
            take="all" if most is None or most >= len(records) else most,
            seed=seed,
        )
        for name, records in asked.items()
    }
    return {**sets, **asked_how(settings)}


def asked_how(settings: EvaluationSettings) -> dict[str, Any]:
    """What is asked of records and judged of answers, as ``qa`` and ``evaluate`` take it."""
    return {name: getattr(settings, name) for name in ASKED}
