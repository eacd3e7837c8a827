"""Training a model in shards: loaded by all processes together, trained, and saved by all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from wagle.model.sharding import load_sharded, save_sharded
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Unlearning
from wagle.system.errors import TrainingStopped, WagleError
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.original import Original

logger = logging.getLogger(__name__)
_WHOLE = ("none", "task_vector")  # wrappers that look at no more than one entry at a time


@dataclass(frozen=True)
class InShards:
    """A model folder to train in shards, given in the place of a live model.

    Attributes:
        folder: the model.
        out: where the trained model is written.
        last_good: where it is written if training breaks off after good steps.
        dtype: the dtype of the weights.
        attention: as in ``load_model``.
        trust: whether the code of the folder may run.
    """

    folder: Path
    out: Path
    last_good: Path
    dtype: str = "float32"
    attention: str = "auto"
    trust: bool = False


@contextmanager
def opened(model: PreTrainedModel | InShards) -> Iterator[PreTrainedModel]:
    """The live model; one in shards is loaded before and written after."""
    if not isinstance(model, InShards):
        yield model
        return
    live = load_sharded(model.folder, model.dtype, model.attention, trust_remote_code=model.trust)
    try:
        yield live
    except TrainingStopped as error:
        if error.step:
            save_sharded(live, model.folder, model.last_good)
        raise
    save_sharded(live, model.folder, model.out)


def check_sharded(training: Training, chosen: Chosen, original: Original) -> None:
    """Refuse what needs more of a model than one process holds of a model in shards.

    Raises:
        WagleError: names the setting.
    """
    found = None
    if isinstance(training, Unlearning):
        if training.lora is not None:
            found = "unlearning.lora"
        elif training.wrapper not in _WHOLE:
            found = f"wrapper {training.wrapper}"
        elif training.dynamic_mask != "none":
            found = f"dynamic_mask {training.dynamic_mask}"
    if training.rounding == "stochastic":
        found = "rounding: stochastic"
    if training.optimizer.endswith("8bit"):
        found = f"optimizer {training.optimizer}"
    if found is not None:
        raise WagleError(
            f"{found} does not work with a model in shards; leave it out, or model.shard"
        )
    if original.mode == "copy" and any(name.endswith("_logits_ref") for name in chosen.inputs):
        raise WagleError(
            f"objective {chosen.name} needs distributions of the original model, and a copy of a model "
            "in shards cannot be kept; set unlearning.full_reference: topk"
        )
