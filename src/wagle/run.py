"""Recipe -> stages -> run folder. A run resumes at the first stage that is not finished.

Every stage writes its files atomically and is then entered in ``state.json``; a killed stage
starts over. No stage reads what a later one writes.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from wagle import __version__
from wagle.adapters import merge_adapter
from wagle.attribution.collect import gradients
from wagle.attribution.engines import ENGINES
from wagle.attribution.scores import check_score
from wagle.attribution.scoring import needed_quantities
from wagle.attribution.store import GradientStore
from wagle.data.records import Record, read_records
from wagle.errors import WagleError, choose
from wagle.evaluation.result import FORGOTTEN, evaluate
from wagle.evaluation.verdict import OVER, came_back, judge
from wagle.files import (
    keyed_digest,
    locked,
    read_json,
    salt,
    write_json,
)
from wagle.ledger import Request, read_ledger, write_ledger
from wagle.mask import Mask
from wagle.memory import give_memory_back
from wagle.model import empty_model, load_model
from wagle.patch import extract, verify
from wagle.recipe import Attribution, Lora, Recipe
from wagle.recipe_file import dump_recipe
from wagle.report.page import Page, write_report
from wagle.run_folder import ROLES, Run, open_run
from wagle.unlearning.checks import stop_rules
from wagle.unlearning.lora import (
    add_lora,
    check_adapter_mask,
    check_lora,
    load_quantized,
    save_adapter,
)
from wagle.unlearning.objectives import choose_objective
from wagle.unlearning.optimizers import check_optimizer
from wagle.unlearning.rules import Best, Rule, parse_best
from wagle.unlearning.steps import Gradient
from wagle.unlearning.training import TrainResult, finetune, unlearn
from wagle.weights import fingerprint, save_model

logger = logging.getLogger(__name__)

# ---------------------------------------------------------------------------------------------
# Stages: each takes the run and returns what ``state.json`` should say


def _teach(run: Run) -> dict[str, Any]:
    recipe, adapter = run.recipe.finetune, run.recipe.model.adapter
    if adapter is not None:
        merge_adapter(run.named, adapter, run.start)
    if run.recipe.after is not None:
        _check_result(run.recipe.after, run.start)
    if recipe is None:
        return {"taught": 0}
    records: list[Record] = []
    for name in run.recipe.taught_sets():
        if name == "records":
            assert recipe.records is not None
            records += run.read(name, recipe.records)
        else:
            records += run.need(name)
    model = _load(run, run.start)
    result = finetune(
        model,
        run.encoder,
        records,
        seed=run.recipe.seed,
        training=recipe,
        on_step=lambda figures: run.log("teach", figures),
    )
    save_model(model, run.start, run.base)
    return {"taught": len(records), **_trained(result)}


def _check_result(after: str, model: Path) -> None:
    """Refuse a model that is not what the ledger of its run says it made."""
    promised, found = read_ledger(after)[-1].result, fingerprint(model)
    if found != promised:
        raise WagleError(
            f"{model} is {found[:6]}, but by the ledger of {after} it was {promised[:6]}; put the "
            "unlearned model back"
        )


def _load(run: Run, folder: Path) -> PreTrainedModel:
    return load_model(folder, run.recipe.model.dtype, run.recipe.model.attention)


def _load_adapted(run: Run, lora: Lora) -> Any:
    """The base with the run's fresh adapter, the same at every call."""
    settings = run.recipe.model
    load = load_model if lora.quantize == "none" else load_quantized
    return add_lora(
        load(run.base, settings.dtype, settings.attention),
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        targets=lora.targets,
        seed=run.recipe.seed,
    )


def _trained(result: TrainResult) -> dict[str, Any]:
    return {k: v for k, v in asdict(result).items() if k != "history"} | {
        "steps": len(result.history)
    }


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


def _measure_reference(run: Run) -> dict[str, Any]:
    return _measure(run, "reference", run.reference) if run.reference else {"summary": None}


def _measure_before(run: Run) -> dict[str, Any]:
    return _measure(run, "before", run.base)


def _measure_after(run: Run) -> dict[str, Any]:
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


_NO_MASK = {"records": None, "skipped": "LoRA trains all of its adapter: there is no mask"}


def _unmasked(recipe: Recipe) -> bool:
    """Whether all weights of an adapter train, so that nothing is attributed."""
    lora = recipe.unlearning.lora
    return lora is not None and not lora.masked


def _gradients(run: Run) -> dict[str, Any]:
    settings, lora = run.recipe.attribution, run.recipe.unlearning.lora
    if _unmasked(run.recipe):
        return _NO_MASK
    if settings.mask is not None:
        return {"records": None}
    model: Any = run.base if lora is None else _load_adapted(run, lora)
    if lora is not None and settings.device != "cpu" and torch.cuda.is_available():
        model.to("cuda")
    store = gradients(
        model,
        run.encoder,
        run.need("forget"),
        run.need("retain"),
        path=run.private / "gradients",
        engine=settings.engine,
        retain_records=settings.retain_records,
        batch_tokens=settings.batch_tokens,
        store_dtype=settings.store_dtype,
        seed=run.recipe.seed,
        precision=settings.precision,
        overlap=run.recipe.overlap,
        quantities=_quantities(settings),
        dtype=run.recipe.model.dtype,
        device=settings.device,
        attention=run.recipe.model.attention,
    )
    return {
        "engine": store.metadata["engine"],
        "quantities": list(store.quantities),
        "records": {name: len(ids) for name, ids in store.metadata["records"].items()},
    }


def _quantities(settings: Attribution) -> list[str]:
    """What the gradient pass collects: what the score needs and what the recipe adds."""
    return [*needed_quantities(settings.score, settings.gamma), *settings.quantities]


def _mask(run: Run) -> dict[str, Any]:
    settings = run.recipe.attribution
    if _unmasked(run.recipe):
        return _NO_MASK
    if settings.mask is not None:
        mask = Mask.load(settings.mask)
    else:
        mask = Mask.from_scores(
            GradientStore.open(run.private / "gradients"),
            score=settings.score,
            gamma=settings.gamma,
            damping=settings.damping,
            settings=settings.score_settings,
            ratio=settings.ratio,
            scope=settings.scope,
            include=settings.include,
            exclude=settings.exclude,
            seed=run.recipe.seed,
        )
    mask.save(run.folder / "mask.safetensors")
    if run.recipe.unlearning.lora is not None:
        chosen = _chosen_mask(run)
        assert chosen is not None
        by_gradient = settings.mask is None and bool(_quantities(settings))
        check_adapter_mask(chosen, by_gradient=by_gradient)
    return mask.describe()


def _chosen_mask(run: Run) -> Mask | None:
    """The mask that trains, of one ratio; None where LoRA trains all of its adapter."""
    if _unmasked(run.recipe):
        return None
    mask = Mask.load(run.folder / "mask.safetensors")
    use = run.recipe.attribution.use
    return mask if use is None else mask.at(use)


def _unlearn(run: Run) -> dict[str, Any]:
    settings, lora = run.recipe.unlearning, run.recipe.unlearning.lora
    model = _load(run, run.base) if lora is None else _load_adapted(run, lora)
    result = unlearn(
        model,
        run.encoder,
        run.must_go,
        run.sets.get("retain"),
        mask=_chosen_mask(run),
        objective=settings.objective,
        objective_settings=settings.objective_settings,
        retain_term=settings.retain_term,
        wrapper=settings.wrapper,
        wrapper_settings=settings.wrapper_settings,
        dynamic_mask=settings.dynamic_mask,
        dynamic_settings=settings.dynamic_settings,
        full_reference=settings.full_reference,
        full_reference_k=settings.full_reference_k,
        reference_folder=run.private / "references",
        pairing=settings.pairing,
        anchor=settings.anchor,
        stop_when=settings.stop_when,
        best=settings.best,
        reference=_reference_figures(run),
        check_every=settings.check_every,
        evaluate_every=settings.evaluate_every,
        checkpoint_folder=run.private / "checkpoint",
        overlap=run.recipe.overlap,
        allow_other_model=run.recipe.attribution.allow_other_model,
        seed=run.recipe.seed,
        training=settings,
        on_step=lambda figures: run.log("unlearn", figures),
    )
    if lora is None:
        save_model(model, run.base, run.folder / "model")
        return _trained(result)
    with TemporaryDirectory(prefix="wagle-") as scratch:
        kept = run.folder / "adapter" if lora.keep == "adapter" else Path(scratch) / "adapter"
        save_adapter(model, kept, run.base)
        del model  # the base is loaded once more, in float32
        give_memory_back()
        merge_adapter(run.base, kept, run.folder / "model")
    return {**_trained(result), "lora": lora.model_dump(mode="json")}


def _reference_figures(run: Run) -> dict[str, float] | None:
    """What the evaluation of the reference says of the figures that rules compare."""
    reference = run.evaluation("reference")
    if reference is None:
        return None
    found = {}
    for name in ("forget", "retain"):
        for figure in ("probability", "nll"):
            value = reference.figures.get(name, {}).get(figure)
            if value is not None and value.value is not None:
                found[f"{name}.{figure}"] = value.value
    return found


def _patch(run: Run) -> dict[str, Any]:
    if not run.recipe.patch.enabled:
        return {"patch": None}
    model, file = run.folder / "model", run.folder / "patch.safetensors"
    undo = run.private / "undo.safetensors" if run.recipe.patch.undo else None
    made = extract(run.base, model, file, undo=undo)
    # a mask on an adapter says nothing of the merged weights
    mask = _chosen_mask(run) if run.recipe.unlearning.lora is None else None
    checked = verify(run.base, model, mask=mask, patch=file)
    if not checked.ok:
        raise RuntimeError(f"the patch does not prove the run: {checked}; please report this bug")
    size = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    return {
        "result": made.result,
        "changed": checked.changed,
        "total": checked.total,
        "tensors": len(checked.tensors),
        "outside_mask": checked.outside_mask,
        "bytes": file.stat().st_size,
        "share_of_model": file.stat().st_size / size,
    }


def _ledger(run: Run) -> dict[str, Any]:
    recipe, stages = run.recipe, run.state["stages"]
    before, after = run.evaluation("before"), run.evaluation("after")
    assert before is not None
    assert after is not None
    forget = run.need("forget")
    mask = _chosen_mask(run)
    promised = stages["patch"].get("result")
    own = Request(
        name=recipe.name,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
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


def _report(run: Run) -> dict[str, Any]:
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
    mask = _chosen_mask(run)
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


STAGES: dict[str, Callable[[Run], dict[str, Any]]] = {
    "teach": _teach,
    "reference": _measure_reference,
    "before": _measure_before,
    "gradients": _gradients,
    "mask": _mask,
    "unlearn": _unlearn,
    "patch": _patch,
    "after": _measure_after,
    "ledger": _ledger,
    "report": _report,
}


# ---------------------------------------------------------------------------------------------
# Running


class _Warnings(logging.Handler):
    """Keeps what a stage warns about with the run, so that the report shows it too."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.WARNING)
        self.run = run
        self.stage = "check"

    def emit(self, record: logging.LogRecord) -> None:
        self.run.log(self.stage, {"warning": record.getMessage()})


def execute(
    recipe: Recipe, folder: str | Path | None = None, *, until: str = "report", redo: bool = False
) -> Run:
    """Run the stages of a recipe up to ``until``, from the first that is not finished.

    Args:
        recipe: what to do.
        folder: the run folder; None takes ``runs/NAME``.
        until: the last stage: ``teach``, ``reference``, ``before``, ``gradients``, ``mask``,
            ``unlearn``, ``patch``, ``after``, ``ledger`` or ``report``.
        redo: run that last stage again even if it is finished (later ones then start over).
    """
    run = open_run(recipe, Path(folder) if folder else Path("runs") / recipe.name)
    with locked(run.folder), _recorded(run) as warnings:
        names = list(STAGES)
        wanted = names[: names.index(until) + 1]
        if redo and until in run.state["stages"]:
            for name in names[names.index(until) :]:
                run.state["stages"].pop(name, None)
        if all(name in run.state["stages"] for name in wanted):
            return run
        run.forget_log(warnings.stage)
        _check(run, wanted)
        for number, name in enumerate(wanted, 1):
            if name not in run.state["stages"]:
                warnings.stage = name
                _run_stage(run, name, number, len(wanted))
    return run


def _check(run: Run, wanted: list[str]) -> None:
    """Find out what is missing before the first long stage, not after it."""
    recipe = run.recipe
    if recipe.after is not None:
        read_ledger(recipe.after)
    if recipe.finetune is not None:
        check_optimizer(recipe.finetune)
    if "before" in wanted:
        run.need("forget")
        _ = run.reference
    if "gradients" in wanted and not _unmasked(recipe):
        if recipe.attribution.mask is None:
            check_score(recipe.attribution.score, recipe.attribution.score_settings)
            choose({"auto": None, **ENGINES}, recipe.attribution.engine, "engine")
            run.need("retain")
        else:
            Mask.load(recipe.attribution.mask)
    if "unlearn" in wanted:
        settings = recipe.unlearning
        if settings.lora is not None:
            check_lora(empty_model(run.named), settings.lora.targets, settings.lora.quantize)
        chosen = choose_objective(
            settings.objective, settings.objective_settings, settings.retain_term
        )
        Gradient(
            settings.wrapper,
            settings.wrapper_settings,
            settings.dynamic_mask,
            settings.dynamic_settings,
        ).check(chosen)
        check_optimizer(settings)
        rules = stop_rules(
            settings.stop_when,
            bounded=chosen.entry.bounded,
            reference=None if recipe.reference is None else {},
        )
        if settings.earlier == "objective":
            _refuse_forget_rules(rules, settings.best)
        if {"retain", "retain_refusal", "mismatch"} & set(chosen.sets):
            run.need("retain")
    for records in run.sets.values():
        run.encoder.encode(records)
    run.encoder.encode(run.forgotten)


def _refuse_forget_rules(rules: Sequence[Rule], best: str | None) -> None:
    """Refuse rules on forget figures: those would be of the earlier records too.

    These are forgotten already, so that their mean would meet a goal which the forget set does not.
    """
    texts: list[Rule | Best] = [*rules, *([parse_best(best)] if best is not None else [])]
    for text in texts:
        if "forget" in text.needs.sets:
            raise WagleError(
                f"the rule '{text}' would look at what earlier runs forgot too, with "
                "unlearning.earlier: objective; set unlearning.stop_when (and best) to rules without "
                "forget figures, or stop_when to []"
            )


def _run_stage(run: Run, name: str, number: int, of: int) -> None:
    logger.info("%d/%d %s", number, of, name)
    run.forget_log(name)
    started = time.perf_counter()
    details = STAGES[name](run)
    give_memory_back()
    seconds = round(time.perf_counter() - started, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    run.finish(name, {"seconds": seconds, "peak_bytes": peak, **details})


@contextmanager
def _recorded(run: Run) -> Iterator[_Warnings]:
    handler = _Warnings(run)
    root = logging.getLogger("wagle")
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
