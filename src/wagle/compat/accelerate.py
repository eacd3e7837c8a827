"""What wagle needs from accelerate beyond its public names. Tested with accelerate 1.15.0."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def forget_notes(model: nn.Module, own: Container[str]) -> None:
    """Remove the marks that accelerate left on a model (``_is_accelerate_prepared``), in place.

    ``Accelerator.free_memory`` leaves them there, and a model should be handed back as it was.
    Source: https://github.com/huggingface/accelerate/blob/main/src/accelerate/accelerator.py,
    ``prepare_model``.

    Args:
        model: a model that was prepared.
        own: the names in ``vars(model)`` before that.
    """
    for name in list(vars(model)):
        if name not in own:
            del vars(model)[name]
