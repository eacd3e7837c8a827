"""The stage ``unlearn``: make the model forget."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wagle.mask.mask import Mask
from wagle.model.adapters import merge_adapter
from wagle.run.checks import check_folder, check_unlearning, structure_of
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask, load_adapted, to_train
from wagle.run.stages.making.training import (
    clear_training,
    closed,
    how_to_resume,
    keep_last_good,
    save_trained,
    training_entry,
)
from wagle.system.errors import TrainingStopped
from wagle.system.memory import give_memory_back
from wagle.unlearning.execution import TrainResult
from wagle.unlearning.forgetting import unlearn_with


def unlearn(run: Run) -> dict[str, Any]:
    """Make the model forget: its weights, or an adapter that is then merged into them."""
    lora = run.recipe.unlearning.lora
    base, out = run.models.base, run.folder / "model"
    if lora is None:
        model = to_train(run, base, out, run.recipe.unlearning, chosen_mask(run))
    else:
        model = load_adapted(run, lora)
    checkpoints = run.private / "checkpoint-unlearn"
    try:
        result = forget(run, model, chosen_mask, checkpoints)
    except TrainingStopped as error:
        kept = keep_last_good(run, error, partial(save_trained, run, model))
        raise TrainingStopped(f"{kept}; {how_to_resume(run, 'unlearn')}", error.step) from None
    run.log_steps("unlearn", result.history)
    found = training_entry(result)
    if lora is None:
        save_trained(run, model, out)
        found |= closed(model)
    else:
        with TemporaryDirectory(prefix="wagle-") as scratch:
            adapter = run.folder / "adapter"
            place = adapter if lora.keep == "adapter" else Path(scratch) / "adapter"
            save_trained(run, model, place)
            del model  # the base is loaded again, in float32
            give_memory_back()
            trust = run.recipe.model.trust_remote_code
            merge_adapter(base, place, out, trust_remote_code=trust)
        found["lora"] = lora.model_dump(mode="json")
    clear_training(run, checkpoints)
    return found


def forget(
    run: Run, model: Any, choose: Callable[[Run], Mask | None], checkpoints: Path | None
) -> TrainResult:
    """Make a live model forget what the run asks for, by the recipe's settings.

    Args:
        run: gives the records, the reference's figures and the settings.
        model: the model before; it is changed in place.
        choose: gives the mask of the weights that may move, None for all; training releases it.
        checkpoints: where a killed run resumes; None keeps nothing.
    """
    settings = run.recipe.unlearning
    return unlearn_with(
        settings,
        model,
        run.inputs.encoder,
        run.inputs.need("forget"),
        run.inputs.sets.get("retain"),
        forgotten=run.inputs.again or None,
        mask=choose(run),
        reference_folder=run.private / "references",
        reference=reference_figures(run),
        evaluated=run.inputs.asked("forget", run.inputs.need("forget")),
        evaluation_precision=run.recipe.evaluation.precision,
        checkpoint_folder=checkpoints,
        like=run.models.base if settings.lora is None else None,
        overlap=run.recipe.overlap,
        allow_other_model=run.recipe.attribution.allow_other_model,
        seed=run.recipe.seed,
        on_step=lambda figures: run.log("unlearn", figures),
    )


def reference_figures(run: Run) -> dict[str, float] | None:
    """The reference's figures that rules compare, with the ends of their intervals."""
    reference = run.evaluation("reference")
    if reference is None:
        return None
    found = {}
    for name in ("forget", "retain"):
        for figure in ("probability", "nll", "extraction_strength", "exact_memorization"):
            value = reference.figures.get(name, {}).get(figure)
            if value is not None and value.value is not None:
                found[f"{name}.{figure}"] = value.value
                found[f"{name}.{figure}.low"] = value.low
                found[f"{name}.{figure}.high"] = value.high
    return found


def check(run: Run) -> None:
    """Check that these records can be unlearned from this model as the recipe asks."""
    if run.recipe.finetune is None:  # else the stage ``teach`` has checked it
        check_folder(run)
    check_unlearning(run, structure_of(run))
