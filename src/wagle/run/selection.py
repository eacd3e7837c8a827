"""Which weights of which model train in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from wagle.mask.mask import Mask
from wagle.model.loading import load_model
from wagle.model.streaming.opening import open_streamed
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Lora
from wagle.run.opening import Run
from wagle.system.processes.group import several
from wagle.unlearning.engines import choose_engine
from wagle.unlearning.lora import adapt, load_quantized
from wagle.unlearning.sharded import InShards


def load_trained(run: Run, folder: Path) -> PreTrainedModel:
    """A model of the run, in the recipe's precision and with its attention."""
    return run.models.load(folder, run.recipe.model.dtype)


def to_train(
    run: Run, folder: Path, out: Path, training: Training, mask: Mask | None = None
) -> PreTrainedModel | InShards:
    """A model to be trained: live, by its engine, or in shards if there are processes for it.

    Args:
        run: whose recipe says how models are loaded.
        folder: the model.
        out: where it will be written once it is trained.
        training: says the engine.
        mask: which weights will train; None: all.
    """
    settings = run.recipe.model
    trust = settings.trust_remote_code
    if not (settings.shard and several()):
        count = None if mask is None else mask.count
        if choose_engine(training, folder, settings.dtype, selected=count) == "whole":
            return load_trained(run, folder)
        return open_streamed(folder, settings.dtype, settings.attention, trust_remote_code=trust)
    return InShards(folder, out, run.last_good, settings.dtype, settings.attention, trust)


def load_adapted(run: Run, lora: Lora) -> Any:
    """The base with the run's untrained adapter, the same at every call."""
    settings = run.recipe.model
    load = load_model if lora.quantize == "none" else load_quantized
    trust = settings.trust_remote_code
    model = load(run.models.base, settings.dtype, settings.attention, trust_remote_code=trust)
    return adapt(model, lora, run.recipe.seed)


def unmasked(recipe: Recipe) -> str | None:
    """Why all trainable weights train, so that nothing is attributed; None if there is a mask."""
    return recipe.unmasked


def chosen_mask(run: Run) -> Mask | None:
    """The mask to train, of one ratio; None if all weights, or all of an adapter, train."""
    if run.dense or unmasked(run.recipe):
        return None
    mask = Mask.load(run.folder / "mask.safetensors")
    use = run.recipe.attribution.use
    return mask if use is None else mask.at(use)
