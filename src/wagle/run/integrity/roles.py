"""The roles of a run: which models it compares, and whether they are as many models."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from wagle.evaluation.roles import check_reference
from wagle.model.weights import equal_weights
from wagle.recipe.recipe import MADE, Recipe
from wagle.run.folder import RunFolder
from wagle.run.models import Models
from wagle.system.errors import WagleError

_STAND_FOR = {"model": "after", "before": "before", "reference": "reference"}  # roles, and files


def run_roles(run: RunFolder, recipe: Recipe) -> dict[str, dict[str, Any] | None]:
    """Path, fingerprint and kind of the model after, the model before and the reference.

    Args:
        run: the run; a model that was not evaluated yet has no fingerprint.
        recipe: its recipe.
    """
    made = {"model": run.folder / "model", "base": run.folder / "base"}
    here = recipe.finetune is not None or recipe.model.adapter is not None
    before = str(made["base"]) if here else recipe.model.path
    paths: dict[str, str | None] = {"model": str(made["model"]), "before": before}
    paths["reference"] = _reference_path(run, recipe)
    kind = recipe.reference if recipe.reference in MADE else "model"
    found: dict[str, dict[str, Any] | None] = {}
    for role, file in _STAND_FOR.items():
        known = run.evaluation(file)
        mark = None if known is None else known.details.get("model", {}).get("fingerprint")
        found[role] = (
            None
            if paths[role] is None
            else {
                "path": paths[role],
                "fingerprint": mark,
                "kind": kind if role == "reference" else "model",
            }
        )
    return found


def _reference_path(run: RunFolder, recipe: Recipe) -> str | None:
    if recipe.reference == "retrained":
        return str(run.folder / "retrained")
    if recipe.reference == "untaught":
        return recipe.model.path if recipe.model.adapter is None else str(run.folder / "start")
    return recipe.reference


def check_run_roles(models: Models) -> None:
    """Refuse a reference that is the model that should forget, before anything is computed.

    Models that the run has yet to make are compared once they are evaluated.

    Raises:
        WagleError: names both.
    """
    base, reference = models.base, models.reference
    if reference is None:
        return
    same = reference.resolve() in (base.resolve(), (models.folder / "model").resolve())
    if not same and all((folder / "config.json").is_file() for folder in (base, reference)):
        with contextlib.suppress(WagleError):  # no safetensors: known once they are loaded
            same = equal_weights(base, reference)
    if same:
        raise WagleError(
            f"the reference {models.recipe.reference} is a model of this run itself ({base} is the "
            "model that should forget); as the reference, name a model that never learned the forget "
            "set"
        )


def check_run_reference(run: RunFolder, recipe: Recipe, labels: Sequence[str]) -> None:
    """Refuse a reference that knows the forget set as well as the model before.

    Args:
        run: its model before and its reference were evaluated.
        recipe: its recipe.
        labels: of the benchmarks that both were asked besides the recipe's own sets.
    """
    for label in (None, *labels):
        before, reference = (run.evaluation(role, label) for role in ("before", "reference"))
        if before is not None and reference is not None:
            check_reference(before, reference, run_roles(run, recipe), seed=recipe.seed)
