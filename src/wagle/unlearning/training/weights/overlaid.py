"""The selected entries of a parameter whose block is on disk: their values lie over the folder's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wagle.model.streaming.stream import Laid
from wagle.system.mapped import Room, let_go
from wagle.unlearning.training.weights.slices import Round, Slice


class Overlaid(Slice):
    """A slice of a parameter that is not in memory: what is stored is its part of the overlay.

    Args:
        name: of the parameter.
        parameter: the model's own, without weights.
        base: its values in the folder, in the model's precision, in memory of their own.
        index: its selected entries, int32; None: all.
        saved: the precision that it will be saved in.
        where: where its vectors lie.
    """

    apart = True

    def __init__(
        self,
        name: str,
        parameter: nn.Parameter,
        base: Tensor,
        index: Tensor | None,
        saved: torch.dtype,
        where: Room,
    ) -> None:
        flat = base.reshape(-1)
        self.values = where.put(flat if index is None else flat.index_select(0, index))
        super().__init__(name, parameter, index, saved, where)

    @property
    def _device(self) -> torch.device:
        return self.values.device

    @property
    def laid(self) -> Laid:
        """What lies over the folder's weights."""
        return Laid(self.index, self.values)

    def stored(self) -> Tensor:
        """The selected entries as the model has them, in its own precision."""
        return self.values

    def put(
        self, values: Tensor, narrow: Round | None = None, kind: torch.dtype | None = None
    ) -> None:
        """Make these the current values, rounded to ``kind`` or the model's precision."""
        self._put(self.values, None, values, narrow, kind)

    def let_go(self) -> None:
        """Drop the pages of its vectors, as far as they lie in files."""
        super().let_go()
        let_go(self.values)
