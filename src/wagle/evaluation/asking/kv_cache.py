"""A key/value cache with space for what will be written: a step copies nothing.

A plain cache is copied whole for every token, and again whenever a row ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from wagle.compat.transformers import DynamicLayer


class _Preallocated(DynamicLayer):
    """The keys and values of one block, the front part of a buffer.

    Args:
        full: the layer whose keys and values (B, heads, T, size) it takes over.
        steps: how many more tokens there is space for.
    """

    def __init__(self, full: DynamicLayer, steps: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        assert full.keys is not None
        assert full.values is not None
        self.lazy_initialization(full.keys, full.values)
        self._used = full.keys.shape[-2]
        self._buffers = [_longer(full.keys, steps), _longer(full.values, steps)]
        self._show()

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Append new keys and values (B, heads, n, size)."""
        start, self._used = self._used, self._used + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self._used] = new
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in the order of ``remaining``: only rows that move are copied."""
        count = len(indices)
        place = (indices != torch.arange(count, device=indices.device)).nonzero().flatten()
        for number, buffer in enumerate(self._buffers):
            used = buffer[:, :, : self._used]
            used[place] = used[indices[place]]
            self._buffers[number] = buffer[:count]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (buffer[:, :, : self._used] for buffer in self._buffers)


def _longer(states: Tensor, steps: int) -> Tensor:
    rows, heads, length, size = states.shape
    buffer = states.new_empty(rows, heads, length + steps, size)
    buffer[:, :, :length] = states
    return buffer


def with_space(cache: DynamicCache, steps: int) -> DynamicCache:
    """The same cache, with space for ``steps`` more tokens in every block that keeps all tokens.

    Blocks of other kinds (a sliding window, a state) stay as they are.
    """
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.get_seq_length():
            cache.layers[number] = _Preallocated(layer, steps)
    return cache


def remaining(count: int, finished: Sequence[int]) -> list[int]:
    """The unfinished of ``count`` rows: the last ones take the places of those that finished."""
    gone = set(finished)
    left = count - len(gone)
    movers = iter([row for row in range(left, count) if row not in gone])
    return [next(movers) if row in gone else row for row in range(left)]
