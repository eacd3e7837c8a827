"""How a model folder is asked: the whole model in memory, or one block of it at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from wagle.model.loading import load_model
from wagle.model.placing import place
from wagle.model.streaming.opening import open_streamed
from wagle.model.weights import Weights, fingerprint
from wagle.patch.application import load_patched
from wagle.patch.laying import open_patched
from wagle.system.errors import choose
from wagle.system.memory import free_memory
from wagle.system.processes.group import local_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

WHOLE, STREAM, AUTO = "whole", "stream", "auto"
ENGINES = {WHOLE: "the model in memory", STREAM: "one block in memory", AUTO: "whole if it fits"}
_ROOM = 1.2  # of the weights' bytes: activations and what the libraries keep


class Opened(NamedTuple):
    """A live model.

    Attributes:
        model: it, in float32, where it can be asked.
        mark: its fingerprint, if that is known without looking at the model.
    """

    model: PreTrainedModel
    mark: str | None


def open_to_ask(
    folder: Path,
    engine: str = AUTO,
    *,
    patches: Sequence[str | Path] = (),
    attention: str = "auto",
    trust_remote_code: bool = False,
) -> Opened:
    """A model folder, with or without patches, as a live model.

    Args:
        folder: the model folder; patches leave it as it is.
        engine: a name in ENGINES; ``auto`` is ``whole`` where the weights fit into free memory, with
            a fifth of it to spare, else ``stream``, and says so.
        patches: patch files, in order.
        attention: as in ``load_model``.
        trust_remote_code: as there.
    """
    how: dict[str, Any] = {"attention": attention}
    if not patches:
        how["trust_remote_code"] = trust_remote_code
    if chosen(folder, engine) == STREAM:
        if patches:
            return Opened(*open_patched(folder, patches, **how))
        return Opened(open_streamed(folder, **how), fingerprint(folder))
    live = load_patched(folder, patches, **how) if patches else load_model(folder, **how)
    return Opened(place(live), None)


def chosen(folder: Path, engine: str) -> str:
    """The engine that a name means for a folder; a line says it where that is ``stream``."""
    choose(ENGINES, engine, "engine")
    if engine != AUTO:
        return engine
    weights = Weights(folder)
    need = _ROOM * weights.count() * torch.float32.itemsize
    weights.close()
    free = min(free_memory(), free_memory(torch.device(local_device())))
    if need <= free:
        return WHOLE
    logger.info(
        "%s takes %.1f GB and %.1f GB are free: it is asked with one block in memory at a time "
        "(engine: stream)",
        folder.name,
        need / 1e9,
        free / 1e9,
    )
    return STREAM
