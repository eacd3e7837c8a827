"""One parameter's selected entries: where they are, their master vector, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wagle.model.sharding import local
from wagle.system.errors import WagleError
from wagle.system.processes import group

CHUNK = 1 << 22  # indices widened at a time
Round = Callable[
    [Tensor, str, int], Tensor
]  # (float32 values, name, part) -> the model's precision


def flat_part(parameter: Tensor) -> Tensor:
    data = local(parameter)
    if not data.is_contiguous():
        raise WagleError("a parameter is not contiguous in memory; load the model again")
    return data.view(-1)


class Slice:
    """One parameter: its flat indices (int32, or None for all of it) and its master vector.

    Of a sharded parameter, this process's part, and the indices count from its beginning; ``scale``
    makes of torch's mean over the processes the sum. ``saved`` is the precision that it will be
    saved in.
    """

    def __init__(
        self, name: str, parameter: nn.Parameter, index: Tensor | None, saved: torch.dtype
    ) -> None:
        self.name, self.parameter, self.saved = name, parameter, saved
        self.scale = group.world() if local(parameter).numel() != parameter.numel() else 1
        self.index = None if index is None else index.to(parameter.device)
        picked = self.stored()
        self.shared = index is None and picked.dtype == torch.float32
        self.master = nn.Parameter(picked if self.shared else picked.float(), requires_grad=True)
        # Allocated once: a new vector next to every dense gradient would fragment the heap.
        self.room = None if self.shared else torch.empty_like(self.master, requires_grad=False)
        self.gradients: dict[str, Tensor] = {}

    def stored(self) -> Tensor:
        """The selected entries in the model, in its own precision."""
        flat = flat_part(self.parameter)
        return flat if self.index is None else flat.index_select(0, self.index)

    def take(self, slot: str) -> None:
        """Add the selected entries of the dense gradient to ``slot``, and free the dense one."""
        assert self.parameter.grad is not None
        dense = local(self.parameter.grad)
        self.parameter.grad = None
        flat = dense.view(-1) if dense.is_contiguous() else dense.reshape(-1)
        part = flat if self.index is None else flat.index_select(0, self.index)
        if self.scale != 1:
            part = part.float() * self.scale
        if slot in self.gradients:
            self.gradients[slot] += part
        elif slot == "total" and self.room is not None:
            self.gradients[slot] = self.room.copy_(part)
        else:
            self.gradients[slot] = part.float()

    def held(self, slot: str) -> Tensor:
        """The gradient in ``slot``; zeros are put there if there is none."""
        if slot not in self.gradients:
            room = self.room if slot == "total" else None
            self.gradients[slot] = (
                torch.zeros_like(self.master, requires_grad=False) if room is None else room.zero_()
            )
        return self.gradients[slot]

    def put(
        self, values: Tensor, narrow: Round | None = None, kind: torch.dtype | None = None
    ) -> None:
        """Store ``values`` (one per selected entry) in the model, rounded to ``kind`` or its own."""
        flat = flat_part(self.parameter)
        kind = kind or flat.dtype
        parts = values.split(CHUNK)
        if narrow is not None and kind == torch.bfloat16:  # float32 stays as it is
            parts = tuple(narrow(part, self.name, i) for i, part in enumerate(parts))
        elif kind != flat.dtype:
            parts = tuple(part.to(kind) for part in parts)
        if self.index is None:
            for into, part in zip(flat.split(CHUNK), parts, strict=True):
                into.copy_(part)
            return
        for index, part in zip(self.index.split(CHUNK), parts, strict=True):
            flat.index_copy_(0, index.long(), part.to(flat.dtype))
