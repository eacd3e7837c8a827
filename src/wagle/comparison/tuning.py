"""Tuning: one learning rate for each arm, found on unit 0 with as many trials as every other arm.

The trials of all arms lie on one grid of learning rates, evenly spaced on a log scale around the
recipe's. So few trials give an adaptive sampler nothing to learn from, and it would favour the arms
where its draws happen to be lucky; on one grid, arms differ in nothing else. Optuna stores the
trials: in its database each is complete or absent, so a killed comparison resumes at the first
missing one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wagle.comparison.arms import Cell
from wagle.comparison.runs import TUNED, read_run
from wagle.system.errors import WagleError

LOWEST, HIGHEST = 1 / 10, 30  # times the recipe's learning rate
_NAME = "learning_rate"

Trial = Callable[[float], dict[str, Any]]


class Tuned(NamedTuple):
    """The chosen learning rate, and whether it is the lowest or highest tried."""

    learning_rate: float
    edge: bool


def check_optuna() -> None:
    """Refuse to start without the extra that stores the trials."""
    if importlib.util.find_spec("optuna") is None:
        raise WagleError("wagle compare needs optuna: pip install 'wagle[sweep]'")


def learning_rates(middle: float, count: int) -> list[float]:
    """``count`` learning rates from a tenth to 30 times ``middle``, evenly spaced on a log scale.

    A single trial is at the middle itself.
    """
    if count == 1:
        return [middle]
    whole = math.log(HIGHEST / LOWEST)
    return [middle * LOWEST * math.exp(whole * i / (count - 1)) for i in range(count)]


@contextlib.contextmanager
def trial_store(path: Path) -> Iterator[Any]:
    """The SQLite file of all studies, opened as an Optuna storage."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}")
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def tune(storage: Any, cell: Cell, grid: Sequence[float], trial: Trial) -> Tuned:
    """The learning rate in ``grid`` at which a cell forgets most.

    It minimises the probability of the answers to the original forget questions, read where the
    retain probability is 0.95 of before. A run that broke off is a failed trial.

    Args:
        storage: of the trials; those it already holds are not run again.
        cell: the arm and its ratio, the name of the study.
        grid: ascending learning rates.
        trial: runs the cell at a learning rate.

    Raises:
        WagleError: every run broke off.
    """
    from optuna import create_study
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    study = create_study(storage=storage, study_name=cell.name, load_if_exists=True)
    known = {t.params[_NAME] for t in study.get_trials(deepcopy=False)}
    space = FloatDistribution(grid[0], grid[-1], log=True)
    for rate in grid:
        if rate not in known:
            found = trial(rate)
            broken = found["stopped"] is not None
            study.add_trial(
                create_trial(
                    state=TrialState.FAIL if broken else TrialState.COMPLETE,
                    value=None if broken else read_run(found, TUNED).figure,
                    params={_NAME: rate},
                    distributions={_NAME: space},
                    user_attrs=found,
                )
            )
    trials = study.get_trials(deepcopy=False)
    finished = [(t.value, t.params[_NAME]) for t in trials if t.value is not None]
    if not finished:
        raise WagleError(
            f"{cell.name} broke off at every learning rate tried ("
            f"{trials[0].user_attrs['stopped']}); lower unlearning.learning_rate"
        )
    best = min(finished)[1]
    return Tuned(best, len(grid) > 1 and best in (grid[0], grid[-1]))
