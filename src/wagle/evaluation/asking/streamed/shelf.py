"""Keys and values of texts being written, of all blocks: in memory below a limit, else on disk.

A file holds them token after token, so that a new token is one write behind the others, and what a
block sees is one read: nothing that is there is written again, except to leave out rows that ended.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from wagle.compat.transformers import DynamicLayer, window_of
from wagle.system.errors import WagleError


class Shelf:
    """Room for tensors: at most ``limit`` bytes in memory, the rest in a file without a name.

    Args:
        limit: bytes to hold in memory.
        folder: where the file goes; None means the system's folder for temporary files.
    """

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit, self.folder = limit, folder
        self.used = self.written = 0  # bytes in memory, and of the file
        self._handle = -1

    def reserve(self, size: int) -> int | None:
        """Make room for ``size`` bytes: where they lie in the file, or None for memory."""
        if self.used + size <= self.limit:
            self.used += size
            return None
        if self._handle < 0:
            with tempfile.NamedTemporaryFile(dir=self.folder) as file:
                self._handle = os.dup(file.fileno())
        self.written += size
        return self.written - size

    def write(self, tensor: Tensor, at: int) -> None:
        """Write a contiguous tensor of the CPU."""
        view = _bytes(tensor)
        try:
            while view:
                put = os.pwrite(self._handle, view, at)
                view, at = view[put:], at + put
        except OSError as error:
            where = self.folder or tempfile.gettempdir()
            raise WagleError(
                f"cannot keep what texts are written from in {where}: "
                f"{os.strerror(error.errno or 0)}; free some space, or set TMPDIR to another disk"
            ) from error

    def read(self, into: Tensor, at: int) -> None:
        """Fill a contiguous tensor of the CPU."""
        view = _bytes(into)
        while view:
            got = os.preadv(self._handle, [view], at)
            if not got:
                raise WagleError("the file of the texts being written was cut short; ask again")
            view, at = view[got:], at + got

    def close(self) -> None:
        """Release the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


class Columns:
    """The keys, or the values, of one block: (rows, heads, T, size), where T grows.

    Args:
        shelf: where they are kept.
        rows: how many rows.
        length: the largest T.
    """

    def __init__(self, shelf: Shelf, rows: int, length: int) -> None:
        self._shelf, self._rows, self._length = shelf, rows, length
        self._row: tuple[int, int] | None = None  # heads, size
        self._memory: Tensor | None = None  # (T, rows, heads, size)
        self._going: Tensor | None = None  # the rows that have not ended; None: all

    def write(self, new: Tensor, column: int, row: int = 0) -> None:
        """Put (r, heads, n, size) into the rows from ``row`` and the columns from ``column`` on."""
        part = new.detach().permute(2, 0, 1, 3).cpu().contiguous()  # (n, r, heads, size)
        if self._row is None:
            self._begin(part)
        if self._going is not None:
            whole = part.new_zeros(len(part), self._rows, *part.shape[2:])
            whole[:, self._going] = part
            part = whole
        if self._memory is not None:
            self._memory[column : column + len(part), row : row + part.shape[1]] = part
        elif part.shape[1] == self._rows:
            self._shelf.write(part, self._at(column, 0))
        else:
            for number, own in enumerate(part):
                self._shelf.write(own, self._at(column + number, row))

    def read(self, start: int, stop: int) -> Tensor:
        """(rows, heads, stop - start, size): these columns of the rows that have not ended."""
        found = self._stored(start, stop)
        if self._going is not None:
            found = found[:, self._going]
        return found.permute(1, 2, 0, 3)

    def select(self, going: Tensor, used: int) -> None:
        """Keep only some of the rows; once half of them have ended, the others move together."""
        own = going.cpu()
        self._going = own if self._going is None else self._going[own]
        if self._row is None or 2 * len(self._going) > self._rows or not len(own):
            return
        left = self._stored(0, used)[:, self._going].contiguous()
        self._rows, self._going = left.shape[1], None
        if self._memory is None:
            self._shelf.write(left, self._place)
        else:
            self._memory = left.new_zeros(self._length, *left.shape[1:])
            self._memory[:used] = left

    def _begin(self, part: Tensor) -> None:
        self._row, self._dtype = (part.shape[2], part.shape[3]), part.dtype
        shape = (self._length, self._rows, *self._row)
        found = self._shelf.reserve(math.prod(shape) * part.element_size())
        if found is None:
            self._memory = part.new_zeros(shape)
        else:
            self._place = found

    def _at(self, column: int, row: int) -> int:
        assert self._row is not None
        return (
            self._place + (column * self._rows + row) * math.prod(self._row) * self._dtype.itemsize
        )

    def _stored(self, start: int, stop: int) -> Tensor:
        """(stop - start, rows, heads, size), a view if it is in memory."""
        if self._memory is not None:
            return self._memory[start:stop]
        assert self._row is not None
        found = torch.zeros(stop - start, self._rows, *self._row, dtype=self._dtype)
        self._shelf.read(found, self._at(start, 0))
        return found


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data


class _Filling(DynamicLayer):
    """One block's keys and values while prompts run: they are kept, and seen by the prompts alone.

    Args:
        kept: where keys and values go.
        row: the first row.
        length: where the prompts end.
    """

    def __init__(self, kept: Sequence[Columns], row: int, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept, self._row, self._length = kept, row, length

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Keep keys and values (rows, heads, n, size), whose last column is the prompts' last."""
        for columns, new in zip(self._kept, (key_states, value_states), strict=True):
            columns.write(new, self._length - new.shape[2], self._row)
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Nothing runs before a prompt."""
        return 0


class _Kept(DynamicLayer):
    """One block's keys and values while texts are written, in memory only while it is computed.

    Args:
        kept: where keys and values are.
        length: how many columns there are.
        window: how many tokens the block sees.
    """

    def __init__(self, kept: Sequence[Columns], length: int, window: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept, self._used, self._window = kept, length, window
        self.is_initialized = True
        if window < math.inf:
            self.is_sliding, self.sliding_window = True, int(window)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Append new keys and values (rows, heads, n, size)."""
        first, start = self._first(), self._used
        self._used += key_states.shape[2]
        found = []
        for columns, new in zip(self._kept, (key_states, value_states), strict=True):
            columns.write(new, start)
            found.append(columns.read(first, self._used).to(new.device))
        return tuple(found)

    def _first(self) -> int:
        """The first column that the next token sees."""
        return 0 if self._window == math.inf else max(0, self._used - int(self._window) + 1)

    def get_seq_length(self) -> int:
        """How many columns there are."""
        return self._used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns the next tokens see, and which is the first."""
        return self._used - self._first() + query_length, self._first()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        for columns in self._kept:
            columns.select(indices, self._used)


class Group:
    """The keys and values of texts that are written as one batch.

    Args:
        model: a model that ``can_keep``.
        shelf: where they are kept.
        rows: how many texts.
        length: of the longest prompt.
        steps: how many tokens may follow it.
    """

    def __init__(
        self, model: PreTrainedModel, shelf: Shelf, rows: int, length: int, steps: int
    ) -> None:
        self._model, self.length = model, length
        self._windows = [window_of(layer) for layer in DynamicCache(config=model.config).layers]
        self._kept = [
            [Columns(shelf, rows, length + steps) for _ in range(2)] for _ in self._windows
        ]

    def filling(self, row: int) -> DynamicCache:
        """A cache for left-padded prompts, which begin at this row."""
        return self._cache([_Filling(kept, row, self.length) for kept in self._kept])

    def writing(self) -> DynamicCache:
        """The cache of all texts, once all prompts have run."""
        layers = zip(self._kept, self._windows, strict=True)
        return self._cache([_Kept(kept, self.length, window) for kept, window in layers])

    def _cache(self, layers: Sequence[DynamicLayer]) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        cache.layers = list(layers)
        return cache


def can_keep(model: PreTrainedModel) -> bool:
    """Whether all that the model remembers of a text is keys and values per token."""
    own = type(model).__module__.startswith("transformers.")
    return own and all(map(window_of, DynamicCache(config=model.config).layers))
