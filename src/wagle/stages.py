"""The stages that make something: the taught model, gradients, the mask, the unlearned model, the patch.

Each takes the run and returns what ``state.json`` should say.
"""

import logging
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from wagle.adapters import merge_adapter
from wagle.attribution.collect import gradients
from wagle.attribution.scoring import needed_quantities
from wagle.attribution.store import GradientStore
from wagle.data.records import Record
from wagle.errors import TrainingStopped, WagleError
from wagle.ledger import read_ledger
from wagle.mask import Mask
from wagle.memory import give_memory_back
from wagle.model import load_model
from wagle.patch import extract, verify
from wagle.recipe import Attribution, Lora, Recipe
from wagle.run_folder import Run
from wagle.unlearning.checkpoints import clear_checkpoints
from wagle.unlearning.lora import (
    add_lora,
    check_adapter_mask,
    load_quantized,
    save_adapter,
)
from wagle.unlearning.training import TrainResult, finetune, unlearn
from wagle.weights import fingerprint, save_model

logger = logging.getLogger(__name__)


def teach(run: Run) -> dict[str, Any]:
    """Make the model that is to forget."""
    adapter = run.recipe.model.adapter
    if adapter is not None:
        merge_adapter(run.named, adapter, run.start)
    if run.recipe.after is not None:
        _check_result(run.recipe.after, run.start)
    if run.recipe.finetune is None:
        return {"taught": 0}
    return _teach(run, "teach", _taught(run), run.base)


def retrain(run: Run) -> dict[str, Any]:
    """Make the reference, where it is the model taught without the forget set."""
    if run.recipe.reference != "retrained":
        return {"taught": 0}
    assert run.reference is not None
    gone = {r.content_id for r in run.need("forget")}
    kept = [r for r in _taught(run) if r.content_id not in gone]
    return _teach(run, "retrain", kept, run.reference)


def _taught(run: Run) -> list[Record]:
    """All records that are taught."""
    assert run.recipe.finetune is not None
    records: list[Record] = []
    for name in run.recipe.taught_sets():
        if name == "records":
            assert run.recipe.finetune.records is not None
            records += run.read(name, run.recipe.finetune.records)
        else:
            records += run.need(name)
    return records


def _teach(run: Run, stage: str, records: list[Record], out: Path) -> dict[str, Any]:
    assert run.recipe.finetune is not None
    model, checkpoints = _load(run, run.start), run.private / f"checkpoint-{stage}"
    try:
        result = finetune(
            model,
            run.encoder,
            records,
            checkpoint_folder=checkpoints,
            like=run.start,
            seed=run.recipe.seed,
            training=run.recipe.finetune,
            on_step=lambda figures: run.log(stage, figures),
        )
    except TrainingStopped as error:
        kept = _keep_good(run, error, partial(save_model, model, run.start))
        raise TrainingStopped(f"{kept}; {_go_on(run, stage)}", error.step) from None
    run.log_steps(stage, result.history)
    save_model(model, run.start, out)
    _finished(run, checkpoints)
    return {"taught": len(records), **_trained(result)}


def _keep_good(run: Run, error: TrainingStopped, save: Callable[[Path], None]) -> str:
    """Save the last good weights of a run that broke off, if it has any of its own; says where."""
    if not error.step:
        return str(error)
    save(run.last_good)
    return f"{error}, kept in {run.last_good}"


def _go_on(run: Run, stage: str) -> str:
    """How to train once more with a lower learning rate after ``stage`` broke off."""
    section = "unlearning" if stage == "unlearn" else "finetune"
    settings = run.recipe.unlearning if stage == "unlearn" else run.recipe.finetune
    assert settings is not None
    recipe, folder = run.folder / "recipe.yaml", str(run.folder)
    if not recipe.is_file():  # a control: its run has been unlearned at this rate
        return "begin the run again in another folder with a lower unlearning.learning_rate"
    if stage == "retrain":  # the model that it is a reference for was taught at this rate
        folder += "-again"
    command = [
        "wagle",
        "run",
        str(recipe),
        f"{section}.learning_rate={settings.learning_rate / 2:g}",
    ]
    return f"go on with: {shlex.join([*command, '--out', folder])}"


def _finished(run: Run, checkpoints: Path) -> None:
    """Delete what a training needed until its model was saved."""
    clear_checkpoints(checkpoints)
    shutil.rmtree(run.last_good, ignore_errors=True)


def _check_result(after: str, model: Path) -> None:
    """Refuse a model that is not what the ledger of its run says it made."""
    promised, found = read_ledger(after)[-1].result, fingerprint(model)
    if found != promised:
        raise WagleError(
            f"{model} is {found[:6]}, but by the ledger of {after} it was {promised[:6]}; put the "
            "unlearned model back"
        )


def _load(run: Run, folder: Path) -> PreTrainedModel:
    return load_model(folder, run.recipe.model.dtype, run.recipe.model.attention)


def _load_adapted(run: Run, lora: Lora) -> Any:
    """The base with the run's fresh adapter, the same at every call."""
    settings = run.recipe.model
    load = load_model if lora.quantize == "none" else load_quantized
    return adapt(load(run.base, settings.dtype, settings.attention), lora, run.recipe.seed)


def adapt(model: PreTrainedModel, lora: Lora, seed: int) -> Any:
    """Put the adapter that a recipe asks for beside the layers of a model."""
    return add_lora(
        model,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        targets=lora.targets,
        seed=seed,
    )


def _trained(result: TrainResult) -> dict[str, Any]:
    told = {k: v for k, v in asdict(result).items() if k != "history"}
    return {**told, "steps": result.history[-1]["step"] if result.history else 0}


def unmasked(recipe: Recipe) -> str | None:
    """Why all weights that can train do, so that nothing is attributed; None where a mask says which."""
    lora = recipe.unlearning.lora
    if lora is not None:
        return None if lora.masked else "LoRA trains all of its adapter: there is no mask"
    if recipe.unlearning.dynamic_mask == "none" or recipe.attribution.selects:
        return None
    return "all weights, chosen from anew in every step: attribution asks for no mask"


def _no_mask(why: str) -> dict[str, Any]:
    return {"records": None, "skipped": why}


def attribute(run: Run) -> dict[str, Any]:
    settings, lora = run.recipe.attribution, run.recipe.unlearning.lora
    if why := unmasked(run.recipe):
        return _no_mask(why)
    if settings.mask is not None:
        return {"records": None}
    model: Any = run.base if lora is None else _load_adapted(run, lora)
    if lora is not None and settings.device != "cpu" and torch.cuda.is_available():
        model.to("cuda")
    store = gradients(
        model,
        run.encoder,
        run.need("forget"),
        run.need("retain"),
        path=run.gradients,
        engine=settings.engine,
        retain_records=settings.retain_records,
        batch_tokens=settings.batch_tokens,
        store_dtype=settings.store_dtype,
        seed=run.recipe.seed,
        precision=settings.precision,
        overlap=run.recipe.overlap,
        quantities=_quantities(settings),
        dtype=run.recipe.model.dtype,
        device=settings.device,
        attention=run.recipe.model.attention,
    )
    return {
        "engine": store.metadata["engine"],
        "quantities": list(store.quantities),
        "records": {name: len(ids) for name, ids in store.metadata["records"].items()},
    }


def _quantities(settings: Attribution) -> list[str]:
    """What the gradient pass collects: what the score needs and what the recipe adds."""
    return [*needed_quantities(settings.score, settings.gamma), *settings.quantities]


def select(run: Run) -> dict[str, Any]:
    settings = run.recipe.attribution
    if why := unmasked(run.recipe):
        return _no_mask(why)
    if settings.mask is not None:
        mask = Mask.load(settings.mask)
    else:
        mask = Mask.from_scores(
            GradientStore.open(run.gradients),
            score=settings.score,
            gamma=settings.gamma,
            damping=settings.damping,
            settings=settings.score_settings,
            ratio=settings.ratio,
            scope=settings.scope,
            include=settings.include,
            exclude=settings.exclude,
            seed=run.recipe.seed,
        )
    mask.save(run.folder / "mask.safetensors")
    if run.recipe.unlearning.lora is not None:
        chosen = chosen_mask(run)
        assert chosen is not None
        by_gradient = settings.mask is None and bool(_quantities(settings))
        check_adapter_mask(chosen, by_gradient=by_gradient)
    return mask.describe()


def chosen_mask(run: Run) -> Mask | None:
    """The mask that trains, of one ratio; None where all weights, or all of an adapter, train."""
    if run.dense or unmasked(run.recipe):
        return None
    mask = Mask.load(run.folder / "mask.safetensors")
    use = run.recipe.attribution.use
    return mask if use is None else mask.at(use)


def forget(run: Run) -> dict[str, Any]:
    lora = run.recipe.unlearning.lora
    model = _load(run, run.base) if lora is None else _load_adapted(run, lora)
    checkpoints = run.private / "checkpoint-unlearn"
    try:
        result = _unlearn(run, model, checkpoints)
    except TrainingStopped as error:
        kept = _keep_good(run, error, partial(_save, run, model))
        raise TrainingStopped(f"{kept}; {_go_on(run, 'unlearn')}", error.step) from None
    run.log_steps("unlearn", result.history)
    found = _trained(result)
    if lora is None:
        _save(run, model, run.folder / "model")
    else:
        with TemporaryDirectory(prefix="wagle-") as scratch:
            adapter = run.folder / "adapter"
            place = adapter if lora.keep == "adapter" else Path(scratch) / "adapter"
            _save(run, model, place)
            del model  # the base is loaded once more, in float32
            give_memory_back()
            merge_adapter(run.base, place, run.folder / "model")
        found["lora"] = lora.model_dump(mode="json")
    _finished(run, checkpoints)
    return found


def _save(run: Run, model: Any, folder: Path) -> None:
    """Write what was trained: the model, or its adapter alone."""
    if run.recipe.unlearning.lora is None:
        save_model(model, run.base, folder)
    else:
        save_adapter(model, folder, run.base)


def _unlearn(run: Run, model: Any, checkpoints: Path) -> TrainResult:
    settings = run.recipe.unlearning
    return unlearn(
        model,
        run.encoder,
        run.need("forget"),
        run.sets.get("retain"),
        forgotten=run.again or None,
        mask=chosen_mask(run),
        objective=settings.objective,
        objective_settings=settings.objective_settings,
        retain_term=settings.retain_term,
        wrapper=settings.wrapper,
        wrapper_settings=settings.wrapper_settings,
        dynamic_mask=settings.dynamic_mask,
        dynamic_settings=settings.dynamic_settings,
        full_reference=settings.full_reference,
        full_reference_k=settings.full_reference_k,
        reference_folder=run.private / "references",
        pairing=settings.pairing,
        anchor=settings.anchor,
        stop_when=settings.stop_when,
        best=settings.best,
        reference=_reference_figures(run),
        check_every=settings.check_every,
        evaluate_every=settings.evaluate_every,
        checkpoint_folder=checkpoints,
        like=run.base if settings.lora is None else None,
        overlap=run.recipe.overlap,
        allow_other_model=run.recipe.attribution.allow_other_model,
        seed=run.recipe.seed,
        training=settings,
        on_step=lambda figures: run.log("unlearn", figures),
    )


def _reference_figures(run: Run) -> dict[str, float] | None:
    """What the evaluation of the reference says of the figures that rules compare."""
    reference = run.evaluation("reference")
    if reference is None:
        return None
    found = {}
    for name in ("forget", "retain"):
        for figure in ("probability", "nll", "extraction_strength", "exact_memorization"):
            value = reference.figures.get(name, {}).get(figure)
            if value is not None and value.value is not None:
                found[f"{name}.{figure}"] = value.value
                if (name, figure) == ("forget", "probability"):
                    found["forget.probability.high"] = value.high
    return found


def write_patch(run: Run) -> dict[str, Any]:
    if not run.recipe.patch.enabled or run.state["stages"]["unlearn"]["changed"] == 0:
        return {"patch": None}  # the objective ``none`` changes nothing
    model, file = run.folder / "model", run.folder / "patch.safetensors"
    undo = run.private / "undo.safetensors" if run.recipe.patch.undo else None
    made = extract(run.base, model, file, undo=undo)
    # a mask on an adapter says nothing of the merged weights
    mask = chosen_mask(run) if run.recipe.unlearning.lora is None else None
    checked = verify(run.base, model, mask=mask, patch=file)
    if not checked.ok:
        raise RuntimeError(f"the patch does not prove the run: {checked}; please report this bug")
    size = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    return {
        "result": made.result,
        "changed": checked.changed,
        "total": checked.total,
        "tensors": len(checked.tensors),
        "outside_mask": checked.outside_mask,
        "bytes": file.stat().st_size,
        "share_of_model": file.stat().st_size / size,
    }
