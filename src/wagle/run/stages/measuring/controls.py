"""The stage of the control arms: the same run with other choices of weights, side by side.

An arm differs from the run in its mask alone. What does not depend on the mask is the run's: the
taught model, its gradients, the reference, and what was found of these.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.result import Evaluation
from wagle.recipe.recipe import Recipe
from wagle.run.folder import Run
from wagle.run.stages.making.mask import select
from wagle.run.stages.making.unlearn import forget
from wagle.run.stages.measuring.after import measure_after
from wagle.run.stages.measuring.attacks import attack
from wagle.system.secrets import private_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ControlRun(Run):
    """A control arm: a folder inside that of its run.

    Attributes:
        whole: the run that it is a control of.
        arm: ``random`` or ``dense``.
    """

    whole: Run
    arm: str

    @property
    def base(self) -> Path:
        """The model that is to forget."""
        return self.whole.base

    @property
    def start(self) -> Path:
        """The model before teaching."""
        return self.whole.start

    @cached_property
    def reference(self) -> Path | None:
        """The model that never learned the forget set."""
        return self.whole.reference

    @property
    def gradients(self) -> Path:
        """The gradient store."""
        return self.whole.gradients

    @property
    def dense(self) -> bool:
        """Whether all weights are trained."""
        return self.arm == "dense"

    @cached_property
    def encoder(self) -> Encoder:
        """Tokenizer, template and length limit."""
        return self.whole.encoder

    @cached_property
    def sets(self) -> dict[str, list[Record]]:
        """The record sets."""
        return self.whole.sets

    @cached_property
    def forgotten(self) -> list[Record]:
        """What earlier runs were asked to forget."""
        return self.whole.forgotten

    def evaluation(self, role: str, benchmark: str | None = None) -> Evaluation | None:
        """Its own evaluation after; those before and of the reference are the run's."""
        if role == "after":
            return super().evaluation(role, benchmark)
        return self.whole.evaluation(role, benchmark)


def control_of(run: Run, arm: str) -> ControlRun:
    """One control arm of a run, made or opened again."""
    own = run.recipe.attribution.model_copy(update={"score": "random", "score_settings": {}})
    recipe: Recipe = run.recipe.model_copy(update={"attribution": own, "controls": []})
    folder = run.folder / "controls" / arm
    made = ControlRun(folder, recipe, run, arm)
    private_folder(made.private)
    return made


def run_controls(run: Run) -> dict[str, Any]:
    """Unlearn, evaluate and attack with every control arm; of its model only the figures stay."""
    found: dict[str, Any] = {}
    for arm in run.recipe.controls:
        control = control_of(run, arm)
        steps: dict[str, Callable[[Run], dict[str, Any]]] = {
            "mask": select,
            "unlearn": forget,
            "after": measure_after,
            "attacks": partial(attack, beside=run.folder / "attacks"),
        }
        if control.dense:
            del steps["mask"]
        for name, step in steps.items():
            if name not in control.state["stages"]:
                logger.info("control %s: %s", arm, name)
                control.carry_out(name, step)
        shutil.rmtree(control.folder / "model", ignore_errors=True)
        shutil.rmtree(control.private / "answers", ignore_errors=True)
        done = control.state["stages"]
        found[arm] = {key: done["after"][key] for key in ("summary", "verdict")}
    return {"arms": found}
