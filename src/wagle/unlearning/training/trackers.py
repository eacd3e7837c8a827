"""Trackers: tensorboard, wandb and others, which receive every step's figures by transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer

from wagle.compat.transformers import (
    installed_trackers,
    known_trackers,
    place_tensorboard,
    tell_trackers,
)
from wagle.system.errors import WagleError, choose


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed, before anything is computed."""
    for name in names:
        choose(known_trackers(), name, "tracker")
        if name not in installed_trackers():
            raise WagleError(f"report_to names {name}, which is not installed: pip install {name}")


def place_events(trainer: Trainer, folder: Path | None) -> None:
    """Set where tensorboard writes, unless TENSORBOARD_LOGGING_DIR does.

    Args:
        trainer: has its callbacks, but has not started.
        folder: where the run keeps its files; None: ``runs/`` in the working directory,
            tensorboard's default.
    """
    place_tensorboard(trainer, str(folder / "tensorboard") if folder else None)


def report(trainer: Trainer, figures: Mapping[str, Any], step: int) -> None:
    """Pass a step's figures to the trackers, under the step's number in the whole run."""
    own = trainer.state.global_step  # counts from where this process began
    trainer.state.global_step = step
    logs = {name: value for name, value in figures.items() if name != "step"}
    try:
        tell_trackers(trainer, logs)
    finally:
        trainer.state.global_step = own
