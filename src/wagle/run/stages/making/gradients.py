"""The stage ``gradients``: take the gradients that scores are computed from."""

from __future__ import annotations

from typing import Any

from wagle.attribution.gradients import collect
from wagle.attribution.scoring.masks import needed_quantities
from wagle.model.placing import place
from wagle.recipe.sections.attribution import Attribution
from wagle.run.checks import check_attribution, structure_of
from wagle.run.opening import Run
from wagle.run.selection import load_adapted, unmasked


def no_mask(why: str) -> dict[str, Any]:
    return {"records": None, "skipped": why}


def gradients(run: Run) -> dict[str, Any]:
    settings, lora = run.recipe.attribution, run.recipe.unlearning.lora
    if why := unmasked(run.recipe):
        return no_mask(why)
    if settings.mask is not None:
        return {"records": None}
    model: Any = run.models.base if lora is None else load_adapted(run, lora)
    if lora is not None and settings.device != "cpu":
        place(model, must=True)
    store = collect.gradients(
        model,
        run.inputs.encoder,
        run.inputs.need("forget"),
        run.inputs.sets.get("retain"),
        path=run.models.gradients,
        engine=settings.engine,
        retain_records=settings.retain_records,
        batch_tokens=settings.batch_tokens,
        store_dtype=settings.store_dtype,
        seed=run.recipe.seed,
        precision=settings.precision,
        overlap=run.recipe.overlap,
        quantities=asked_quantities(settings),
        dtype=run.recipe.model.dtype,
        device=settings.device,
        attention=run.recipe.model.attention,
        shard=run.recipe.model.shard and lora is None,
        trust_remote_code=run.recipe.model.trust_remote_code,
    )
    return {
        "engine": store.metadata["engine"],
        "quantities": list(store.quantities),
        "records": {name: len(ids) for name, ids in store.metadata["records"].items()},
    }


def asked_quantities(settings: Attribution) -> list[str]:
    """What the gradient pass collects: what the score needs, plus what the recipe adds."""
    return [*needed_quantities(settings.score, settings.gamma), *settings.quantities]


def check(run: Run) -> None:
    """Check that a mask can be made as the recipe asks."""
    model = structure_of(run)
    if not unmasked(run.recipe):
        check_attribution(run, model)
