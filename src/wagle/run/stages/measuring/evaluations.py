"""What the three evaluating stages have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import FORGOTTEN
from wagle.evaluation.measuring import ASKED, evaluate
from wagle.evaluation.result import Evaluation
from wagle.evaluation.stand_in import BASE, STAND_IN, TWINS, make_twins
from wagle.recipe.recipe import NO_REFERENCE
from wagle.recipe.sections.evaluation import EvaluationSettings
from wagle.run.opening import Run
from wagle.system.files.atomic import write_json

logger = logging.getLogger(__name__)


def measure(run: Run, role: str, folder: Path) -> dict[str, Any]:
    """Ask a model about the recipe's sets and its benchmarks; one file each."""
    run.inputs.need("forget")
    more = {FORGOTTEN: run.inputs.forgotten} if role != "reference" and run.inputs.forgotten else {}
    questions = questions_about(run, {**run.inputs.sets, **more})
    model = run.models.to_ask(folder)
    kept = role == "after" and run.recipe.unlearning.objective == "none"
    common = {**way_of(run), "cache": run.private / "answers", "unchanged": kept}
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


def measure_twins(run: Run) -> dict[str, Any]:
    """Ask the model before unlearning about twins of the forget set: a stand-in for a reference."""
    asked = questions_about(run, {"forget": run.inputs.need("forget")})
    base = run.models.base
    forget = asked.pop("forget")
    model = run.models.to_ask(base)
    how = {**asked, **way_of(run), "cache": run.private / "answers"}
    found = ask_twins(model, run.inputs.encoder, forget, **how)
    if found is None:
        return {"summary": None}
    keep(run, "reference", "reference", base, found)
    return {"summary": found.summary()}


def ask_twins(
    model: PreTrainedModel, encoder: Encoder, forget: Sequence[Record], **asked: Any
) -> Evaluation | None:
    """The figures of the forget records' twins, at the places of their records; None without twins.

    Args:
        model: the model before unlearning.
        encoder: makes tokens of records.
        forget: the forget records as they are asked, in their order.
        asked: further arguments of ``evaluate``: how to ask, ``cache``, ``seed``.
    """
    twins = make_twins(forget, int(asked.get("seed", 0)))
    if twins is None:
        return None
    found = evaluate(model, encoder, forget=twins, **{**asked, "attacks": None, "k": None})
    # other records than those to forget, and a model that knows those: neither is to be compared
    data = {k: v for k, v in found.details["data"].items() if k not in ("sets", "salt")}
    own = {k: v for k, v in found.details["model"].items() if k != "fingerprint"}
    entry = {"model": {**own, "kind": STAND_IN, "of": TWINS}, "data": data}
    return replace(found, details={**found.details, **entry})


def way_of(run: Run) -> dict[str, Any]:
    """How models are asked, as ``evaluate`` takes it."""
    settings = run.recipe.evaluation
    return {
        "batch_tokens": settings.batch_tokens,
        "precision": settings.precision,
        "limits": settings.limits,
        "engine": settings.engine,
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
    entry = model if role == "reference" and "kind" in model else reference_entry(run)
    own: dict[str, Any] = {"model": {**model, **(entry or {})} if role == "reference" else model}
    if role != "reference":
        own["reference"] = entry
    if run.inputs.made is not None:
        own["assumed"] = {"retain": run.inputs.made}
    details = {**found.details, **own, "answers": answers}
    write_json(
        run.folder / answers,
        {name: [asdict(a) for a in said] for name, said in found.texts.items()},
        private=True,
    )
    write_json(
        run.folder / "evaluation" / f"{name}.json", replace(found, details=details).to_json()
    )


def reference_entry(run: Run) -> dict[str, str] | None:
    """What the reference is; what it was taught decides which figures can be compared with it."""
    named = run.recipe.reference
    if named == NO_REFERENCE:
        return None
    if named is not None:
        return {"kind": "untaught" if named == "untaught" else "retrained"}
    if run.models.reference is not None:
        return {"kind": STAND_IN, "of": BASE}
    return {"kind": STAND_IN, "of": TWINS} if run.evaluation("reference") else None


def questions_about(run: Run, asked: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """What ``evaluate`` needs to ask about sets of records as a recipe asks."""
    sets = {name: run.inputs.asked(name, records) for name, records in asked.items()}
    return {**sets, **asked_how(run.recipe.evaluation)}


def asked_how(settings: EvaluationSettings) -> dict[str, Any]:
    """What to ask about records and how to judge answers, as ``qa`` and ``evaluate`` take it."""
    return {name: getattr(settings, name) for name in ASKED}
