"""A mask's levels, packed into one or four bits per weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 22  # bytes widened at once


class Packed(NamedTuple):
    """The parts of a mask: ``Mask(*packed)``.

    Attributes:
        bits: the packed levels, by parameter.
        shapes: the shape of every parameter of the model, in parameter order.
        ratios: the ratios of the ladder, ascending.
        counts: how many weights each of them selects.
        metadata: a description of the mask, as JSON.
    """

    bits: Mapping[Any, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    ratios: Sequence[float]
    counts: Sequence[int]
    metadata: dict[str, Any]


def bits_per_level(ratios: Sequence[float]) -> int:
    """How many bits a level takes: 1 for a single ratio, 4 for a ladder."""
    return 1 if len(ratios) == 1 else 4


def pack(level: Tensor, bits: int) -> Tensor:
    """Pack levels (uint8, flat) into 1 or 4 bits each, the first in the lowest bits."""
    values = level.reshape(-1).numpy()
    if bits == 1:
        return torch.from_numpy(np.packbits(values, bitorder="little"))
    even = len(values) // 2 * 2
    pairs = values[:even].view("<u2")
    packed = np.empty((len(values) + 1) // 2, dtype=np.uint8)
    packed[: len(pairs)] = (pairs >> 4) | pairs  # the cast keeps only the low byte
    packed[len(pairs) :] = values[even:]
    return torch.from_numpy(packed)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first ``count`` levels (uint8, flat) of the output of ``pack``."""
    if bits == 1:
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=count, bitorder="little"))
    pairs = packed.numpy().astype("<u2")
    values = ((pairs << 4) | pairs) & 0x0F0F
    return torch.from_numpy(values.view(np.uint8)[:count])


def level_counts(packed: Tensor, bits: int) -> Tensor:
    """How many weights have the levels 1, 2, ...: (1,) or (15,) int64, without unpacking."""
    found = torch.zeros(256, dtype=torch.int64)
    for part in packed.split(_CHUNK):
        found += torch.bincount(part.int(), minlength=256)
    if bits == 1:
        byte = torch.arange(256)
        ones = torch.stack([byte >> bit & 1 for bit in range(8)]).sum(0)
        return (found * ones).sum().view(1)
    pairs = found.view(16, 16)
    return (pairs.sum(0) + pairs.sum(1))[1:]  # the last byte is filled up with level 0
