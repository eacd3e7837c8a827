"""What the three evaluating stages have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.evaluation.figures import FORGOTTEN
from wagle.evaluation.measuring import ASKED, evaluate
from wagle.evaluation.result import Evaluation
from wagle.model.loading import load_model
from wagle.recipe.sections.evaluation import EvaluationSettings
from wagle.run.opening import Run
from wagle.system.atomic import write_json

logger = logging.getLogger(__name__)


def measure(run: Run, role: str, folder: Path) -> dict[str, Any]:
    """Ask a model about the recipe's sets and its benchmarks; one file each."""
    run.inputs.need("forget")
    more = {FORGOTTEN: run.inputs.forgotten} if role != "reference" and run.inputs.forgotten else {}
    questions = questions_about(run, {**run.inputs.sets, **more})
    model = load_model(folder, attention=run.recipe.model.attention)
    common = {**way_of(run), "cache": run.private / "answers"}
    found = evaluate(model, run.inputs.encoder, **questions, **_beside(run, role), **common)
    keep(run, role, role, folder, found)
    summaries = {}
    for asked_for in run.recipe.evaluation.benchmarks:
        logger.info("%s: benchmark %s", role, asked_for.called)
        measured = evaluate(
            model,
            run.inputs.encoder,
            benchmark=asked_for.name,
            settings=asked_for.settings,
            **_beside(run, role, asked_for.called),
            **common,
        )
        keep(run, role, f"{role}-{asked_for.called}", folder, measured)
        summaries[asked_for.called] = measured.summary()
    return {"summary": found.summary(), **({"benchmarks": summaries} if summaries else {})}


def way_of(run: Run) -> dict[str, Any]:
    """How models are asked, as ``evaluate`` takes it."""
    settings = run.recipe.evaluation
    return {
        "batch_tokens": settings.batch_tokens,
        "precision": settings.precision,
        "seed": run.recipe.seed,
    }


def _beside(run: Run, role: str, benchmark: str | None = None) -> dict[str, Any]:
    """What the evaluation of a model is compared with: those before it in the run."""
    others: list[str] = {
        "reference": [],
        "before": ["reference"],
        "after": ["before", "reference"],
    }[role]
    return {other: run.evaluation(other, benchmark) for other in others}


def keep(run: Run, role: str, name: str, folder: Path, found: Evaluation) -> None:
    """Write an evaluation and, separately and privately, what the model wrote."""
    answers = f"private/answers-{name}.json"
    model = {**found.details["model"], "path": folder.name}
    kind = _reference_kind(run)
    own: dict[str, Any] = {"model": {**model, "kind": kind} if role == "reference" else model}
    if role != "reference":
        own["reference"] = kind and {"kind": kind}
    details = {**found.details, **own, "answers": answers}
    write_json(
        run.folder / answers,
        {name: [asdict(a) for a in said] for name, said in found.texts.items()},
        private=True,
    )
    write_json(
        run.folder / "evaluation" / f"{name}.json", replace(found, details=details).to_json()
    )


def _reference_kind(run: Run) -> str | None:
    """What the reference was taught decides which figures can be compared with it."""
    if run.recipe.reference is None:
        return None
    return "untaught" if run.recipe.reference == "untaught" else "retrained"


def questions_about(run: Run, asked: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """What ``evaluate`` needs to ask about sets of records as a recipe asks."""
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
    """What to ask about records and how to judge answers, as ``qa`` and ``evaluate`` take it."""
    return {name: getattr(settings, name) for name in ASKED}
