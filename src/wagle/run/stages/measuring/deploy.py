"""The stage ``deploy``: what is served, made of the unlearned model and asked the same questions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from wagle.evaluation.measuring import evaluate
from wagle.evaluation.served.asker import Asker
from wagle.evaluation.served.opening import open_file, open_load
from wagle.evaluation.verdict import Verdict, judge
from wagle.model.quantization.kinds import LOADS, check_form, make_file
from wagle.run.opening import Run
from wagle.run.stages.measuring.evaluations import keep, questions_about, way_of
from wagle.system.memory import give_memory_back

logger = logging.getLogger(__name__)

COMPARED = "the model before and the reference are those of the run, as they are"


def deploy(run: Run) -> dict[str, Any]:
    """Make and ask every form; GGUF files stay, so that what was judged can be served."""
    found: dict[str, Any] = {}
    for form in run.recipe.deploy:
        logger.info("served as %s", form)
        asker = _served(run, form)
        sets = questions_about(run, run.inputs.sets)
        others: dict[str, Any] = {role: run.evaluation(role) for role in ("before", "reference")}
        common = {**way_of(run), "cache": run.private / "answers"}
        made = evaluate(asker, run.inputs.encoder, **sets, **others, **common)
        told = made.details["model"]
        keep(run, "served", f"served-{form}", _named(run, form), made)
        found[form] = {
            "summary": made.summary(),
            "fingerprint": told["fingerprint"],
            **{key: told[key] for key in ("by", "made_by") if key in told},
        }
        del asker
        give_memory_back()
    if not found:
        return {}
    return {"forms": found, "compared_with": COMPARED}


def verdicts(run: Run) -> dict[str, Verdict]:
    """The verdict of every form that was asked, by form."""
    before, reference = run.evaluation("before"), run.evaluation("reference")
    found = {}
    for form in run.recipe.deploy:
        made = run.evaluation("served", form)
        if made is not None and before is not None:
            found[form] = judge(made, before, reference)
    return found


def check(run: Run) -> None:
    """Check that every form can be made here of a model like the one that should forget."""
    for form in run.recipe.deploy:
        trust = run.recipe.model.trust_remote_code
        check_form(form, run.models.named, trust_remote_code=trust)


def _named(run: Run, form: str) -> Path:
    """The file of a form, or the folder that is loaded in it."""
    return run.folder / "model" if form in LOADS else run.folder / "served" / f"model-{form}.gguf"


def _served(run: Run, form: str) -> Asker:
    folder = run.folder / "model"
    if form in LOADS:
        return open_load(run.models.load(folder), form)
    file = _named(run, form)
    return open_file(file, {"form": form, "made_by": make_file(folder, file, form)})
