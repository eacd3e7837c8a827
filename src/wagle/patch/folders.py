"""Comparing two model folders of one layout by their stored bits, one tensor at a time.

-0.0 is not 0.0 here, and a NaN equals itself when its bits do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wagle.model.weights import folder_tensors
from wagle.system.errors import WagleError

_CHUNK = 1 << 22  # weights per step of any comparison; a multiple of 8
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


def kind_of(tensor: Tensor) -> Kind:
    """Type and shape of a tensor."""
    return Kind(dtype_name(tensor.dtype), tuple(tensor.shape))


def layout(folder: str | Path) -> dict[str, Kind]:
    """Type and shape of every tensor of a model folder; reads no weights."""
    return {name: kind_of(tensor) for name, tensor in folder_tensors(folder)}


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


def pairs(base: str | Path, result: str | Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The tensors of two folders of one layout: name, old, new."""
    for (name, old), (_, new) in zip(folder_tensors(base), folder_tensors(result), strict=True):
        yield name, old, new


def stored_bits(tensor: Tensor) -> Tensor:
    """The stored bits of a tensor: flat integers of the same width."""
    return tensor.reshape(-1).view(_INTEGERS[tensor.element_size()])


def differing(old: Tensor, new: Tensor) -> Iterator[NDArray[np.bool_]]:
    """Where two tensors of one type and shape differ in any bit, flat, in chunks."""
    a, b = stored_bits(old), stored_bits(new)
    for start in range(0, len(a), _CHUNK):
        yield (a[start : start + _CHUNK] != b[start : start + _CHUNK]).numpy()


def tensor_digest(name: str, tensor: Tensor) -> str:
    """A short digest of one tensor: name, shape and values in float32, as in a fingerprint.

    Returns:
        The first 16 hex digits of the SHA-256.
    """
    digest = hashlib.sha256(f"{name}\0{list(tensor.shape)}\0".encode())
    for chunk in tensor.reshape(-1).split(_CHUNK):
        digest.update(chunk.float().contiguous().numpy().data)
    return digest.hexdigest()[:16]
