"""The stage ``mask``: select the weights that may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wagle.attribution.store import GradientStore
from wagle.mask.mask import Mask
from wagle.recipe.sections.attribution import Attribution
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask, unmasked
from wagle.run.stages.making.gradients import asked_quantities, no_mask
from wagle.system.processes.leading import together
from wagle.unlearning.lora import check_adapter_mask


def mask(run: Run) -> dict[str, Any]:
    settings = run.recipe.attribution
    if why := unmasked(run.recipe):
        return no_mask(why)
    if settings.mask is not None:
        made = Mask.load(settings.mask)
    else:
        made = together(_select_from, run.models.gradients, settings, run.recipe.seed)
    made.save(run.folder / "mask.safetensors")
    if run.recipe.unlearning.lora is not None:
        chosen = chosen_mask(run)
        assert chosen is not None
        by_gradient = settings.mask is None and bool(asked_quantities(settings))
        check_adapter_mask(chosen, by_gradient=by_gradient)
    return made.describe()


def _select_from(folder: Path, settings: Attribution, seed: int) -> Mask:
    """The mask from the store in a folder, on every process."""
    return select(GradientStore.open(folder), settings, seed)


def select(store: GradientStore, settings: Attribution, seed: int) -> Mask:
    """The mask that the settings ask for, from a finished store."""
    return Mask.from_scores(
        store,
        score=settings.score,
        gamma=settings.gamma,
        damping=settings.damping,
        settings=settings.score_settings,
        ratio=settings.ratio,
        scope=settings.scope,
        include=settings.include,
        exclude=settings.exclude,
        seed=seed,
    )
