"""What wagle needs of accelerate beyond its public names. Tested with accelerate 1.15.0."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def forget_notes(model: nn.Module, own: Container[str]) -> None:
    """Take from a model what accelerate noted on it (``_is_accelerate_prepared``), in place.

    ``Accelerator.free_memory`` leaves the notes there, and a model that is given back should be what
    it was.
    Source: https://github.com/huggingface/accelerate/blob/main/src/accelerate/accelerator.py,
    ``prepare_model``.

    Args:
        model: that was prepared.
        own: the names of ``vars(model)`` from before.
    """
    for name in list(vars(model)):
        if name not in own:
            del vars(model)[name]
