"""What a run would find out in the middle of its work, found before it: nothing is computed.

The model is there as its structure, parameters without weights; the records as tokens. What is
asked here are the same functions that the stages ask.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from wagle.attribution.gradients.engines import ENGINES
from wagle.attribution.scoring.candidates import candidate_names
from wagle.attribution.scoring.choice import check_score
from wagle.mask.mask import Mask
from wagle.model.loading import empty_model
from wagle.model.saving import check_names
from wagle.model.structure import check_length, place_parameters
from wagle.run.opening import Run
from wagle.run.selection import adapt
from wagle.system.errors import WagleError, choose
from wagle.unlearning.forgetting import vocabulary
from wagle.unlearning.inputs import check_inputs, make_sets
from wagle.unlearning.lora import check_adapter_mask, check_lora
from wagle.unlearning.objectives.choice import Chosen, choose_objective
from wagle.unlearning.original import choose_original
from wagle.unlearning.training.optimizers import check_optimizer
from wagle.unlearning.training.steps import Gradient
from wagle.unlearning.training.trackers import check_trackers
from wagle.unlearning.watching.checks import make_checks, stop_rules
from wagle.unlearning.watching.looks import Looked, make_looked
from wagle.unlearning.watching.rules import FIGURES, OF_OPTIONS


def structure_of(run: Run) -> PreTrainedModel:
    """The model that will train, without weights; with LoRA, its adapter is there as it starts.

    Raises:
        WagleError: a package is missing, or the model lacks a layer that LoRA is to stand beside.
    """
    model = empty_model(run.named)
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
    """Refuse a model folder that a trained model could not be written like."""
    check_names(run.named, empty_model(run.named).state_dict())


def check_attribution(run: Run, model: PreTrainedModel) -> None:
    """Find out whether a mask can be made as the recipe asks, or whether the one it names fits.

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
    run.need("forget")
    run.need("retain")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    candidate_names(trained, settings.include, settings.exclude)
    if isinstance(settings.score, dict):
        for kind, value in settings.score.items():
            if kind == "by_name":
                candidate_names(trained, list(value), [])
            else:
                _check_fit(run, Mask.load(str(value)), model)


def _check_fit(run: Run, mask: Mask, model: PreTrainedModel) -> None:
    """Names and shapes always; the weights too where they are there, before the model forgets."""
    recipe, base = run.recipe, run.base
    there = recipe.unlearning.lora is None and (base / "config.json").is_file()
    known = there and "unlearn" not in run.state["stages"]
    other = recipe.attribution.allow_other_model or not known
    mask.check_model(model, allow_other_model=other, folder=base if known else None)


def _check_use(run: Run, mask: Mask) -> None:
    """Refuse a ladder of which no ratio is chosen, or one that it lacks; of an adapter, idle ones."""
    path, use = run.recipe.attribution.mask, run.recipe.attribution.use
    if use is None and len(mask.ratios) > 1:
        raise WagleError(
            f"{path} is a ladder of the ratios {list(mask.ratios)}; choose one: attribution.use"
        )
    chosen = mask if use is None else mask.at(use)
    if run.recipe.unlearning.lora is not None:
        check_adapter_mask(chosen, by_gradient=False)


def check_unlearning(run: Run, model: PreTrainedModel) -> None:
    """Find out whether the recipe's unlearning can be done with these records and this model.

    Args:
        run: whose recipe is asked; of the reference, only whether there is one.
        model: from ``structure_of``.

    Raises:
        WagleError: settings that are none or do not go together, a set that is missing or cannot give
            what the objective asks for, records that are too long, rules without their figures.
    """
    settings = run.recipe.unlearning
    chosen = choose_objective(settings.objective, settings.objective_settings, settings.retain_term)
    looked = make_looked(
        run.encoder,
        run.need("forget"),
        run.sets.get("retain", []),
        whole=run.recipe.reference is not None,
        seed=run.recipe.seed,
    )
    _check_rules(run, chosen, looked, vocabulary(model))
    check_optimizer(settings)
    check_trackers(settings.report_to)
    choose_original(model, settings.full_reference, settings.full_reference_k)
    sets = make_sets(
        chosen,
        run.encoder,
        [*run.need("forget"), *run.again],
        run.sets.get("retain", []),
        vocabulary=vocabulary(model),
        seed=run.recipe.seed,
    )
    check_inputs(model, chosen, sets)
    for tokens in [*sets.values(), looked.tokens]:
        check_length(model, max(len(t.ids) for t in tokens), "the longest record")


def _check_rules(run: Run, chosen: Chosen, looked: Looked, size: int) -> None:
    """Rules, the best checkpoint, and whether the gradient that is made goes with them."""
    settings = run.recipe.unlearning
    reference = None
    if run.recipe.reference is not None:  # which will have a value for each
        given = [name for name in FIGURES if name not in OF_OPTIONS]
        reference = {name: 0.0 for name in given if name.split(".")[0] in looked.sets}
    gradient = Gradient(
        settings.wrapper,
        settings.wrapper_settings,
        settings.dynamic_mask,
        settings.dynamic_settings,
    )
    rules = stop_rules(
        settings.stop_when,
        bounded=chosen.entry.bounded,
        reference=reference,
        turned=gradient.turns,
    )
    gradient.check(chosen, rules, settings.best)
    make_checks(
        looked,
        vocabulary=size,
        rules=rules,
        best=settings.best,
        reference=reference,
        precision=settings.precision,
        check_every=settings.check_every,
        evaluate_every=settings.evaluate_every,
        evaluate=None,
    )
