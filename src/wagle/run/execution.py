"""Recipe -> stages -> run folder. A run resumes at the first stage that is not finished.

Every stage writes its files atomically and is then entered in ``state.json``; a killed stage
starts over. No stage reads what a later one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wagle.attacks.table import make_attack
from wagle.evaluation.table import make_task
from wagle.evaluation.tasks.questions import qa
from wagle.recipe.recipe import Recipe
from wagle.run.checks import check_attribution, check_folder, check_unlearning, structure_of
from wagle.run.folder import Run, open_run
from wagle.run.ledger import read_ledger
from wagle.run.questions import asked_how
from wagle.run.selection import unmasked
from wagle.run.stages.making.gradients import attribute
from wagle.run.stages.making.mask import select
from wagle.run.stages.making.patch import write_patch
from wagle.run.stages.making.retrain import retrain
from wagle.run.stages.making.teach import teach
from wagle.run.stages.making.unlearn import forget
from wagle.run.stages.measuring.after import measure_after
from wagle.run.stages.measuring.attacks import attack, scene_of
from wagle.run.stages.measuring.before import measure_before
from wagle.run.stages.measuring.controls import run_controls
from wagle.run.stages.measuring.ledger import enter_ledger
from wagle.run.stages.measuring.reference import measure_reference
from wagle.run.stages.measuring.report import report
from wagle.system.atomic import locked
from wagle.unlearning.training.optimizers import check_optimizer
from wagle.unlearning.training.trackers import check_trackers

logger = logging.getLogger(__name__)

STAGES: dict[str, Callable[[Run], dict[str, Any]]] = {
    "teach": teach,
    "retrain": retrain,
    "reference": measure_reference,
    "before": measure_before,
    "gradients": attribute,
    "mask": select,
    "unlearn": forget,
    "patch": write_patch,
    "after": measure_after,
    "attacks": attack,
    "controls": run_controls,
    "ledger": enter_ledger,
    "report": report,
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
        until: the last stage: ``teach``, ``retrain``, ``reference``, ``before``, ``gradients``, ``mask``,
            ``unlearn``, ``patch``, ``after``, ``attacks``, ``controls``, ``ledger`` or ``report``.
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
        check_trackers(recipe.finetune.report_to)
    if recipe.finetune is not None or "unlearn" in wanted:
        check_folder(run)
    if "before" in wanted:
        run.need("forget")
        _ = run.reference
        qa(run.encoder, sets=run.sets, **asked_how(recipe.evaluation))
        for benchmark in recipe.evaluation.benchmarks:
            make_task(benchmark.name, run.encoder, benchmark.settings, seed=recipe.seed)
    if "attacks" in wanted:
        for asked in recipe.attacks:
            make_attack(asked.name, scene_of(run), asked.settings)
    if "gradients" in wanted:
        model = structure_of(run)
        if not unmasked(recipe):
            check_attribution(run, model)
        if "unlearn" in wanted:
            check_unlearning(run, model)
    for records in run.sets.values():
        run.encoder.encode(records)
    run.encoder.encode(run.forgotten)


def _run_stage(run: Run, name: str, number: int, of: int) -> None:
    logger.info("%d/%d %s", number, of, name)
    run.forget_log(name)
    run.carry_out(name, STAGES[name])


@contextmanager
def _recorded(run: Run) -> Iterator[_Warnings]:
    handler = _Warnings(run)
    root = logging.getLogger("wagle")
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
