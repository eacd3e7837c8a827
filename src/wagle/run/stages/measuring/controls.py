"""The stage ``controls``: the same run with other choices of weights, for comparison.

An arm differs from the run only in its mask. It shares what does not depend on the mask: the taught
model, its gradients, the reference, and their evaluations.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

from wagle.recipe.recipe import Recipe
from wagle.run.opening import Run
from wagle.run.stages.making.mask import mask
from wagle.run.stages.making.unlearn import unlearn
from wagle.run.stages.measuring.after import after
from wagle.run.stages.measuring.attacks import attacks
from wagle.system.files.secrets import private_folder

logger = logging.getLogger(__name__)


def control_of(run: Run, arm: str) -> Run:
    """One control arm of a run, created or reopened."""
    own = run.recipe.attribution.model_copy(update={"score": "random", "score_settings": {}})
    recipe: Recipe = run.recipe.model_copy(
        update={"attribution": own, "controls": [], "deploy": []}
    )
    folder = run.folder / "controls" / arm
    made = Run(folder, recipe, whole=run, arm=arm)
    private_folder(made.private)
    return made


def controls(run: Run) -> dict[str, Any]:
    """Unlearn, evaluate and attack with every control arm, keeping only its model's figures."""
    found: dict[str, Any] = {}
    for arm in run.recipe.controls:
        control = control_of(run, arm)
        steps: dict[str, Callable[[Run], dict[str, Any]]] = {
            "mask": mask,
            "unlearn": unlearn,
            "after": after,
            "attacks": partial(attacks, beside=run.folder / "attacks"),
        }
        if control.dense:
            del steps["mask"]
        for name, step in steps.items():
            if name not in control.state["stages"]:
                logger.info("control %s: %s", arm, name)
                control.carry_out(name, partial(step, control))
        shutil.rmtree(control.folder / "model", ignore_errors=True)
        shutil.rmtree(control.private / "answers", ignore_errors=True)
        done = control.state["stages"]
        found[arm] = {key: done["after"][key] for key in ("summary", "verdict")}
    return {"arms": found}
