"""Vectors in files that are mapped into memory: of all of them, only what is in use takes memory.

They are ordinary tensors. Each lies in a file without a name, which goes when the tensor does.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.system.files.atomic import disk_errors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PREFIX = "wagle-mapped-"  # the pages of no other mapping are ever dropped
_WILLNEED, _DONTNEED = 3, 4  # MADV_WILLNEED and MADV_DONTNEED in mman.h


def mapped(count: int, dtype: torch.dtype, folder: Path | None = None) -> Tensor:
    """A vector of zeros in a file that is mapped into memory; its space on the disk is reserved.

    Args:
        count: how many elements.
        dtype: their dtype.
        folder: where the file goes; None means the system's folder for temporary files.

    Raises:
        DiskFull: there is no room for it.
    """
    import torch

    size = count * dtype.itemsize
    if size == 0:
        return torch.empty(0, dtype=dtype)
    with tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=folder) as file:
        with disk_errors(Path(file.name)):
            os.posix_fallocate(file.fileno(), 0, size)
        storage = torch.UntypedStorage.from_file(file.name, True, size)
    whole: Any = storage
    return torch.empty(0, dtype=dtype).set_(whole, 0, (count,), (1,))


def is_mapped(tensor: Tensor) -> bool:
    """Whether a tensor lies in a file that ``mapped`` made."""
    name = tensor.untyped_storage().filename
    return name is not None and os.path.basename(name).startswith(_PREFIX)


def let_go(*tensors: Tensor | None) -> None:
    """Drop the pages of mapped vectors from this process; what they hold stays in their files.

    Whatever is not mapped is left alone.
    """
    _advise(_DONTNEED, tensors)


def will_need(*tensors: Tensor | None) -> None:
    """Have mapped vectors read from the disk that will soon be used; this does not wait for it.

    Whatever is not mapped is left alone.
    """
    _advise(_WILLNEED, tensors)


def _advise(what: int, tensors: Sequence[Tensor | None]) -> None:
    for tensor in tensors:
        if tensor is not None and is_mapped(tensor):
            storage = tensor.untyped_storage()
            size = ctypes.c_size_t(storage.nbytes())
            _libc().madvise(ctypes.c_void_p(storage.data_ptr()), size, what)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def passing(*lists: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Go through lists of vectors side by side; those that were passed are let go."""
    rows = [*zip(*lists, strict=True)]
    for some, following in zip(rows, [*rows[1:], ()], strict=True):
        will_need(*following)
        yield some
        let_go(*some)


class Lazy(Mapping[str, "Tensor"]):
    """Tensors by name, each made when it is asked for; the last one, if mapped, is let go then.

    Args:
        makers: what makes each.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self.makers = dict(makers)
        self._last: Tensor | None = None

    def __getitem__(self, name: str) -> Tensor:
        let_go(self._last)
        self._last = self.makers[name]()
        return self._last

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


class Room:
    """Where the vectors of a run lie: in memory, or in mapped files.

    Args:
        on_disk: whether in files.
        folder: where the files go; None means the system's folder for temporary files.
    """

    def __init__(self, *, on_disk: bool, folder: Path | None = None) -> None:
        self.on_disk, self.folder = on_disk, folder

    def zeros(self, count: int, dtype: torch.dtype) -> Tensor:
        """A vector of zeros."""
        import torch

        if self.on_disk:
            return mapped(count, dtype, self.folder)
        return torch.zeros(count, dtype=dtype)

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor, or a copy of it in a file; its pages are let go at once."""
        if not self.on_disk or is_mapped(tensor):
            return tensor
        copy = mapped(tensor.numel(), tensor.dtype, self.folder).view(tensor.shape)
        copy.copy_(tensor.detach())
        let_go(copy)
        return copy
