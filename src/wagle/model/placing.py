"""Where a live model computes: on this process's GPU if there is one and the model fits."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import torch
from torch import nn

from wagle.compat.transformers import is_quantized
from wagle.model.streaming.opening import is_streamed
from wagle.model.structure import is_sharded
from wagle.system.memory import free_memory
from wagle.system.processes.group import local_device

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)
_ROOM = 1.2  # of the weights' bytes: activations and what the libraries keep


def place(model: M, *, must: bool = False) -> M:
    """Move a model to the device where this process computes, in place; returns it.

    A quantised model, one spread over devices, one in shards and a streamed one stay where they are.

    Args:
        model: a live model.
        must: move it whether or not it seems to fit; otherwise a model that does not stays where it is.
    """
    device, owner = local_device(), model
    placed: Any = is_quantized(owner) or getattr(owner, "hf_device_map", None)
    if device.type == "cpu" or placed or is_sharded(model) or is_streamed(model):
        return model
    need = _ROOM * sum(p.numel() * p.element_size() for p in model.parameters())
    if not must and need > free_memory(torch.device(device)):
        logger.warning("the model does not fit on %s, so it is asked on the CPU, slowly", device)
        return model
    return model.to(device)
