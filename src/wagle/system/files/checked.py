"""Tensor files in formats of our own: each holds a checksum over its tensors and metadata."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.system.errors import WagleError
from wagle.system.files.reading import one_line
from wagle.system.files.tensors import (
    CHUNK,
    InParts,
    TensorFile,
    flat_parts,
    save_tensors,
    tensor_bytes,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def tensors_digest(tensors: Mapping[str, Tensor] | Mapping[str, Tensor | InParts]) -> str:
    """SHA-256 over names, types, shapes and bytes, in name order: the checksum inside our files."""
    found = ((name, tensors[name]) for name in sorted(tensors))  # one at a time
    return _digest((name, t.dtype, t.shape, flat_parts(t)) for name, t in found)


def _file_digest(file: TensorFile) -> str:
    """The same for an open file, read a few million elements at a time."""

    def parts(name: str) -> Iterator[Tensor]:
        size = math.prod(file.shape(name))
        for start in range(0, size, CHUNK):
            yield file.read(name, start, min(start + CHUNK, size))

    return _digest((n, file.dtype(n), file.shape(n), parts(n)) for n in sorted(file.names))


def _digest(tensors: Iterable[tuple[str, torch.dtype, Sequence[int], Iterable[Tensor]]]) -> str:
    digest = hashlib.sha256()
    for name, dtype, shape, parts in tensors:
        digest.update(f"{name}\0{dtype}\0{list(shape)}\0".encode())
        for part in parts:
            digest.update(tensor_bytes(part.cpu()))
    return digest.hexdigest()


def _checksum(digest: str, metadata: Mapping[str, Any]) -> str:
    text = json.dumps(metadata, sort_keys=True).encode()
    return hashlib.sha256(text + digest.encode()).hexdigest()


def save_checked(
    path: str | Path,
    tensors: Mapping[str, Tensor] | Mapping[str, Tensor | InParts],
    metadata: Mapping[str, Any],
    kind: str,
    *,
    private: bool = False,
) -> None:
    """Write a file in one of our formats, with a checksum over its tensors and metadata.

    Args:
        path: the file.
        tensors: tensors by name, on any device.
        metadata: any JSON value.
        kind: name and version of the format, ``wagle-mask/1``.
        private: mode 0600.
    """
    plain = json.loads(json.dumps({**metadata, "format": kind}))
    plain["checksum"] = _checksum(tensors_digest(tensors), plain)
    save_tensors(path, tensors, plain, private=private)


def open_checked(path: str | Path, what: str, kind: str) -> tuple[TensorFile, dict[str, Any]]:
    """Open a file that ``save_checked`` wrote; another or newer format, or an altered file, fails.

    Args:
        path: the file.
        what: what messages call the file.
        kind: the newest format that can be read, ``wagle-mask/1``; so can all versions before it.

    Returns:
        The open file, whose checksum was computed without keeping any of it, and the metadata.
    """
    file = TensorFile(path, what)
    metadata = dict(file.metadata)
    found = one_line(str(metadata.get("format"))[:80])
    name, _, newest = kind.partition("/")
    if not found.startswith(name + "/"):
        raise WagleError(f"{path} is not a wagle {what} (format {found})")
    if found not in {f"{name}/{version}" for version in range(1, int(newest) + 1)}:
        raise WagleError(f"{what} {path} has format {found}; this wagle reads {kind}: update wagle")
    checksum = metadata.pop("checksum", None)
    try:
        whole = checksum == _checksum(_file_digest(file), metadata)
    except RecursionError:
        whole = False
    if not whole:
        raise WagleError(f"{what} {path} is corrupt: its checksum does not match; make it again")
    del metadata["format"]
    return file, metadata


def load_checked(
    path: str | Path, what: str, kind: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file as ``open_checked`` does: all tensors, mapped into memory, and the metadata."""
    file, metadata = open_checked(path, what, kind)
    with file:
        return {name: file.get(name) for name in file.names}, metadata
