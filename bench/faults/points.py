"""Failpoints: every rename, sync, write and removal below a folder, by name, and what happens there.

They are patched into one process, by its start script; wagle itself knows nothing of them. A point
is named after what is done and to which file: ``replace state.json``, ``fsync mask.safetensors.part``,
``write log.jsonl``, ``unlink last.safetensors``.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

CUT = ("write", "serialize")  # what can end midway


class Points:
    """The failpoints of this process.

    Args:
        folder: only what is done below it counts.
        act: called at each with its number and name before anything is done; it may raise or kill,
            or return True to have that happen halfway through a write.
    """

    def __init__(self, folder: Path, act: Callable[[int, str], bool]) -> None:
        self.folder, self.act = str(folder), act
        self.names: list[str] = []
        self.off = False
        self._open, self._fsync, self._write = io.open, os.fsync, os.write
        self._sendfile = os.sendfile
        self._serialize = safetensors.torch.serialize_file
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
            setattr(os, name, self._of_path(name, getattr(os, name)))
        own: Any = self
        os.fsync, os.write, os.sendfile = own._at_fsync, own._at_write, own._at_sendfile
        io.open = builtins.open = own._opened
        safetensors.torch.serialize_file = own._at_serialize

    def reach(self, what: str, path: Any) -> bool:
        """Come to a point; returns whether the write there is to be cut."""
        path = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if self.off or not path.startswith(self.folder):
            return False
        name = f"{what} {os.path.relpath(path, self.folder)}"
        self.names.append(name)
        return bool(self.act(len(self.names), name)) and what in CUT

    # ----- what is patched -----

    def _of_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def patched(path: Any, *more: Any, **named: Any) -> Any:
            shown = more[0] if name in ("replace", "rename") and more else path
            there = name == "mkdir" and os.path.isdir(path)  # then it fails anyway
            if not named.get("dir_fd") and not there:
                self.reach(name, shown)
            return real(path, *more, **named)

        return patched

    def _at_fsync(self, handle: int) -> None:
        self.reach("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        self._fsync(handle)

    def _at_write(self, handle: int, data: Any) -> int:
        data = memoryview(data).cast("B")
        if self.reach("write", os.readlink(f"/proc/self/fd/{handle}")):
            data = data[: len(data) // 2]
            self._write(handle, data)
            self.act(-1, "")
        return self._write(handle, data)

    def _at_sendfile(self, out: int, *more: Any) -> int:
        self.reach("copy", os.readlink(f"/proc/self/fd/{out}"))
        return self._sendfile(out, *more)

    def _at_serialize(self, tensors: Any, path: Any, metadata: Any = None) -> None:
        cut = self.reach("serialize", path)
        self._serialize(tensors, path, metadata)
        if cut:
            os.truncate(path, os.path.getsize(path) // 2)
            self.act(-1, "")

    def _opened(self, file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        """``open``, but that bytes on their way to a file below the folder pass a point."""
        if mode.strip("tb") == "r":
            return self._open(file, mode, *more, **named)
        self.reach("open", file)
        made = self._open(file, mode, *more, **named)
        if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(self.folder):
            made.write = _Passing(self, made, os.fspath(file))
        return made


class _Passing:
    """The method ``write`` of an open file, behind a point."""

    def __init__(self, points: Points, file: Any, path: str) -> None:
        self.points, self.file, self.path, self.real = points, file, path, file.write

    def __call__(self, data: Any) -> int:
        if self.points.reach("write", self.path):
            self.real(data[: len(data) // 2])
            self.file.flush()
            self.points.act(-1, "")
        written: int = self.real(data)
        return written
