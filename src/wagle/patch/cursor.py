"""Going through the changed weights of one tensor in order, a part of the tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wagle.patch.folders import stored_bits


class Cursor:
    """Where one tensor changed, and its new values there; each is handed out once, in order.

    Args:
        positions: flat positions, ascending, in parts.
        values: the values there, in parts of their own.
    """

    def __init__(self, positions: Iterator[NDArray[np.int64]], values: Iterator[Tensor]) -> None:
        self._positions, self._values = positions, values
        self._places = np.zeros(0, dtype=np.int64)  # decoded, and not yet handed out
        self._bits: list[Tensor] = []  # values not yet handed out, as integers

    def upto(self, stop: int) -> tuple[NDArray[np.int64], Tensor | None]:
        """The positions before ``stop`` not handed out yet, and the stored bits of their values.

        Without any, the bits are None.
        """
        found = [self._before(stop)]
        while not len(self._places):
            more = next(self._positions, None)
            if more is None:
                break
            self._places = more
            found.append(self._before(stop))
        places = np.concatenate(found)
        return places, self._take(len(places)) if len(places) else None

    def put(self, part: Tensor, start: int) -> None:
        """Write the new values into a part of the flattened tensor that begins at ``start``."""
        places, values = self.upto(start + len(part))
        if values is not None:
            stored_bits(part)[torch.from_numpy(places - start)] = values

    def _before(self, stop: int) -> NDArray[np.int64]:
        end = int(np.searchsorted(self._places, stop))
        here, self._places = self._places[:end], self._places[end:]
        return here

    def _take(self, count: int) -> Tensor:
        """The next values, which may lie in several parts."""
        found: list[Tensor] = []
        while count:
            if not self._bits:
                self._bits.append(stored_bits(next(self._values)))
            part = self._bits.pop()
            found.append(part[:count])
            if len(part) > count:
                self._bits.append(part[count:])
            count -= len(found[-1])
        return torch.cat(found)
