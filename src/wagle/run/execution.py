"""Recipe -> stages -> run folder. A run resumes at the first unfinished stage.

Every stage writes its files atomically and is then entered in ``state.json``; a killed stage
starts over. No stage reads what a later one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from wagle.recipe.recipe import Recipe
from wagle.run.integrity.seals import RECIPE, check_needed, check_seals
from wagle.run.opening import IMPORT, Run, opened
from wagle.run.stages.stopping import pass_over
from wagle.run.stages.table import STAGES
from wagle.system.errors import WagleError, choose
from wagle.system.files.seals import sealable
from wagle.system.plugins import code_allowed

logger = logging.getLogger(__name__)


class _Warnings(logging.Handler):
    """Keeps a stage's warnings with the run, so that the report shows them too."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.WARNING)
        self.run = run
        self.stage = "check"

    def emit(self, record: logging.LogRecord) -> None:
        self.run.log(self.stage, {"warning": record.getMessage()})


def execute(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    until: str = "report",
    redo: bool = False,
    again: str | None = None,
    notes: Sequence[str] = (),
) -> Run:
    """Run the stages of a recipe up to ``until``, starting with the first unfinished one.

    Args:
        recipe: what to do.
        folder: the run folder; None takes ``runs/NAME``.
        until: the last stage: ``teach``, ``retrain``, ``neighbours``, ``reference``, ``before``,
            ``gradients``, ``mask``, ``unlearn``, ``patch``, ``deploy``, ``after``, ``attacks``,
            ``controls``, ``ledger`` or ``report``.
        redo: run that last stage again even if it is finished; later ones then start over.
        again: the same for this stage instead of the last one.
        notes: what to say with the run, as warnings, such as how another project's config was read.

    Raises:
        WagleError: something is missing or does not fit, or a file of a finished stage was edited.
    """
    home = Path(folder) if folder else Path("runs") / recipe.name
    wanted, anew = _up_to(until), redo or again is not None
    with (
        code_allowed(recipe.allow_code),
        opened(recipe, home, () if anew else wanted) as run,
        _recorded(run) as warnings,
    ):
        over = _start_over(run, again or until) if anew else []
        check_seals(run)
        if all(name in run.state["stages"] for name in wanted):
            return run
        _say(warnings, notes)
        run.forget_log(warnings.stage)
        if "purged" in run.state:
            _refuse_all_but_the_report(run, wanted)
        else:
            _check(run, wanted)
        if over:
            _drop(run, over)
        for number, name in enumerate(wanted, 1):
            if name not in run.state["stages"]:
                warnings.stage = name
                _run_stage(run, name, number, len(wanted))
    return run


def _say(warnings: _Warnings, notes: Sequence[str]) -> None:
    """Log notes with the run under a name of their own, which no stage forgets."""
    if not notes:
        return
    usual, warnings.stage = warnings.stage, IMPORT
    warnings.run.forget_log(IMPORT)
    for line in notes:
        logger.warning("%s", line)
    warnings.stage = usual


def _up_to(stage: str) -> list[str]:
    """The stages up to one, and that one."""
    names = list(STAGES)
    return names[: names.index(stage) + 1]


def _start_over(run: Run, stage: str) -> list[str]:
    """Make a stage and those after it unfinished; returns their names."""
    choose(STAGES, stage, "stage")
    names = list(STAGES)
    late = names[names.index(stage) :]
    run.forget_stages(late)
    return late


def _drop(run: Run, stages: list[str]) -> None:
    """Enter stages as unfinished and delete what they left: nothing of it is resumed from."""
    run.save_state()
    for name in stages:
        for path in sealable(run.folder, STAGES[name].writes):
            (run.folder / path).unlink()


def _check(run: Run, wanted: list[str]) -> None:
    """Report what is missing before the first long stage rather than after it."""
    for name in wanted:
        STAGES[name].check(run)
    for records in run.inputs.sets.values():
        run.inputs.encoder.encode(records)
    run.inputs.encoder.encode(run.inputs.forgotten)
    from wagle.run.planning.fitting import check_fit  # heavy: a finished run does not need it

    check_fit(run, wanted)


def _refuse_all_but_the_report(run: Run, wanted: list[str]) -> None:
    """Refuse to go on with a run whose records were purged; its report can be written again."""
    missing = [name for name in wanted if name not in run.state["stages"] and name != "report"]
    if missing:
        raise WagleError(
            f"{run.folder} was purged, so its stage {missing[0]} cannot be run: records and the "
            "model before are gone; start a new run in another folder"
        )


def _run_stage(run: Run, name: str, number: int, of: int) -> None:
    if pass_over(run, name):
        return
    check_needed(run, name, STAGES[name].needs)
    logger.info("%d/%d %s", number, of, name)
    run.forget_log(name)
    own = (RECIPE,) if name == "unlearn" else ()  # from here on it may not change
    run.carry_out(name, partial(STAGES[name], run), (*STAGES[name].writes, *own))


@contextmanager
def _recorded(run: Run) -> Iterator[_Warnings]:
    handler = _Warnings(run)
    root = logging.getLogger("wagle")
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
