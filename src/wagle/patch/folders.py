"""Comparing two model folders of one layout by their stored bits, a part of a tensor at a time.

-0.0 is not 0.0 here, and a NaN equals itself when its bits do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wagle.model.weights import StoredTensor, stored_tensors
from wagle.system.errors import WagleError

_CHUNK = 1 << 20  # weights per step of any comparison; a multiple of 8
Whole: TypeAlias = "Tensor | StoredTensor"
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Kind(NamedTuple):
    """Type and shape of a tensor, printed as ``bfloat16 [2, 3]``."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype as torch names it: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def kind_of(tensor: Whole) -> Kind:
    """Type and shape of a tensor."""
    return Kind(dtype_name(tensor.dtype), tuple(tensor.shape))


def layout(folder: str | Path) -> dict[str, Kind]:
    """Type and shape of every tensor of a model folder; reads no weights."""
    return {name: kind_of(tensor) for name, tensor in stored_tensors(folder)}


def same_layout(base: str | Path, result: str | Path) -> dict[str, Kind]:
    """The layout that two folders share; anything else is an error naming the first tensor."""
    ours, theirs = layout(base), layout(result)
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            has, lacks = (base, result) if name in ours else (result, base)
            raise WagleError(
                f"{lacks} has no tensor {name!r}, but {has} has; compare two versions of one model"
            )
        if ours[name] != theirs[name]:
            raise WagleError(
                f"{name} is {ours[name]} in {base} and {theirs[name]} in {result}; save both models "
                "in one precision and shape"
            )
    return ours


def pairs(base: str | Path, result: str | Path) -> Iterator[tuple[str, StoredTensor, StoredTensor]]:
    """The tensors of two folders of one layout: name, old, new."""
    for (name, old), (_, new) in zip(stored_tensors(base), stored_tensors(result), strict=True):
        yield name, old, new


def stored_bits(tensor: Tensor) -> Tensor:
    """The stored bits of a tensor: flat integers of the same width."""
    return tensor.reshape(-1).view(_INTEGERS[tensor.element_size()])


def parts_of(tensor: Whole) -> Iterator[Tensor]:
    """A flattened tensor in order, part by part."""
    if isinstance(tensor, StoredTensor):
        return tensor.parts(_CHUNK)
    return iter(tensor.reshape(-1).split(_CHUNK)) if tensor.numel() else iter(())


def in_step(old: Whole, new: Whole) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Two tensors of one type and shape, part by part: where each begins, old, new."""
    start = 0
    for before, after in zip(parts_of(old), parts_of(new), strict=True):
        yield start, before, after
        start += len(before)


def unequal(old: Tensor, new: Tensor) -> NDArray[np.bool_]:
    """Where two tensors of one type and shape differ in any bit, flat."""
    found: NDArray[np.bool_] = (stored_bits(old) != stored_bits(new)).numpy()
    return found


class TensorDigest:
    """A short digest of one tensor: name, shape and values in float32, as in a fingerprint."""

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        self._digest = hashlib.sha256(f"{name}\0{list(shape)}\0".encode())

    def add(self, part: Tensor) -> None:
        """Take in the next part of the flattened tensor."""
        self._digest.update(part.float().contiguous().numpy().data)

    def short(self) -> str:
        """The first 16 hex digits of the SHA-256."""
        return self._digest.hexdigest()[:16]


def tensor_digest(name: str, tensor: Whole, parts: Iterable[Tensor] | None = None) -> str:
    """The short digest of one tensor, or of ``parts`` in its place."""
    digest = TensorDigest(name, tensor.shape)
    for part in parts_of(tensor) if parts is None else parts:
        digest.add(part)
    return digest.short()
