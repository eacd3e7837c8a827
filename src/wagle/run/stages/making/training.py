"""What the stages that train have in common."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wagle.model.saving import save_model
from wagle.model.streaming.opening import stream_of
from wagle.run.opening import Run
from wagle.system.errors import TrainingStopped
from wagle.unlearning.execution import TrainResult
from wagle.unlearning.lora import save_adapter
from wagle.unlearning.sharded import InShards
from wagle.unlearning.training.checkpoints import clear_checkpoints


def keep_last_good(run: Run, error: TrainingStopped, save: Callable[[Path], None]) -> str:
    """Save the last good weights of a run that broke off, if it has any; says where."""
    if not error.step:
        return str(error)
    save(run.last_good)
    return f"{error}, kept in {run.last_good}"


def how_to_resume(run: Run, stage: str) -> str:
    """How to train again with a lower learning rate after ``stage`` broke off."""
    section = "unlearning" if stage == "unlearn" else "finetune"
    settings = run.recipe.unlearning if stage == "unlearn" else run.recipe.finetune
    assert settings is not None
    recipe, folder = run.folder / "recipe.yaml", str(run.folder)
    if not recipe.is_file():  # a control: its run was unlearned at this rate
        return "start the run again in another folder with a lower unlearning.learning_rate"
    if stage == "retrain":  # the model that it is a reference for was taught at this rate
        folder += "-again"
    command = [
        "wagle",
        "run",
        str(recipe),
        f"{section}.learning_rate={settings.learning_rate / 2:g}",
    ]
    return f"resume with: {shlex.join([*command, '--out', folder])}"


def clear_training(run: Run, checkpoints: Path) -> None:
    """Delete what training needed until its model was saved."""
    clear_checkpoints(checkpoints)
    shutil.rmtree(run.last_good, ignore_errors=True)


def training_entry(result: TrainResult) -> dict[str, Any]:
    """What ``state.json`` records of training: its result without the history, and its steps."""
    told = {k: v for k, v in asdict(result).items() if k != "history"}
    return {**told, "steps": result.history[-1]["step"] if result.history else 0}


def closed(model: Any) -> dict[str, str]:
    """Release the files of a streamed model; what ``state.json`` says of how it trained."""
    stream = None if isinstance(model, InShards) else stream_of(model)
    if stream is None:
        return {}
    stream.close()
    return {"engine": "stream"}


def save_trained(run: Run, model: Any, folder: Path) -> None:
    """Write what was trained: the model, or just its adapter."""
    if isinstance(model, InShards):  # written by all processes
        return
    if run.recipe.unlearning.lora is None:
        save_model(model, run.models.base, folder)
    else:
        save_adapter(model, folder, run.models.base)
