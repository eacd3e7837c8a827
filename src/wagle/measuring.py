"""The stages that look at something: evaluations, the verdict, the ledger, the report.

Each takes the run and returns what ``state.json`` should say. ``measure_model`` looks at one model
outside of a run, in the same way.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wagle import __version__
from wagle.data.records import Record, read_records
from wagle.errors import WagleError, nearest
from wagle.evaluation.asking import ASKED, evaluate, find_model
from wagle.evaluation.figures import FORGOTTEN, HOLDOUT, SETS
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import OVER, came_back, combine, judge
from wagle.files import keyed_digest, read_json, salt, write_json
from wagle.ledger import Request, read_ledger, write_ledger
from wagle.model import load_model
from wagle.recipe import EvaluationSettings, Recipe
from wagle.recipe_file import dump_recipe, load_recipe, read_settings
from wagle.report.attacks import public_recipe
from wagle.report.controls import Arm
from wagle.report.page import Page, write_report
from wagle.run_folder import ROLES, Run
from wagle.stages import chosen_mask

logger = logging.getLogger(__name__)


def _measure(run: Run, role: str, folder: Path) -> dict[str, Any]:
    """Ask a model about the recipe's sets and its benchmarks; one file each."""
    run.need("forget")
    more = {FORGOTTEN: run.forgotten} if role != "reference" and run.forgotten else {}
    questions = _questions(run, {**run.sets, **more})
    model = load_model(folder, attention=run.recipe.model.attention)
    common = {**_way(run), "cache": run.private / "answers"}
    found = evaluate(model, run.encoder, **questions, **_beside(run, role), **common)
    _keep(run, role, role, folder, found)
    summaries = {}
    for asked_for in run.recipe.evaluation.benchmarks:
        logger.info("%s: benchmark %s", role, asked_for.called)
        measured = evaluate(
            model,
            run.encoder,
            benchmark=asked_for.name,
            settings=asked_for.settings,
            **_beside(run, role, asked_for.called),
            **common,
        )
        _keep(run, role, f"{role}-{asked_for.called}", folder, measured)
        summaries[asked_for.called] = measured.summary()
    return {"summary": found.summary(), **({"benchmarks": summaries} if summaries else {})}


def _questions(run: Run, asked: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
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


def _way(run: Run) -> dict[str, Any]:
    """How models are asked, as ``evaluate`` takes it."""
    settings = run.recipe.evaluation
    return {
        "batch_tokens": settings.batch_tokens,
        "precision": settings.precision,
        "seed": run.recipe.seed,
    }


def _beside(run: Run, role: str, benchmark: str | None = None) -> dict[str, Any]:
    """What the evaluation of a model is set beside: of those before it in the run."""
    others: list[str] = {
        "reference": [],
        "before": ["reference"],
        "after": ["before", "reference"],
    }[role]
    return {other: run.evaluation(other, benchmark) for other in others}


def measure_model(
    source: str,
    words: Sequence[str],
    *,
    benchmark: str,
    before: str | None = None,
    reference: str | None = None,
    patch: Sequence[str] | None = None,
    cache: str | None = None,
    precision: str = "float32",
) -> Evaluation:
    """Evaluate one model, outside of a run.

    Args:
        source: a model folder, a run folder (its model) or ``demo``.
        words: of ``qa`` the sets of records and how they are asked, ``forget=FILE``, in the words of
            a recipe (how they are asked is what a run folder's own says, unless they say it); of
            another benchmark its settings.
        benchmark: which one.
        before: the model before unlearning: a model folder, a result file, or a run folder (what that
            run found of its model before, or that model).
        reference: a model that never learned the forget set, in the forms of ``evaluate``.
        patch: of the model folder.
        cache: a private folder for answers.
        precision: of the matrix products.

    Raises:
        WagleError: words that are none of an evaluation, no set of records, or what ``evaluate``
            refuses.
    """
    model = find_model(source)
    common: dict[str, Any] = {
        "before": None if before is None else _before(before, benchmark),
        "reference": reference,
        "patch": patch or None,
        "cache": cache,
    }
    if benchmark != "qa":
        settings = read_settings(words)
        return evaluate(
            model, benchmark=benchmark, settings=settings, precision=precision, **common
        )
    run = Run(model, _recipe_of(words, Path(source), model, precision))
    return evaluate(model, run.encoder, **_questions(run, run.sets), **_way(run), **common)


_HOW = {  # of a recipe, beside the sets: what decides how a model is asked
    "model": ("template", "system_prompt", "max_length"),
    "evaluation": tuple(
        name
        for name in EvaluationSettings.model_fields
        if name not in ("benchmarks", "precision")  # which the command names itself
    ),
}
_WORDS = (*SETS, "seed", "overlap", *(f"{part}.{n}" for part, names in _HOW.items() for n in names))


def _recipe_of(words: Sequence[str], source: Path, model: Path, precision: str) -> Recipe:
    """The recipe that asks one model about sets of records."""
    keys = read_settings(words)
    for key in keys:
        if key not in _WORDS and key.partition(".")[0] not in SETS:
            guess = nearest(key, _WORDS)
            hint = f"nearest: {guess}" if guess else f"it has {', '.join(_WORDS)}"
            raise WagleError(f"the benchmark qa has no setting {key!r}; {hint}")
    given: dict[str, Any] = {"name": "evaluation", "model": {}, "evaluation": {}}
    if (source / "recipe.yaml").is_file():
        own = load_recipe(source / "recipe.yaml").resolved()
        given |= {"seed": own["seed"], "overlap": own["overlap"]}
        given |= {part: {n: own[part][n] for n in names} for part, names in _HOW.items()}
        if not any(key.partition(".")[0] == HOLDOUT for key in keys):
            given["evaluation"] |= {"attacks": None, "k": None}  # which are of a holdout set
    given["model"]["path"] = str(model)
    given["evaluation"]["precision"] = precision
    recipe = load_recipe(given, words)
    if not any(getattr(recipe, name) for name in SETS):
        raise WagleError(
            "nothing to evaluate: give records, such as forget=FILE; the sets are "
            f"{', '.join(SETS)}, in the words of a recipe"
        )
    return recipe


def _before(named: str, benchmark: str) -> str | Path:
    """The model before unlearning, or its result file; of a run folder what that has of both."""
    folder = Path(named)
    if not (folder / "recipe.yaml").is_file():
        return named
    run = Run(folder, load_recipe(folder / "recipe.yaml"))
    labels = [b.called for b in run.recipe.evaluation.benchmarks if b.name == benchmark]
    names = ["before"] if benchmark == "qa" else [f"before-{label}" for label in labels]
    files = [path for n in names if (path := folder / "evaluation" / f"{n}.json").is_file()]
    return files[0] if len(files) == 1 else run.base


def _keep(run: Run, role: str, name: str, folder: Path, found: Evaluation) -> None:
    """Write an evaluation, and apart from it, privately, what the model wrote."""
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
    """What was taught to the reference decides which figures count beside it."""
    if run.recipe.reference is None:
        return None
    return "untaught" if run.recipe.reference == "untaught" else "retrained"


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
    if verdict.over and not any(OVER in line for line in run.warnings()):
        logger.warning("over-unlearned: %s", " ".join(verdict.over))
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
