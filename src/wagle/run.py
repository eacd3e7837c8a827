"""Recipe -> stages -> run folder. A run resumes at the first stage that is not finished.

Every stage writes its files atomically and is then entered in ``state.json``; a killed stage
starts over. No stage reads what a later one writes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from wagle import __version__
from wagle.attribution.collect import gradients
from wagle.attribution.engines import ENGINES
from wagle.attribution.scores import check_score
from wagle.attribution.store import GradientStore
from wagle.data.records import Record, check_disjoint, near_duplicates, read_records
from wagle.data.tokens import Encoder
from wagle.errors import WagleError, choose
from wagle.evaluation.result import SETS, Evaluation, evaluate
from wagle.evaluation.verdict import OVER, judge
from wagle.files import (
    keyed_digest,
    locked,
    private_folder,
    read_json,
    salt,
    write_json,
    write_text,
)
from wagle.mask import Mask
from wagle.model import load_model, load_tokenizer, model_folder, resolve_model, save_model
from wagle.patch import extract, verify
from wagle.recipe import Recipe, RecordSet, dump_recipe, load_recipe
from wagle.report.page import Page, write_report
from wagle.unlearning.objectives import check_objective
from wagle.unlearning.trainer import check_optimizer
from wagle.unlearning.training import TrainResult, finetune, unlearn

logger = logging.getLogger(__name__)

ROLES = ("before", "after", "reference")


@dataclass(frozen=True)
class Run:
    """A run folder and the recipe that it follows."""

    folder: Path
    recipe: Recipe

    @property
    def state_file(self) -> Path:
        """Which stages are finished, and what they found."""
        return self.folder / "state.json"

    @property
    def private(self) -> Path:
        """Whatever holds records or old values: gradient store, answers, salt; mode 0700."""
        return self.folder / "private"

    @cached_property
    def state(self) -> dict[str, Any]:
        """The content of ``state.json``, kept up to date by ``finish``."""
        if self.state_file.exists():
            found: dict[str, Any] = read_json(self.state_file)
            return found
        return {"stages": {}}

    def finish(self, stage: str, details: Mapping[str, Any]) -> None:
        """Enter a finished stage."""
        self.state["stages"][stage] = dict(details)
        write_json(self.state_file, self.state)

    def log(self, stage: str, figures: Mapping[str, Any]) -> None:
        """Append a line to ``log.jsonl``."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, **figures}, ensure_ascii=False) + "\n")

    def forget_log(self, stage: str) -> None:
        """Drop the lines of a stage that starts over."""
        path = self.folder / "log.jsonl"
        if path.exists():
            lines = [
                x for x in path.read_text(encoding="utf-8").splitlines(True) if x.endswith("\n")
            ]
            write_text(path, "".join(x for x in lines if json.loads(x)["stage"] != stage))

    def logged(self, stage: str) -> list[dict[str, Any]]:
        """The lines of a stage."""
        path = self.folder / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [found for line in lines if (found := json.loads(line))["stage"] == stage]

    def warnings(self) -> list[str]:
        """What the stages warned about, each once."""
        lines = [line for name in ("check", *STAGES) for line in self.logged(name)]
        return list(dict.fromkeys(line["warning"] for line in lines if "warning" in line))

    def evaluation(self, role: str) -> Evaluation | None:
        """One of the evaluations, if it was made."""
        path = self.folder / "evaluation" / f"{role}.json"
        return Evaluation.from_json(read_json(path)) if path.exists() else None

    # ----- what the recipe names, loaded once and only if a stage needs it -----

    @cached_property
    def start(self) -> Path:
        """The model folder that the recipe starts from."""
        return resolve_model(self.recipe.model.path)

    @property
    def base(self) -> Path:
        """The model that is to forget: ``base/`` where it was taught here."""
        return self.folder / "base" if self.recipe.finetune else self.start

    @cached_property
    def reference(self) -> Path | None:
        """The model that never learned the forget set."""
        named = self.recipe.reference
        if named is None:
            return None
        return self.start if named == "untaught" else model_folder(named)

    @cached_property
    def encoder(self) -> Encoder:
        """Tokenizer, template and length limit of the recipe."""
        model = self.recipe.model
        return Encoder(
            load_tokenizer(self.start),
            template=model.template,
            system_prompt=model.system_prompt,
            max_length=model.max_length,
        )

    @cached_property
    def sets(self) -> dict[str, list[Record]]:
        """The record sets of the recipe, read and checked against each other."""
        recipe = self.recipe
        given = {name: getattr(recipe, name) for name in SETS if getattr(recipe, name)}
        sets = {name: self.read(name, asked) for name, asked in given.items()}
        allow = recipe.overlap == "allow"
        for one, other in (
            ("forget", "retain"),
            ("forget", "retain_heldout"),
            ("forget", "general"),
            ("retain", "retain_heldout"),
            ("retain", "general"),
        ):
            if one in sets and other in sets:
                check_disjoint(sets[one], sets[other], allow=allow)
        if "forget" in sets and "retain" in sets:
            near = near_duplicates(sets["forget"], sets["retain"])
            if near:
                logger.warning(
                    "%d pairs of forget and retain records are nearly the same (%s and %s first); "
                    "unlearning will pull them both ways",
                    len(near),
                    *near[0],
                )
        return sets

    def read(self, name: str, asked: RecordSet) -> list[Record]:
        """Read one record set of the recipe."""
        seed = self.recipe.seed if asked.seed is None else asked.seed
        if asked.source == "complement":
            forget = self.recipe.forget
            assert forget is not None
            everything = self.read("forget", forget.model_copy(update={"take": "all"}))
            gone = {r.id for r in self.read("forget", forget)}
            rest = [r for r in everything if r.id not in gone]
            return read_records(rest, name=name, take=asked.take, seed=seed)
        sources = [asked.source] if isinstance(asked.source, str) else asked.source
        weights: Sequence[float | None] = asked.weights or [None] * len(sources)
        records = [
            replace(record, domain=domain, weight=weight)
            for domain, (source, weight) in enumerate(zip(sources, weights, strict=True))
            for record in read_records(
                source, name=name, split=asked.split, rows=asked.rows, seed=seed
            )
        ]
        return read_records(records, name=name, take=asked.take, seed=seed)

    def need(self, name: str) -> list[Record]:
        """A record set that a stage cannot do without."""
        if name not in self.sets:
            raise WagleError(f"the recipe has no {name} set; add a section {name}: {{source: ...}}")
        return self.sets[name]


# ---------------------------------------------------------------------------------------------
# Stages: each takes the run and returns what ``state.json`` should say


def _teach(run: Run) -> dict[str, Any]:
    recipe = run.recipe.finetune
    if recipe is None:
        return {"taught": 0}
    records: list[Record] = []
    for name in run.recipe.taught_sets():
        if name == "records":
            assert recipe.records is not None
            records += run.read(name, recipe.records)
        else:
            records += run.need(name)
    model = load_model(run.start, run.recipe.model.dtype)
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


def _trained(result: TrainResult) -> dict[str, Any]:
    return {k: v for k, v in asdict(result).items() if k != "history"} | {
        "steps": len(result.history)
    }


def _measure(run: Run, role: str, folder: Path) -> dict[str, Any]:
    settings = run.recipe.evaluation
    run.need("forget")
    sets: dict[str, Any] = {name: run.sets[name] for name in SETS if name in run.sets}
    found = evaluate(
        load_model(folder),
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
            for name, records in run.sets.items()
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
    return {**details, "verdict": verdict.word, "reasons": list(verdict.reasons)}


def _gradients(run: Run) -> dict[str, Any]:
    settings = run.recipe.attribution
    if settings.mask is not None:
        return {"records": None}
    store = gradients(
        run.base,
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
    )
    return {"records": {name: len(ids) for name, ids in store.metadata["records"].items()}}


def _mask(run: Run) -> dict[str, Any]:
    settings = run.recipe.attribution
    if settings.mask is not None:
        mask = Mask.load(settings.mask)
    else:
        mask = Mask.from_scores(
            GradientStore.open(run.private / "gradients"),
            score=settings.score,
            gamma=settings.gamma,
            ratio=settings.ratio,
            include=settings.include,
            exclude=settings.exclude,
            seed=run.recipe.seed,
        )
    mask.save(run.folder / "mask.safetensors")
    return mask.describe()


def _chosen_mask(run: Run) -> Mask:
    mask = Mask.load(run.folder / "mask.safetensors")
    use = run.recipe.attribution.use
    return mask if use is None else mask.at(use)


def _unlearn(run: Run) -> dict[str, Any]:
    settings = run.recipe.unlearning
    reference = run.evaluation("reference")
    goal = reference.figures["forget"]["probability"] if reference else None
    model = load_model(run.base, run.recipe.model.dtype)
    result = unlearn(
        model,
        run.encoder,
        run.need("forget"),
        run.sets.get("retain"),
        mask=_chosen_mask(run),
        objective=settings.objective,
        objective_settings=settings.objective_settings,
        pairing=settings.pairing,
        anchor=settings.anchor,
        stop_at=goal.value if goal and settings.stop_at_reference else None,
        check_every=settings.check_every,
        overlap=run.recipe.overlap,
        allow_other_model=run.recipe.attribution.allow_other_model,
        seed=run.recipe.seed,
        training=settings,
        on_step=lambda figures: run.log("unlearn", figures),
    )
    save_model(model, run.base, run.folder / "model")
    return _trained(result)


def _patch(run: Run) -> dict[str, Any]:
    if not run.recipe.patch.enabled:
        return {"patch": None}
    model, file = run.folder / "model", run.folder / "patch.safetensors"
    extract(run.base, model, file)
    checked = verify(run.base, model, mask=_chosen_mask(run), patch=file)
    if not checked.ok:
        raise RuntimeError(f"the patch does not prove the run: {checked}; please report this bug")
    size = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    return {
        "changed": checked.changed,
        "total": checked.total,
        "tensors": len(checked.tensors),
        "outside_mask": checked.outside_mask,
        "bytes": file.stat().st_size,
        "share_of_model": file.stat().st_size / size,
    }


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
        density={by: mask.density(by) for by in ("block", "kind")},
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
            ``unlearn``, ``patch``, ``after`` or ``report``.
        redo: run that last stage again even if it is finished (later ones then start over).
    """
    run = open_run(recipe, Path(folder) if folder else Path("runs") / recipe.name)
    with locked(run.folder), _recorded(run) as warnings:
        names = list(STAGES)
        wanted = names[: names.index(until) + 1]
        if redo and until in run.state["stages"]:
            for name in names[names.index(until) :]:
                run.state["stages"].pop(name, None)
        run.forget_log(warnings.stage)
        _check(run, wanted)
        for number, name in enumerate(wanted, 1):
            if name not in run.state["stages"]:
                warnings.stage = name
                _run_stage(run, name, number, len(wanted))
    return run


def _check(run: Run, wanted: list[str]) -> None:
    """Find out what is missing before the first long stage, not after it."""
    if all(name in run.state["stages"] for name in wanted):
        return
    recipe = run.recipe
    if recipe.finetune is not None:
        check_optimizer(recipe.finetune)
    if "before" in wanted:
        run.need("forget")
        _ = run.reference
    if "gradients" in wanted:
        if recipe.attribution.mask is None:
            check_score(recipe.attribution.score)
            choose({"auto": None, **ENGINES}, recipe.attribution.engine, "engine")
            run.need("retain")
        else:
            Mask.load(recipe.attribution.mask)
    if "unlearn" in wanted:
        settings = recipe.unlearning
        asked = check_objective(settings.objective, settings.objective_settings)
        check_optimizer(settings)
        if "retain" in asked.sets:
            run.need("retain")
    for records in run.sets.values():
        run.encoder.encode(records)


def _run_stage(run: Run, name: str, number: int, of: int) -> None:
    logger.info("%d/%d %s", number, of, name)
    run.forget_log(name)
    started = time.perf_counter()
    details = STAGES[name](run)
    _give_memory_back()
    seconds = round(time.perf_counter() - started, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    run.finish(name, {"seconds": seconds, "peak_bytes": peak, **details})


def _give_memory_back() -> None:
    """Return what the stage freed to the system, so that the next one starts small."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


@contextmanager
def _recorded(run: Run) -> Iterator[_Warnings]:
    handler = _Warnings(run)
    root = logging.getLogger("wagle")
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)


def open_run(recipe: Recipe, folder: Path) -> Run:
    """Make a run folder, or open it again; another recipe in a used folder is an error."""
    text = dump_recipe(recipe)
    path = folder / "recipe.yaml"
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise WagleError(
                f"{folder} holds a run of another recipe ({_difference(path, text)}); choose another "
                "folder with --out, or delete it"
            )
        return Run(folder, recipe)
    if folder.is_dir() and any(p.name != ".lock" for p in folder.iterdir()):
        raise WagleError(f"{folder} exists and is not a run; choose another folder with --out")
    run = Run(folder, recipe)
    private_folder(run.private)
    salt(run.private)
    write_json(folder / "environment.json", environment())
    write_text(path, text)
    return run


def _difference(path: Path, text: str) -> str:
    """The first line that differs between the stored recipe and ``text``."""
    old = path.read_text(encoding="utf-8").splitlines()
    new = text.splitlines()
    for before, now in zip(old, new, strict=False):
        if before != now:
            return f"{before.strip()!r} there, {now.strip()!r} here"
    return f"{len(old)} lines there, {len(new)} here"


def find_run(source: str, overrides: list[str], out: str | None) -> tuple[Recipe, Path]:
    """The recipe and the run folder of what a command was given: a recipe or a run folder."""
    folder = Path(source)
    if (folder / "recipe.yaml").is_file():
        if overrides or out:
            raise WagleError(f"{source} is a run; settings and --out go with a recipe")
        return load_recipe(folder / "recipe.yaml"), folder
    recipe = load_recipe(source, overrides)
    return recipe, Path(out) if out else Path("runs") / recipe.name


def environment() -> dict[str, Any]:
    """Versions and machine, as the run folder keeps them."""
    import safetensors

    return {
        "wagle": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "argv": sys.argv[1:],
    }
