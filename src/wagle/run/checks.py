"""Checks made before a run for problems that would otherwise appear midway; nothing is computed.

They use the model's structure, parameters without weights, and the records' tokens, and call the
same functions as the stages do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from wagle.attribution.gradients.engines import ENGINES
from wagle.attribution.scoring.candidates import candidate_names
from wagle.attribution.scoring.choice import check_score, choose_score
from wagle.attribution.scoring.masks import DEFAULT_RATIO
from wagle.attribution.scoring.ratios import exact_count, read_ladder
from wagle.evaluation.stand_in import make_twins
from wagle.mask.mask import Mask
from wagle.model.saving import check_names
from wagle.model.structure import place, place_parameters
from wagle.run.opening import Run
from wagle.system.errors import WagleError, choose
from wagle.unlearning.lora import adapt, check_adapter_mask, check_lora
from wagle.unlearning.plan import plan_unlearning
from wagle.unlearning.watching.rules import FIGURES, OF_OPTIONS


def structure_of(run: Run) -> PreTrainedModel:
    """The model that will train, without weights; with LoRA, including its initial adapter.

    Raises:
        WagleError: a package is missing, or the model lacks a layer that LoRA targets.
    """
    model = run.models.structure()
    lora = run.recipe.unlearning.lora
    if lora is None:
        return model
    check_lora(model, lora.targets, lora.quantize)
    adapted: Any = adapt(model, lora, run.recipe.seed)
    fresh = {n: torch.zeros(p.shape) for n, p in adapted.named_parameters() if p.requires_grad}
    place_parameters(adapted, fresh)
    found: PreTrainedModel = adapted
    return found


def check_folder(run: Run) -> None:
    """Refuse a model folder that a trained model could not be saved like."""
    check_names(run.models.named, run.models.structure().state_dict())


def check_attribution(run: Run, model: PreTrainedModel) -> None:
    """Check that a mask can be made as the recipe asks, or that the one it names fits.

    Args:
        run: whose recipe has a mask.
        model: from ``structure_of``.
    """
    settings = run.recipe.attribution
    if settings.mask is not None:
        mask = Mask.load(settings.mask)
        _check_fit(run, mask, model)
        _check_use(run, mask)
        return
    check_score(settings.score, settings.score_settings)
    choose({"auto": None, **ENGINES}, settings.engine, "engine")
    run.inputs.need("forget")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    names = candidate_names(trained, settings.include, settings.exclude)
    if isinstance(settings.score, dict):
        for kind, value in settings.score.items():
            if kind == "by_name":
                candidate_names(trained, list(value), [])
            else:
                _check_fit(run, Mask.load(str(value)), model)
    else:
        _check_ratio(run, {name: model.get_parameter(name).shape for name in names})


def _check_ratio(run: Run, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse a ratio that selects nothing even if every weight is a candidate."""
    settings = run.recipe.attribution
    entry = choose_score(settings.score).entry  # type: ignore[arg-type]
    scope = entry.scope if settings.scope == "auto" else settings.scope
    totals: dict[str, int] = {}
    for name, shape in shapes.items():
        if scope == "row":
            totals[name] = max(shape)
        else:
            key = {"global": "", "block": place(name)[0] or name}.get(scope, name)
            totals[key] = totals.get(key, 0) + math.prod(shape)
    most = max(totals.values())
    for ratio in read_ladder(DEFAULT_RATIO if settings.ratio is None else settings.ratio):
        if exact_count(ratio, most) == 0:
            where = f"{most} weights" if scope == "global" else f"any {scope}"
            raise WagleError(f"attribution.ratio {ratio} of {where} selects none; raise it")


def _check_fit(run: Run, mask: Mask, model: PreTrainedModel) -> None:
    """Check names and shapes, and the weights too if they exist, before the model forgets."""
    recipe, base = run.recipe, run.models.base
    there = recipe.unlearning.lora is None and (base / "config.json").is_file()
    known = there and "unlearn" not in run.state["stages"]
    other = recipe.attribution.allow_other_model or not known
    mask.check_model(model, allow_other_model=other, folder=base if known else None)


def _check_use(run: Run, mask: Mask) -> None:
    """Refuse a ladder without a choice, a ratio that it lacks, or a mask that idles an adapter."""
    path, use = run.recipe.attribution.mask, run.recipe.attribution.use
    if use is None and len(mask.ratios) > 1:
        raise WagleError(
            f"{path} is a ladder of the ratios {list(mask.ratios)}; choose one with attribution.use"
        )
    chosen = mask if use is None else mask.at(use)
    if run.recipe.unlearning.lora is not None:
        check_adapter_mask(chosen, by_gradient=False)


def check_unlearning(run: Run, model: PreTrainedModel) -> None:
    """Check that the recipe's unlearning can be done with these records and this model.

    Args:
        run: the run whose recipe is checked; the reference matters only by whether there is one.
        model: from ``structure_of``.

    Raises:
        WagleError: settings are unknown or incompatible, a set is missing or cannot provide what
            the objective asks for, records are too long, or a rule lacks its figure.
    """
    recipe = run.recipe
    plan_unlearning(
        model,
        run.inputs.encoder,
        run.inputs.need("forget"),
        run.inputs.sets.get("retain"),
        recipe.unlearning,
        forgotten=run.inputs.again or None,
        reference=_reference_to_be(run),
        overlap=recipe.overlap,
        seed=recipe.seed,
        shard=recipe.model.shard,
    )


def _reference_to_be(run: Run) -> dict[str, float] | None:
    """The figures that the reference will have, each set to 0."""
    sets = {name for name in ("forget", "retain") if run.inputs.sets.get(name)}
    if run.models.reference is None:
        twins = run.recipe.reference is None and make_twins(run.inputs.need("forget"), 0)
        if not twins:
            return None
        sets = {"forget"}
    given = [name for name in FIGURES if name not in OF_OPTIONS]
    return {name: 0.0 for name in given if name.split(".")[0] in sets}
