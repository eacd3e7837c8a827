"""Where an engine puts finished results: in memory, or in a folder that survives a kill.

What an engine needs to resume after a kill is kept here too, next to the finished shards.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wagle.system.files.tensors import TensorFile, own_metadata, save_tensors, to_be_digested
from wagle.system.processes import group
from wagle.system.processes.tensors import save_parts
from wagle.system.processes.threads import torch_threads

_MINUTE = 60.0


class Sink:
    """Takes finished gradients; if ``folder`` is None, they stay in memory.

    On several processes, all hand in the same results, and rank 0 writes them; what each needs to
    resume it keeps itself, next to the others'. One background thread writes, in order, while the engine computes; at most one shard waits to be
    written.

    Args:
        folder: where shards go, ``{quantity}-{label}.safetensors``.
        dtype: the dtype in which gradients are kept.
        metadata: the metadata of every shard.
    """

    def __init__(
        self, folder: Path | None, dtype: torch.dtype, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.dtype, self.metadata = folder, dtype, dict(metadata or {})
        self.tensors: dict[str, dict[str, Tensor]] = {}
        self._pool = torch_threads(1) if folder is not None else None
        self._shard: Future[None] | None = None
        self._small: list[Future[None]] = []
        self._saved = time.monotonic()

    def add(
        self,
        label: str,
        found: Mapping[str, Mapping[str, Tensor]],
        ranges: Mapping[str, tuple[tuple[int, ...], int]] | None = None,
    ) -> None:
        """Store finished quantities by parameter; ``label`` names the part ("00012").

        The tensors belong to the sink from here on. Of a sharded model, every process has its part
        of each; ``ranges`` gives the shape of the whole and where in it the part begins.
        """
        if ranges is not None:
            self._add_parts(label, found, ranges)
            return
        for quantity, tensors in found.items():
            if self.folder is not None and not group.main_process():
                continue
            if self.folder is None:
                kept = self.tensors.setdefault(quantity, {})
                kept |= {name: tensor.to(self.dtype) for name, tensor in tensors.items()}
            elif tensors:
                assert self._pool is not None
                if self._shard is not None:
                    self._shard.result()
                path = self.folder / f"{quantity}-{label}.safetensors"
                self._shard = self._pool.submit(
                    save_tensors, path, tensors, self.metadata, dtype=self.dtype, digest=True
                )

    def _add_parts(
        self,
        label: str,
        found: Mapping[str, Mapping[str, Tensor]],
        ranges: Mapping[str, tuple[tuple[int, ...], int]],
    ) -> None:
        """Write tensors together with the other processes; nobody ever has a whole one."""
        assert self.folder is not None  # checked before any work
        for quantity, parts in found.items():
            shapes = {name: ranges[name][0] for name in parts}
            starts = {name: ranges[name][1] for name in parts}
            path = self.folder / f"{quantity}-{label}.safetensors"
            kinds = dict.fromkeys(parts, self.dtype)
            metadata = own_metadata(to_be_digested(self.metadata))
            save_parts(path, parts, shapes, starts, kinds, metadata, digest=True)

    def wait(self) -> None:
        """Wait until everything added is written; a write error is raised here."""
        pending = [*self._small, *([self._shard] if self._shard is not None else [])]
        self._small, self._shard = [], None
        for written in pending:
            written.result()

    def due(self) -> bool:
        """Whether it is time to save what a kill would lose: about once a minute."""
        return self.folder is not None and time.monotonic() - self._saved > _MINUTE

    def keep(self, name: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Keep what an engine needs to resume from here, once everything before it is written.

        The tensors must not change until ``wait`` returns.
        """
        if self._pool is not None and self.folder is not None:
            state = {**state, "of": group.world()}
            self._forget_others(name)
            path = self.folder / f"resume-{name}-{group.rank()}"
            self._small.append(self._pool.submit(save_tensors, path, tensors, state))
            self._saved = time.monotonic()

    def kept(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What the processes of an earlier run kept under ``name``, together; None if they differ.

        They differ if some were killed before they could keep what the others did.
        """
        found: dict[str, Tensor] = {}
        states = []
        paths = sorted(self.folder.glob(f"resume-{name}-*")) if self.folder is not None else []
        for path in paths:
            with TensorFile(path, "resume file") as file:
                found |= {n: file.read_all(n) for n in file.names}
                states.append(file.metadata)
        if not states or any(one != states[0] for one in states) or len(states) != states[0]["of"]:
            return None
        return found, {key: value for key, value in states[0].items() if key != "of"}

    def _forget_others(self, name: str) -> None:
        """Drop what more processes than there are now kept in an earlier run."""
        assert self.folder is not None
        known = {f"resume-{name}-{rank}" for rank in range(group.world())}
        for path in self.folder.glob(f"resume-{name}-*") if group.main_process() else ():
            if path.suffix != ".part" and path.name not in known:
                path.unlink()

    def __reduce__(self) -> tuple[Any, ...]:
        return Sink, (self.folder, self.dtype, self.metadata)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the last write; after a success, drop what was kept for resuming."""
        if self._pool is None or self.folder is None:
            return
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown()
        if kind is None:
            group.wait()  # the others may still read what was kept
            if group.main_process():
                for path in self.folder.glob("resume-*"):
                    path.unlink()
