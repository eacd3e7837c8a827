"""The stage ``teach``: make the model that should forget."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from wagle.data.records import Record
from wagle.model.adapters import merge_adapter
from wagle.model.saving import save_model
from wagle.model.weights import fingerprint
from wagle.run.checks import check_folder
from wagle.run.ledger import read_ledger
from wagle.run.opening import Run
from wagle.run.selection import to_train
from wagle.run.stages.making.training import (
    clear_training,
    closed,
    how_to_resume,
    keep_last_good,
    training_entry,
)
from wagle.system.errors import TrainingStopped, WagleError
from wagle.unlearning.engines import check_setting
from wagle.unlearning.sharded import InShards
from wagle.unlearning.teaching import finetune
from wagle.unlearning.training.optimizers import check_optimizer
from wagle.unlearning.training.trackers import check_trackers


def teach(run: Run) -> dict[str, Any]:
    """Make the model that should forget."""
    adapter = run.recipe.model.adapter
    if adapter is not None:
        trust = run.recipe.model.trust_remote_code
        merge_adapter(run.models.named, adapter, run.models.start, trust_remote_code=trust)
    if run.recipe.after is not None:
        _check_result(run.recipe.after, run.models.start)
    if run.recipe.finetune is None:
        return {"taught": 0}
    return teach_model(run, "teach", taught_records(run), run.models.base)


def taught_records(run: Run) -> list[Record]:
    """All records that are taught."""
    assert run.recipe.finetune is not None
    records: list[Record] = []
    for name in run.recipe.taught_sets():
        if name == "records":
            assert run.recipe.finetune.records is not None
            records += run.inputs.read(name, run.recipe.finetune.records)
        else:
            records += run.inputs.need(name)
    return records


def teach_model(run: Run, stage: str, records: list[Record], out: Path) -> dict[str, Any]:
    """Teach some records to the model that a run starts from, and save it.

    Args:
        run: the run whose recipe says how.
        stage: ``teach`` or ``retrain``, as the log names it.
        records: what to teach.
        out: the folder of the taught model.
    """
    assert run.recipe.finetune is not None
    model: Any = to_train(run, run.models.start, out, run.recipe.finetune)
    checkpoints = run.private / f"checkpoint-{stage}"
    save = partial(_save, model, run.models.start)
    try:
        result = finetune(
            model,
            run.inputs.encoder,
            records,
            checkpoint_folder=checkpoints,
            like=run.models.start,
            seed=run.recipe.seed,
            training=run.recipe.finetune,
            on_step=lambda figures: run.log(stage, figures),
        )
    except TrainingStopped as error:
        kept = keep_last_good(run, error, save)
        raise TrainingStopped(f"{kept}; {how_to_resume(run, stage)}", error.step) from None
    run.log_steps(stage, result.history)
    save(out)
    clear_training(run, checkpoints)
    return {"taught": len(records), **training_entry(result), **closed(model)}


def _save(model: Any, like: Path, out: Path) -> None:
    if not isinstance(model, InShards):  # which all processes have written
        save_model(model, like, out)


def _check_result(after: str, model: Path) -> None:
    """Refuse a model that differs from what its run's ledger recorded."""
    promised, found = read_ledger(after)[-1].result, fingerprint(model)
    if found != promised:
        raise WagleError(
            f"{model} is {found[:6]}, but the ledger of {after} says {promised[:6]}; put the "
            "unlearned model back"
        )


def check(run: Run) -> None:
    """Check that there is something to teach, and that it can be taught."""
    recipe = run.recipe
    if recipe.after is not None:
        read_ledger(recipe.after)
    if recipe.finetune is not None:
        check_optimizer(recipe.finetune)
        check_trackers(recipe.finetune.report_to)
        check_setting(recipe.finetune, shard=recipe.model.shard)
        check_folder(run)
