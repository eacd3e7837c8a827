"""Tensor files: safetensors written atomically and read in parts."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wagle.system.errors import WagleError
from wagle.system.files.atomic import atomic_file, disk_errors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 1 << 22  # elements converted and written at a time
_KEY = "wagle"  # the one metadata key: safetensors writes several in random order
_MOST_HEADER = 1 << 25  # bytes: a hundred thousand tensors; more is not read
_DIGEST = "digest"  # the metadata key of a digest over header and data, itself taken as zeros
_BLANK = "0" * 64
MOST_DIMENSIONS = 64  # of a tensor, as in torch


class InParts(Protocol):
    """A tensor that is never whole in memory: its elements come part by part."""

    @property
    def shape(self) -> Sequence[int]:
        """The shape of the whole."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every part."""

    def parts(self) -> Iterator[Tensor]:
        """The flattened tensor in order, a few million elements at a time."""


def flat_parts(tensor: Tensor | InParts) -> Iterator[Tensor]:
    """A flattened tensor, a few million elements at a time."""
    if hasattr(tensor, "parts"):
        found: Iterator[Tensor] = tensor.parts()
        return found
    return iter(tensor.detach().reshape(-1).split(CHUNK))


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor] | Mapping[str, Tensor | InParts],
    metadata: Mapping[str, Any],
    *,
    private: bool = False,
    dtype: torch.dtype | None = None,
    digest: bool = False,
) -> None:
    """Write a safetensors file atomically, tensor by tensor; equal contents give equal bytes.

    The space is reserved before the first byte is written, so a full disk is noticed at once.

    Args:
        path: the file.
        tensors: tensors by name, on any device.
        metadata: any JSON value; kept as sorted JSON under one key.
        private: mode 0600.
        dtype: what floating-point tensors are converted to; None leaves them as they are.
        digest: add a SHA-256 of the whole file to the metadata, made while it is written.
    """
    if digest:
        metadata = to_be_digested(metadata)
    shapes, kinds = {}, {}
    for name, tensor in tensors.items():  # one pass: they may come from a file
        shapes[name] = tuple(tensor.shape)
        kinds[name] = dtype if dtype and tensor.dtype.is_floating_point else tensor.dtype
    text, places, end = layout(shapes, kinds, own_metadata(metadata))
    with atomic_file(path, private=private) as part, part.open("wb") as file:
        if end:
            os.posix_fallocate(file.fileno(), 0, end)
        file.write(text)
        made = hashlib.sha256(text[8:])
        for name in places:
            for chunk in flat_parts(tensors[name]):
                piece = tensor_bytes(chunk.to("cpu", kinds[name]))
                file.write(piece)
                if digest:
                    made.update(piece)
        if digest:
            file.seek(text.index(_BLANK.encode()))
            file.write(made.hexdigest().encode())


def write_in_parts(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    kinds: Mapping[str, torch.dtype],
    metadata: Mapping[str, str],
    parts: Callable[[str], Iterable[Tensor]],
) -> None:
    """Write a safetensors file of tensors that nobody holds whole; the caller's folder is atomic.

    Args:
        path: the file.
        shapes: of the tensors.
        kinds: what each is converted to.
        metadata: of the file, as safetensors has it.
        parts: gives the flattened tensor of a name, part by part.
    """
    text, places, end = layout(shapes, kinds, metadata)
    with disk_errors(path), path.open("wb") as file:
        if end:
            os.posix_fallocate(file.fileno(), 0, end)
        file.write(text)
        for name in places:
            for part in parts(name):
                file.write(tensor_bytes(part.to("cpu", kinds[name])))


def to_be_digested(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with room for the digest of its file."""
    return {**metadata, _DIGEST: _BLANK}


def add_digest(path: Path) -> None:
    """Digest a file that has been written with room for it, and put the digest there."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(size)
        made = hashlib.sha256(text)
        while chunk := file.read(CHUNK):
            made.update(chunk)
        file.seek(8 + text.index(_BLANK.encode()))
        file.write(made.hexdigest().encode())


def own_metadata(value: Mapping[str, Any]) -> dict[str, str]:
    """Any JSON value as the metadata of a file of ours."""
    return {_KEY: json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))}


def layout(
    shapes: Mapping[str, Sequence[int]],
    kinds: Mapping[str, torch.dtype],
    metadata: Mapping[str, str],
) -> tuple[bytes, dict[str, int], int]:
    """What a safetensors file of these tensors begins with, where each is in it, and its size.

    The places are in the order in which the tensors lie in the file.
    """
    names = sorted(shapes, key=lambda name: (-kinds[name].itemsize, name))  # keeps all aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    starts, end = {}, 0
    for name in names:
        starts[name], end = end, end + math.prod(shapes[name]) * kinds[name].itemsize
        header[name] = {
            "dtype": _type_name(kinds[name]),
            "shape": list(shapes[name]),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    text = len(text).to_bytes(8, "little") + text
    return text, {name: len(text) + start for name, start in starts.items()}, len(text) + end


def types_by_name() -> dict[str, torch.dtype]:
    """The dtypes of torch, by the names that the safetensors format gives them in its header."""
    import torch

    return {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U64": torch.uint64,
        "U32": torch.uint32,
        "U16": torch.uint16,
        "U8": torch.uint8,
        "BOOL": torch.bool,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
        "C64": torch.complex64,
    }


def _type_name(dtype: torch.dtype) -> str:
    return next(name for name, known in types_by_name().items() if known is dtype)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a flat CPU tensor."""
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().data


class TensorFile:
    """A safetensors file opened for reading; tensors are read one at a time, as memory maps."""

    def __init__(self, path: str | Path, what: str = "tensor file") -> None:
        from safetensors import SafetensorError, safe_open

        self.path, self.what = Path(path), what
        if not self.path.is_file():
            raise WagleError(f"{what} {path} does not exist")
        try:
            self._handle = os.open(self.path, os.O_RDONLY)
            size = int.from_bytes(os.pread(self._handle, 8, 0), "little")
            if size > _MOST_HEADER and size < self.path.stat().st_size:
                raise WagleError(f"{what} {path} has a header of {size} bytes; make it again")
            self._file = safe_open(self.path, framework="pt")
            self._file.__enter__()
        except (SafetensorError, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            raise WagleError(
                f"{what} {path} is truncated or corrupt ({reason}); make it again"
            ) from None
        self.names: list[str] = list(self._file.keys())
        try:
            self._layout = self._read_header()
            metadata = json.loads((self._file.metadata() or {}).get(_KEY, "{}"))
        except (ValueError, RecursionError):
            metadata = None
        if not isinstance(metadata, dict):
            raise WagleError(
                f"{what} {path} is corrupt: its metadata cannot be read; make it again"
            )
        self.metadata: dict[str, Any] = metadata

    def get(self, name: str) -> Tensor:
        """The tensor called ``name``."""
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def read(self, name: str, start: int, stop: int, into: Tensor | None = None) -> Tensor:
        """Elements ``start`` to ``stop`` of the flattened tensor ``name``, in its own dtype.

        They are read into fresh memory, or into that of a contiguous tensor of their number and dtype:
        unlike a memory map, no part of the file stays resident.
        """
        import torch

        dtype, shape, offset = self._layout[name]
        assert 0 <= start <= stop <= math.prod(shape)
        part = torch.empty(stop - start, dtype=dtype) if into is None else into.view(-1)
        assert (part.dtype, part.numel()) == (dtype, stop - start)
        view = part.view(torch.uint8).numpy().data
        at = offset + start * part.element_size()
        while view:
            got = os.preadv(self._handle, [view], at)
            if got == 0:
                raise WagleError(f"{self.path} was truncated while being read; make it again")
            view, at = view[got:], at + got
        return part

    def read_all(self, name: str, into: Tensor | None = None) -> Tensor:
        """The whole tensor ``name``, in fresh memory or in that of ``into``."""
        shape = self.shape(name)
        return self.read(name, 0, math.prod(shape), into).view(shape)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of the tensor ``name``, without reading it."""
        found: torch.dtype = self._layout[name][0]
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor ``name``, without reading it."""
        return self._layout[name][1]

    def offset(self, name: str) -> int:
        """The byte offset in the file at which the tensor ``name`` begins."""
        return self._layout[name][2]

    def _read_header(self) -> dict[str, tuple[Any, tuple[int, ...], int]]:
        """Dtype, shape and offset of each tensor; safetensors checked them on opening."""
        known = types_by_name()
        size = int.from_bytes(os.pread(self._handle, 8, 0), "little")
        header = json.loads(os.pread(self._handle, size, 8))
        header.pop("__metadata__", None)
        for name, e in header.items():
            if e["dtype"] not in known or len(e["shape"]) > MOST_DIMENSIONS:
                raise WagleError(
                    f"{self.what} {self.path} holds {name[:80]!r} as {e['dtype']} in "
                    f"{len(e['shape'])} dimensions, which wagle cannot read"
                )
        return {
            name: (known[e["dtype"]], tuple(e["shape"]), 8 + size + e["data_offsets"][0])
            for name, e in header.items()
        }

    def check(self, *, needed: bool) -> None:
        """Compare the file with the digest that ``save_tensors`` added, reading all of it.

        Args:
            needed: whether a file without a digest is refused, too.

        Raises:
            WagleError: a byte was changed.
        """
        told = self.metadata.get(_DIGEST)
        if told is None and not needed:
            return
        size = int.from_bytes(os.pread(self._handle, 8, 0), "little")
        text, at = os.pread(self._handle, size, 8), 8 + size
        made = hashlib.sha256(text.replace(str(told).encode(), _BLANK.encode(), 1))
        view = memoryview(bytearray(1 << 20))  # small enough to stay in the processor's cache
        while got := os.preadv(self._handle, [view], at):
            made.update(view[:got])
            at += got
        if made.hexdigest() != told:
            raise WagleError(
                f"{self.what} {self.path} is corrupt: its digest does not match; make it again"
            )

    def close(self) -> None:
        """Release the memory map and the file."""
        self._file.__exit__(None, None, None)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if getattr(self, "_handle", -1) >= 0:  # when the interpreter ends, ``os`` is gone first
            close(self._handle)
            self._handle = -1

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
