"""The stages that look at something: evaluations, the verdict, the ledger, the report.

Each takes the run and returns what ``state.json`` should say.
"""

import logging
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wagle import __version__
from wagle.data.records import read_records
from wagle.evaluation.result import FORGOTTEN, evaluate
from wagle.evaluation.verdict import OVER, came_back, judge
from wagle.files import (
    keyed_digest,
    read_json,
    salt,
    write_json,
)
from wagle.ledger import Request, read_ledger, write_ledger
from wagle.model import load_model
from wagle.recipe_file import dump_recipe
from wagle.report.page import Page, write_report
from wagle.run_folder import ROLES, Run
from wagle.stages import chosen_mask

logger = logging.getLogger(__name__)


def _measure(run: Run, role: str, folder: Path) -> dict[str, Any]:
    settings = run.recipe.evaluation
    run.need("forget")
    most = settings.records
    asked = dict(run.sets)
    if role != "reference" and run.forgotten:
        asked[FORGOTTEN] = run.forgotten
    sets: dict[str, Any] = {
        name: read_records(
            records,
            name=name,
            take="all" if most is None or most >= len(records) else most,
            seed=run.recipe.seed,
        )
        for name, records in asked.items()
    }
    found = evaluate(
        load_model(folder, attention=run.recipe.model.attention),
        run.encoder,
        **sets,
        max_new_tokens=settings.max_new_tokens,
        batch_tokens=settings.batch_tokens,
        precision=settings.precision,
        generate=settings.generate,
        seed=run.recipe.seed,
    )
    answers = f"private/answers-{role}.json"
    key = salt(run.private)
    found.details["model"]["path"] = folder.name
    details = {
        **found.details,
        "data": {
            name: {"n": len(records), "digest": keyed_digest(key, [r.id for r in records])}
            for name, records in sets.items()
        },
        "reference": _reference_name(run),
        "answers": answers,
    }
    write_json(
        run.folder / answers,
        {name: [asdict(a) for a in said] for name, said in found.answers.items()},
        private=True,
    )
    write_json(
        run.folder / "evaluation" / f"{role}.json", replace(found, details=details).to_json()
    )
    return {"summary": found.summary()}


def _reference_name(run: Run) -> dict[str, str] | None:
    if run.recipe.reference is None:
        return None
    return {"kind": "untaught" if run.recipe.reference == "untaught" else "retrained"}


def measure_reference(run: Run) -> dict[str, Any]:
    return _measure(run, "reference", run.reference) if run.reference else {"summary": None}


def measure_before(run: Run) -> dict[str, Any]:
    return _measure(run, "before", run.base)


def measure_after(run: Run) -> dict[str, Any]:
    details = _measure(run, "after", run.folder / "model")
    found = {role: run.evaluation(role) for role in ROLES}
    write_json(
        run.folder / "evaluation.json", {r: e.summary() if e else None for r, e in found.items()}
    )
    after, before, reference = found["after"], found["before"], found["reference"]
    assert after is not None
    assert before is not None
    verdict = judge(after, before, reference)
    if verdict.word == OVER and not any(OVER in line for line in run.warnings()):
        logger.warning("over-unlearned: %s", " ".join(verdict.reasons))
    again = came_back(after, before)
    if again is not None:
        logger.warning("%s; set unlearning.earlier: objective to keep it forgotten", again)
    return {**details, "verdict": verdict.word, "reasons": list(verdict.reasons)}


def enter_ledger(run: Run) -> dict[str, Any]:
    recipe, stages = run.recipe, run.state["stages"]
    before, after = run.evaluation("before"), run.evaluation("after")
    assert before is not None
    assert after is not None
    forget = run.need("forget")
    mask = chosen_mask(run)
    promised = stages["patch"].get("result")
    own = Request(
        name=recipe.name,
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        wagle=__version__,
        after=recipe.after,
        objective=stages["unlearn"]["objective"],
        training=recipe.unlearning.model_dump(mode="json"),
        mask=None
        if mask is None
        else {"digest": mask.digest(), "ratio": mask.ratio, "count": mask.count},
        forget={
            "n": len(forget),
            "digest": keyed_digest(salt(run.private), [r.id for r in forget]),
        },
        earlier=None
        if recipe.after is None
        else {"mode": recipe.unlearning.earlier, "n": len(run.forgotten)},
        base=before.details["model"]["fingerprint"],
        result=after.details["model"]["fingerprint"],
        patch=promised and {"file": "patch.safetensors", "result": promised},
        verdict=stages["after"]["verdict"],
    )
    past = [] if recipe.after is None else read_ledger(recipe.after)
    write_ledger(run.folder, [*past, own])
    return {"requests": len(past) + 1}


def report(run: Run) -> dict[str, Any]:
    write_report(report_page(run), run.folder / "report.html")
    return {"bytes": (run.folder / "report.html").stat().st_size}


def report_page(run: Run) -> Page:
    """All that the report shows, collected from the run folder."""
    text = run.recipe.report
    said: dict[str, list[dict[str, Any]]] = {}
    if text.show_text:
        for role in ("before", "after"):
            path = run.private / f"answers-{role}.json"
            said[role] = read_json(path)["forget"][: text.pairs]
    mask = chosen_mask(run)
    return Page(
        recipe=run.recipe,
        recipe_text=dump_recipe(run.recipe),
        state=run.state["stages"],
        evaluations={role: e for role in ROLES if (e := run.evaluation(role))},
        history=[line for line in run.logged("unlearn") if "step" in line],
        teaching=[line for line in run.logged("teach") if "step" in line],
        warnings=run.warnings(),
        density={by: mask.density(by) if mask else {} for by in ("block", "kind", "parameter")},
        answers=said,
        environment=read_json(run.folder / "environment.json"),
    )
