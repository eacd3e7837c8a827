"""Engines of training: the model in memory (``whole``), or one block of it (``stream``)."""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from torch import Tensor, nn

from wagle.model.stored import read_stored
from wagle.model.streaming.opening import is_streamed
from wagle.model.structure import DTYPES, is_sharded, place
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Unlearning
from wagle.system.errors import WagleError
from wagle.system.memory import free_memory
from wagle.system.processes import group
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.original import Original
from wagle.unlearning.sharded import check_sharded
from wagle.unlearning.training.optimizers import OPTIMIZERS, make_optimizer
from wagle.unlearning.training.weights.choosing import PER_WEIGHT, SMALL

logger = logging.getLogger(__name__)
_LIBRARIES = 0.8e9  # bytes that torch and the other libraries take
_ACTIVATIONS = 0.5e9  # those of a few records of usual length, and their logits


@dataclass(frozen=True)
class Sizes:
    """How large a model is: numbers of weights.

    Attributes:
        weights: all of them.
        block: of the largest block.
        outer: before and after the blocks.
        largest: of the largest parameter.
    """

    weights: int
    block: int
    outer: int
    largest: int


@dataclass(frozen=True)
class Needs:
    """What training takes at most, in bytes.

    Attributes:
        memory: at its peak.
        vectors: of temporary files, while it runs.
        checkpoints: of what a killed run resumes from.
    """

    memory: float
    vectors: float
    checkpoints: float


def training_needs(
    engine: str, sizes: Sizes, *, selected: int, masked: bool, itemsize: int, moments: int
) -> Needs:
    """What training some weights of a model takes, estimated from numbers alone.

    Args:
        engine: ``whole`` or ``stream``.
        sizes: of the model.
        selected: how many weights train.
        masked: whether a mask says which; otherwise all of a parameter train.
        itemsize: bytes of a weight in memory.
        moments: how many numbers the optimiser keeps for every weight.
    """
    own = 0 if itemsize == 4 and (engine == "stream" or not masked) else 4  # a master of its own
    each = 4 * masked + own + 4 + 4 * moments  # positions, master, gradient
    checkpoints = 2.0 * selected * (4 + 4 * moments)  # the last, and the one before it
    before = selected * itemsize
    fixed = _LIBRARIES + _ACTIVATIONS
    if engine == "whole":
        memory = fixed + (sizes.weights + sizes.largest) * itemsize + selected * each
        return Needs(memory, before, checkpoints)
    # two blocks, one of them read ahead, and the dense gradients of one; stem and head twice
    memory = fixed + (3 * sizes.block + 2 * sizes.outer) * itemsize
    vectors = selected * (each + itemsize)
    if selected * PER_WEIGHT <= SMALL:
        return Needs(memory + vectors, before, checkpoints)
    share = max(sizes.block, sizes.largest) / max(1, sizes.weights)
    return Needs(memory + share * vectors, vectors + before, checkpoints)


def sizes_of(folder: str | Path) -> Sizes:
    """The sizes of the model in a folder, from the headers of its weight files."""
    blocks: dict[str, int] = {}
    largest = 0
    for name, shape in read_stored(folder).shapes.items():
        count = math.prod(shape)
        block, _ = place(name)
        blocks[block] = blocks.get(block, 0) + count
        largest = max(largest, count)
    outer = blocks.pop("", 0)
    inside = sum(blocks.values())
    return Sizes(outer + inside, max(blocks.values(), default=0), outer, largest)


def moments_of(training: Training) -> int:
    """How many numbers an optimiser keeps for every weight, found by one step of it."""
    probe = nn.Parameter(torch.zeros(3))
    probe.grad = torch.ones(3)
    optimizer: Any = make_optimizer([{"params": [probe], "decay": False}], training)
    optimizer.step()
    kept = optimizer.state.get(probe, {}).values()
    return sum(isinstance(v, Tensor) and v.shape == probe.shape for v in kept)


def choose_engine(
    training: Training, folder: str | Path, dtype: str, *, selected: int | None
) -> str:
    """The engine that ``training.engine`` means for the model in a folder.

    ``auto`` is ``whole`` if it fits in the memory that is free, else ``stream``; it says so.

    Args:
        training: the settings.
        folder: the model.
        dtype: of its weights in memory.
        selected: how many weights a mask selects; None: there is none.
    """
    if training.engine == "whole" or (training.engine == "auto" and group.several()):
        return "whole"
    sizes, device = sizes_of(folder), torch.device(group.local_device())
    numbers: dict[str, Any] = {
        "selected": sizes.weights if selected is None else selected,
        "masked": selected is not None,
        "itemsize": DTYPES[dtype].itemsize,
        "moments": moments_of(training),
    }
    if training.engine == "auto":
        need, free = training_needs("whole", sizes, **numbers), free_memory(device)
        if need.memory <= free:
            return "whole"
        why = unfit(training)
        logger.warning(
            "engine: auto trains %s: the model in memory needs about %.1f GB, and %.1f GB are free%s",
            "by stream, one block in memory" if why is None else "the whole model all the same",
            need.memory / 1e9,
            free / 1e9,
            "" if why is None else f"; engine: stream does not work with {why}",
        )
        if why is not None:
            return "whole"
    check_disk(training_needs("stream", sizes, **numbers))
    return "stream"


def check_disk(need: Needs) -> None:
    """Refuse a run whose vectors find no room among the temporary files, before any work."""
    home = Path(tempfile.gettempdir())
    free = disk_usage(home).free
    if need.vectors > free:
        raise WagleError(
            f"training by stream keeps about {need.vectors / 1e9:.1f} GB in temporary files, but {home} "
            f"has {free / 1e9:.1f} GB left: {(need.vectors - free) / 1e9:.1f} GB are missing; free "
            "them, or set TMPDIR to a folder on a larger disk"
        )


def unfit(training: Training) -> str | None:
    """The setting that needs the model in memory, if there is one."""
    if isinstance(training, Unlearning) and training.lora is not None:
        return "unlearning.lora"
    if training.dropout:
        return "dropout: true"
    if isinstance(OPTIMIZERS.get(training.optimizer), str):
        return f"optimizer {training.optimizer}"
    return None


def check_streamed(training: Training) -> None:
    """Refuse what needs the model in memory, for a model whose blocks stay on disk.

    Raises:
        WagleError: names the setting.
    """
    why = unfit(training)
    if why is not None:
        raise WagleError(
            f"{why} does not work with engine: stream; leave it out, or set engine: whole"
        )
    if group.several():
        raise WagleError(
            "engine: stream trains on one process; start it without torchrun, or set engine: whole"
        )


def check_engine(
    model: nn.Module, training: Training, chosen: Chosen, original: Original, *, shard: bool = False
) -> None:
    """Refuse an engine that a model cannot be trained by, or settings that do not go with it.

    Args:
        model: live, in shards, streamed, or without weights, as it is planned with.
        training: the settings.
        chosen: the objective.
        original: where full distributions of the original model come from.
        shard: whether the model will be in shards.

    Raises:
        WagleError: names the setting.
    """
    sharded = shard or is_sharded(model)
    if sharded:
        check_sharded(training, chosen, original)
    if is_streamed(model):
        check_streamed(training)
        return
    check_setting(training, shard=sharded)
    if training.engine == "stream" and not any(p.is_meta for p in model.parameters()):
        raise WagleError(
            "engine: stream reads the model from its folder, but this one is in memory; give "
            "wagle.model.streaming.opening.open_streamed(FOLDER), or leave out engine"
        )


def check_setting(training: Training, *, shard: bool = False) -> None:
    """Refuse ``engine: stream`` with settings that it does not go with; there need be no model."""
    if training.engine != "stream":
        return
    if shard:
        raise WagleError(
            "engine: stream does not work with a model in shards; leave out engine or model.shard"
        )
    check_streamed(training)
