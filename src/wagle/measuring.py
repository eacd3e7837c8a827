"""The stages that look at something: evaluations, the verdict, the ledger, the report.

Each takes the run and returns what ``state.json`` should say.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wagle import __version__
from wagle.data.records import read_records
from wagle.evaluation.asking import evaluate
from wagle.evaluation.figures import FORGOTTEN
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import OVER, Verdict, came_back, combine, judge
from wagle.files import (
    keyed_digest,
    read_json,
    salt,
    write_json,
)
from wagle.ledger import Request, read_ledger, write_ledger
from wagle.model import load_model
from wagle.recipe_file import dump_recipe
from wagle.report.attacks import public_recipe
from wagle.report.controls import Arm
from wagle.report.page import Page, write_report
from wagle.run_folder import ROLES, Run
from wagle.stages import chosen_mask

logger = logging.getLogger(__name__)


def _measure(run: Run, role: str, folder: Path) -> dict[str, Any]:
    """Ask a model about the recipe's sets and its benchmarks; one file each."""
    settings, recipe = run.recipe.evaluation, run.recipe
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
            seed=recipe.seed,
        )
        for name, records in asked.items()
    }
    model = load_model(folder, attention=recipe.model.attention)
    common: dict[str, Any] = {
        "cache": run.private / "answers",
        "batch_tokens": settings.batch_tokens,
        "precision": settings.precision,
        "seed": recipe.seed,
    }
    found = evaluate(
        model,
        run.encoder,
        **sets,
        max_new_tokens=settings.max_new_tokens,
        generate=settings.generate,
        reference=run.evaluation("reference") if role != "reference" else None,
        **common,
    )
    _keep(run, role, role, folder, found)
    summaries = {}
    for asked_for in settings.benchmarks:
        logger.info("%s: benchmark %s", role, asked_for.called)
        beside = run.evaluation("reference", asked_for.called) if role != "reference" else None
        measured = evaluate(
            model,
            run.encoder,
            benchmark=asked_for.name,
            settings=asked_for.settings,
            reference=beside,
            **common,
        )
        _keep(run, role, f"{role}-{asked_for.called}", folder, measured)
        summaries[asked_for.called] = measured.summary()
    return {"summary": found.summary(), **({"benchmarks": summaries} if summaries else {})}


def _keep(run: Run, role: str, name: str, folder: Path, found: Evaluation) -> None:
    """Write an evaluation, and apart from it, privately, what the model wrote."""
    answers = f"private/answers-{name}.json"
    details = {
        **found.details,
        "model": {**found.details["model"], "path": folder.name},
        "reference": _reference_name(run) if role != "reference" else None,
        "answers": answers,
    }
    write_json(
        run.folder / answers,
        {name: [asdict(a) for a in said] for name, said in found.texts.items()},
        private=True,
    )
    write_json(
        run.folder / "evaluation" / f"{name}.json", replace(found, details=details).to_json()
    )


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
    labels = [benchmark.called for benchmark in run.recipe.evaluation.benchmarks]
    found = {role: run.evaluation(role) for role in ROLES}
    summary: dict[str, Any] = {r: e.summary() if e else None for r, e in found.items()}
    if labels:
        summary["benchmarks"] = {
            label: {
                role: e.summary() if (e := run.evaluation(role, label)) else None for role in ROLES
            }
            for label in labels
        }
    write_json(run.folder / "evaluation.json", summary)
    after, before = found["after"], found["before"]
    assert after is not None
    assert before is not None
    verdicts = {"": judge(after, before, found["reference"])}
    for label in labels:
        one, other = run.evaluation("after", label), run.evaluation("before", label)
        if one is not None and other is not None and one.details["probes"]:
            verdicts[label] = judge(one, other, run.evaluation("reference", label))
    verdict = combine(verdicts)
    over = overdone(verdicts)
    if over is not None and not any(OVER in line for line in run.warnings()):
        logger.warning("over-unlearned: %s", over)
    again = came_back(after, before)
    if again is not None:
        logger.warning("%s; set unlearning.earlier: objective to keep it forgotten", again)
    return {**details, "verdict": verdict.word, "reasons": list(verdict.reasons)}


def overdone(verdicts: Mapping[str, Verdict]) -> str | None:
    """What is over-unlearned, by any of the verdicts: a leak elsewhere does not undo it."""
    said = [
        f"{name}: {line}" if name else line
        for name, verdict in verdicts.items()
        if verdict.word == OVER
        for line in verdict.reasons
    ]
    return " ".join(said) or None


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
    labels = [benchmark.called for benchmark in run.recipe.evaluation.benchmarks]
    asked = {label: {r: e for r in ROLES if (e := run.evaluation(r, label))} for label in labels}
    paths = {a.called: run.folder / "attacks" / f"{a.called}.json" for a in run.recipe.attacks}
    return Page(
        recipe=run.recipe,
        recipe_text=dump_recipe(public_recipe(run.recipe)),
        state=run.state["stages"],
        evaluations={role: e for role in ROLES if (e := run.evaluation(role))},
        history=[line for line in run.logged("unlearn") if "step" in line],
        teaching=[line for line in run.logged("teach") if "step" in line],
        warnings=run.warnings(),
        density={by: mask.density(by) if mask else {} for by in ("block", "kind", "parameter")},
        answers=said,
        environment=read_json(run.folder / "environment.json"),
        benchmarks=asked,
        attacks={label: read_json(path) for label, path in paths.items() if path.is_file()},
        controls={
            arm: _arm(run, arm) for arm in run.state["stages"].get("controls", {}).get("arms", [])
        },
    )


def _arm(run: Run, arm: str) -> Arm:
    """What was found of a control arm's model."""
    folder = run.folder / "controls" / arm
    done = read_json(folder / "state.json")["stages"]
    paths = {a.called: folder / "attacks" / f"{a.called}.json" for a in run.recipe.attacks}
    return Arm(
        Evaluation.from_json(read_json(folder / "evaluation" / "after.json")),
        {label: read_json(path) for label, path in paths.items() if path.is_file()},
        done["unlearn"]["selected"],
        done["unlearn"]["steps"],
        done["after"]["verdict"],
    )
