"""Memory: how much there is, spilling tensors that do not fit, returning what was freed."""

from __future__ import annotations

import ctypes
import gc
import os
import tempfile
from collections.abc import Hashable, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_MMAP_THRESHOLD = -3  # the number of this setting in malloc.h
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # bytes; version 1 writes a number near 2**63 where there is no limit


def total_memory() -> int:
    """The machine's memory in bytes, or what a container or a batch job allows of it."""
    import psutil

    limits = [limit for limit, _ in _allowed()]
    return min([int(psutil.virtual_memory().total), *limits])


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that can be used without swapping: free memory, and what the system would give up.

    In a container or a batch job with a limit, what is left of that, if it is less.

    Args:
        device: whose memory; None means the machine's. For a GPU, what the driver has left.
    """
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return min([int(psutil.virtual_memory().available), *(left for _, left in _allowed())])


def _allowed(
    proc: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS
) -> list[tuple[int, int]]:
    """The limits of the control groups of this process, and what is left of each, in bytes (Linux).

    Pages of files count as used there, and are given up when there is no room: they are left, too.
    """
    try:
        lines = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for number, kinds, path in (line for line in lines if len(line) == 3):
        if number == "0" and not kinds:  # version 2
            names, home = ("memory.max", "memory.current", ""), root
        elif "memory" in kinds.split(","):
            home = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        group = home / path.lstrip("/")
        for folder in (group, *group.parents):  # a group is also bound by those around it
            if folder in home.parents:
                break
            found += _limit_of(folder, *names)
    return found


def _limit_of(folder: Path, most: str, used: str, prefix: str) -> list[tuple[int, int]]:
    """The limit of one group and what is left of it; nothing if it has none."""
    try:
        limit, now = int((folder / most).read_text()), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group here, or "max": no limit
        return []
    files = sum(int(stat.get(f"{prefix}{name}_file", 0)) for name in ("active", "inactive"))
    return [(limit, max(0, limit - now + files))] if limit < _UNLIMITED else []


class Spill(MutableMapping[Hashable, "Tensor"]):
    """A dictionary of tensors that holds at most ``limit`` bytes in memory, the rest in a file.

    Tensors come back on the CPU, detached. The file has no name, so none of it is left behind,
    whatever happens.

    Args:
        limit: bytes to hold in memory.
        folder: where the file goes; None means the system's folder for temporary files.
    """

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit, self.folder = limit, folder
        self._memory: dict[Hashable, Tensor] = {}
        self._used = 0
        self._placed: dict[Hashable, tuple[int, torch.Size, torch.dtype]] = {}
        self._end = 0
        self._handle = -1

    def __setitem__(self, key: Hashable, tensor: Tensor) -> None:
        value = tensor.detach().cpu().contiguous()
        self.pop(key, None)
        if self._used + value.nbytes <= self.limit:
            self._memory[key] = value
            self._used += value.nbytes
            return
        if self._handle < 0:
            with tempfile.NamedTemporaryFile(dir=self.folder) as file:
                self._handle = os.dup(file.fileno())
        view, at = _bytes(value), self._end
        while view:
            put = os.pwrite(self._handle, view, at)
            view, at = view[put:], at + put
        self._placed[key] = (self._end, value.shape, value.dtype)
        self._end = at

    def __getitem__(self, key: Hashable) -> Tensor:
        if key in self._memory:
            return self._memory[key]
        import torch

        at, shape, dtype = self._placed[key]
        value = torch.empty(shape, dtype=dtype)
        view = _bytes(value)
        while view:
            got = os.preadv(self._handle, [view], at)
            view, at = view[got:], at + got
        return value

    def __delitem__(self, key: Hashable) -> None:
        if key in self._memory:
            self._used -= self._memory.pop(key).nbytes
        else:
            del self._placed[key]
            if not self._placed:
                self._end = 0  # the file's space is used again

    def __iter__(self) -> Iterator[Hashable]:
        yield from self._memory
        yield from self._placed

    def __len__(self) -> int:
        return len(self._memory) + len(self._placed)

    def __contains__(self, key: object) -> bool:
        return key in self._memory or key in self._placed

    def close(self) -> None:
        """Release the file and the memory."""
        self._memory.clear()
        self._placed.clear()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.view(-1).view(torch.uint8).numpy().data


def give_memory_back() -> None:
    """Return freed memory to the system, so that the next step starts small."""
    import torch

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_at_once() -> None:
    """From here on, have large blocks returned to the system as soon as they are freed (glibc only).

    Otherwise blocks of up to 32 MB stay in the process's heap, whose holes are not returned. A model in
    shards makes and frees whole weights at every step, and would soon take as much as a whole one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 20)
