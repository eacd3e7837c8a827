"""Where an engine puts finished results: in memory, or in a folder that survives a kill.

What an engine needs to resume after a kill is kept here too, next to the finished shards.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wagle.system.tensors import TensorFile, save_tensors

_MINUTE = 60.0


class Sink:
    """Takes finished gradients; if ``folder`` is None, they stay in memory.

    One background thread writes, in order, while the engine computes; at most one shard waits to be
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
        self._pool = ThreadPoolExecutor(1) if folder is not None else None
        self._shard: Future[None] | None = None
        self._small: list[Future[None]] = []
        self._saved = time.monotonic()

    def add(self, label: str, found: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Store finished quantities by parameter; ``label`` names the part ("00012").

        The tensors belong to the sink from here on.
        """
        for quantity, tensors in found.items():
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
            path = self.folder / f"resume-{name}"
            self._small.append(self._pool.submit(save_tensors, path, tensors, state))
            self._saved = time.monotonic()

    def kept(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What an earlier process kept under ``name``, or None."""
        path = self.folder / f"resume-{name}" if self.folder is not None else None
        if path is None or not path.is_file():
            return None
        with TensorFile(path, "resume file") as file:
            return {n: file.read_all(n) for n in file.names}, file.metadata

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
            for path in self.folder.glob("resume-*"):
                path.unlink()
