"""One parameter's selected entries: where they are, their master vector, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wagle.model.sharding import local
from wagle.system.errors import WagleError
from wagle.system.mapped import Room, let_go
from wagle.system.processes import group

CHUNK = 1 << 22  # indices widened at a time
IN_MEMORY = Room(on_disk=False)
Round = Callable[
    [Tensor, str, int], Tensor
]  # (float32 values, name, part) -> the model's precision


def flat_part(parameter: Tensor) -> Tensor:
    data = local(parameter)
    if not data.is_contiguous():
        raise WagleError("a parameter is not contiguous in memory; load the model again")
    return data.view(-1)


def drop(parameter: Tensor) -> None:
    parameter.grad = None


class Slice:
    """One parameter: its flat indices (int32, or None for all of it) and its master vector.

    Of a sharded parameter, this process's part, and the indices count from its beginning; ``scale``
    makes of torch's mean over the processes the sum. ``saved`` is the precision that it will be
    saved in. The vectors lie in ``where``.
    """

    apart = False  # whether what is stored is a vector of its own, not part of a parameter

    def __init__(
        self,
        name: str,
        parameter: nn.Parameter,
        index: Tensor | None,
        saved: torch.dtype,
        where: Room = IN_MEMORY,
    ) -> None:
        self.name, self.parameter, self.saved, self.where = name, parameter, saved, where
        self.scale = group.world() if local(parameter).numel() != parameter.numel() else 1
        self.index = None if index is None else where.put(index.to(self._device))
        picked = self.stored()
        self.shared = (self.apart or index is None) and picked.dtype == torch.float32
        values = picked if self.shared else where.put(picked.float())
        self.master = nn.Parameter(values, requires_grad=True)
        # Allocated once: a new vector next to every dense gradient would fragment the heap.
        self.room = None if self.shared and not where.on_disk else self._like_master()
        self.gradients: dict[str, Tensor] = {}

    @property
    def _device(self) -> torch.device:
        return self.parameter.device

    def _like_master(self) -> Tensor:
        if self.where.on_disk:
            return self.where.zeros(self.master.numel(), torch.float32)
        return torch.empty_like(self.master, requires_grad=False)

    def stored(self) -> Tensor:
        """The selected entries in the model, in its own precision."""
        flat = flat_part(self.parameter)
        return flat if self.index is None else flat.index_select(0, self.index)

    def take(self, slot: str, parameter: Tensor | None = None) -> None:
        """Add the selected entries of the dense gradient to ``slot``, and free the dense one.

        Args:
            slot: where they are added up.
            parameter: whose gradient; None: that of the model's own parameter.
        """
        parameter = self.parameter if parameter is None else parameter
        assert parameter.grad is not None
        dense = local(parameter.grad)
        parameter.grad = None
        flat = dense.view(-1) if dense.is_contiguous() else dense.reshape(-1)
        part = flat if self.index is None else flat.index_select(0, self.index.to(flat.device))
        part = part.to(self.master.device)
        if self.scale != 1:
            part = part.float() * self.scale
        if slot in self.gradients:
            self.gradients[slot] += part
        elif slot == "total" and self.room is not None:
            self.gradients[slot] = self.room.copy_(part)
        else:
            self.gradients[slot] = self.where.put(part.float())
        let_go(self.index, self.gradients[slot])

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
        self._put(flat_part(self.parameter), self.index, values, narrow, kind)

    def _put(
        self,
        flat: Tensor,
        places: Tensor | None,
        values: Tensor,
        narrow: Round | None,
        kind: torch.dtype | None,
    ) -> None:
        kind = kind or flat.dtype
        parts = values.split(CHUNK)
        if narrow is not None and kind == torch.bfloat16:  # float32 stays as it is
            parts = tuple(narrow(part, self.name, i) for i, part in enumerate(parts))
        elif kind != flat.dtype:
            parts = tuple(part.to(kind) for part in parts)
        if places is None:
            for into, part in zip(flat.split(CHUNK), parts, strict=True):
                into.copy_(part)
            return
        for index, part in zip(places.split(CHUNK), parts, strict=True):
            flat.index_copy_(0, index.long(), part.to(flat.dtype))

    def changed(self, before: Tensor) -> int:
        """How many entries differ from ``before`` in the precision of saving."""
        total = 0
        before = before.to(self.master.device)
        for parts in zip(self.stored().split(CHUNK), before.split(CHUNK), strict=True):
            now, then = (part.to(self.saved).float() for part in parts)
            total += int(torch.count_nonzero(now != then))
        return total

    def rows(self) -> Tensor | None:
        """The row (a matrix's output) of every selected entry, int32; None: it is no matrix."""
        if self.parameter.dim() < 2:
            return None
        columns = self.parameter.numel() // self.parameter.shape[0]
        index = self.index
        if index is None:
            device = self.master.device
            index = torch.arange(self.parameter.numel(), dtype=torch.int32, device=device)
        return index // columns

    def let_go(self) -> None:
        """Drop the pages of its vectors, as far as they lie in files."""
        let_go(self.index, self.master, self.master.grad, *self.gradients.values())
